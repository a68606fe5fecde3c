"""Windows over a large photo: they cover it, fade into one another, and change nothing they see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagseg.segment.windows import in_windows, starts, taper


def local(images: np.ndarray) -> np.ndarray:
    """Probabilities that depend on each pixel alone."""
    red = images[..., 0].astype(np.float32) / 255
    return np.stack([red, 1 - red], 1)


@given(st.integers(1, 500), st.integers(8, 200), st.floats(0.3, 1.0))
def test_windows_cover_all(length: int, window: int, part: float) -> None:
    stride = max(1, int(window * part))
    found = starts(length, window, stride)
    assert found[0] == 0
    assert found[-1] + window >= length
    assert found[-1] + window <= max(length, window)
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(found))


@given(st.integers(4, 80), st.integers(1, 20))
def test_flanks_of_neighbours_sum_to_one(length: int, margin: int) -> None:
    margin = min(margin, length // 2)
    weights = taper(length, margin).astype(np.float64)
    assert weights.min() > 0
    assert weights[length - margin :] + weights[:margin] == pytest.approx(1)  # Hann's halves


@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.integers(16, 64),
    st.integers(0, 99),
)
def test_a_local_answer_is_that_of_one_pass(shape: tuple[int, int], window: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = in_windows(local, image, window)
    assert found.shape == (2, *shape)
    assert np.abs(found - local(image[None])[0]).max() < 1e-4


def test_one_window_is_one_pass() -> None:
    calls = []

    def forward(images: np.ndarray) -> np.ndarray:
        calls.append(images.shape)
        return local(images)

    image = np.zeros((40, 50, 3), np.uint8)
    assert (in_windows(forward, image, 50) == local(image[None])[0]).all()
    assert calls == [(1, 40, 50, 3)]


def test_windows_are_of_one_size() -> None:
    shapes = set()

    def forward(images: np.ndarray) -> np.ndarray:
        shapes.add(images.shape)
        return local(images)

    in_windows(forward, np.zeros((100, 30, 3), np.uint8), 48)
    assert shapes == {(1, 48, 30, 3)}
