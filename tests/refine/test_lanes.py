from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from tagseg.refine import machine_lanes, plain_lanes

WIDTHS = [1, 4, 16, 32, 128]


class Kernels:
    """Small kernels on the vectors of one module."""

    def __init__(self, vectors):
        self.width = vectors.Width
        lanes, at, load, store = vectors.lanes, vectors.at, vectors.load, vectors.store
        spread, maximum, less, equal = (
            vectors.spread,
            vectors.maximum,
            vectors.less,
            vectors.equal,
        )
        floor, exp, highest, total = vectors.floor, vectors.exp, vectors.highest, vectors.total
        load_four, repeat_four = vectors.load_four, vectors.repeat_four
        highest_of_four, total_of_four = vectors.highest_of_four, vectors.total_of_four
        add_outer, add_inner = vectors.add_outer, vectors.add_inner
        add_scaled, add_scaled_pair = vectors.add_scaled, vectors.add_scaled_pair

        @njit
        def exponentials(source, target, width):
            for k in range(0, source.size, lanes(width)):
                store(target, k, exp(load(source, k, width)))

        @njit
        def combine(a, b, target, width):
            n = lanes(width)
            x, y = load(a, 0, width), load(b, 0, width)
            store(target, 0, np.float32(2) * x + y * y - spread(np.float32(1), width))
            store(target, n, maximum(x, y))
            store(target, 2 * n, less(x, y))
            store(target, 3 * n, equal(floor(x), floor(y)))
            store(target, 4 * n, floor(x))
            return highest(x), total(x), at(b, n - 1)

        @njit
        def four(source, target, width):
            n = lanes(width)
            pixels = load_four(source, 1, n + 3, width)
            store(target, 0, pixels)
            store(target, 4 * n, repeat_four(load(source, 2, width)))
            store(target, 12 * n, highest_of_four(pixels))
            store(target, 16 * n, total_of_four(pixels))
            add_inner(target, 20 * n, source, 5, pixels)
            store(target, 24 * n, pixels / total_of_four(pixels))
            store(target, 8 * n, add_outer(pixels, source, 5, source, 2, width))

        @njit
        def scaled(source, target, width):
            n = lanes(width)
            number = source[0]
            start = load(source, 0, width)
            store(target, 0, add_scaled(start, number, source, 3, width))
            start = load(source, 0, width)
            store(target, n, add_scaled_pair(start, number, source, 3, 5, width))

        @njit
        def load_then_store(array, width):
            before = load(array, 0, width)
            store(array, 0, np.float32(2) * before)
            store(array, lanes(width), before)

        self.exponentials, self.combine, self.four = exponentials, combine, four
        self.scaled, self.load_then_store = scaled, load_then_store


@pytest.fixture(params=[machine_lanes, plain_lanes], ids=["machine", "plain"], scope="module")
def kernels(request):
    return Kernels(request.param)


@pytest.mark.parametrize("n", [1, 4, 8, 16, 32])
def test_four_pixels_in_one_vector(kernels, n):
    source = np.random.default_rng(0).random(4 * n + 40).astype(np.float32)
    target = np.ones(28 * n, np.float32)
    kernels.four(source, target, kernels.width(n))
    got = target.reshape(7, 4, n)
    pixels = np.stack([source[1 + k * (n + 3) :][:n] for k in range(4)])
    np.testing.assert_array_equal(got[0], pixels)
    np.testing.assert_array_equal(got[1], np.tile(source[2 : 2 + n], (4, 1)))
    outer = np.outer(source[5:9], source[2 : 2 + n])
    np.testing.assert_allclose(got[2], pixels + outer, rtol=1e-6)
    np.testing.assert_array_equal(got[3], np.tile(pixels.max(axis=1)[:, None], n))
    sums = np.tile(pixels.sum(axis=1)[:, None], n)
    np.testing.assert_allclose(got[4], sums, rtol=1e-5)
    np.testing.assert_allclose(got[5, 0], 1 + source[5:9] @ pixels, rtol=1e-5)
    np.testing.assert_array_equal(got[5, 1:], 1)
    np.testing.assert_allclose(got[6], pixels / sums, rtol=1e-5)


@pytest.mark.parametrize("n", WIDTHS)
def test_scaled_values_are_added(kernels, n):
    source = np.random.default_rng(0).normal(size=n + 6).astype(np.float32)
    target = np.empty(2 * n, np.float32)
    kernels.scaled(source, target, kernels.width(n))
    one, pair = source[3 : 3 + n], source[3 : 3 + n] + source[5 : 5 + n]
    np.testing.assert_allclose(target[:n], source[:n] + source[0] * one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(target[n:], source[:n] + source[0] * pair, rtol=1e-5, atol=1e-6)


def test_a_loaded_vector_stays_what_it_was(kernels):
    array = np.arange(8, dtype=np.float32)
    kernels.load_then_store(array, kernels.width(4))
    np.testing.assert_array_equal(array, [0, 2, 4, 6, 0, 1, 2, 3])


@pytest.mark.parametrize("width", [8, 32])
def test_exponential(kernels, width):
    source = np.linspace(-60, 0, 800, dtype=np.float32)
    target = np.empty_like(source)
    kernels.exponentials(source, target, kernels.width(width))
    np.testing.assert_allclose(target, np.exp(source.astype(np.float64)), rtol=5e-6)
    np.testing.assert_allclose(target[-200:], np.exp(source[-200:].astype(np.float64)), rtol=1e-6)
    assert target[-1] == 1


def test_exponential_of_positive_values(kernels):
    source = np.linspace(0, 80, 800, dtype=np.float32)
    target = np.empty_like(source)
    kernels.exponentials(source, target, kernels.width(16))
    np.testing.assert_allclose(target, np.exp(source.astype(np.float64)), rtol=1e-5)


def test_exponential_of_very_small_values_is_zero(kernels):
    source = np.array([-67, -100, -1e4, -1e30, -3e38, -np.inf, -70, -88], np.float32)
    target = np.ones_like(source)
    kernels.exponentials(source, target, kernels.width(8))
    np.testing.assert_array_equal(target, 0)


@pytest.mark.parametrize("n", WIDTHS)
def test_operators_and_joins(kernels, n):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n)).astype(np.float32)
    b[::3] = a[::3]
    target = np.empty(5 * n, np.float32)
    top, sum_, last = kernels.combine(a, b, target, kernels.width(n))
    np.testing.assert_allclose(target[:n], 2 * a + b * b - 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(target[n : 2 * n], np.maximum(a, b))
    np.testing.assert_array_equal(target[2 * n : 3 * n], a < b)
    np.testing.assert_array_equal(target[3 * n : 4 * n], np.floor(a) == np.floor(b))
    np.testing.assert_array_equal(target[4 * n :], np.floor(a))
    assert top == a.max()
    np.testing.assert_allclose(sum_, a.sum(), rtol=1e-4, atol=1e-5)
    assert last == b[-1]
