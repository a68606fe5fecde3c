from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Fuse, FuserContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.seed_labels import cam_labels


def photo(seed, n_classes=4, size=(5, 7)):
    rng = np.random.default_rng(seed)
    tags = rng.random(n_classes) < 0.5
    score_map = np.maximum(rng.normal(0.0, 0.5, (n_classes, *size)), 0)
    score_map /= np.maximum(score_map.max((1, 2), keepdims=True), 1e-9)
    return score_map.astype(np.float32), tags  # absent classes have evidence too: it must not count


def loop_labels(score_map, tags, threshold, band=None):
    _, height, width = score_map.shape
    out = np.zeros((height, width), np.uint8)
    present = [c for c in range(len(tags)) if tags[c]]
    for y in range(height):
        for x in range(width):
            if not present:
                continue
            best = max(present, key=lambda c: (score_map[c, y, x], -c))
            share = score_map[best, y, x] / score_map[best].max()
            low, high = band or (threshold, threshold)
            if share >= high:
                out[y, x] = best + 1
            elif share >= low and share > 0:
                out[y, x] = 255
    return out


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000), band=st.sampled_from([None, (0.1, 0.4), (0.0, 0.3), (0.25, 0.25)])
)
def test_equals_the_loop(seed, band):
    score_map, tags = photo(seed)
    ours = cam_labels(score_map, tags, threshold=0.25, ignore_band=band)
    np.testing.assert_array_equal(ours, loop_labels(score_map, tags, 0.25, band))
    assert ours.dtype == np.uint8
    assert set(np.unique(ours)) <= {0, 255, *(np.flatnonzero(tags) + 1)}


def test_threshold_is_inclusive_and_the_best_class_wins():
    score_map = np.array([[[1.0, 0.2, 0.19, 0.6]], [[0.1, 0.0, 0.0, 1.0]]], np.float32)
    labels = cam_labels(score_map, np.array([True, True]))
    np.testing.assert_array_equal(labels, [[1, 1, 0, 2]])


def test_threshold_is_of_the_classes_own_maximum():
    score_map = np.array([[[0.5, 0.11, 0.09]]], np.float32)
    np.testing.assert_array_equal(cam_labels(score_map, np.array([True])), [[1, 1, 0]])


def test_ignore_band_is_half_open():
    score_map = np.array([[[1.0, 0.3, 0.29, 0.1, 0.09]]], np.float32)
    labels = cam_labels(score_map, np.array([True]), ignore_band=(0.1, 0.3))
    np.testing.assert_array_equal(labels, [[1, 1, 255, 255, 0]])


def test_without_tags_or_evidence_all_is_background():
    score_map, _ = photo(0)
    assert not cam_labels(score_map, np.zeros(4, bool)).any()
    nothing = np.zeros((4, 5, 7), np.float32)
    assert not cam_labels(nothing, np.ones(4, bool)).any()
    assert not cam_labels(nothing, np.ones(4, bool), ignore_band=(0.0, 0.5)).any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), factor=st.integers(2, 4))
def test_labels_mirror_and_scale_with_the_photo(seed, factor):
    score_map, tags = photo(seed)
    plain = cam_labels(score_map, tags)
    np.testing.assert_array_equal(cam_labels(score_map[..., ::-1], tags)[:, ::-1], plain)
    large = cam_labels(score_map.repeat(factor, 1).repeat(factor, 2), tags)
    np.testing.assert_array_equal(large, plain.repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"ignore_band": (0.3, 0.5)},
        {"ignore_band": (0.1, 0.15)},
        {"ignore_band": (-0.1, 0.5)},
        {"ignore_band": (0.1, 1.5)},
    ],
)
def test_thresholds_out_of_order_are_refused(options):
    with pytest.raises(ConfigError, match="threshold is"):
        cam_labels(*photo(1), **options)


def test_wrong_number_of_tags_is_named():
    with pytest.raises(ShapeError, match="4 score maps for 2 tags"):
        cam_labels(photo(2)[0], np.array([True, False]))


@pytest.mark.parametrize("band", [None, (0.1, 0.4)])
class TestSeedLabels(FuserContract):
    @pytest.fixture
    def fuse(self, band: tuple[float, float] | None) -> Fuse:
        return lambda score_map, _, tags: cam_labels(score_map, tags, ignore_band=band)
