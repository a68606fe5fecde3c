"""A review beside a data set: what fits, what is told, which tags come out, what keys are of."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from small_reviews import AT, accepted, rejected, retagged, write_review
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.errors import DataError, MaskError, TagError
from tagseg.formats.review import Cleared
from tagseg.maps import IGNORE
from tagseg.run.progress import Progress
from tagseg.session.reviewing import OpenReview, ReviewSource, open_review
from tagseg.stages.review import Acts, Review

CLASSES = ("cat", "dog", "traffic light")
NAMES = ("a", "b", "c", "d")
SHAPE = (4, 6)
MASK = np.array([[0, 1, 2, 3, IGNORE, 0]] * 4, np.uint8)


@pytest.fixture
def photos() -> Dataset:
    pictures = [np.full((*SHAPE, 3), i, np.uint8) for i in range(4)]
    dataset = Dataset.from_arrays(pictures, [["cat"], ["dog"], [], ["cat", "dog"]], CLASSES, NAMES)
    return replace(dataset, known=np.array([True, True, False, True]))


class Told:
    """Progress, and what was said."""

    def __init__(self) -> None:
        self._out = StringIO()
        self.progress = Progress(Console(file=self._out, width=500))

    @property
    def said(self) -> str:
        return self._out.getvalue()


def opened(photos: Dataset, path: Any, told: Told | None = None, **more: Any) -> OpenReview:
    told = told if told is not None else Told()
    return open_review(ReviewSource(path), photos, more.pop("val", ()), told.progress, **more)


def reviewed(photos: Dataset, path: Any, told: Told | None = None) -> Review:
    told = told if told is not None else Told()
    working = WorkingPhotos(photos, 6)
    return opened(photos, path, told).of(working, told.progress)


def test_tags(photos, tmp_path):
    acts = [retagged("a", ["dog"], ["cat"]), retagged("c", ["cat"]), retagged("b")]
    changed = opened(photos, write_review(tmp_path, CLASSES, acts)).retagged(photos)
    assert changed.tags.tolist() == [
        [False, True, False],
        [False, True, False],
        [True, False, False],
        [True, True, False],
    ]
    assert changed.known.all()
    assert changed.names == photos.names
    assert photos.tags[0].tolist() == [True, False, False]


def test_marks_of_tags(photos, tmp_path):
    """What a person adds is no longer unsure, and what is removed is surely absent."""
    unsure = np.zeros((4, 3), bool)
    unsure[0, 1] = unsure[1, 2] = unsure[1, 0] = True
    marked = replace(photos, unsure=unsure)
    acts = [retagged("a", ["dog"], ["cat"]), retagged("b", [], ["traffic light"])]
    changed = opened(marked, write_review(tmp_path, CLASSES, acts)).retagged(marked)
    assert changed.unsure is not None
    assert changed.absent is not None
    assert np.argwhere(changed.unsure).tolist() == [[1, 0]]
    assert np.argwhere(changed.absent).tolist() == [[0, 0], [1, 2]]


def test_without_changes_it_is_the_same_data_set(photos, tmp_path):
    path = write_review(tmp_path, CLASSES, [rejected("a"), retagged("b")])
    changed = opened(photos, path).retagged(photos)
    assert changed.fingerprint() == photos.fingerprint()


def test_masks_are_matched_by_the_names_of_classes(photos, tmp_path):
    path = write_review(
        tmp_path, ("traffic\u00a0light", "dog", "cat"), [accepted(tmp_path, "a", MASK)]
    )
    mask = reviewed(photos, path).accepted[0]()
    assert mask[0].tolist() == [0, 3, 2, 1, IGNORE, 0]


def test_last_acts_count(photos, tmp_path):
    first, second = accepted(tmp_path, "a", MASK), accepted(tmp_path, "a", 0 * MASK, "corrected", 2)
    acts = [first, second, rejected("b"), accepted(tmp_path, "c", MASK, "pick"), rejected("d")]
    acts += [retagged("d", ["traffic light"]), Cleared(photo="b", at=AT)]
    found = reviewed(photos, write_review(tmp_path, CLASSES, acts))
    assert sorted(found.accepted) == [0, 2]
    assert found.rejected == {3}
    assert not found.accepted[0]().any()
    assert found.acts == Acts(0, 1, 1, 1, 1, 3, 7)


def test_validation_photos(photos, tmp_path):
    told = Told()
    acts = [rejected("a"), accepted(tmp_path, "b", MASK), retagged("b", ["cat"])]
    review = opened(photos, write_review(tmp_path, CLASSES, acts), told, val=["b"])
    assert list(review.standing) == ["a"]
    assert "as they are on validation photos, of which nothing is learned: b" in told.said
    assert np.array_equal(review.retagged(photos).tags, photos.tags)


def test_photos_that_cannot_be_used(photos, tmp_path):
    told = Told()
    review = opened(photos, write_review(tmp_path, CLASSES, [rejected("a"), rejected("b")]))
    found = review.of(WorkingPhotos(photos.without(["b"]), 6), told.progress)
    assert found.rejected == {0}
    assert "photos that cannot be used: b" in told.said


def test_classes_that_are_no_tags_are_told(photos, tmp_path):
    told = Told()
    acts = [accepted(tmp_path, name, MASK) for name in ("a", "c")]
    reviewed(photos, write_review(tmp_path, CLASSES, acts), told)
    assert "masks show classes that their photos' tags lack" in told.said
    assert told.said.strip().endswith("too (1): a")


def test_a_torn_line_is_told(photos, tmp_path):
    told = Told()
    path = write_review(tmp_path, CLASSES, [rejected("a"), rejected("b")])
    path.write_bytes(path.read_bytes()[:-5])
    assert opened(photos, path, told).standing.keys() == {"a"}
    assert "note: review.jsonl: the last line (3) was cut short and is ignored" in told.said


def test_unknown_photos_and_classes(photos, tmp_path):
    with pytest.raises(DataError, match=r"review\.jsonl, line 3: photo 'e' is not in the data set"):
        opened(photos, write_review(tmp_path, CLASSES, [rejected("a"), rejected("e")]))
    with pytest.raises(TagError, match="class 'cats' is not one of the data set; did you mean cat"):
        opened(photos, write_review(tmp_path, ("cats",), []))


def test_masks_of_foreground(photos, tmp_path):
    path = write_review(tmp_path, ("foreground",), [])
    with pytest.raises(TagError, match="'foreground' is not one of"):
        opened(photos, path)
    assert opened(photos, path, by_class=False).labels[:3].tolist() == [0, 1, IGNORE]


def test_a_mask_that_does_not_fit(photos, tmp_path):
    path = write_review(tmp_path, CLASSES, [accepted(tmp_path, "a", MASK[:, :5].copy())])
    with pytest.raises(MaskError, match="has 5 x 4 pixels, its photo 6 x 4"):
        reviewed(photos, path)


def test_keys(photos, tmp_path):
    """Of masks, photos and classes; not of times, ways to a mask, tags or acts of before."""
    one = [accepted(tmp_path, "a", MASK), rejected("b")]
    first = reviewed(photos, write_review(tmp_path, CLASSES, one))
    same = [
        [rejected("a"), accepted(tmp_path, "a", MASK, "corrected", 3), rejected("b")],
        [*one, retagged("c", ["cat"])],
        one[::-1],
    ]
    for acts in same:
        again = reviewed(photos, write_review(tmp_path, CLASSES, acts))
        assert (again.key, again.accepted_key) == (first.key, first.accepted_key)
    others = [
        [one[0]],
        [one[0], rejected("c")],
        [accepted(tmp_path, "a", 0 * MASK, number=4), rejected("b")],
    ]
    keys = {reviewed(photos, write_review(tmp_path, CLASSES, acts)).key for acts in others}
    assert len(keys | {first.key}) == 4
    turned = reviewed(photos, write_review(tmp_path, CLASSES[::-1], one))
    assert turned.key != first.key
    assert reviewed(photos, write_review(tmp_path, CLASSES, others[1])).accepted_key == (
        first.accepted_key
    )
