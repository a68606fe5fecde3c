"""Masks drawn from COCO's objects: the smallest at each pixel, crowds, and what cannot be drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset
from tagseg.errors import MaskError
from tagseg.evaluate import truth_audit
from tagseg.evaluate.truth_audit import audit_truth
from tagseg.formats.coco.regions import Covered
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks import coco_masks
from tagseg.formats.masks.coco_masks import draw_objects
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE

TABLE = [[0, 0, 6, 0, 6, 4, 0, 4]]
FORK = [[1, 1, 3, 1, 3, 3, 1, 3]]
PEOPLE = {"size": [4, 6], "counts": [12, 12]}  # the right half
CLASSES = ("fork", "person", "table")
IDS = {"fork": 48, "person": 1, "table": 67}


def coco(folder: Path, *objects: tuple[str, Any, int], **size: Any) -> Path:
    """A file of one photo ``a``, with objects (class, segmentation, iscrowd)."""
    image = {"id": 5, "file_name": "a.jpg", "height": 4, "width": 6} | size
    whole = {
        "images": [image],
        "annotations": [
            {"image_id": 5, "category_id": IDS[name], "segmentation": outline, "iscrowd": crowd}
            for name, outline, crowd in objects
        ],
        "categories": [{"id": number, "name": name} for name, number in IDS.items()],
    }
    path = folder / "instances_val.json"
    path.write_text(json.dumps(whole))
    return path


def labels(path: Path, classes: tuple[str, ...] = CLASSES) -> list[list[int]]:
    return GroundTruth(path, classes).labels("a", (4, 6)).tolist()


@pytest.mark.parametrize("order", [1, -1])
def test_the_smallest_object_has_the_pixel(tmp_path, order):
    objects = [("table", TABLE, 0), ("fork", FORK, 0)][::order]
    expected = np.full((4, 6), 3)
    expected[1:3, 1:3] = 1
    assert labels(coco(tmp_path, *objects)) == expected.tolist()


def test_crowds_do_not_count_where_no_single_object_is(tmp_path):
    path = coco(tmp_path, ("person", PEOPLE, 1), ("fork", [[2, 0, 5, 0, 5, 2, 2, 2]], 0))
    expected = np.zeros((4, 6), int)
    expected[:, 3:] = IGNORE
    expected[:2, 2:5] = 1
    assert labels(path) == expected.tolist()
    assert labels(path, ("fork",)) == np.where(expected == IGNORE, 0, expected).tolist()


def test_categories_meet_classes_by_name(tmp_path):
    path = coco(tmp_path, ("table", TABLE, 0), ("fork", FORK, 0))
    truth = GroundTruth(path, ("table", "chair"))
    assert truth.notes == (
        "instances_val.json: ground truth of 1 photos, the smallest object at each pixel; "
        "person, fork count as background",
    )
    expected = np.ones((4, 6), int)
    expected[1:3, 1:3] = 0
    assert truth.labels("a", (4, 6)).tolist() == expected.tolist()
    with pytest.raises(MaskError, match=r"categories \(.*\) are none of the classes \(dog\)"):
        GroundTruth(path, ("dog",))


def test_a_photo_without_objects_is_background(tmp_path):
    assert labels(coco(tmp_path)) == np.zeros((4, 6)).tolist()


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_as_a_slow_reading_of_the_rule(seed, count):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, 5, 7)) < rng.random((count, 1, 1))
    of = rng.choice([1, 2, 3, IGNORE], count)
    expected = np.zeros((5, 7), int)
    for y, x in np.ndindex(5, 7):
        single = [(masks[i].sum(), i) for i in range(count) if masks[i, y, x] and of[i] != IGNORE]
        crowd = any(masks[i, y, x] for i in range(count))
        expected[y, x] = of[min(single)[1]] if single else IGNORE if crowd else 0
    objects = [(Covered(0, mask), int(label)) for mask, label in zip(masks, of, strict=True)]
    assert np.array_equal(draw_objects(objects, (5, 7)), expected)


def test_columns_from_the_left_one_on():
    region = Covered(2, np.ones((3, 2), bool))
    assert draw_objects([(region, 7)], (3, 5)).tolist() == [[0, 0, 7, 7, 0]] * 3


@pytest.mark.parametrize(
    ("objects", "size", "line"),
    [
        ([("fork", None, 0)], {}, "annotations[0]: has no segmentation"),
        ([("fork", {"size": [5, 6], "counts": [30]}, 0)], {}, "of a photo of size [5, 6]"),
        ([("fork", {"size": [4, 6], "counts": "!"}, 1)], {}, "its counts are no run lengths"),
        ([], {"height": None}, "images[0]: has no height and width; give them there"),
        ([], {"width": -3}, "images[0]: has no height and width"),
        ([], {"width": 2.5}, "images[0]: has no height and width"),
        ([], {"width": 10**9, "height": 10**9}, "over the limit of"),
        ([("fork", FORK, 0)], {"height": 9}, "the mask is 9 x 6 (uint8), the photo 4 x 6"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, objects, size, line):
    with pytest.raises(MaskError) as caught:
        labels(coco(tmp_path, *objects, **size))
    assert line in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "instances_val.json"))


def test_a_file_that_is_no_list_or_names_a_photo_twice(tmp_path):
    path = tmp_path / "instances_x.json"
    path.write_text('{"shapes": []}')
    with pytest.raises(MaskError, match="is no COCO file"):
        GroundTruth(path, CLASSES)
    path.write_text('{"images": [')
    with pytest.raises(MaskError, match="line 1: not JSON"):
        GroundTruth(path, CLASSES)
    whole = json.loads(coco(tmp_path).read_text())
    whole["images"] += [{"id": 6, "file_name": "a.png"}]
    path.write_text(json.dumps(whole))
    with pytest.raises(MaskError, match=r"images\[1\]: 'a\.png' is named twice; keep one"):
        GroundTruth(path, CLASSES)


def test_the_state_changes_with_the_file_and_the_labels(tmp_path):
    def state(classes: tuple[str, ...] = CLASSES) -> object:
        return list(GroundTruth(path, classes).states())

    path = coco(tmp_path, ("fork", FORK, 0))
    first = state()
    assert first == state()
    assert first != state(CLASSES[::-1])
    coco(tmp_path, ("fork", FORK, 0), ("table", TABLE, 0))
    assert first != state()


@pytest.fixture
def photos(tmp_path) -> Dataset:
    PilImage.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    coco(tmp_path, ("table", TABLE, 0), ("person", PEOPLE, 1))
    return load_dataset(tmp_path)


def test_the_audit_draws_all_masks_and_finds_what_is_wrong(tmp_path, photos):
    found = audit_truth(GroundTruth(tmp_path, photos.classes), photos)
    assert (found.masks, found.errors, found.warnings) == (
        1, (), ("class 'person' is tagged in 1 photos with masks, and no mask holds it",)
    )  # fmt: skip
    assert found.per_class == {"person": 0, "fork": 0, "table": 1}
    coco(tmp_path, ("table", {"size": [4, 6], "counts": [3]}, 0))
    (problem,) = audit_truth(GroundTruth(tmp_path, photos.classes), photos).errors
    assert "annotations[0]: its run lengths do not fill 4 x 6 pixels" in str(problem)


def test_what_drawn_masks_hold_is_kept(tmp_path, photos, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(truth_audit, "_WORTH_KEEPING", 0.0)
    drawn = []
    monkeypatch.setattr(
        coco_masks, "draw_objects", lambda *of: drawn.append(1) or draw_objects(*of)
    )

    def counts() -> list[object]:
        found = audit_truth(GroundTruth(tmp_path, photos.classes), photos)
        return [found.per_class, found.masks, len(drawn)]

    assert counts() == [{"person": 0, "fork": 0, "table": 1}, 1, 1]
    assert counts() == [{"person": 0, "fork": 0, "table": 1}, 1, 1]
    coco(tmp_path, ("table", TABLE, 0), ("fork", FORK, 0))
    assert counts() == [{"person": 0, "fork": 1, "table": 1}, 1, 2]


def test_crowds_alone_are_no_black_and_white_masks(tmp_path, photos):
    coco(tmp_path, ("person", PEOPLE, 1))
    assert not audit_truth(GroundTruth(tmp_path, photos.classes), photos).errors


def test_masks_of_a_target_are_renumbered(tmp_path, photos):
    own = GroundTruth(tmp_path, photos.classes)
    joined = GroundTruth({}, ("table",)).with_target(own)
    assert set(joined.labels("target/a", (4, 6)).ravel().tolist()) == {1}
    assert replace(own.mask("a"), ids=None).content().shape == (4, 6)
