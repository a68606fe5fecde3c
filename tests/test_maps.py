from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.maps import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    as_float32,
    check_image,
    check_labels,
    check_maps,
    label_of_tag,
    labels_of_tags,
    tags_of_labels,
)


def test_the_numbers_that_files_and_papers_rely_on() -> None:
    assert (BACKGROUND, IGNORE, MAX_CLASSES) == (0, 255, 254)
    assert label_of_tag(0) == 1
    assert label_of_tag(MAX_CLASSES - 1) == 254 != IGNORE


@settings(derandomize=True, max_examples=40, deadline=None)
@given(present=st.lists(st.booleans(), min_size=1, max_size=MAX_CLASSES))
def test_tags_and_labels_convert_both_ways(present: list[bool]) -> None:
    tags = np.array(present)
    labels = labels_of_tags(tags)
    assert labels.tolist() == [0] + [label_of_tag(k) for k, here in enumerate(present) if here]
    picture = np.append(labels, IGNORE).astype(np.uint8)[None]
    np.testing.assert_array_equal(tags_of_labels(picture, len(tags)), tags)


def test_only_classes_that_exist_become_tags() -> None:
    picture = np.array([[0, 2, 255], [5, 2, 0]], np.uint8)
    assert tags_of_labels(picture, 3).tolist() == [False, True, False]
    assert tags_of_labels(np.zeros((2, 2), np.uint8), 2).tolist() == [False, False]


def test_good_values_pass_as_they_are() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    labels = np.array([[0, 2, 255]], np.uint8)
    maps = np.zeros((2, 4, 5), np.float32)
    assert check_image(image) is image
    assert check_labels(labels, 2) is labels
    assert check_maps(maps, (4, 5), "score_map") is maps


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2, 3]], "photo is a list; give a uint8"),
        (None, "photo is a NoneType"),
        (np.zeros((2, 2, 3)), "photo is a float64 array of shape"),
        (np.zeros((2, 2), np.uint8), r"photo has shape \(2, 2\); give"),
        (np.zeros((2, 2, 4), np.uint8), r"photo has shape \(2, 2, 4\)"),
        (np.zeros((0, 2, 3), np.uint8), r"photo has shape \(0, 2, 3\)"),
    ],
)
def test_what_is_no_photo_is_named(value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_image(value, "photo")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2), np.int64), "labels is a int64 array"),
        (np.zeros((2, 2, 1), np.uint8), "labels is a uint8 array of shape"),
        ("labels", "labels is a str"),
        (np.array([[0, 3]], np.uint8), "holds label 3, but there are 2 classes and background"),
        (np.array([[254]], np.uint8), "holds label 254"),
    ],
)
def test_what_are_no_labels_is_named(value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_labels(value, 2)


def test_floats_of_any_width_become_float32_and_nothing_else_does() -> None:
    values = np.array([0.1, 1e300])
    np.testing.assert_array_equal(as_float32(values), np.array([0.1, np.inf], np.float32))
    assert as_float32(values).dtype == as_float32(np.ones(2, np.float16)).dtype == np.float32
    for same in (np.ones(2, np.float32), np.ones(2, np.int64), np.ones(2, bool), [0.5], None):
        assert as_float32(same) is same


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 4, 5)), "score_map is a float64 array"),
        (np.zeros((4, 5), np.float32), "score_map is a float32 array of shape"),
        (np.zeros((2, 5, 4), np.float32), r"has shape \(2, 5, 4\), the photo is 4 x 5"),
        (np.full((2, 4, 5), np.nan, np.float32), "score_map holds NaN or infinity"),
        (np.full((2, 4, 5), -np.inf, np.float32), "score_map holds NaN or infinity"),
    ],
)
def test_what_are_no_maps_is_named(value: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_maps(value, (4, 5), "score_map")
