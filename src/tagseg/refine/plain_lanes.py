"""What :mod:`tagseg.refine.machine_lanes` offers, in plain numba: a vector is a small array.

Kernels combine such arrays with + - * / as they do machine vectors. Every operation is a loop that
fills an array of its own, which costs time, but needs nothing of LLVM. A loaded vector is a copy:
what a kernel stores later does not change it, as with a value in a register.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

__all__ = [
    "Width",
    "add_inner",
    "add_outer",
    "add_scaled",
    "add_scaled_pair",
    "at",
    "equal",
    "exp",
    "floor",
    "highest",
    "highest_of_four",
    "lanes",
    "less",
    "load",
    "load_four",
    "maximum",
    "repeat_four",
    "spread",
    "store",
    "total",
    "total_of_four",
]

_LEAST_EXPONENT = np.float32(-96 * np.log(2))  # up to here the result of exp is 0


class Width(NamedTuple):
    """Number of values of a vector.

    A type that machine vectors do not have: so compiled kernels of both kinds, which numba keeps
    in one cache by the types of their arguments, stay apart.
    """

    lanes: int


def _kernel(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_kernel
def _flat(array):  # type: ignore[no-untyped-def]
    """Return all values of a contiguous array, a view."""
    return array.reshape(array.size)


@_kernel
def lanes(width):  # type: ignore[no-untyped-def]
    """Return the number of values of a :class:`Width`."""
    return width.lanes


@_kernel
def at(array, index):  # type: ignore[no-untyped-def]
    """Return the element ``index`` of the flat array, as a scalar."""
    return _flat(array)[index]


@_kernel
def store(array, index, value):  # type: ignore[no-untyped-def]
    """Set the values from ``index`` on of a contiguous float32 array."""
    flat = _flat(array)
    for lane in range(value.size):
        flat[index + lane] = value[lane]


@_kernel
def load(array, index, width):  # type: ignore[no-untyped-def]
    """Return the values from ``index`` on of a contiguous float32 array."""
    flat, vector = _flat(array), np.empty(width.lanes, np.float32)
    for lane in range(width.lanes):
        vector[lane] = flat[index + lane]
    return vector


@_kernel
def load_four(array, index, stride, width):  # type: ignore[no-untyped-def]
    """Return four vectors, ``stride`` values apart, as one of four times the lanes."""
    flat, four = _flat(array), np.empty(4 * width.lanes, np.float32)
    for quarter in range(4):
        start, first = quarter * width.lanes, index + quarter * stride
        for lane in range(width.lanes):
            four[start + lane] = flat[first + lane]
    return four


@_kernel
def repeat_four(value):  # type: ignore[no-untyped-def]
    """Return a vector four times."""
    four = np.empty(4 * value.size, np.float32)
    for quarter in range(4):
        store(four, quarter * value.size, value)
    return four


@_kernel
def add_outer(four, weights, index, values, place, width):  # type: ignore[no-untyped-def]
    """Return ``four`` plus the vector at ``place`` of ``values``, times a weight in each quarter.

    The four weights stand from ``index`` of ``weights`` on. ``four`` is used up.
    """
    flat = _flat(weights)
    for quarter in range(4):
        weight, start = flat[index + quarter], quarter * width.lanes
        for lane in range(width.lanes):
            four[start + lane] += weight * values[place + lane]
    return four


@_kernel
def add_inner(values, place, weights, index, four):  # type: ignore[no-untyped-def]
    """Add the weighted sum of the quarters of ``four`` to the vector at ``place`` of ``values``.

    The four weights stand from ``index`` of ``weights`` on.
    """
    flat, width = _flat(weights), four.size // 4
    a, b, c, d = flat[index], flat[index + 1], flat[index + 2], flat[index + 3]
    for lane in range(width):
        left = a * four[lane] + b * four[width + lane]
        right = c * four[2 * width + lane] + d * four[3 * width + lane]
        values[place + lane] += left + right


@_kernel
def add_scaled(vector, number, array, index, width):  # type: ignore[no-untyped-def]
    """Return ``vector``, which is used up, plus ``number`` times the values from ``index`` on."""
    for lane in range(width.lanes):
        vector[lane] += number * array[index + lane]
    return vector


@_kernel
def add_scaled_pair(vector, number, array, first, second, width):  # type: ignore[no-untyped-def]
    """Return ``vector`` plus ``number`` times the sum of the values from two places on.

    ``vector`` is used up.
    """
    for lane in range(width.lanes):
        vector[lane] += number * (array[first + lane] + array[second + lane])
    return vector


@_kernel
def spread(value, width):  # type: ignore[no-untyped-def]
    """Return the same number in every lane."""
    return np.full(width.lanes, np.float32(value))


@_kernel
def maximum(a, b):  # type: ignore[no-untyped-def]
    """Return the larger of two vectors, lane by lane."""
    return np.where(a > b, a, b)


@_kernel
def less(a, b):  # type: ignore[no-untyped-def]
    """Return 1 where ``a`` is below ``b``, 0 elsewhere."""
    return np.where(a < b, np.float32(1), np.float32(0))


@_kernel
def equal(a, b):  # type: ignore[no-untyped-def]
    """Return 1 where two vectors are equal, 0 elsewhere."""
    return np.where(a == b, np.float32(1), np.float32(0))


@_kernel
def floor(value):  # type: ignore[no-untyped-def]
    """Return the largest whole number up to each value."""
    return np.floor(value)


@_kernel
def exp(value):  # type: ignore[no-untyped-def]
    """Return the exponential of values up to 80; 0 below exp(-66)."""
    vector = np.zeros(value.size, np.float32)
    for lane in range(value.size):
        if value[lane] > _LEAST_EXPONENT:
            vector[lane] = np.exp(value[lane])
    return vector


@_kernel
def highest(value):  # type: ignore[no-untyped-def]
    """Return the largest value."""
    return value.max()


@_kernel
def total(value):  # type: ignore[no-untyped-def]
    """Return the sum of all values."""
    sum_ = np.float32(0)
    for lane in range(value.size):
        sum_ += value[lane]
    return sum_


@_kernel
def highest_of_four(value):  # type: ignore[no-untyped-def]
    """Return the largest value of each quarter, in all of its lanes."""
    vector, width = np.empty_like(value), value.size // 4
    for start in range(0, value.size, width):
        vector[start : start + width] = highest(value[start : start + width])
    return vector


@_kernel
def total_of_four(value):  # type: ignore[no-untyped-def]
    """Return the sum of each quarter, in all of its lanes."""
    vector, width = np.empty_like(value), value.size // 4
    for start in range(0, value.size, width):
        vector[start : start + width] = total(value[start : start + width])
    return vector
