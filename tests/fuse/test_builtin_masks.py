from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Fuse, FuserContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.builtin_masks import (
    binary_maps,
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
)


def photo(seed, n_classes=4, size=(5, 7), tags=None):
    """M_c (present ones with maximum 1, absent ones zero), P_f and the tags of a made-up photo."""
    rng = np.random.default_rng(seed)
    tags = rng.random(n_classes) < 0.5 if tags is None else np.array(tags)
    score_map = np.maximum(rng.normal(0.2, 0.5, (len(tags), *size)), 0)
    score_map *= tags[:, None, None] / np.maximum(score_map.max((1, 2), keepdims=True), 1e-9)
    return score_map.astype(np.float32), rng.random(size, dtype=np.float32), tags


def loop_maps(score_map, foreground, tags, alpha, threshold, normalise):
    """Eq. 2 to 5, one pixel at a time, label -> map."""
    height, width = foreground.shape
    present = [c for c in range(len(tags)) if tags[c]]
    maps = {label: np.zeros((height, width)) for label in [0] + [c + 1 for c in present]}
    for c in present:
        top = max(float(score_map[c, y, x]) for y in range(height) for x in range(width))
        for y in range(height):
            for x in range(width):
                m = float(score_map[c, y, x])
                b = 1 if m > threshold * top else 0
                q = float(foreground[y, x]) * b
                maps[c + 1][y, x] = alpha * q + (1 - alpha) * m
        if normalise and maps[c + 1].max() > 0:
            maps[c + 1] /= maps[c + 1].max()
    for y in range(height):
        for x in range(width):
            m0 = 1.0
            for c in present:
                m0 -= float(score_map[c, y, x]) / len(present)
            maps[0][y, x] = alpha * (1 - float(foreground[y, x])) + (1 - alpha) * m0
    return maps


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_the_loop(seed, alpha, normalise):
    score_map, foreground, tags = photo(seed)
    ours = multiclass_maps(score_map, foreground, tags, alpha=alpha, normalise=normalise)
    expected = loop_maps(score_map, foreground, tags, alpha, 0.2, normalise)
    assert list(ours.labels) == list(expected)
    assert ours.maps.dtype == np.float32
    np.testing.assert_allclose(ours.maps, np.stack(list(expected.values())), atol=1e-6)


def test_binary_map_is_above_a_fifth_of_each_classes_maximum():
    score_map = np.array([[[1.0, 0.21, 0.19]], [[0.5, 0.11, 0.09]], [[0, 0, 0]]], np.float32)
    expected = [[[True, True, False]], [[True, True, False]], [[False, False, False]]]
    np.testing.assert_array_equal(binary_maps(score_map), expected)


def test_localization_only_is_the_score_map_itself():
    score_map, foreground, tags = photo(5, tags=[True, False, True, True])
    ours = multiclass_maps(score_map, foreground, tags, alpha=0)
    np.testing.assert_array_equal(ours.maps[1:], score_map[tags])
    np.testing.assert_allclose(ours.maps[0], 1 - score_map.sum(0) / 3, atol=1e-6)


def test_background_counts_present_classes_only():
    """Nineteen further classes that are not in the photo change nothing."""
    score_map, foreground, tags = photo(6, tags=[True, True])
    more = np.zeros((19, *foreground.shape), np.float32)
    alone = multiclass_maps(score_map, foreground, tags)
    among = multiclass_maps(
        np.concatenate((score_map, more)), foreground, np.concatenate((tags, np.zeros(19, bool)))
    )
    np.testing.assert_array_equal(alone.maps, among.maps)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_maps_lie_in_0_1_and_only_present_labels_appear(seed, alpha):
    score_map, foreground, tags = photo(seed)
    noise = np.random.default_rng(seed).random(score_map.shape, dtype=np.float32)
    score_map[~tags] = noise[~tags]  # evidence for absent classes must not matter
    maps, labels = multiclass_maps(score_map, foreground, tags, alpha=alpha)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert set(np.unique(labels_from_maps(maps, labels))) <= {0, *(np.flatnonzero(tags) + 1)}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_no_present_class_loses_to_the_background_at_its_peak(seed, alpha):
    score_map, foreground, tags = photo(seed)
    maps, _ = multiclass_maps(score_map, foreground * 0.3, tags, alpha=alpha)
    for single in maps[1:]:
        peak = np.unravel_index(single.argmax(), single.shape)
        assert single[peak] == 1
        assert single[peak] > maps[0][peak]


def test_without_normalisation_a_present_class_can_vanish():
    """Class 1 (label 2) lies where the prior sees nothing, beside a salient class 0."""
    score_map = np.array([[[1, 0.1, 0]], [[0, 0.1, 1]]], np.float32)
    foreground = np.array([[1.0, 0.0, 0.0]], np.float32)
    tags = np.array([True, True])
    raw = multiclass_maps(score_map, foreground, tags, normalise=False)
    kept = multiclass_maps(score_map, foreground, tags)
    np.testing.assert_array_equal(labels_from_maps(*raw), [[1, 0, 0]])
    np.testing.assert_array_equal(labels_from_maps(*kept), [[1, 0, 2]])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_photo_without_tags_is_all_background(alpha):
    score_map, foreground, tags = photo(7, tags=[False, False, False])
    maps, labels = multiclass_maps(score_map, foreground, tags, alpha=alpha)
    assert maps.shape == (1, 5, 7)
    assert not labels_from_maps(maps, labels).any()


def test_photo_whose_evidence_is_all_negative_is_all_background():
    tags = np.array([True, True])
    nothing = np.zeros((2, 5, 7), np.float32)
    maps, labels = multiclass_maps(nothing, photo(8)[1], tags)
    assert not labels_from_maps(maps, labels).any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), factor=st.integers(2, 4))
def test_labels_mirror_and_scale_with_the_photo(seed, factor):
    score_map, foreground, tags = photo(seed)

    def labels(scores, prior):
        return labels_from_maps(*multiclass_maps(scores, prior, tags))

    plain = labels(score_map, foreground)
    mirrored = labels(score_map[..., ::-1], foreground[:, ::-1])
    np.testing.assert_array_equal(mirrored[:, ::-1], plain)
    large = labels(
        score_map.repeat(factor, 1).repeat(factor, 2),
        foreground.repeat(factor, 0).repeat(factor, 1),
    )
    np.testing.assert_array_equal(large, plain.repeat(factor, 0).repeat(factor, 1))


def test_labels_are_mapped_back_and_background_wins_ties():
    maps = np.array([[[0.5, 0.1, 0.3]], [[0.5, 0.2, 0.3]], [[0.4, 0.9, 0.3]]], np.float32)
    labels = labels_from_maps(maps, np.array([0, 3, 7]))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 7, 0]])


def test_foreground_maps_split_at_one_half():
    foreground = np.array([[0.1, 0.5, 0.8]], np.float32)
    maps = foreground_maps(foreground)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [[[0.9, 0.5, 0.2]], [[0.1, 0.5, 0.8]]], atol=1e-7)
    np.testing.assert_array_equal(labels_from_maps(maps, np.array([0, 1])), [[0, 0, 1]])


def test_wrong_arguments_are_named():
    score_map, foreground, tags = photo(10)
    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        multiclass_maps(score_map, foreground, tags, alpha=1.5)
    with pytest.raises(ShapeError, match="score_map has shape"):
        multiclass_maps(score_map, foreground[:3], tags)
    with pytest.raises(ShapeError, match="4 score maps for 3 tags"):
        multiclass_maps(score_map, foreground, tags[:3])
    with pytest.raises(ShapeError, match="foreground holds NaN"):
        multiclass_maps(score_map, foreground * np.float32(np.nan), tags)
    with pytest.raises(ShapeError, match="for 2 labels"):
        labels_from_maps(score_map, np.array([0, 1]))


class TestBuiltinMasks(FuserContract):
    @pytest.fixture
    def fuse(self) -> Fuse:
        return lambda score_map, saliency, tags: labels_from_maps(
            *multiclass_maps(score_map, saliency, tags)
        )


def test_background_from_the_maximum_instead_of_the_mean():
    score_map = np.zeros((3, 1, 2), np.float32)
    score_map[0, 0, 0], score_map[2, 0, 1] = 1.0, 0.5
    foreground = np.full((1, 2), 0.25, np.float32)
    tags = np.array([True, False, True])
    mean = multiclass_maps(score_map, foreground, tags).maps[0, 0]
    most = multiclass_maps(score_map, foreground, tags, elsewhere="max").maps[0, 0]
    np.testing.assert_allclose(mean, [0.5 * 0.75 + 0.5 * 0.5, 0.5 * 0.75 + 0.5 * 0.75])
    np.testing.assert_allclose(most, [0.5 * 0.75 + 0.5 * 0.0, 0.5 * 0.75 + 0.5 * 0.5])
    with pytest.raises(ConfigError):
        multiclass_maps(score_map, foreground, tags, elsewhere="median")
