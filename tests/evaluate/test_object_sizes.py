"""IoU of components by their size, against sets of pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tagseg.errors import ConfigError, ShapeError
from tagseg.evaluate import ObjectSizes
from tagseg.maps import Labels

Pixel = tuple[int, int]


def components(pixels: set[Pixel]) -> list[set[Pixel]]:
    """Pixels that touch, at corners too, one set after another."""
    left, found = set(pixels), []
    while left:
        grown = {left.pop()}
        edge = set(grown)
        while edge:
            near = {
                (y + dy, x + dx)
                for y, x in edge
                for dy, dx in itertools.product((-1, 0, 1), repeat=2)
            }
            edge = (near & left) - grown
            grown |= edge
            left -= edge
        found.append(grown)
    return found


def by_sets(prediction: Labels, truth: Labels) -> list[tuple[float, float]]:
    rows = []
    known = {(y, x) for y, x in np.ndindex(truth.shape) if truth[y, x] != 255}
    for label in set(truth.ravel().tolist()) - {0, 255}:
        true = components({p for p in known if truth[p] == label})
        found = components({p for p in known if prediction[p] == label})
        for one in true:
            others = set().union(*(other for other in true if other is not one))
            touching = set().union(*(part for part in found if part & one)) - others
            rows.append((len(one) / truth.size, len(one & touching) / len(one | touching)))
    return rows


@settings(derandomize=True, max_examples=60, deadline=None)
@given(data=st.data(), shape=array_shapes(min_dims=2, max_dims=2, max_side=7))
def test_components_are_those_of_sets_of_pixels(
    data: st.DataObject, shape: tuple[int, int]
) -> None:
    values = st.sampled_from([0, 1, 2, 255])
    truth, prediction = (data.draw(arrays(np.uint8, shape, elements=values)) for _ in range(2))
    sizes = ObjectSizes()
    sizes.update(prediction, truth)
    expected = by_sets(prediction, truth)
    found = sizes.parts(max(1, len(expected)))
    assert sorted(round(part.largest, 9) for part in found) == sorted(
        round(area, 9) for area, _ in expected
    )
    assert sum(part.components * part.iou for part in found) == pytest.approx(
        sum(iou for _, iou in expected)
    )


def test_parts_are_of_equal_number_and_smallest_first() -> None:
    sizes = ObjectSizes()
    for side in (3, 1, 2, 4):
        truth = np.zeros((10, 10), np.uint8)
        truth[:side, :side] = 1
        prediction = np.zeros_like(truth)
        prediction[:side, : side // 2] = 1
        sizes.update(prediction, truth)
    first, second = sizes.parts(2)
    assert first == (0.04, 2, pytest.approx((0 + 1 / 2) / 2))
    assert second == (0.16, 2, pytest.approx((1 / 3 + 1 / 2) / 2))
    assert [part.components for part in sizes.parts(3)] == [2, 1, 1]


def test_what_was_predicted_beside_a_thing_counts_once_it_touches_it() -> None:
    truth = np.array([[1, 1, 0, 0, 0, 1]], np.uint8)
    sizes = ObjectSizes()
    sizes.update(np.array([[1, 1, 1, 1, 0, 0]], np.uint8), truth)
    assert sizes.parts(1)[0].iou == pytest.approx((2 / 4 + 0) / 2)
    bridge = ObjectSizes()
    bridge.update(np.ones((1, 6), np.uint8), truth)  # one predicted thing over both
    assert bridge.parts(1)[0].iou == pytest.approx((2 / 5 + 1 / 4) / 2)


def test_nothing_gives_no_parts() -> None:
    sizes = ObjectSizes()
    sizes.update(np.zeros((2, 2), np.uint8), np.array([[0, 255], [0, 0]], np.uint8))
    assert sizes.parts() == []


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ShapeError, match="prediction is"):
        ObjectSizes().update(np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="ground truth is"):
        ObjectSizes().update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ConfigError, match="0 parts"):
        ObjectSizes().parts(0)
