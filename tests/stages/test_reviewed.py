"""What a review changes of labels, tags and how often photos are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from small_runs import NEGATIVE, UNKNOWN
from tagseg.data.working import labels_at
from tagseg.errors import TrainingError
from tagseg.maps import IGNORE, Labels, tags_of_labels
from tagseg.stages.context import Run
from tagseg.stages.review import Acts, Review, ReviewSettings
from tagseg.stages.reviewed import drawn_photos, reviewed_labels, taught
from tagseg.stages.stage import Declared, LabelMaps, label_maps

ACCEPTED, REJECTED = (0, 5, UNKNOWN), 2


def masks(run: Run) -> dict[int, Labels]:
    """At the photos' own sizes: class 9, which nobody tagged, and pixels nobody is sure of."""
    found = {}
    for index in ACCEPTED:
        mask = np.zeros(run.photos.full_shape(index), np.uint8)
        mask[1:5, 2:20], mask[5:7] = 9, IGNORE
        found[index] = mask
    return found


@pytest.fixture
def review(odd_run: Run) -> Review:
    made = masks(odd_run)
    accepted = {i: lambda i=i: made[i] for i in ACCEPTED}
    shown = {i: tags_of_labels(mask, len(odd_run.photos.classes)) for i, mask in made.items()}
    return Review(accepted, shown, frozenset([REJECTED]), "key", "accepted", ReviewSettings(4))


@pytest.fixture
def reviewed(odd_run: Run, review: Review) -> Run:
    return replace(odd_run, review=review)


@pytest.fixture
def targets(odd_run: Run) -> LabelMaps:
    def ones(index: int) -> Labels:
        return np.ones(odd_run.photos.image(index).shape[:2], np.uint8)

    return label_maps(odd_run, Declared("targets"), ones)


def test_without_a_review_nothing_changes(odd_run, targets):
    for run in (odd_run, replace(odd_run, review=Review(acts=Acts(tags=3, photos=3)))):
        given = taught(run, targets)
        assert given.labels is targets
        assert given.photos is run.photos
        assert given.drawn is None
        assert drawn_photos(run, np.arange(4)).tolist() == [0, 1, 2, 3]
    assert odd_run.worked == ["targets"]


def test_labels(reviewed, targets):
    labels = reviewed_labels(reviewed, targets)
    made = masks(reviewed)
    for index in range(len(reviewed.photos)):
        shape = reviewed.photos.image(index).shape[:2]
        if index == REJECTED:
            expected = np.full(shape, IGNORE)
        elif index in ACCEPTED:
            expected = labels_at(made[index], shape)
        else:
            expected = np.ones(shape)
        assert np.array_equal(labels(index), expected), index


def test_labels_of_foreground(reviewed, targets):
    labels = reviewed_labels(reviewed, targets, prefix="a-", by_class=False)
    assert set(np.unique(labels(ACCEPTED[1]))) == {0, 1, IGNORE}


def test_tags_hold_what_accepted_masks_show(reviewed, targets):
    """For the training alone: the run's own tags stay as they are."""
    before = reviewed.photos.tags.copy()
    told = taught(reviewed, targets).photos
    added = told.tags & ~before
    assert [tuple(place) for place in np.argwhere(added)] == [(i, 8) for i in ACCEPTED]
    assert told.dataset.known.all()
    assert not reviewed.photos.dataset.known[UNKNOWN]
    assert np.array_equal(reviewed.photos.tags, before)
    assert told.image(3) is reviewed.photos.image(3)


def test_accepted_photos_are_drawn_more_often(reviewed, targets):
    drawn = taught(reviewed, targets).drawn
    assert drawn is not None
    counts = np.bincount(drawn, minlength=len(reviewed.photos)).tolist()
    expected = [1] * len(reviewed.photos)
    for index in ACCEPTED:
        expected[index] = 4
    expected[REJECTED], expected[NEGATIVE] = 0, 4  # nothing is surer than that no class is there
    assert counts == expected


def test_photos_without_tags_are_like_others_where_tags_say_nothing(reviewed):
    drawn = drawn_photos(reviewed, np.arange(len(reviewed.photos)), by_tags=False)
    counts = np.bincount(drawn)
    assert (counts[NEGATIVE], counts[ACCEPTED[0]], counts[REJECTED]) == (1, 4, 0)


def test_rejected_masks_alone_weigh_nothing(odd_run, targets):
    run = replace(odd_run, review=Review(rejected=frozenset([REJECTED]), key="key"))
    drawn = taught(run, targets).drawn
    assert drawn is not None
    assert drawn.tolist() == [i for i in range(UNKNOWN) if i != REJECTED]


def test_nothing_left(odd_run, targets):
    every = frozenset(range(len(odd_run.photos)))
    run = replace(odd_run, review=Review(rejected=every, key="key"))
    with pytest.raises(TrainingError, match="none is left to learn from"):
        taught(run, targets)


def test_keys(odd_run, review, targets):
    """Of the review, its weight and the labels before; nothing else."""

    def key(changed: Review, prefix: str) -> str:
        return reviewed_labels(replace(odd_run, review=changed), targets, prefix=prefix).stage.key

    keys = [
        key(review, "a-"),
        key(replace(review, key="other"), "b-"),
        key(replace(review, settings=ReviewSettings(5)), "c-"),
    ]
    assert len(set(keys)) == 3
