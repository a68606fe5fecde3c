from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.evaluate.boundary import TrimapAccuracy

WIDTHS = (1, 2, 3, 5, 9)


def counted(*pairs, widths=WIDTHS) -> TrimapAccuracy:
    trimap = TrimapAccuracy(widths)
    for prediction, truth in pairs:
        trimap.update(prediction, truth)
    return trimap


def random_pair(seed: int, shape: tuple[int, int] = (14, 17), share: float = 0.02):
    """Blobs of labels 0 to 3 with some 255, and a prediction that is often right."""
    rng = np.random.default_rng(seed)
    rows, columns = (shape[0] + 4) // 5, (shape[1] + 4) // 5
    coarse = rng.choice([0, 0, 1, 2, 3], (rows, columns)).astype(np.uint8)
    truth = np.kron(coarse, np.ones((5, 5), np.uint8))[: shape[0], : shape[1]]
    edge = np.zeros(shape, bool)
    edge[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    truth[edge & (rng.random(shape) < 0.7)] = 255
    truth[rng.random(shape) < share] = 255
    prediction = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, 5, shape))
    return prediction.astype(np.uint8), truth


def filled_by_loops(truth) -> list[list[int]]:
    """Every 255 gets the nearest label; of equally near ones the lowest."""
    pixels = [(y, x) for y in range(truth.shape[0]) for x in range(truth.shape[1])]
    known = [(y, x, int(truth[y, x])) for y, x in pixels if truth[y, x] != 255]
    result = truth.astype(int).tolist()
    for y, x in pixels:
        if truth[y, x] == 255 and known:
            result[y][x] = min(((y - v) ** 2 + (x - u) ** 2, label) for v, u, label in known)[1]
    return result


def counts_by_loops(prediction, truth, width: int) -> tuple[int, int]:
    """Pixels, and right ones, nearer than ``width`` to a pixel beside one of another label."""
    height, length = truth.shape
    filled = filled_by_loops(truth)
    boundary = [
        (y, x)
        for y in range(height)
        for x in range(length)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        if 0 <= v < height and 0 <= u < length and filled[v][u] != filled[y][x]
    ]
    pixels = right = 0
    for y in range(height):
        for x in range(length):
            near = any(math.hypot(y - v, x - u) < width for v, u in boundary)
            if truth[y, x] != 255 and near:
                pixels += 1
                right += int(prediction[y, x] == truth[y, x])
    return pixels, right


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_are_those_of_the_loops(seed: int) -> None:
    prediction, truth = random_pair(seed)
    trimap = counted((prediction, truth))
    expected = [counts_by_loops(prediction, truth, width) for width in WIDTHS]
    assert list(zip(trimap.pixels.tolist(), trimap.right.tolist(), strict=True)) == expected
    accuracy = [right / pixels if pixels else math.nan for pixels, right in expected]
    np.testing.assert_allclose(trimap.accuracy(), accuracy, rtol=1e-12)


def test_width_is_the_number_of_pixels_on_either_side() -> None:
    truth = np.zeros((4, 40), np.uint8)
    truth[:, 20:] = 1
    trimap = counted((truth, truth), widths=range(1, 25))
    assert trimap.pixels.tolist() == [4 * min(2 * width, 40) for width in range(1, 25)]
    assert (trimap.accuracy() == 1).all()


def test_errors_at_the_boundary_fade_with_the_width() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:] = 1
    prediction = np.roll(truth, 2, axis=1)
    prediction[:, :5] = 0
    accuracy = counted((prediction, truth), widths=(1, 2, 4, 8)).accuracy()
    np.testing.assert_allclose(accuracy, [1 / 2, 1 / 2, 3 / 4, 7 / 8])


def test_a_band_of_255_between_objects_does_not_hide_or_move_the_boundary() -> None:
    y, x = np.mgrid[:60, :80]
    clean = (np.hypot(y - 30, x - 40) < 18).astype(np.uint8)
    band = clean.copy()
    band[np.abs(np.hypot(y - 30, x - 40) - 18) < 2.5] = 255  # VOC draws about five pixels
    prediction = np.roll(clean, 4, axis=1)
    widths = (6, 9, 12)
    with_band, without = (counted((prediction, truth), widths=widths) for truth in (band, clean))
    hidden, length = int((band == 255).sum()), 2 * np.pi * 18
    moved = (with_band.pixels + hidden - without.pixels) / length
    assert np.abs(moved).max() < 0.5, "less than a pixel on both sides together"
    assert counted((prediction, band), widths=(1,)).pixels.tolist() == [0]
    assert np.isnan(counted((prediction, band), widths=(1,)).accuracy()).all()


@pytest.mark.parametrize("width", [2, 4, 6])
def test_the_boundary_runs_along_the_middle_of_a_straight_band(width: int) -> None:
    truth = np.zeros((5, 40), np.uint8)
    truth[:, 20:] = 3
    truth[:, 20 - width // 2 : 20 + width // 2] = 255
    trimap = counted((truth, truth), widths=range(1, 11))
    expected = [10 * max(w - width // 2, 0) for w in range(1, 11)]
    assert trimap.pixels.tolist() == expected


def test_a_255_area_within_one_label_and_the_photo_edge_are_no_boundaries() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 255
    assert counted((truth, truth)).pixels.sum() == 0
    assert counted((truth, np.full((20, 20), 255, np.uint8))).pixels.sum() == 0
    assert counted((truth[:0], truth[:0])).pixels.sum() == 0


def test_a_prediction_of_255_is_wrong() -> None:
    truth = np.array([[0, 1]], np.uint8)
    assert counted((np.array([[255, 1]], np.uint8), truth)).accuracy()[0] == 0.5


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_photos_add_up_and_turned_photos_count_the_same(seed: int) -> None:
    pairs = [random_pair(seed + i, (20, 30)) for i in range(3)]
    whole, first = counted(*pairs), counted(pairs[0])
    total = first + counted(*pairs[1:])
    turned = counted(*((np.rot90(p), np.rot90(t)) for p, t in pairs))
    for other in (total, turned):
        np.testing.assert_array_equal(other.pixels, whole.pixels)
        np.testing.assert_array_equal(other.right, whole.right)
    assert (np.diff(whole.pixels) >= 0).all()


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_names_of_labels_do_not_matter(seed: int, order: list[int]) -> None:
    prediction, truth = random_pair(seed, share=0)
    truth[truth == 255] = 0  # which of two equally near labels a 255 gets depends on their names
    names = np.arange(256, dtype=np.uint8)
    names[:5] = order
    one, other = counted((prediction, truth)), counted((names[prediction], names[truth]))
    assert one.to_dict() == other.to_dict()


def test_json() -> None:
    truth = np.array([[0, 255, 255, 255, 1]], np.uint8)
    data = json.loads(json.dumps(counted((truth, truth), widths=(1, 2, 3)).to_dict()))
    assert data == {
        "widths": [1, 2, 3],
        "pixels": [0, 1, 2],
        "right": [0, 1, 2],
        "accuracy": [None, 1.0, 1.0],
    }


def test_the_band_is_that_of_a_dilated_boundary() -> None:
    _, truth = random_pair(5, (90, 120), share=0)
    truth[truth == 255] = 0
    boundary = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, cv2.getStructuringElement(1, (3, 3)))
    y, x = np.mgrid[-4:5, -4:5]
    disc = (np.hypot(y, x) < 5).astype(np.uint8)
    band = cv2.dilate((boundary > 0).astype(np.uint8), disc)
    assert counted((truth, truth), widths=(5,)).pixels[0] == band.sum()


@pytest.mark.parametrize("widths", [(), (0, 1), (3, 2), (2, 2), (1.5,), ("a",), (-1,)])
def test_impossible_widths(widths) -> None:
    with pytest.raises(ConfigError, match="band widths"):
        TrimapAccuracy(widths)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), "prediction is a float64"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.uint8), "truth is a uint8"),
        ([[0]], np.zeros((1, 1), np.uint8), "prediction is a list"),
    ],
)
def test_what_does_not_fit_is_refused(prediction, truth, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as error:
        counted((prediction, truth))
    assert "\n" not in str(error.value)


def test_other_widths_do_not_add_up() -> None:
    with pytest.raises(ShapeError, match="do not add up"):
        TrimapAccuracy((1, 2)) + TrimapAccuracy((1, 3))
