from __future__ import annotations

import numpy as np
from numba import njit

from tagseg.refine.lanes import LANES, exp, highest, load, maximum, spread, store, total


@njit
def _exponentials(source, target):
    for k in range(0, source.size, LANES):
        store(target, k, exp(load(source, k)))


@njit
def _combine(a, b, target):
    store(target, 0, np.float32(2) * load(a, 0) + load(b, 0) * load(b, 0) - spread(np.float32(1)))
    store(target, LANES, maximum(load(a, 0), load(b, 0)))
    return highest(load(a, 0)), total(load(a, 0))


def test_exponential():
    source = np.linspace(-60, 0, 800, dtype=np.float32)
    target = np.empty_like(source)
    _exponentials(source, target)
    np.testing.assert_allclose(target, np.exp(source.astype(np.float64)), rtol=5e-6)
    np.testing.assert_allclose(target[-200:], np.exp(source[-200:].astype(np.float64)), rtol=1e-6)
    assert target[-1] == 1


def test_exponential_of_very_small_values_is_zero():
    source = np.array([-67, -100, -1e4, -1e30, -3e38, -np.inf, -70, -88], np.float32)
    target = np.ones_like(source)
    _exponentials(source, target)
    np.testing.assert_array_equal(target, 0)


def test_operators_and_joins():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, LANES)).astype(np.float32)
    target = np.empty(2 * LANES, np.float32)
    top, sum_ = _combine(a, b, target)
    np.testing.assert_allclose(target[:LANES], 2 * a + b * b - 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(target[LANES:], np.maximum(a, b))
    assert top == a.max()
    np.testing.assert_allclose(sum_, a.sum(), rtol=1e-5)
