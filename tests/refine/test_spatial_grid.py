from __future__ import annotations

import itertools

import numpy as np
import pytest

from tagseg.refine.lanes import Width
from tagseg.refine.spatial_grid import SplineGrid, convolve, grid_axis

LANES = 8


def axis_matrix(axis, length):
    """The whole filter along one axis as a matrix (length, length), symmetrically normalised."""
    step, n_taps = axis.taps.shape
    splat = np.zeros((length, axis.size))
    for x in range(length):
        splat[x, x // step : x // step + n_taps] = axis.taps[x % step]
    middle = np.zeros((axis.size, axis.size))
    radius = axis.kernel.size // 2
    for i in range(axis.size):
        for j in range(max(0, i - radius), min(axis.size, i + radius + 1)):
            middle[i, j] = axis.kernel[radius + j - i]
    return axis.scale[:, None] * (splat @ middle @ splat.T) * axis.scale


@pytest.mark.parametrize(
    ("sigma", "bound"),
    [(0.3, 1e-5), (1, 1e-5), (2.9, 1e-5), (3, 1.5e-3), (4.4, 1.5e-3), (7, 1.5e-3)],
)
@pytest.mark.parametrize("length", [1, 2, 9, 60])
def test_axis_is_the_normalised_gaussian(sigma, bound, length):
    x = np.arange(length)
    exact = np.exp(-0.5 * ((x[:, None] - x) / sigma) ** 2)
    exact /= np.sqrt(np.outer(exact.sum(axis=1), exact.sum(axis=1)))
    error = np.abs(axis_matrix(grid_axis(length, sigma), length) - exact).sum(axis=1).max()
    assert error < bound  # of a message, for probabilities in [0, 1]


def test_very_wide_gaussian_is_constant():
    got = axis_matrix(grid_axis(50, 1e12), 50)
    np.testing.assert_allclose(got, 1 / 50, rtol=2e-3)


@pytest.mark.parametrize("sigma", [1, 3, 5, 9])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (7, 5), (14, 12)])
def test_grid_is_the_product_of_its_axes(height, width, sigma):
    grid = SplineGrid(height, width, sigma, 2.0)
    starts, points, weights = grid.splat
    pixel_points = np.zeros((height * width, grid.n_points))
    across = -(-width // 2)
    for group, (first, last) in enumerate(itertools.pairwise(starts)):
        assert len(set(points[first:last])) == last - first
        for entry in range(first, last):
            for pixel in range(4):
                y, x = group // across * 2 + pixel // 2, group % across * 2 + pixel % 2
                if y < height and x < width:
                    pixel_points[y * width + x, points[entry]] += weights[entry, pixel]
                else:
                    assert weights[entry, pixel] == 0
    signal = np.random.default_rng(0).random((height * width, 4), dtype=np.float32)
    values = np.ascontiguousarray((pixel_points.T @ signal).astype(np.float32)).ravel()
    blurred, _ = grid.blur(values, np.empty_like(values), Width(4))
    got = pixel_points @ blurred.reshape(-1, 4)
    vertical = axis_matrix(grid_axis(height, sigma), height)
    horizontal = axis_matrix(grid_axis(width, sigma), width)
    expected = 2 * np.kron(vertical, horizontal) @ signal
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("radius", [0, 2, 9])
def test_convolve_is_numpys(radius):
    rng = np.random.default_rng(0)
    signal = rng.random((3, 6, 2 * LANES), dtype=np.float32)
    kernel = rng.random(2 * radius + 1, dtype=np.float32)
    kernel += kernel[::-1]
    target = np.empty(signal.size, np.float32)
    convolve(signal.ravel(), target, kernel, 3, 6, 2 * LANES, Width(LANES))
    for outer in range(3):
        for inner in range(2 * LANES):
            expected = np.convolve(signal[outer, :, inner], kernel)[radius : radius + 6]
            got = target.reshape(signal.shape)[outer, :, inner]
            np.testing.assert_allclose(got, expected, rtol=1e-5)
