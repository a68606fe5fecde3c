"""What every implementation of a role must hold: one suite per role, inherited by its tests.

class TestTiny(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        return Tiny()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tagseg.errors import ShapeError
from tagseg.maps import IGNORE, Image, Labels, SaliencyMap, ScoreMap, Tags, labels_of_tags
from tagseg.nets.backbone import Backbone, FineTuning, Preprocessing

__all__ = [
    "BackboneContract",
    "Fuse",
    "FuserContract",
    "LabelLossContract",
    "Localize",
    "LocalizerContract",
    "Prior",
    "PriorContract",
    "labelled_scores",
    "mirror_symmetric",
]

Localize = Callable[[npt.NDArray[np.uint8], Sequence[Tags]], list[ScoreMap]]
"""Photos (B, H, W, 3) of one size and the tags (C,) of each -> a score map each."""

Prior = Callable[[Image], SaliencyMap]

Fuse = Callable[[ScoreMap, SaliencyMap, Tags], Labels]

_SIZES = [(1, 1), (1, 40), (33, 2), (40, 56), (97, 61)]


def _photos(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng([height, width])
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def mirror_symmetric(net: nn.Module) -> nn.Module:
    """The network with kernels that are their own mirror images, in place: left is as right."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kernel = module.weight.detach()
            module.weight.data = (kernel + kernel.flip(3)) / 2
    return net


class BackboneContract:
    """Feature maps on a grid whose positions lie where it says, not negative unless ``signed``."""

    signed = False  # feature maps may be negative, as without ReLUs
    local = True  # positions see pixels around them, and not the whole photo as with attention

    @pytest.fixture
    def backbone(self) -> Backbone:
        """The network in evaluation mode, with any weights."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", [(1, 1), (40, 57), (33, 16)])
    def test_shapes(self, backbone: Backbone, size: tuple[int, int]) -> None:
        stride = backbone.output_stride
        with torch.inference_mode():
            x = torch.rand(2, 3, *size)
            block4, block5 = backbone.activations(x)
            features = backbone(x)
        positions = tuple(-(-side // stride) for side in size)
        assert block5.shape == features.shape == (2, backbone.out_channels, *positions)
        assert block4.shape[:2] == (2, backbone.block4_channels)
        fitting = [tuple(-(-side // s) for side in size) for s in (8, 16)]
        assert tuple(block4.shape[2:]) in fitting

    def test_activations_are_not_negative_and_not_dead(self, backbone: Backbone) -> None:
        with torch.inference_mode():
            for block in backbone.activations(torch.rand(1, 3, 40, 56)):
                assert self.signed or block.min() >= 0
                assert block.max() > 0
                assert torch.isfinite(block).all()

    @pytest.mark.parametrize("size", [(40, 57), (33, 16)])
    def test_feature_blocks(self, backbone: Backbone, size: tuple[int, int]) -> None:
        """Five, whose layers give non-negative maps with a position for every ``stride`` pixels."""
        blocks, modules = backbone.feature_blocks(), dict(backbone.named_modules())
        assert len(blocks) == 5
        names = [layer for block in blocks for layer in block.layers]
        assert len(set(names)) == len(names) >= 5
        assert [block.stride for block in blocks] == sorted(block.stride for block in blocks)
        assert all(block.stride <= backbone.output_stride for block in blocks)
        outputs: dict[str, Tensor] = {}
        for name in names:
            modules[name].register_forward_hook(
                # A copy: what follows may write over it in place.
                lambda module, args, output, name=name: outputs.update({name: output.clone()})
            )
        with torch.inference_mode():
            backbone(torch.rand(2, 3, *size))
        assert list(outputs) == names  # in the order of the forward pass
        for block in blocks:
            for name in block.layers:
                found = tuple(outputs[name].shape[2:])
                positions = tuple(-(-(side - block.first) // block.stride) for side in size)
                if not any(block.first for block in blocks):
                    assert found == positions, name
                assert all(f >= p for f, p in zip(found, positions, strict=True)), name
                assert self.signed or outputs[name].min() >= 0, name
                assert outputs[name].max() > 0, name

    def test_layer_groups_hold_every_parameter_once(self, backbone: Backbone) -> None:
        """From the photo on: with all but the last frozen, gradients reach the last alone."""
        groups = [
            [parameter for module in group for parameter in module.parameters()]
            for group in backbone.layer_groups()
        ]
        assert len(groups) >= 5
        ids = [id(parameter) for group in groups for parameter in group]
        assert len(set(ids)) == len(ids)
        assert set(ids) == set(map(id, backbone.parameters()))
        assert all(groups)
        reached = []
        for count in range(1, len(groups) + 1):
            backbone.fine_tune(FineTuning(count))
            trained = [p for p in backbone.parameters() if p.requires_grad]
            assert set(map(id, trained)) == {id(p) for g in groups[-count:] for p in g}
            score = backbone(torch.rand(1, 3, 32, 32)).square().sum()
            found = torch.autograd.grad(score, trained, allow_unused=True)
            reached.append(sum(gradient is not None for gradient in found))
        assert reached == sorted(set(reached)), "each block adds some"

    def test_a_frozen_backbone_keeps_nothing_for_the_way_back(self, backbone: Backbone) -> None:
        backbone.fine_tune(FineTuning(0))
        assert not backbone(torch.rand(1, 3, 32, 32)).requires_grad
        assert not any(module.training for group in backbone.layer_groups() for module in group)
        backbone.fine_tune(FineTuning())
        assert backbone(torch.rand(1, 3, 32, 32)).requires_grad

    def test_normalisation_is_inside(self, backbone: Backbone) -> None:
        x = torch.rand(1, 3, 40, 40)
        mean, std = (0.1, 0.2, 0.3), (0.5, 2.0, 1.5)
        scale, shift = torch.tensor(std).view(1, 3, 1, 1), torch.tensor(mean).view(1, 3, 1, 1)
        with torch.inference_mode():
            default = backbone(x)
            backbone.set_preprocessing(Preprocessing((0.0,) * 3, (1.0,) * 3))
            raw = backbone(x)
            backbone.set_preprocessing(Preprocessing(mean, std))
            close = 1e-4 * max(1.0, float(raw.max()))
            torch.testing.assert_close(backbone(x * scale + shift), raw, atol=close, rtol=1e-3)
        assert not torch.allclose(default, raw, atol=1e-3 * float(raw.max()))

    def test_photos_in_a_batch_do_not_meet(self, backbone: Backbone) -> None:
        x = torch.rand(3, 3, 40, 40)
        with torch.inference_mode():
            together, alone = backbone(x), torch.cat([backbone(photo[None]) for photo in x])
            torch.testing.assert_close(together, alone, atol=1e-5 * float(alone.max()), rtol=1e-4)
            assert torch.equal(backbone(x), together)

    def test_position_i_is_centred_on_pixel_stride_times_i(self, backbone: Backbone) -> None:
        """Mirror images have mirrored features where the grid has pixels 0 and n * stride for ends.

        Or, without a ``grid_stride``, where the cells fill the photo: positions are their middles.
        Kernels are cut to their centres, so that no padding at the borders comes in.
        """
        _cut_to_centres(backbone)
        stride, ends = backbone.output_stride, int(backbone.grid_stride is not None)
        assert backbone.grid_stride in (stride, None)
        x = torch.rand(1, 3, 4 * stride + ends, 6 * stride + ends)
        with torch.inference_mode():
            features = backbone(x)
            assert features.shape[2:] == (4 + ends, 6 + ends)
            scale = float(features.std((2, 3)).max())
            assert scale > 0  # or else anything would be its own mirror image
            for axis in (2, 3):
                mirrored = backbone(x.flip(axis)).flip(axis)
                torch.testing.assert_close(mirrored, features, atol=1e-3 * scale, rtol=0)

    def test_feature_blocks_say_where_their_positions_lie(self, backbone: Backbone) -> None:
        """Without pools and with kernels cut to their centres a position sees one pixel."""
        if backbone.grid_stride is None or any(
            isinstance(module, nn.MaxPool2d) for module in backbone.modules()
        ):
            pytest.skip("a pool sees several pixels")
        if not self.local:
            pytest.skip("a position sees all pixels")
        _cut_to_centres(backbone)
        modules, seen = dict(backbone.named_modules()), dict[str, Tensor]()
        blocks = backbone.feature_blocks()
        for name in (name for block in blocks for name in block.layers):
            modules[name].register_forward_hook(
                lambda module, args, output, name=name: seen.update({name: output.clone()})
            )
        x = torch.rand(1, 3, 80, 80)
        with torch.inference_mode():
            backbone(x)
            before = dict(seen)
            for block in blocks:
                j = -(-(20 - block.first) // block.stride)
                pixel = block.first + block.stride * j
                changed = x.clone()
                changed[:, :, pixel, pixel] = 1 - changed[:, :, pixel, pixel]
                backbone(changed)
                for name in block.layers:
                    differs = (seen[name] != before[name]).any(1)[0].nonzero()
                    assert differs.tolist() in ([[j, j]], []), name
                assert any((seen[name] != before[name]).any() for name in block.layers)


def _cut_to_centres(net: nn.Module) -> None:
    """Leave each kernel its middle alone, and an even one, which has none, its mean."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            if height % 2 == 0:
                mean = module.weight.detach().mean((2, 3), keepdim=True)
                module.weight.data = (
                    (mean * (height * width) ** 0.5).expand_as(module.weight).clone()
                )
                continue
            tap = module.weight.detach()[:, :, height // 2, width // 2].clone()
            nn.init.zeros_(module.weight)
            tap *= (height * width) ** 0.5  # so that features do not fade
            module.weight.data[:, :, height // 2, width // 2] = tap


class LocalizerContract:
    """Photos and their tags -> score maps."""

    n_classes = 4

    @pytest.fixture
    def localize(self) -> Localize:
        """A localizer of ``n_classes`` classes, with any :func:`mirror_symmetric` weights.

        Its network's grid has pixels 0 and 56 for ends in photos that are 57 pixels wide.
        """
        raise NotImplementedError

    @pytest.mark.parametrize("size", _SIZES)
    def test_score_maps_are_scores_of_the_present_classes(
        self, localize: Localize, size: tuple[int, int]
    ) -> None:
        tags = [np.arange(self.n_classes) % 2 == i for i in (0, 1)]
        tags.append(np.zeros(self.n_classes, bool))
        for score_map, present in zip(localize(_photos(3, *size), tags), tags, strict=True):
            assert score_map.dtype == np.float32
            assert score_map.shape == (self.n_classes, *size)
            assert np.isfinite(score_map).all()
            assert score_map.min() >= 0
            assert score_map.max() <= 1
            assert not score_map[~present].any()

    def test_repeats(self, localize: Localize) -> None:
        photos, tags = _photos(2, 40, 56), [np.ones(self.n_classes, bool)] * 2
        kept = photos.copy()
        first, again = localize(photos, tags), localize(photos, tags)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(photos, kept)
        assert np.ptp(first[0]) > 0

    def test_company_does_not_matter(self, localize: Localize) -> None:
        photos, tags = _photos(3, 40, 56), [np.ones(self.n_classes, bool)] * 3
        together = localize(photos, tags)
        for i in range(3):
            alone = localize(photos[i : i + 1], tags[:1])[0]
            np.testing.assert_allclose(alone, together[i], atol=1e-3)

    def test_mirrored_photos_have_mirrored_maps(self, localize: Localize) -> None:
        photos, tags = _photos(2, 40, 57), [np.ones(self.n_classes, bool)] * 2
        mirrored = np.ascontiguousarray(photos[:, :, ::-1])
        for own, other in zip(localize(photos, tags), localize(mirrored, tags), strict=True):
            np.testing.assert_allclose(other[:, :, ::-1], own, atol=1e-3)
            assert np.abs(other - own).max() > 0.05  # or else anything would do


class PriorContract:
    """A photo -> saliency map."""

    @pytest.fixture
    def prior(self) -> Prior:
        """A prior, with any weights."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", _SIZES)
    def test_saliency_maps_are_in_0_1_at_the_photos_size(
        self, prior: Prior, size: tuple[int, int]
    ) -> None:
        saliency = prior(_photos(1, *size)[0])
        assert saliency.dtype == np.float32
        assert saliency.shape == size
        assert np.isfinite(saliency).all()
        assert saliency.min() >= 0
        assert saliency.max() <= 1

    def test_repeats(self, prior: Prior) -> None:
        photo = _photos(1, 40, 56)[0]
        kept = photo.copy()
        np.testing.assert_array_equal(prior(photo), prior(photo))
        np.testing.assert_array_equal(photo, kept)
        assert np.ptp(prior(photo)) > 0


class FuserContract:
    """Score map, saliency map and tags -> training labels."""

    n_classes = 5

    @pytest.fixture
    def fuse(self) -> Fuse:
        """The fusion, with its defaults."""
        raise NotImplementedError

    @pytest.mark.parametrize("n_present", [0, 1, 3, 5])
    @pytest.mark.parametrize("size", [(1, 1), (9, 14)])
    def test_labels_are_of_present_classes_only(
        self, fuse: Fuse, n_present: int, size: tuple[int, int]
    ) -> None:
        rng = np.random.default_rng([n_present, *size])
        tags = np.isin(np.arange(self.n_classes), rng.permutation(self.n_classes)[:n_present])
        score_map = rng.random((self.n_classes, *size), np.float32)
        score_map /= score_map.max((1, 2), keepdims=True)  # absent classes hold noise: not read
        saliency = rng.random(size, np.float32)
        before = score_map.copy(), saliency.copy()
        labels = fuse(score_map, saliency, tags)
        assert labels.dtype == np.uint8
        assert labels.shape == size
        assert set(np.unique(labels)) <= {*labels_of_tags(tags).tolist(), IGNORE}
        np.testing.assert_array_equal(labels, fuse(score_map, saliency, tags))
        for kept, now in zip(before, (score_map, saliency), strict=True):
            np.testing.assert_array_equal(kept, now)

    def test_clear_evidence_wins(self, fuse: Fuse) -> None:
        tags = np.isin(np.arange(self.n_classes), (1, 3))
        score_map = np.zeros((self.n_classes, 6, 8), np.float32)
        score_map[1, :2], score_map[3, 4:] = 1, 1
        saliency = np.ones((6, 8), np.float32)
        saliency[2:4] = 0
        labels = fuse(score_map, saliency, tags)
        assert set(labels[:2].ravel()) == {2}
        assert set(labels[2:4].ravel()) == {0}
        assert set(labels[4:].ravel()) == {4}


def labelled_scores(seed: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of 5 labels, of which label 3 is nowhere; labels with ignored pixels; weights."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    scores = torch.randn(batch, 5, height, width, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 4, IGNORE])[torch.randint(5, shape, generator=generator)]
    weights = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    return 2 * scores, labels.to(torch.uint8), weights


class LabelLossContract:
    """Scores and labels of pixels, and how much each counts -> a loss."""

    shape = (2, 5, 3)

    @pytest.fixture
    def loss(self) -> Callable[..., Tensor]:
        """Of scores (B, L, H, W), labels (B, H, W) and ``weights=`` (B, H, W)."""
        raise NotImplementedError

    @pytest.mark.parametrize("given", ["labels", "weights"])
    def test_ignored_pixels_take_no_part(self, loss: Callable[..., Tensor], given: str) -> None:
        scores, labels, weights = labelled_scores(5, self.shape)
        ignored = labels == IGNORE
        assert ignored.any()
        if given == "weights":
            labels, weights = labels.masked_fill(ignored, 3), weights.masked_fill(ignored, 0.0)
        scores.requires_grad_()
        value = loss(scores, labels, weights=weights)
        (gradient,) = torch.autograd.grad(value, scores)
        assert not gradient.movedim(1, 3)[ignored].any()
        assert gradient.movedim(1, 3)[~ignored].abs().sum(1).min() > 0
        changed = torch.where(ignored[:, None], 7 * scores.detach() + 1, scores.detach())
        assert loss(changed, labels, weights=weights).item() == pytest.approx(value.item())

    def test_the_gradient_is_that_of_differences(self, loss: Callable[..., Tensor]) -> None:
        scores, labels, weights = labelled_scores(6, (2, 3, 3))
        scores.requires_grad_()
        assert torch.autograd.gradcheck(lambda s: loss(s, labels, weights=weights), scores)

    def test_nothing_labelled_is_0_without_gradient(self, loss: Callable[..., Tensor]) -> None:
        scores = torch.randn(1, 3, 2, 2, requires_grad=True)
        value = loss(scores, torch.full((1, 2, 2), IGNORE, dtype=torch.uint8))
        (gradient,) = torch.autograd.grad(value, scores)
        assert value.item() == 0
        assert not gradient.any()

    def test_half_scores_are_computed_in_float32(self, loss: Callable[..., Tensor]) -> None:
        scores, labels, _ = labelled_scores(7, self.shape)
        value = loss(scores.bfloat16(), labels)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(scores, labels).item(), rel=2e-2)

    def test_wrong_shapes_are_named(self, loss: Callable[..., Tensor]) -> None:
        scores, labels, weights = labelled_scores(8, self.shape)
        with pytest.raises(ShapeError, match="labels has shape"):
            loss(scores, labels[:, 1:])
        named = r"weights has shape \(2, 5, 2\), labels \(2, 5, 3\)"
        with pytest.raises(ShapeError, match=named):
            loss(scores, labels, weights=weights[..., 1:])
