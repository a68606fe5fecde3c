"""Photos with hidden cells: what is hidden, how often, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.localize import hidden_cells

COLOUR = (124, 116, 104)
SEEDS = st.integers(0, 10_000)
QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """No pixel has the colour of hidden ones."""
    return np.random.default_rng(seed).integers(150, 256, (height, width, 3), np.uint8)


def hidden(image: np.ndarray, seed: int, rate: float = 1.0) -> np.ndarray:
    """Which pixels are hidden (H, W)."""
    found = hidden_cells(image, rate, COLOUR, np.random.default_rng(seed))
    return (found == np.array(COLOUR)).all(2)


@QUICK
@given(seed=SEEDS, height=st.integers(1, 40), width=st.integers(1, 40), rate=st.floats(0, 1))
def test_every_pixel_is_the_photos_or_the_colour(
    seed: int, height: int, width: int, rate: float
) -> None:
    image = photo(height, width, seed)
    before = image.copy()
    found = hidden_cells(image, rate, COLOUR, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    assert found is image or not np.shares_memory(found, image)
    for y in range(height):
        for x in range(width):
            assert tuple(found[y, x]) in (tuple(image[y, x]), COLOUR)
    again = hidden_cells(image, rate, COLOUR, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)


@QUICK
@given(seed=SEEDS)
def test_without_a_rate_it_is_the_photo_itself(seed: int) -> None:
    image = photo(9, 12)
    assert hidden_cells(image, 0.0, COLOUR, np.random.default_rng(seed)) is image


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 1.0])
def test_it_happens_at_the_rate(rate: float) -> None:
    image, rng = photo(24, 24), np.random.default_rng(1)
    drawn = [hidden_cells(image, rate, COLOUR, rng) for _ in range(2000)]
    assert np.mean([found is not image for found in drawn]) == pytest.approx(rate, abs=0.03)
    # A few draws hide no cell of all.
    changed = np.mean([(found != image).any() for found in drawn])
    assert changed == pytest.approx(rate, abs=0.04)


def lines(mask: np.ndarray) -> list[int]:
    """Where a row differs from the one above it."""
    return [y for y in range(1, len(mask)) if (mask[y] != mask[y - 1]).any()]


@QUICK
@given(seed=SEEDS, height=st.integers(8, 50), width=st.integers(8, 50))
def test_what_is_hidden_are_cells_of_a_grid(seed: int, height: int, width: int) -> None:
    """There is a number of cells by which the mask is one value in each, slowly."""
    mask = hidden(photo(height, width), seed)
    fitting = []
    for cells in range(3, 9):
        values: dict[tuple[int, int], set[bool]] = {}
        for y in range(height):
            for x in range(width):
                cell = (int(y * cells / height), int(x * cells / width))
                values.setdefault(cell, set()).add(bool(mask[y, x]))
        if all(len(of_cell) == 1 for of_cell in values.values()):
            fitting.append(cells)
            assert len(values) == cells**2
    assert fitting


def test_grids_and_parts_are_of_many_sizes() -> None:
    image = photo(120, 120)
    found = [hidden(image, seed) for seed in range(200)]
    parts = np.array([mask.mean() for mask in found])
    assert 0.4 < parts.mean() < 0.5  # 0.2 to 0.7 of the cells
    assert np.quantile(parts, 0.1) < 0.3
    assert np.quantile(parts, 0.9) > 0.6
    sides = {min(np.diff([0, *lines(mask), 120])) for mask in found if len(lines(mask)) > 1}
    assert {15, 17, 20, 24, 30, 40} <= sides


def test_cells_are_hidden_everywhere_alike() -> None:
    image = photo(24, 24)
    often = np.mean([hidden(image, seed) for seed in range(1500)], axis=0)
    assert often.min() > 0.38
    assert often.max() < 0.52


def test_cells_are_drawn_anew_each_time() -> None:
    image, rng = photo(24, 24), np.random.default_rng(0)
    first, second = (hidden_cells(image, 1.0, COLOUR, rng) for _ in range(2))
    assert (first != second).any()
