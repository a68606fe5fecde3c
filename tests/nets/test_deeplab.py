from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock
from tagseg.nets.deeplab import (
    IMAGENET_ROWS,
    SegmentationNet,
    coarse_labels,
    imagenet_row,
    initialise_from_classifier,
)


class Sampled(Backbone):
    """Every eighth (or sixteenth) pixel through one 1x1 convolution."""

    name = "sampled"
    out_channels = 4
    block4_channels = 4

    def __init__(self, output_stride: int = 8, channels: int = 4) -> None:
        super().__init__(output_stride)
        self.out_channels = channels
        self.project = nn.Conv2d(3, channels, 1)

    def activations(self, x: Tensor) -> Activations:
        step = self.output_stride
        features = self.project(self.normalise(x)[..., ::step, ::step]).relu()
        return Activations(features, features)

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()


class NamedVgg(Sampled):
    name = "vgg16"


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(("view", "taps", "pixels"), [("large", 3, 224), ("small", 4, 128)])
def test_fc6_sees_the_papers_field_of_view(stride: int, view: str, taps: int, pixels: int) -> None:
    net = SegmentationNet(Sampled(stride), 3, view, width=4)  # type: ignore[arg-type]
    x = torch.rand(1, 4, 41, 41, requires_grad=True)
    net.fc6(x)[0, :, 20, 20].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()  # type: ignore[index]
    assert len(seen) == taps * taps
    first, last = seen.amin(0), seen.amax(0)
    assert ((first + last) / 2).tolist() == [20, 20]
    # Each tap stands for a pool5 cell of VGG-16, 32 pixels wide.
    assert ((last - first) * stride + 32).tolist() == [pixels, pixels]


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stride=st.sampled_from([8, 16]),
    view=st.sampled_from(["large", "small"]),
)
def test_logits_have_the_size_of_the_input(height: int, width: int, stride: int, view: str) -> None:
    net = SegmentationNet(Sampled(stride), 3, view, width=4).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        x = torch.rand(1, 3, height, width)
        assert net(x).shape == (1, 3, height, width)
        assert net.coarse(x).shape == (1, 3, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("stride", [8, 16])
def test_upsampling_starts_bilinear(stride: int) -> None:
    torch.manual_seed(0)
    net = SegmentationNet(Sampled(stride), 5, width=4).eval()
    x = torch.rand(2, 3, 4 * stride + 1, 6 * stride + 1)
    with torch.inference_mode():
        coarse, full = net.coarse(x), net(x)
    expected = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(full, expected, atol=1e-5, rtol=1e-5)
    # Beyond the last position the scores go on as they are.
    longer = torch.cat([x, x[..., -1:].expand(-1, -1, -1, 3)], 3)
    with torch.inference_mode():
        torch.testing.assert_close(net(longer)[..., -3:], full[..., -1:].expand(-1, -1, -1, 3))


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(("view", "taps"), [("large", 3), ("small", 4)])
@pytest.mark.parametrize("scale", [0.05, 0.256, 0.4, 0.64, 1.0, 1.5])
def test_view_scale_keeps_size_and_place(stride: int, view: str, taps: int, scale: float) -> None:
    net = SegmentationNet(Sampled(stride), 3, view, width=4, view_scale=scale)  # type: ignore[arg-type]
    x = torch.rand(1, 4, 81, 81, requires_grad=True)
    out = net.fc6(x)
    assert out.shape[2:] == (81, 81)
    out[0, :, 40, 40].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()  # type: ignore[index]
    first, last = seen.amin(0), seen.amax(0)
    assert ((first + last) / 2).tolist() == [40, 40]
    pixels = (last - first) * stride
    meant = {"large": 2 * 12 * 8, "small": 3 * 4 * 8}[view] * scale
    step = (taps - 1) * stride * (2 - taps % 2)  # dilations are whole, and even for 4x4
    assert pixels[0] == max(step, round(meant / step) * step)


def test_upsampling_keeps_labels_apart_and_learns_if_asked() -> None:
    net = SegmentationNet(Sampled(), 3, width=4)
    assert net.upsample.groups == 3
    assert net.upsample.weight.requires_grad
    fixed = SegmentationNet(Sampled(), 3, width=4, learn_upsampling=False)
    assert not fixed.upsample.weight.requires_grad


def test_widths() -> None:
    with torch.device("meta"):
        vgg = NamedVgg(8, 512)
        large, small = SegmentationNet(vgg, 21, "large"), SegmentationNet(vgg, 21, "small")
        other = SegmentationNet(Sampled(), 21)
    assert large.fc6.weight.shape == (1024, 512, 3, 3)
    assert small.fc6.weight.shape == (4096, 512, 4, 4)
    assert small.fc7.weight.shape == (4096, 4096, 1, 1)
    assert other.fc6.out_channels == 256


# The margin


def reflected(values: list[int], margin: int) -> list[int]:
    """Without the end itself; as far as there are values, then the last of them."""
    before = values[1 : margin + 1][::-1]
    after = values[-margin - 1 : -1][::-1] if len(values) > 1 else []
    whole = [*before, *values, *after]
    return [whole[0]] * (margin - len(before)) + whole + [whole[-1]] * (margin - len(after))


@pytest.mark.parametrize("size", [(24, 33), (5, 40), (1, 1), (16, 17)])
def test_a_margin_reflects_the_photo(size: tuple[int, int]) -> None:
    """The logits are those of a larger photo, made by hand, at the photo's own pixels."""
    torch.manual_seed(0)
    net = SegmentationNet(Sampled(), 3, width=4, view_scale=0.1, margin=16).eval()
    rows, columns = (torch.tensor(reflected(list(range(side)), 16)) for side in size)
    x = torch.rand(2, 3, *size)
    larger = x[:, :, rows][..., columns]
    assert larger.shape[2:] == (size[0] + 32, size[1] + 32)
    with torch.inference_mode():
        found = net(x)
        net.margin = 0
        expected = net(larger)[..., 16 : 16 + size[0], 16 : 16 + size[1]]
    assert found.shape == (2, 3, *size)
    torch.testing.assert_close(found, expected)


def test_a_margin_is_for_forward_alone_and_changes_the_border() -> None:
    torch.manual_seed(0)
    plain = SegmentationNet(Sampled(), 3, width=4, view_scale=0.2).eval()
    wide = SegmentationNet(Sampled(), 3, width=4, view_scale=0.2, margin=16).eval()
    wide.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 97, 97)
    with torch.inference_mode():
        assert torch.equal(plain.coarse(x), wide.coarse(x))
        differs = (plain(x) - wide(x)).abs().amax(1)[0] > 1e-6
    # fc6 reaches 2 positions further; upsampling brings a position 7 pixels wider.
    assert differs[0].any()
    assert not differs[16:81, 16:81].any()


@pytest.mark.parametrize(("size", "stride"), [((321, 321), 8), ((40, 57), 8), ((33, 16), 16)])
def test_coarse_labels_lie_on_the_positions_of_coarse(size: tuple[int, int], stride: int) -> None:
    labels = torch.randint(0, 256, (2, *size), dtype=torch.uint8)
    net = SegmentationNet(Sampled(stride), 3, width=4, view_scale=0.1).eval()
    found = coarse_labels(labels, stride)
    with torch.inference_mode():
        assert found.shape[1:] == net.coarse(torch.rand(1, 3, *size)).shape[2:]
    assert found.dtype == torch.uint8
    for photo in range(2):
        for i in range(found.shape[1]):
            for j in range(found.shape[2]):
                assert found[photo, i, j] == labels[photo, stride * i, stride * j]


# Training


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_groups_of_one_rate_train_as_one_group(kind: type[torch.optim.Optimizer]) -> None:
    """Schedules that tell only the backbone from the rest do not notice finer groups."""
    trained = []
    for split in (True, False):
        torch.manual_seed(0)
        net = SegmentationNet(Sampled(), 3, width=4, view_scale=0.1, dropout=0.0)
        groups = net.parameter_groups() if split else [{"params": net.parameters()}]
        optimizer = kind(groups, lr=0.1, weight_decay=0.01)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.rand(1, 3, 17, 17)).square().mean().backward()
            optimizer.step()
        trained.append(net.state_dict())
    for name, values in trained[0].items():
        assert torch.equal(values, trained[1][name]), name


@pytest.mark.parametrize("learn_upsampling", [True, False])
def test_parameter_groups_hold_every_trained_parameter_once(learn_upsampling: bool) -> None:
    net = SegmentationNet(Sampled(), 3, width=4, learn_upsampling=learn_upsampling)
    groups = net.parameter_groups()
    assert [group["name"] for group in groups] == ["backbone", "head", "score", "score_bias"]
    assert groups[2]["params"] == [net.score.weight]
    assert groups[3]["params"] == [net.score.bias]
    held = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_labels": 1}, "1 labels"),
        ({"width": 0}, "width of 0"),
        ({"field_of_view": "huge"}, "no field of view 'huge'; use large or small"),
        ({"view_scale": 0.0}, "a view scale of 0.0"),
        ({"margin": -8}, "a margin of -8 pixels; use a multiple of 8"),
        ({"margin": 12}, "a margin of 12 pixels; use a multiple of 8"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationNet(**{"backbone": Sampled(), "n_labels": 3, **change})  # type: ignore[arg-type]


# ImageNet's classifier


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    """VGG-16's classifier, zero but for every 512th filter (the other memory stays untouched)."""
    state = {
        "classifier.0.weight": torch.zeros(4096, 25088),
        "classifier.3.weight": torch.zeros(4096, 4096),
        "classifier.6.weight": torch.arange(4_096_000.0).view(1000, 4096),
    }
    state |= {f"classifier.{i}.bias": torch.arange(4096.0) + i for i in (0, 3)}
    state["classifier.6.bias"] = torch.arange(1000.0)
    generator = torch.Generator().manual_seed(0)
    for kept in range(0, 4096, 512):
        for name in ("classifier.0.weight", "classifier.3.weight"):
            size = state[name].shape[1]
            state[name][kept] = torch.rand(size, generator=generator)
    return state


@pytest.mark.parametrize(("view", "taps"), [("large", (0, 3, 6)), ("small", (0, 2, 4, 6))])
def test_fc6_and_fc7_are_vggs_at_regular_places(
    view: str, taps: tuple[int, ...], classifier: dict[str, Tensor]
) -> None:
    net = SegmentationNet(Sampled(8, 512), 2, view, width=8)  # type: ignore[arg-type]
    initialise_from_classifier(net, classifier, ["cow"])
    fc6, fc7 = classifier["classifier.0.weight"], classifier["classifier.3.weight"]
    for new in range(8):
        old = 512 * new
        assert net.fc6.bias[new] == old  # type: ignore[index]
        assert net.fc7.bias[new] == old + 3  # type: ignore[index]
        assert net.fc7.weight[new, :, 0, 0].tolist() == fc7[old, ::512].tolist()
        for channel in (0, 17, 511):
            for row, old_row in enumerate(taps):
                for column, old_column in enumerate(taps):
                    flat = channel * 49 + old_row * 7 + old_column
                    assert net.fc6.weight[new, channel, row, column] == fc6[old, flat]


def test_score_takes_the_shared_classes_rows(classifier: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    net = SegmentationNet(Sampled(8, 512), 4, width=8)
    shared = initialise_from_classifier(net, classifier, ["sheep", "unicorn", "cat"])
    assert shared == ("sheep", "cat")
    score = net.score.weight[:, :, 0, 0].detach()
    assert score[1].tolist() == [348 * 4096 + 512 * i for i in range(8)]
    assert score[3].tolist() == [281 * 4096 + 512 * i for i in range(8)]
    assert net.score.bias.tolist() == [0, 348, 0, 281]  # type: ignore[union-attr]
    random = score[[0, 2]]
    assert 0.05 < random.std() < 0.2


def test_other_names_of_shared_classes_have_their_rows(classifier: dict[str, Tensor]) -> None:
    names = {"airplane": 404, "tv": 851, "couch": 831, "motorcycle": 670, "dining table": 532}
    names |= {"potted plant": 738, "bird": 15}
    net = SegmentationNet(Sampled(8, 512), 9, width=8)
    shared = initialise_from_classifier(net, classifier, [*names, "toaster"])
    assert shared == tuple(names)
    assert net.score.bias.tolist() == [0, *names.values(), 0]  # type: ignore[union-attr]
    assert {name: imagenet_row(name) for name in names} == names
    assert imagenet_row("toaster") is None


@pytest.mark.parametrize("missing", ["all", "classifier.3.bias"])
def test_without_a_vgg_classifier_scores_start_small(
    missing: str, classifier: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    net = SegmentationNet(Sampled(8, 512), 40, width=64)
    fc6 = net.fc6.weight.detach().clone()
    state = {} if missing == "all" else {k: v for k, v in classifier.items() if k != missing}
    assert initialise_from_classifier(net, state, ["cow"] * 39) == ()
    torch.testing.assert_close(net.fc6.weight.detach(), fc6)
    assert 0.009 < net.score.weight.std() < 0.011


def test_score_starts_small_without_the_shared_rows(classifier: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    net = SegmentationNet(Sampled(8, 512), 21, width=256)
    assert initialise_from_classifier(net, classifier, ["cat"] * 20, shared_rows=False) == ()
    assert 0.0095 < net.score.weight.std() < 0.0105
    assert not net.score.bias.any()  # type: ignore[union-attr]
    assert net.fc7.bias[1] == 16 + 3  # type: ignore[index]
    assert net.fc6.bias[1] == 16  # type: ignore[index]


def test_class_names_must_fit_the_labels() -> None:
    net = SegmentationNet(Sampled(), 3, width=4)
    with pytest.raises(ConfigError, match="1 class names for a network of 3 labels"):
        initialise_from_classifier(net, {}, ["cow"])


def test_rows_are_distinct_classes_of_imagenet() -> None:
    assert len(IMAGENET_ROWS) == len(set(IMAGENET_ROWS.values())) == 20
    assert all(0 <= row < 1000 for row in IMAGENET_ROWS.values())
