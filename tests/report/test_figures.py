from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tagseg.data.masks import voc_palette
from tagseg.errors import ShapeError
from tagseg.report.figures import (
    average_picture,
    average_sheet,
    colour_labels,
    colour_map,
    data_uri,
    legend,
    overlay,
    shrink,
)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (40, 60, 3), dtype=np.uint8)


def test_overlay_keeps_the_background_and_mixes_the_rest(photo) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:40] = 2
    before = photo.copy()
    result = overlay(photo, labels, alpha=0.25)
    np.testing.assert_array_equal(result[:9], photo[:9])
    np.testing.assert_array_equal(photo, before)
    expected = np.rint(0.75 * photo[20, 30] + 0.25 * voc_palette()[2].astype(float))
    assert np.abs(result[20, 30] - expected).max() <= 1
    assert (result[10, 25] == 255).all(), "the contour is white"
    assert (result[20, 40] == 255).all(), "on the far side too"


def test_overlay_hatches_ignored_pixels(photo) -> None:
    result = overlay(photo, np.full((40, 60), 255, np.uint8))
    white = (result == 255).all(axis=-1)
    assert 0.2 < white.mean() < 0.3
    np.testing.assert_array_equal(result[~white], photo[~white])


def test_contours_of_large_photos_are_thicker() -> None:
    photo = np.zeros((64, 1280, 3), np.uint8)
    labels = np.zeros((64, 1280), np.uint8)
    labels[:, 640:] = 1
    assert (overlay(photo, labels, alpha=0)[32] == 255).all(axis=-1).sum() == 4


def test_overlay_takes_any_palette(photo) -> None:
    palette = np.full((256, 3), 7, np.uint8)
    labels = np.ones((40, 60), np.uint8)
    assert (overlay(photo, labels, palette, alpha=1) == 7).all()
    assert (colour_labels(labels, palette) == 7).all()


def test_heat_rises_with_the_score_and_clips() -> None:
    heat = colour_map(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]], np.float32)).sum(axis=-1)[0]
    assert heat[0] == heat[1] < heat[2] < heat[3] == heat[4]


def test_heat_over_a_photo_shows_both(photo) -> None:
    flat = colour_map(np.full((40, 60), 0.5, np.float32), photo)
    assert flat.dtype == np.uint8
    assert flat.std(axis=(0, 1)).min() > 1, "the photo's structure shows"
    low = colour_map(np.zeros((40, 60), np.float32), photo)
    assert (flat.astype(int) >= low).all()
    assert flat.mean() > low.mean() + 20


@pytest.mark.parametrize("shape", [(40, 59), (60, 40), (1, 40, 60)])
def test_planes_that_do_not_fit_their_photo_are_refused(photo, shape) -> None:
    with pytest.raises(ShapeError, match="labels has shape"):
        overlay(photo, np.zeros(shape, np.uint8))
    with pytest.raises(ShapeError, match="score map"):
        colour_map(np.zeros(shape, np.float32), photo)
    with pytest.raises(ShapeError, match="score map"):
        colour_map(np.full((40, 60), np.nan, np.float32), photo)


def test_legend_colours_are_the_palette() -> None:
    assert legend(["background", "cat", "dog"]) == [
        ("background", "#000000"),
        ("cat", "#800000"),
        ("dog", "#008000"),
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((300, 600), (120, 240)),
        ((1000, 2), (240, 1)),
        ((30, 40), (30, 40)),
        ((240, 240), (240, 240)),
    ],
)
def test_shrink_bounds_the_longer_side_and_never_enlarges(shape, expected) -> None:
    assert shrink(np.zeros((*shape, 3), np.uint8), 240).shape == (*expected, 3)


def test_data_uri_holds_the_picture() -> None:
    image = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    kind, data = data_uri(image).split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
        assert np.abs(np.asarray(decoded.convert("RGB")).astype(int) - image).max() < 8


def test_an_average_is_as_bright_as_its_own_maximum() -> None:
    average = np.array([[0.0, 0.1], [0.2, 0.05]])
    np.testing.assert_array_equal(
        average_picture(average), colour_map((average / 0.2).astype(np.float32))
    )
    assert not average_picture(np.zeros((2, 2)))[..., 0].any()


def test_a_sheet_leaves_empty_places_white() -> None:
    maps = np.stack([np.ones((64, 64)), np.zeros((64, 64))])
    sheet = average_sheet([("one", maps), ("two", maps[::-1])], ["cat", "a long name of a class"])
    heat = (sheet == average_picture(maps[0])[0, 0]).all(-1)
    assert heat.sum() == 2 * 96 * 96
    rows, columns = (np.flatnonzero(heat.any(axis)) for axis in (1, 0))
    assert len(rows) == len(columns) == 2 * 96, "one above left of the other"
