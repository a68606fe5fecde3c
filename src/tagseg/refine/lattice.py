"""Permutohedral lattice: Gaussian filtering in a few dimensions, in linear time.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010).
Points of a d-dimensional feature space are written in d + 1 coordinates that sum to zero. There the
lattice A*_d divides the hyperplane into simplices with d + 1 vertices. Filtering is splat (every
point adds its value to the vertices around it, with barycentric weights), blur ([1 2 1] / 2 along
each of the d + 1 lattice directions) and slice (every point reads its vertices, same weights).

A vertex has the coordinates ``(d + 1) * q_i + r``: whole numbers q_i, and one remainder r in 0..d
that all coordinates share. So ``(q_0, ..., q_{d-1}, r)`` names it, and packs into one int64 in
mixed radix; a step along a lattice direction is then the addition of a constant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError
from tagseg.refine.lanes import LANES, load, store

__all__ = ["Lattice", "blur", "build_lattice"]

_EMPTY = -1
_MARGIN = 2  # cells around the reachable ones, so that a step outside never wraps into another key
_LARGEST_KEY = 2**62
_FIRST_TABLE_SIZE = 1 << 15


class Lattice(NamedTuple):
    """The vertices that N points touch; index ``n_vertices`` stands for a missing one."""

    vertices: npt.NDArray[np.int32]  # (N, d + 1) rows of the value array
    weights: npt.NDArray[np.float32]  # (N, d + 1) barycentric, each row sums to 1
    neighbours: npt.NDArray[np.int32]  # (d + 1, n_vertices, 2) the vertices one step up and down

    @property
    def n_vertices(self) -> int:
        """Number of vertices that any point touches."""
        return self.neighbours.shape[1]


def build_lattice(features: npt.NDArray[np.float32]) -> Lattice:
    """Lattice of ``features`` (N, d), in units of the Gaussian's sigma.

    Raises ConfigError where the features span more cells than an int64 can number.
    """
    d = features.shape[1]
    basis = _hyperplane_basis(d)
    low, strides = _packing(_extent(features), basis)
    # The tuple's length is known when the kernel is compiled, so that its short loops unroll.
    vertices, weights, keys, table = _embed(features, basis, low, strides, tuple(range(d + 1)))
    steps_up = np.append(strides, 0) - 1
    return Lattice(vertices, weights, _find_neighbours(keys, table, steps_up, strides.sum()))


def _hyperplane_basis(d: int) -> npt.NDArray[np.float32]:
    """Orthogonal columns (d + 1, d) of the zero-sum hyperplane, scaled so that one sigma is 1.

    The factor (d + 1) sqrt(2 / 3) makes splat, blur and slice together a Gaussian of variance 1.
    """
    basis = np.triu(np.ones((d + 1, d)))
    column = np.arange(d)
    basis[column + 1, column] = -(column + 1)
    basis *= (d + 1) * np.sqrt(2 / 3) / np.sqrt((column + 1) * (column + 2))
    return basis.astype(np.float32)


@njit(nogil=True, cache=True)
def _extent(features):  # type: ignore[no-untyped-def]
    """Smallest and largest value (2, d) of each feature."""
    n, d = features.shape
    extent = np.empty((2, d), np.float64)
    for j in range(d):
        low, high = features[0, j], features[0, j]
        for i in range(n):
            low, high = min(low, features[i, j]), max(high, features[i, j])
        extent[0, j], extent[1, j] = low, high
    return extent


def _packing(
    extent: npt.NDArray[np.float64], basis: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Smallest cell (d,) and key stride (d,) of each packed coordinate."""
    d = extent.shape[1]
    if not np.isfinite(extent).all():
        raise _too_fine()
    reach = extent[:, None, :] * basis[None, :d].astype(np.float64)
    low = np.floor(reach.min(axis=0).sum(axis=1) / (d + 1)) - _MARGIN
    high = np.ceil(reach.max(axis=0).sum(axis=1) / (d + 1)) + _MARGIN
    cells = high - low + 1
    if not np.prod(cells) * (d + 1) < _LARGEST_KEY:
        raise _too_fine()
    strides = (d + 1) * np.cumprod(np.concatenate(([1.0], cells[:-1])))
    return low.astype(np.int64), strides.astype(np.int64)


def _too_fine() -> ConfigError:
    return ConfigError(
        "the kernel's sigmas are too small for a photo of this size",
        where="dense CRF",
        do="use larger sigmas or leave the kernel out",
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _embed(features, basis, low, strides, axes):  # type: ignore[no-untyped-def]
    """Vertices and weights (N, d + 1) of every point; keys of all vertices; the hash table."""
    n, size = features.shape[0], len(axes)
    vertices = np.empty((n, size), np.int32)
    weights = np.empty((n, size), np.float32)
    table = np.full(_FIRST_TABLE_SIZE, np.int32(_EMPTY))
    keys = np.empty(_FIRST_TABLE_SIZE // 2 + size, np.int64)
    count = 0
    point_keys = np.empty(size, np.int64)
    previous_keys = np.full(size, np.int64(-1))
    offset = np.empty(size, np.float32)
    cell = np.empty(size, np.int64)
    rank = np.empty(size, np.int64)
    for i in range(n):
        _nearest_remainder_zero(features[i], basis, offset, cell, rank, axes)
        _barycentric(offset, rank, weights[i], axes)
        _simplex_keys(cell, rank, low, strides, point_keys, axes)
        for r in range(size):
            # Neighbouring pixels mostly share their simplex: then there is nothing to look up.
            if point_keys[r] == previous_keys[r]:
                vertices[i, r] = vertices[i - 1, r]
                continue
            slot = _slot(keys, table, point_keys[r])
            if table[slot] == _EMPTY:
                keys[count] = point_keys[r]
                table[slot] = count
                count += 1
            vertices[i, r] = table[slot]
            previous_keys[r] = point_keys[r]
        if 2 * count > table.size:
            keys, table = _grow(keys, count, size)
    return vertices, weights, keys[:count], table


@njit(nogil=True, cache=True, error_model="numpy")
def _nearest_remainder_zero(feature, basis, offset, cell, rank, axes):  # type: ignore[no-untyped-def]
    """Cell of the nearest vertex with remainder 0; offset to it in cells; rank of the offset."""
    size = len(axes)
    excess = 0
    for i in range(size):
        elevated = np.float32(0)
        for j in range(max(i - 1, 0), size - 1):  # the basis is zero below its first subdiagonal
            elevated += basis[i, j] * feature[j]
        elevated *= np.float32(1 / size)
        nearest = np.floor(elevated + np.float32(0.5))
        offset[i] = elevated - nearest
        cell[i] = np.int64(nearest)
        excess += cell[i]
        rank[i] = 0
    for i in range(size):
        for j in range(i + 1, size):
            below = np.int64(offset[i] < offset[j])  # no branch: it could not be predicted
            rank[i] += below
            rank[j] += 1 - below
    for i in range(size):  # the cells must sum to zero: move those with the extreme offsets
        moved = rank[i] + excess
        turn = np.int64(moved < 0) - np.int64(moved >= size)
        rank[i] = moved + turn * size
        cell[i] += turn
        offset[i] -= np.float32(turn)


@njit(nogil=True, cache=True, error_model="numpy")
def _barycentric(offset, rank, weights, axes):  # type: ignore[no-untyped-def]
    """Weights (d + 1,) of the vertices with remainder 0..d: gaps between the sorted offsets."""
    size = len(axes)
    weights[:] = 0
    weights[0] = 1
    for i in range(size):
        weights[size - 1 - rank[i]] += offset[i]
        weights[size - rank[i] if rank[i] > 0 else 0] -= offset[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _simplex_keys(cell, rank, low, strides, point_keys, axes):  # type: ignore[no-untyped-def]
    """Keys (d + 1,) of the simplex: at vertex r, the coordinate of rank d + 1 - r drops a cell."""
    size = len(axes)
    point_keys[:] = 1
    base = np.int64(0)
    for i in range(size - 1):
        base += (cell[i] - low[i]) * strides[i]
        point_keys[size - rank[i] if rank[i] > 0 else 0] -= strides[i]
    point_keys[0] = base
    for r in range(1, size):
        point_keys[r] += point_keys[r - 1]


@njit(nogil=True, cache=True)
def _slot(keys, table, key):  # type: ignore[no-untyped-def]
    """Place of ``key`` in the open-addressing table: where it stands, or the free slot for it."""
    mask = table.size - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot] != _EMPTY and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def _grow(keys, count, spare):  # type: ignore[no-untyped-def]
    size = 8 * count
    while size & (size - 1):  # the next power of two below
        size &= size - 1
    grown_table = np.full(size, np.int32(_EMPTY))
    grown_keys = np.empty(size // 2 + spare, np.int64)
    grown_keys[:count] = keys[:count]
    for index in range(count):
        grown_table[_slot(grown_keys, grown_table, grown_keys[index])] = index
    return grown_keys, grown_table


@njit(nogil=True, cache=True)
def _find_neighbours(keys, table, steps_up, all_strides):  # type: ignore[no-untyped-def]
    """Rows (d + 1, n, 2) one step up and down each direction; n where that vertex is missing.

    A step up adds d to the direction's own coordinate and -1 to every other. The shared remainder
    falls by one; from 0 it goes round to d, and then every cell falls by one.
    """
    n, d = keys.size, steps_up.size - 1
    neighbours = np.empty((d + 1, n, 2), np.int32)
    for direction in range(d + 1):
        for index in range(n):
            key = keys[index]
            remainder = key % (d + 1)
            up = key + steps_up[direction]
            if remainder == 0:
                up += d + 1 - all_strides
            down = key - steps_up[direction]
            if remainder == d:
                down += all_strides - d - 1
            slot_up, slot_down = _slot(keys, table, up), _slot(keys, table, down)
            neighbours[direction, index, 0] = table[slot_up] if table[slot_up] >= 0 else n
            neighbours[direction, index, 1] = table[slot_down] if table[slot_down] >= 0 else n
    return neighbours


@njit(nogil=True, cache=True)
def blur(values, scratch, neighbours):  # type: ignore[no-untyped-def]
    """Blur ``values`` ((n_vertices + 1) * W,) along every direction; the last row stays zero.

    ``scratch`` is a buffer of the same size; W is a multiple of LANES. Returns the two
    with the result first.
    """
    directions, n, _ = neighbours.shape
    width = values.size // (n + 1)
    half = np.float32(0.5)
    scratch[n * width :] = 0
    for direction in range(directions):
        for index in range(n):
            up = neighbours[direction, index, 0] * width
            down = neighbours[direction, index, 1] * width
            here = index * width
            for k in range(0, width, LANES):
                around = load(values, up + k) + load(values, down + k)
                store(scratch, here + k, load(values, here + k) + half * around)
        values, scratch = scratch, values
    return values, scratch
