"""Average location maps against loops over pixels in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tagseg.errors import ShapeError
from tagseg.evaluate.location import GRID, AverageMaps, overlap


def photo(rng, shape: tuple[int, int], tags: list[bool]):
    present = np.array(tags)
    return rng.random((present.sum(), *shape)).astype(np.float32), present


def cell_by_loops(plane, row: int, column: int) -> tuple[float, float]:
    """Sum over the area of one cell, and its area in pixels."""
    (height, width), total, area = plane.shape, 0.0, 0.0
    top, bottom = row * height / GRID, (row + 1) * height / GRID
    left, right = column * width / GRID, (column + 1) * width / GRID
    for y in range(height):
        for x in range(width):
            tall = min(y + 1, bottom) - max(y, top)
            wide = min(x + 1, right) - max(x, left)
            if tall > 0 and wide > 0:
                total += tall * wide * float(plane[y, x])
                area += tall * wide
    return total, area


SIZES = [(90, 50), (7, 130), (64, 64), (3, 200)]


def test_mean_of_areas_by_loops():
    rng = np.random.default_rng(0)
    tags = [[True, False, True], [False, False, True], [True, False, False], [True, False, True]]
    photos = [photo(rng, shape, t) for shape, t in zip(SIZES, tags, strict=True)]
    average = AverageMaps(3)
    for maps, present in photos:
        average.update(maps, present)
    assert average.photos.tolist() == [3, 0, 3]
    found = average.mean()
    assert found.dtype == np.float64
    assert not found[1].any()
    for row, column in [(0, 0), (5, 60), (31, 32), (63, 63)]:
        for tag in (0, 2):
            values = []
            for maps, present in photos:
                if present[tag]:
                    plane = maps[np.flatnonzero(present).tolist().index(tag)]
                    total, area = cell_by_loops(plane, row, column)
                    values.append(total / area)
            expected = math.fsum(values) / len(values)
            assert found[tag, row, column] == pytest.approx(expected, rel=1e-12)


def test_pixels_that_are_not_known_are_in_no_mean():
    rng = np.random.default_rng(1)
    average, counted = AverageMaps(1), []
    for shape in SIZES[:2]:
        maps, known = rng.random((1, *shape), np.float32), rng.random(shape) < 0.6
        average.update(maps, np.array([True]), known)
        counted.append((maps[0] * known, known))
    for row, column in [(0, 0), (20, 41)]:
        sums = [
            [total / area for total, area in (cell_by_loops(p, row, column) for p in planes)]
            for planes in counted
        ]
        value, part = (math.fsum(column) for column in zip(*sums, strict=True))
        assert average.mean()[0, row, column] == pytest.approx(value / part, rel=1e-12)


def test_overlap_by_loops():
    rng = np.random.default_rng(2)
    a, b = rng.random((5, 6)), 7 * rng.random((5, 6))
    pairs = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
    expected = math.fsum(min(x / a.sum(), y / b.sum()) for x, y in pairs)
    assert overlap(a, b) == pytest.approx(expected, rel=1e-12)
    assert overlap(a, 3 * a) == pytest.approx(1)
    assert math.isnan(overlap(a, np.zeros_like(a)))


def test_what_does_not_fit():
    average, one = AverageMaps(2), np.array([True, False])
    for maps in (np.zeros((2, 4, 4)), np.zeros((1, 0, 4)), np.zeros((4, 4))):
        with pytest.raises(ShapeError, match="1 of 2 tags"):
            average.update(maps, one)
    with pytest.raises(ShapeError, match="known is"):
        average.update(np.zeros((1, 4, 4)), one, np.ones((3, 4), bool))
    with pytest.raises(ShapeError, match="no common places"):
        overlap(np.ones((2, 2)), np.ones((3, 3)))
