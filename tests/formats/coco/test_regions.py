"""Pixels of objects, compared with pycocotools'."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle

from tagseg.errors import MaskError
from tagseg.formats.coco.regions import covered, polygon_pixels, run_pixels, unpacked_counts
from tagseg.formats.export.rle import runs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDES = st.integers(1, 40)


def whole(segmentation, shape):
    left, pixels = covered(segmentation, shape, "here")
    mask = np.zeros(shape, bool)
    mask[:, left : left + pixels.shape[1]] = pixels
    return mask


@st.composite
def outlines(draw):
    """Up to three polygons in and around a photo, of coarse and of fine coordinates."""
    height, width = draw(SIDES), draw(SIDES)
    fine = draw(st.sampled_from([1, 2, 10, 100, 1000]))
    x, y = (st.integers(-fine * s, 2 * fine * s).map(lambda v: v / fine) for s in (width, height))
    points = st.lists(st.tuples(x, y), min_size=3, max_size=12)
    rings = draw(st.lists(points, min_size=1, max_size=3))
    return [[float(value) for point in ring for value in point] for ring in rings], (height, width)


@given(outlines())
@settings(max_examples=400, derandomize=True, deadline=None)
def test_polygons_are_pycocotools_to_the_pixel(outline):
    polygons, shape = outline
    expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, *shape)))
    assert np.array_equal(whole(polygons, shape), expected)


@given(st.integers(0, 2**32 - 1), SIDES, SIDES, st.floats(0, 1))
@settings(max_examples=150, derandomize=True, deadline=None)
def test_run_lengths_packed_or_not(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    packed = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    plain = runs(mask.T).tolist()
    for counts in (packed, plain):
        found = whole({"size": [height, width], "counts": counts}, (height, width))
        assert np.array_equal(found, mask)


def test_long_runs():
    mask = np.zeros((1000, 2000), bool)
    mask[300:301, 500:1900] = True
    mask[:, 1990:] = True
    packed = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(unpacked_counts(packed, "here"), runs(mask.T))


@given(st.text(st.characters(min_codepoint=33, max_codepoint=130), max_size=30))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_text_is_run_lengths_or_one_line(text):
    problem, pixels = "", None
    try:
        pixels = run_pixels(unpacked_counts(text, "here"), (4, 5), "here")
    except MaskError as error:
        problem = str(error)
    assert problem.startswith("here: its ") if pixels is None else pixels.shape == (4, 5)


def test_one_square():
    square = np.array([[1, 1], [3, 1], [3, 4], [1, 4]], float)
    expected = np.zeros((5, 6), bool)
    expected[1:4, 1:3] = True
    assert np.array_equal(polygon_pixels(square, (5, 6)), expected)
    assert np.array_equal(polygon_pixels(square, (5, 2), 2), expected[:, 2:4])


@pytest.mark.parametrize(
    ("segmentation", "line"),
    [
        (None, "has no segmentation; export with outlines, not boxes"),
        ([], "has no segmentation"),
        ("abc", "has no segmentation"),
        ([[1, 1, 2, 2]], "no list of at least three points"),
        ([[1, 1, 2, 2, 3]], "no list of at least three points"),
        ([[1, 1, 2, "2", 3, 3]], "no list of at least three points"),
        ([[1, 1, 2, True, 3, 3]], "no list of at least three points"),
        ([[1, 1, 2, float("nan"), 3, 3]], "no list of at least three points"),
        ([1, 1, 2, 2, 3, 3], "no list of at least three points"),
        ([[1, 1, 2, 2, 3, 300]], "a point (3, 300) far outside of its image, which is 4 x 6"),
        ([[0, 0, 6, 4] * 60_000], "a polygon of over 1,048,576 pixels' length"),
        ({"counts": [24]}, "its run lengths are of a photo of size None, the image is 4 x 6"),
        ({"size": [6, 4], "counts": [24]}, "of a photo of size [6, 4], the image is 4 x 6"),
        ({"size": [4, 6], "counts": [20]}, "its run lengths do not fill 4 x 6 pixels"),
        ({"size": [4, 6], "counts": [30, -6]}, "its run lengths do not fill 4 x 6 pixels"),
        ({"size": [4, 6], "counts": [10**30]}, "its counts are no run lengths"),
        ({"size": [4, 6], "counts": [24.0]}, "its counts are no run lengths"),
        ({"size": [4, 6], "counts": {}}, "its counts are no run lengths"),
        ({"size": [4, 6], "counts": ""}, "its counts are no run lengths"),
        ({"size": [4, 6], "counts": "PPPPPPPPPP0"}, "its counts are no run lengths"),
        ({"size": [4, 6], "counts": "h\u00e9"}, "its counts are no run lengths"),
    ],
)
def test_what_is_wrong(segmentation, line):
    with pytest.raises(MaskError) as caught:
        covered(segmentation, (4, 6), "here")
    assert str(caught.value).startswith("here: ")
    assert line in str(caught.value)
