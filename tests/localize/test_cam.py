from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Localize, LocalizerContract, mirror_symmetric
from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)


class StrideTwo:
    """Evidence = Eq. 1, a fixed linear combination of channels, on a grid of half the size."""

    def __init__(self) -> None:
        self.weight = torch.tensor([[1.0, -0.5, 0.0], [0.0, 1.0, -2.0]], requires_grad=True)
        self.sizes: list[tuple[int, ...]] = []

    def class_maps(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        pooled = torch.nn.functional.avg_pool2d(x, 2)
        return torch.einsum("ck,bkhw->bchw", self.weight, pooled)


class LeftOnly(StrideTwo):
    """Sees only what lies in the left half, so that flipping matters."""

    def class_maps(self, x):
        maps = super().class_maps(x).clone()
        maps[..., maps.shape[3] // 2 :] = 0
        return maps


def photos(seed=0, size=(8, 12)):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def loop_cam(weight, features):
    """Eq. 1, for one photo."""
    n_classes, (n_units, height, width) = len(weight), features.shape
    maps = np.zeros((n_classes, height, width))
    for c in range(n_classes):
        for y in range(height):
            for x in range(width):
                for k in range(n_units):
                    maps[c, y, x] += float(weight[c, k]) * float(features[k, y, x])
    return maps


def test_one_view_is_equation_1_in_float32_without_a_graph():
    x, classifier = photos(), StrideTwo()
    maps = class_activation_maps(classifier, x)
    features = torch.nn.functional.avg_pool2d(x, 2)
    np.testing.assert_allclose(
        maps[1], loop_cam(classifier.weight.detach(), features[1]), atol=1e-6
    )
    assert (maps < 0).any()  # negative evidence is kept: the average is over raw evidence
    assert not maps.requires_grad
    assert maps.dtype == torch.float32


def test_flip_averages_the_mirrored_view():
    x, classifier = photos(), LeftOnly()
    maps = class_activation_maps(classifier, x, flip=True)
    full = StrideTwo().class_maps(x)  # each half is seen in exactly one of the two views
    torch.testing.assert_close(maps, full.detach() / 2)
    mirrored = class_activation_maps(classifier, x.flip(3), flip=True)
    torch.testing.assert_close(mirrored.flip(3), maps)


def test_scales_are_averaged_on_the_grid_of_scale_one():
    x, classifier = torch.ones(1, 3, 8, 12), StrideTwo()
    maps = class_activation_maps(classifier, x, scales=(0.5, 1.0, 1.5))
    assert sorted(classifier.sizes) == [(4, 6), (8, 12), (12, 18)]
    one = StrideTwo().class_maps(x).detach()
    torch.testing.assert_close(maps, one)  # a constant photo has the same evidence at all scales


@pytest.mark.parametrize("scales", [(), (0.5, 2.0), (1.0, 0.0), (1.0, -1.0)])
def test_scales_that_cannot_be_used_are_refused(scales):
    with pytest.raises(ConfigError, match="scales are"):
        class_activation_maps(StrideTwo(), photos(), scales=scales)


# --- normalised_maps -------------------------------------------------------------------------


def loop_normalised(raw, tags, shape):
    """Clip, resize bilinearly (half-pixel centres), divide by the class's maximum."""
    height, width = shape
    out = np.zeros((len(tags), *shape))
    for c in np.flatnonzero(tags):
        grid = np.maximum(raw[c].astype(np.float64), 0)
        h, w = grid.shape
        for i in range(height):
            for j in range(width):
                y, x = max((i + 0.5) * h / height - 0.5, 0), max((j + 0.5) * w / width - 0.5, 0)
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
                out[c, i, j] = (
                    (1 - y + y0) * (1 - x + x0) * grid[y0, x0]
                    + (1 - y + y0) * (x - x0) * grid[y0, x1]
                    + (y - y0) * (1 - x + x0) * grid[y1, x0]
                    + (y - y0) * (x - x0) * grid[y1, x1]
                )
        if out[c].max() > 0:
            out[c] /= out[c].max()
    return out


def test_normalised_equals_the_loop():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(4, 3, 5)).astype(np.float32) * 30
    tags = np.array([True, False, True, True])
    ours = normalised_maps(raw, tags, (10, 13))
    np.testing.assert_allclose(ours, loop_normalised(raw, tags, (10, 13)), atol=2e-6)
    assert ours.dtype == np.float32
    assert list(ours.max((1, 2))) == [1, 0, 1, 1]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), tags=st.lists(st.booleans(), min_size=1, max_size=5))
def test_absent_classes_are_zero_and_maps_mirror_with_the_photo(seed, tags):
    raw = np.random.default_rng(seed).normal(size=(len(tags), 4, 6)).astype(np.float32)
    tags = np.array(tags)
    maps = normalised_maps(raw, tags, (9, 11))
    assert not maps[~tags].any()
    assert maps.min() >= 0
    assert maps.max() <= 1
    mirrored = normalised_maps(raw[:, :, ::-1].copy(), tags, (9, 11))
    np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=1e-5)


def test_unit_of_the_evidence_does_not_matter():
    raw = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)
    tags = np.array([True, True])
    np.testing.assert_allclose(
        normalised_maps(raw * 1e-6, tags, (8, 8)), normalised_maps(raw, tags, (8, 8)), atol=1e-5
    )


def test_class_with_only_negative_evidence_is_zero():
    maps = normalised_maps(-np.ones((1, 2, 2), np.float32), np.array([True]), (4, 4))
    assert not maps.any()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 3, 3)), "for 3 tags"),
        (np.zeros((3, 3)), "has shape"),
        (np.full((3, 2, 2), np.inf), "NaN or infinity"),
    ],
)
def test_unusable_maps_are_named(raw, message):
    with pytest.raises(ShapeError, match=message):
        normalised_maps(raw, np.array([True, False, True]), (4, 4))


def test_with_a_stride_evidence_lies_on_its_pixel():
    raw = np.zeros((2, 4, 6), np.float32)
    raw[0, 1, 2], raw[1, 3, 5] = 3.0, 0.5
    maps = normalised_maps(raw, np.array([True, True]), (32, 48), stride=8)
    assert np.argwhere(maps[0] == 1).tolist() == [[8, 16]]
    assert maps[0, 8, 12] == maps[0, 4, 16] == 0.5  # halfway to the next position
    # The last position stands for everything behind it.
    assert set(map(tuple, np.argwhere(maps[1] == 1))) == {
        (y, x) for y in range(24, 32) for x in range(40, 48)
    }


class TestClassActivationMaps(LocalizerContract):
    @pytest.fixture
    def localize(self) -> Localize:
        torch.manual_seed(0)
        net = mirror_symmetric(GapClassifier(Tiny(), self.n_classes, hidden=16)).eval()

        def localize(photos, tags):
            x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
            maps = class_activation_maps(net, x)
            shape = photos.shape[1:3]
            return [normalised_maps(m, t, shape, stride=8) for m, t in zip(maps, tags, strict=True)]

        return localize


class Sampler:
    """Evidence is the photo's red at pixel 4 i, as on any backbone's grid."""

    def class_maps(self, x):
        return x[:, :1, ::4, ::4]


def test_other_scales_do_not_move_the_maps():
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    for photo in (ramp, ramp.transpose(2, 3)):
        alone = class_activation_maps(Sampler(), photo)
        several = class_activation_maps(Sampler(), photo, scales=(1.0, 0.5))
        # Pixels are half a scaled pixel wide of their centres: 0.5 px at scale 0.5, halved here.
        assert (alone - several)[..., 2:-2, 2:-2].abs().max() <= 0.26
