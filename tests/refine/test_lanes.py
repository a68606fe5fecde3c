from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from tagseg.refine.lanes import (
    Width,
    at,
    equal,
    exp,
    floor,
    highest,
    highest_of_four,
    lanes,
    less,
    load,
    load_four,
    maximum,
    repeat_four,
    spread,
    store,
    stretch_four,
    sum_of_four,
    total,
    total_of_four,
)

WIDTHS = [1, 4, 16, 32, 128]


@njit
def _exponentials(source, target, width):
    for k in range(0, source.size, lanes(width)):
        store(target, k, exp(load(source, k, width)))


@njit
def _combine(a, b, target, width):
    n = lanes(width)
    x, y = load(a, 0, width), load(b, 0, width)
    store(target, 0, np.float32(2) * x + y * y - spread(np.float32(1), width))
    store(target, n, maximum(x, y))
    store(target, 2 * n, less(x, y))
    store(target, 3 * n, equal(floor(x), floor(y)))
    store(target, 4 * n, floor(x))
    return highest(x), total(x), at(b, n - 1)


@njit
def _four(source, target, width):
    n = lanes(width)
    pixels = load_four(source, 1, n + 3, width)
    store(target, 0, pixels)
    store(target, 4 * n, repeat_four(load(source, 2, width)))
    store(target, 8 * n, stretch_four(source, 5, width))
    store(target, 12 * n, highest_of_four(pixels))
    store(target, 16 * n, total_of_four(pixels))
    store(target, 20 * n, sum_of_four(pixels))
    store(target, 24 * n, pixels / total_of_four(pixels))


@pytest.mark.parametrize("n", [1, 4, 8, 16, 32])
def test_four_pixels_in_one_vector(n):
    source = np.random.default_rng(0).random(4 * n + 40).astype(np.float32)
    target = np.empty(28 * n, np.float32)
    _four(source, target, Width(n))
    got = target.reshape(7, 4, n)
    pixels = np.stack([source[1 + k * (n + 3) :][:n] for k in range(4)])
    np.testing.assert_array_equal(got[0], pixels)
    np.testing.assert_array_equal(got[1], np.tile(source[2 : 2 + n], (4, 1)))
    np.testing.assert_array_equal(got[2], np.repeat(source[5:9], n).reshape(4, n))
    np.testing.assert_array_equal(got[3], np.tile(pixels.max(axis=1)[:, None], n))
    sums = np.tile(pixels.sum(axis=1)[:, None], n)
    np.testing.assert_allclose(got[4], sums, rtol=1e-5)
    np.testing.assert_allclose(got[5, 0], pixels.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(got[6], pixels / sums, rtol=1e-5)


@pytest.mark.parametrize("width", [8, 32])
def test_exponential(width):
    source = np.linspace(-60, 0, 800, dtype=np.float32)
    target = np.empty_like(source)
    _exponentials(source, target, Width(width))
    np.testing.assert_allclose(target, np.exp(source.astype(np.float64)), rtol=5e-6)
    np.testing.assert_allclose(target[-200:], np.exp(source[-200:].astype(np.float64)), rtol=1e-6)
    assert target[-1] == 1


def test_exponential_of_positive_values():
    source = np.linspace(0, 80, 800, dtype=np.float32)
    target = np.empty_like(source)
    _exponentials(source, target, Width(16))
    np.testing.assert_allclose(target, np.exp(source.astype(np.float64)), rtol=1e-5)


def test_exponential_of_very_small_values_is_zero():
    source = np.array([-67, -100, -1e4, -1e30, -3e38, -np.inf, -70, -88], np.float32)
    target = np.ones_like(source)
    _exponentials(source, target, Width(8))
    np.testing.assert_array_equal(target, 0)


@pytest.mark.parametrize("n", WIDTHS)
def test_operators_and_joins(n):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n)).astype(np.float32)
    b[::3] = a[::3]
    target = np.empty(5 * n, np.float32)
    top, sum_, last = _combine(a, b, target, Width(n))
    np.testing.assert_allclose(target[:n], 2 * a + b * b - 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(target[n : 2 * n], np.maximum(a, b))
    np.testing.assert_array_equal(target[2 * n : 3 * n], a < b)
    np.testing.assert_array_equal(target[3 * n : 4 * n], np.floor(a) == np.floor(b))
    np.testing.assert_array_equal(target[4 * n :], np.floor(a))
    assert top == a.max()
    np.testing.assert_allclose(sum_, a.sum(), rtol=1e-4, atol=1e-5)
    assert last == b[-1]
