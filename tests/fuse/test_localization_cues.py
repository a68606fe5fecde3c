from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Fuse, FuserContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.localization_cues import localization_cues


def photo(seed, n_classes=4, size=(5, 7)):
    rng = np.random.default_rng(seed)
    tags = rng.random(n_classes) < 0.6
    score_map = np.maximum(rng.normal(0.0, 0.5, (n_classes, *size)), 0)
    score_map *= rng.uniform(0.3, 1, (n_classes, 1, 1)) / np.maximum(
        score_map.max((1, 2), keepdims=True), 1e-9
    )
    return score_map.astype(np.float32), rng.random(size) < 0.3, tags


def loop_cues(score_map, background, tags, threshold):
    """A position's label is that of its cue with the least area, the last one of equal ones."""
    n_classes, height, width = score_map.shape
    cues = {0: set()}
    for y in range(height):
        for x in range(width):
            if background is not None and background[y, x]:
                cues[0].add((y, x))
    for c in range(n_classes):
        if tags[c]:
            best = score_map[c].max()
            cues[c + 1] = {
                (y, x)
                for y in range(height)
                for x in range(width)
                if score_map[c, y, x] > np.float32(threshold) * best
            }
    labels = np.full((height, width), 255)
    for y in range(height):
        for x in range(width):
            mine = [(len(area), -label) for label, area in cues.items() if (y, x) in area]
            if mine:
                labels[y, x] = -min(mine)[1]
    return labels


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.0, 0.2, 0.5]),
    with_background=st.booleans(),
)
def test_equals_the_loop(seed, threshold, with_background):
    score_map, background, tags = photo(seed)
    given_background = background if with_background else None
    labels = localization_cues(score_map, given_background, tags, threshold=threshold)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, loop_cues(score_map, given_background, tags, threshold))


def test_the_smaller_of_two_classes_wins_where_both_have_cues():
    score_map = np.array([[[1, 1, 1, 0, 0]], [[0, 0, 0.5, 0.5, 0]]], np.float32)
    labels = localization_cues(score_map, None, np.array([True, True]))
    np.testing.assert_array_equal(labels, [[1, 1, 2, 2, 255]])


@pytest.mark.parametrize(("others", "wanted"), [(1, [0, 0, 1, 1, 1]), (2, [0, 0, 0, 1, 1])])
def test_the_background_is_a_class_as_any_other(others, wanted):
    """It wins over four positions of a class with its three; with equally many the class does."""
    score_map = np.array([[[0, 1, 1, 1, 1]]], np.float32)
    background = np.array([[True, True, others == 2, False, False]])
    score_map[0, 0, 1] = 1 if others == 2 else 0
    labels = localization_cues(score_map, background, np.array([True]))
    np.testing.assert_array_equal(labels, [wanted])


def test_of_equal_areas_the_later_label_wins():
    score_map = np.ones((2, 1, 2), np.float32)
    both = np.array([True, True])
    np.testing.assert_array_equal(localization_cues(score_map, None, both), [[2, 2]])
    everywhere = np.ones((1, 2), bool)
    one = np.array([True, False])
    np.testing.assert_array_equal(localization_cues(score_map, everywhere, one), [[1, 1]])


def test_the_threshold_is_exclusive_and_of_the_classes_own_maximum():
    score_map = np.array([[[0.5, 0.25, 0.125]]], np.float32)
    labels = localization_cues(score_map, None, np.array([True]), threshold=0.5)
    np.testing.assert_array_equal(labels, [[1, 255, 255]])


def test_without_evidence_there_is_no_cue():
    nothing = np.zeros((3, 4, 4), np.float32)
    tags = np.ones(3, bool)
    assert (localization_cues(nothing, None, tags) == 255).all()
    assert (localization_cues(nothing, None, tags, threshold=0.0) == 255).all()
    assert (localization_cues(nothing + 1, None, ~tags) == 255).all()


def test_a_photo_without_tags_keeps_its_background_cues():
    score_map, background, tags = photo(0)
    labels = localization_cues(score_map, background, np.zeros_like(tags))
    np.testing.assert_array_equal(labels, np.where(background, 0, 255))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), factor=st.integers(2, 4))
def test_cues_mirror_and_scale_with_the_photo(seed, factor):
    score_map, background, tags = photo(seed)
    plain = localization_cues(score_map, background, tags)
    mirrored = localization_cues(score_map[..., ::-1], background[:, ::-1], tags)
    np.testing.assert_array_equal(mirrored[:, ::-1], plain)

    def large(values):
        return values.repeat(factor, -1).repeat(factor, -2)

    np.testing.assert_array_equal(
        localization_cues(large(score_map), large(background), tags), large(plain)
    )


def test_wrong_arguments_are_named():
    score_map, background, tags = photo(1)
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="threshold is"):
            localization_cues(score_map, background, tags, threshold=threshold)
    with pytest.raises(ShapeError, match="4 score maps for 3 tags"):
        localization_cues(score_map, background, tags[:3])
    with pytest.raises(ShapeError, match="background is bool of shape"):
        localization_cues(score_map, background[1:], tags)
    with pytest.raises(ShapeError, match="background is uint8"):
        localization_cues(score_map, background.astype(np.uint8), tags)
    with pytest.raises(ShapeError, match="score_map is a int64"):
        localization_cues(score_map.astype(np.int64), background, tags)


class TestLocalizationCues(FuserContract):
    @pytest.fixture
    def fuse(self) -> Fuse:
        return lambda score_map, saliency, tags: localization_cues(score_map, saliency < 0.1, tags)
