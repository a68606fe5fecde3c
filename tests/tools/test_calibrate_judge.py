"""The set of spots by which the judge of union is fitted, beside two of tagseg's own scenes."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from small_runs import OPTIONS
from tagseg.data.scenes import OBJECTS, draw_scene
from tagseg.evaluate.judge import FEATURES, Judge
from tool_modules import load_tool
from union_runs import config_of

SIZE = {"height": 96, "width": 128}
COUNT = 24


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("calibrate_judge")


@pytest.fixture(scope="module")
def spots(tool):
    return tool.spots(COUNT, seed=5, **SIZE)


def test_spots_are_a_function_of_the_seed(tool, spots):
    """And of a photo's place, however many there are."""
    dataset, labels = spots
    again, fewer = tool.spots(8, seed=5, **SIZE)
    other, _ = tool.spots(8, seed=6, **SIZE)
    assert again.names == dataset.names[:8]
    for i, name in enumerate(again.names):
        np.testing.assert_array_equal(again.image(i), dataset.image(i))
        np.testing.assert_array_equal(fewer[name], labels[name])
        assert not np.array_equal(other.image(i), dataset.image(i))


def test_tags_are_those_of_the_labels(tool, spots):
    """Of what can be seen: a spot may cover another."""
    dataset, labels = spots
    assert dataset.classes == tuple(tool.SPOTS)
    for name, tags in zip(dataset.names, dataset.tags, strict=True):
        assert labels[name].shape == (SIZE["height"], SIZE["width"])
        found = set(np.unique(labels[name]).tolist()) - {0}
        assert found == set((np.flatnonzero(tags) + 1).tolist())
    counts = dataset.tags.sum(1)
    assert 0 in counts, "some photos hold none"
    assert set(counts.tolist()) <= {0, 1, 2}
    assert dataset.tags.any(0).all()
    assert dataset.known.all()


def test_a_class_that_is_covered_is_no_tag(tool, monkeypatch):
    """Spots of the second class over all there is."""

    def draw(image, labels, tag, at, rng):
        labels[:] = tag + 1

    monkeypatch.setattr(tool, "_spot", draw)
    dataset, labels = tool.spots(12, seed=5, **SIZE)
    assert dataset.tags.sum(1).max() == 1
    for name, tags in zip(dataset.names, dataset.tags, strict=True):
        assert set(np.unique(labels[name]).tolist()) == set(
            (np.flatnonzero(tags) + 1).tolist()
        ) or (not tags.any() and not labels[name].any())


def test_labels_are_only_where_spots_are(spots):
    """The photo is that of an object elsewhere, but for spots' soft edges of a few pixels."""
    dataset, labels = spots
    for i, name in enumerate(dataset.names):
        plain = draw_scene(OBJECTS, 5, i, **SIZE)
        changed = (dataset.image(i) != plain.image).any(2)
        spotted = labels[name] > 0
        assert changed[spotted].mean() > 0.9 if spotted.any() else not changed.any()
        assert changed.sum() <= 2.5 * spotted.sum()


def test_spots_are_small_and_on_the_object(spots):
    dataset, labels = spots
    for i, name in enumerate(dataset.names):
        spotted, thing = labels[name] > 0, draw_scene(OBJECTS, 5, i, **SIZE).labels > 0
        assert spotted.mean() < 0.5
        assert not spotted.any() or (spotted & thing).any()
    shares = [(labels[name] > 0).mean() for name in dataset.names]
    assert 0.005 < np.median(shares) < 0.2


def test_the_three_sets(tool):
    assert list(tool.SETS) == ["spots", "scenes", "single"]


def test_candidates_are_heard_once(tool, monkeypatch, tmp_path):
    """By each way, for each tag of the photos that are judged; and kept for another judge."""
    drawn = tool.spots(9, seed=5, **SIZE)
    monkeypatch.setitem(tool.SETS, "spots", lambda: drawn)
    config = config_of(photo_side=None, judged_photos=4, objects="barrier", classifier_iterations=2)
    features, quality, groups = tool.rows_of("spots", tmp_path, config, OPTIONS)
    ways = 2 * 3  # two thresholds, with class maps alone and two joinings
    assert features.shape == (len(quality), len(FEATURES))
    assert len(quality) == len(groups)
    assert len(quality) % ways == 0
    assert 4 * ways <= len(quality) <= 8 * ways
    assert np.isfinite(features).all()
    assert 0 <= quality.min() <= quality.max() <= 1
    assert {group.split()[0] for group in groups} == {"spots"}
    assert {group.split()[1] for group in groups} <= set(tool.SPOTS)
    monkeypatch.setitem(tool.SETS, "spots", None)
    again = tool.rows_of("spots", tmp_path, config, OPTIONS)
    np.testing.assert_array_equal(again[0], features)
    assert Judge.fitted(*again).quality(features).shape == quality.shape
