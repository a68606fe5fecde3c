"""Permutohedral lattice: Gaussian filtering of a photo in a few dimensions, in linear time.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010).
Points of a d-dimensional feature space are written in d + 1 coordinates that sum to zero. There the
lattice A*_d divides the hyperplane into simplices with d + 1 vertices. Filtering is splat (every
pixel adds its value to the vertices around it, with barycentric weights), blur (along each of the
d + 1 lattice directions) and slice (every pixel reads its vertices, same weights).

A vertex has the coordinates ``(d + 1) * q_i + r``: whole numbers q_i, and one remainder r in 0..d
that all coordinates share. So ``(q_0, ..., q_{d-1}, r)`` names it, and packs into one int64 in
mixed radix; a step along a lattice direction is then the addition of a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError
from tagseg.refine.groups import GROUP, Splat, groups_of
from tagseg.refine.lanes import (
    Width,
    add_scaled_pair,
    at,
    equal,
    floor,
    lanes,
    less,
    load,
    spread,
    store,
)

__all__ = ["FINE", "STANDARD", "Blur", "Lattice", "build_lattice"]

_EMPTY = -1
_MARGIN = 4  # cells around the reachable ones, so that a step outside never wraps into another key
_LARGEST_KEY = 2**62
_FIRST_TABLE_SIZE = 1 << 15
_BLOCK = 16  # pixels whose simplices are found in lockstep
_WIDTH = Width(_BLOCK)
_CONTACTS = 2

Float32 = npt.NDArray[np.float32]


class Blur(NamedTuple):
    """How fine the lattice is, and how it blurs.

    ``scale`` is in standard lattices to the sigma, in each dimension. A step along a direction
    sets a vertex to ``centre`` times itself, plus ``near`` times its neighbours, plus ``far``
    times theirs. ``fill`` adds vertices that no pixel touches, but two touched ones do: what is
    blurred from one to the other comes through them.
    """

    scale: float
    centre: float
    near: float
    far: float
    fill: bool


class Space(NamedTuple):
    """How features (d,) lie in the lattice, and how its vertices are numbered."""

    basis: npt.NDArray[np.float32]  # (d + 1, d) of the hyperplane
    moved: npt.NDArray[np.float32]  # (d + 1,) added to what the basis makes of the features
    low: npt.NDArray[np.int64]  # (d,) smallest cells
    strides: npt.NDArray[np.int64]  # (d,) of the keys


STANDARD = Blur(scale=1.0, centre=1.0, near=0.5, far=0.0, fill=False)
"""[1 2 1] / 2 on the vertices that pixels touch, as Adams et al. and all peers have it."""

FINE = Blur(scale=1.17, centre=1.18, near=0.6, far=0.09, fill=True)
"""[0.3 1 0.3] twice, in one step. Of the variances of a Gaussian of the standard lattice, 1/4 is in
splat and slice, whose kernel changes with a pixel's place between vertices; here it is less."""


@dataclass(frozen=True)
class Lattice:
    """The vertices that the pixels of a photo touch, and how they lie to each other."""

    splat: Splat  # each pixel's weights sum to 1, until they are normalised
    neighbours: npt.NDArray[np.int32]  # (d + 1, n, 2 or 4) one step up, down; two; n: missing
    taps: Float32  # (3,) centre, near, far

    @property
    def n_vertices(self) -> int:
        """Number of vertices."""
        return self.neighbours.shape[1]

    @property
    def n_points(self) -> int:
        """Vertices, and one that stands for all missing ones."""
        return self.n_vertices + 1

    def blur(self, values: Float32, scratch: Float32, width: Width) -> tuple[Float32, Float32]:
        """Blur ``values`` along every direction; return result and scratch."""
        return _blur(values, scratch, self.neighbours, self.taps, width)

    def normalise(self, weight: float) -> None:
        """Scale the weights of pixel i by sqrt(weight / n_i), n_i its response to ones."""
        values = np.zeros(self.n_points, np.float32)
        _respond(self.splat, values)
        values, _ = self.blur(values, np.empty_like(values), Width(1))
        _normalise(self.splat, values, np.float32(weight), Width(GROUP))


def build_lattice(features: Float32, blur: Blur = STANDARD, *, shift: float = 0.0) -> Lattice:
    """Build the lattice of ``features`` (d, H, W), in units of the Gaussian's sigma.

    ``shift`` moves it against the features, by that share of a deep hole: at 1, the places that
    are farthest from any vertex become vertices.

    Raises ConfigError where the features span more cells than an int64 can number.
    """
    d = len(features)
    basis = _hyperplane_basis(d) * np.float32(blur.scale)
    low, strides = _packing(_extent(features), basis)
    moved = np.float32(shift) * (np.arange(d + 1, dtype=np.float32) - np.float32(d / 2))
    # The tuple's length is known when the kernel is compiled, so that its short loops unroll.
    axes = tuple(range(d + 1))
    most = GROUP * (d + 1) * (groups_of(*features.shape[1:]) + 1)
    vertices, weights = np.empty(most, np.int32), np.empty((most, GROUP), np.float32)
    space = Space(basis, moved, low, strides)
    starts, keys, table = _embed(features, space, axes, vertices, weights, _WIDTH)
    steps_up = np.append(strides, 0) - 1
    if blur.fill:
        keys, table = _fill(keys, table, steps_up, strides.sum())
    neighbours = _find_neighbours(keys, table, steps_up, strides.sum(), blur.far > 0)
    taps = np.array([blur.centre, blur.near, blur.far], np.float32)
    return Lattice(Splat(starts, vertices[: starts[-1]], weights[: starts[-1]]), neighbours, taps)


def _hyperplane_basis(d: int) -> Float32:
    """Return orthogonal columns (d + 1, d) of the zero-sum hyperplane, where one sigma is 1.

    The factor (d + 1) sqrt(2 / 3) makes splat, [1 2 1] and slice together a Gaussian of variance 1.
    """
    basis = np.triu(np.ones((d + 1, d)))
    column = np.arange(d)
    basis[column + 1, column] = -(column + 1)
    basis *= (d + 1) * np.sqrt(2 / 3) / np.sqrt((column + 1) * (column + 2))
    return basis.astype(np.float32)


def _extent(features: Float32) -> npt.NDArray[np.float64]:
    """Return the smallest and largest value (2, d) of each feature."""
    flat = features.reshape(len(features), -1)
    return np.stack([flat.min(axis=1), flat.max(axis=1)]).astype(np.float64)


def _packing(
    extent: npt.NDArray[np.float64], basis: Float32
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the smallest cell (d,) and key stride (d,) of each packed coordinate."""
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
def _embed(features, space, axes, vertices, weights, block):  # type: ignore[no-untyped-def]
    """Fill ``vertices`` and ``weights`` (see Lattice); return starts, keys and the hash table."""
    d, height, width = features.shape
    size = d + 1
    across = (width + 1) // 2
    groups = (height + 1) // 2 * across
    starts = np.zeros(groups + 1, np.int32)
    table = np.full(_FIRST_TABLE_SIZE, np.int32(_EMPTY))
    keys = np.empty(_FIRST_TABLE_SIZE, np.int64)
    count, entry = 0, 0
    padded = 2 * across + lanes(block)
    point_weights = np.zeros((2, padded, size), np.float32)
    point_keys = np.zeros((2, padded, size), np.int64)
    entry_keys = np.empty((across + 1) * GROUP * size, np.int64)
    scratch = np.zeros(d * padded + 3 * size * lanes(block), np.float32)
    for y in range(0, height, 2):
        for half in range(min(2, height - y)):
            _embed_row(
                features[:, y + half],
                space,
                axes,
                block,
                scratch,
                point_weights[half],
                point_keys[half],
            )
        if y + 1 == height:  # no pixel below: the same vertices, with no weight
            point_weights[1] = 0
            point_keys[1] = point_keys[0]
        if width % 2:
            point_weights[:, width] = 0
            point_keys[:, width] = point_keys[:, width - 1]
        first = entry
        group = y // 2 * across
        for x in range(across):
            entry = _join(x, point_keys, point_weights, entry_keys, weights, first, entry, axes)
            starts[group + x + 1] = entry
        if 2 * (count + entry - first) > table.size:
            keys, table = _grow(keys, count, count + entry - first)
        count = _number(entry_keys, first, entry, keys, table, count, vertices)
    return starts, keys[:count], table


@njit(nogil=True, cache=True, error_model="numpy")
def _join(x, point_keys, point_weights, entry_keys, weights, first, entry, axes):  # type: ignore[no-untyped-def]
    """Add the entries of group ``x`` of a pair of rows; return where the next begin.

    No branches: which pixels share a vertex could not be predicted.
    """
    for r in range(len(axes)):  # vertices of different remainders differ
        a, b = point_keys[0, 2 * x, r], point_keys[0, 2 * x + 1, r]
        c, d = point_keys[1, 2 * x, r], point_keys[1, 2 * x + 1, r]
        at_a = entry
        entry_keys[at_a - first] = a
        at_b = at_a if b == a else at_a + 1
        entry_keys[at_b - first] = b
        end = at_b + 1
        at_c = at_a if c == a else (at_b if c == b else end)
        entry_keys[at_c - first] = c
        end = max(end, at_c + 1)
        at_d = at_a if d == a else (at_b if d == b else (at_c if d == c else end))
        entry_keys[at_d - first] = d
        end = max(end, at_d + 1)
        weights[entry : entry + GROUP] = 0
        weights[at_a, 0] = point_weights[0, 2 * x, r]
        weights[at_b, 1] = point_weights[0, 2 * x + 1, r]
        weights[at_c, 2] = point_weights[1, 2 * x, r]
        weights[at_d, 3] = point_weights[1, 2 * x + 1, r]
        entry = end
    return entry


@njit(nogil=True, cache=True, error_model="numpy")
def _number(entry_keys, first, entry, keys, table, count, vertices):  # type: ignore[no-untyped-def]
    """Number the vertices of entries ``first`` to ``entry``; return the number of all so far."""
    for index in range(first, entry):
        key = entry_keys[index - first]
        slot = _slot(keys, table, key)
        if table[slot] == _EMPTY:
            keys[count] = key
            table[slot] = count
            count += 1
        vertices[index] = table[slot]
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def _embed_row(features, space, axes, block, scratch, weights, keys):  # type: ignore[no-untyped-def]
    """Find the barycentric weights and keys (W, d + 1) of one row of pixels, a block at a time."""
    d, width = features.shape
    size, step = len(axes), lanes(block)
    padded = weights.shape[0]
    offsets = d * padded
    ranks = offsets + size * step
    cells = ranks + size * step
    for j in range(d):
        for x in range(width):
            scratch[j * padded + x] = features[j, x]
    for start in range(0, width, step):
        _nearest_remainder_zero(scratch, start, padded, space, offsets, ranks, cells, axes, block)
        _barycentric(scratch, start, offsets, ranks, weights, axes, block)
        _simplex_keys(scratch, start, ranks, cells, space, keys, axes, block)


@njit(nogil=True, cache=True, error_model="numpy")
def _nearest_remainder_zero(  # type: ignore[no-untyped-def]
    scratch, start, padded, space, offsets, ranks, cells, axes, block
):
    """Find the cells of the nearest vertices with remainder 0, offsets to them, and ranks."""
    size, step = len(axes), lanes(block)
    inverse = np.float32(1 / size)
    excess = spread(np.float32(0), block)
    for i in axes:
        elevated = spread(space.moved[i] * inverse, block)
        for j in range(max(i - 1, 0), size - 1):  # the basis is zero below its first subdiagonal
            feature = load(scratch, j * padded + start, block)
            elevated = elevated + (space.basis[i, j] * inverse) * feature
        nearest = floor(np.float32(0.5) + elevated)
        store(scratch, offsets + i * step, elevated - nearest)
        store(scratch, cells + i * step, nearest)
        excess = excess + nearest
    for i in axes:
        here = load(scratch, offsets + i * step, block)
        rank = excess
        for j in axes:  # how many offsets are larger; of equal ones, the first counts as larger
            other = load(scratch, offsets + j * step, block)
            if j < i:
                rank = rank + (np.float32(1) - less(other, here))
            elif j > i:
                rank = rank + less(here, other)
        store(scratch, ranks + i * step, rank)
    for i in axes:  # the cells must sum to zero: move those with the extreme offsets
        rank = load(scratch, ranks + i * step, block)
        turn = less(rank, spread(np.float32(0), block)) - less(
            spread(np.float32(size - 1), block), rank
        )
        store(scratch, ranks + i * step, rank + np.float32(size) * turn)
        store(scratch, cells + i * step, load(scratch, cells + i * step, block) + turn)
        store(scratch, offsets + i * step, load(scratch, offsets + i * step, block) - turn)


@njit(nogil=True, cache=True, error_model="numpy")
def _barycentric(scratch, start, offsets, ranks, weights, axes, block):  # type: ignore[no-untyped-def]
    """Compute the weights of the vertices with remainder 0..d: gaps between the sorted offsets."""
    size, step = len(axes), lanes(block)
    column = np.empty(size * lanes(block), np.float32)  # the offsets, sorted
    for r in axes:
        value = spread(np.float32(0), block)
        for i in axes:
            here = equal(load(scratch, ranks + i * step, block), spread(np.float32(r), block))
            value = value + here * load(scratch, offsets + i * step, block)
        store(column, r * step, value)
    for p in range(step):
        for r in range(1, size):
            weights[start + p, r] = (
                column[(size - 1 - r) * step + p] - column[(size - r) * step + p]
            )
        weights[start + p, 0] = np.float32(1) + column[(size - 1) * step + p] - column[p]


@njit(nogil=True, cache=True, error_model="numpy")
def _simplex_keys(scratch, start, ranks, cells, space, keys, axes, block):  # type: ignore[no-untyped-def]
    """Compute each simplex' keys: at vertex r, the coordinate of rank d + 1 - r drops a cell."""
    size, step = len(axes), lanes(block)
    drops = np.empty(len(axes), np.int64)
    for p in range(step):
        key = np.int64(0)
        drops[:] = 0
        for i in range(size):
            rank = np.int64(scratch[ranks + i * step + p])
            if i < size - 1:
                key += (np.int64(scratch[cells + i * step + p]) - space.low[i]) * space.strides[i]
                drops[rank] = space.strides[i]
        keys[start + p, 0] = key
        for r in range(1, size):
            key += 1 - drops[size - r]
            keys[start + p, r] = key


@njit(nogil=True, cache=True)
def _slot(keys, table, key):  # type: ignore[no-untyped-def]
    """Return where ``key`` stands in the open-addressing table, or the free slot for it."""
    mask = table.size - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot] != _EMPTY and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def _grow(keys, count, wanted):  # type: ignore[no-untyped-def]
    """Make room for ``wanted`` keys in a table that they fill to a half at most."""
    size = _table_size(wanted)
    grown_table = np.full(size, np.int32(_EMPTY))
    grown_keys = np.empty(size, np.int64)
    grown_keys[:count] = keys[:count]
    for index in range(count):
        grown_table[_slot(grown_keys, grown_table, grown_keys[index])] = index
    return grown_keys, grown_table


@njit(nogil=True, cache=True)
def _table_size(wanted):  # type: ignore[no-untyped-def]
    size = _FIRST_TABLE_SIZE
    while size < 4 * wanted:
        size *= 2
    return size


@njit(nogil=True, cache=True)
def _step_up(key, step, d, all_strides):  # type: ignore[no-untyped-def]
    """Return the key one step up a direction.

    A step up adds d to the direction's own coordinate and -1 to every other. The shared remainder
    falls by one; from 0 it goes round to d, and then every cell falls by one.
    """
    return key + step + (d + 1 - all_strides if key % (d + 1) == 0 else 0)


@njit(nogil=True, cache=True)
def _step_down(key, step, d, all_strides):  # type: ignore[no-untyped-def]
    return key - step - (d + 1 - all_strides if key % (d + 1) == d else 0)


@njit(nogil=True, cache=True)
def _fill(keys, table, steps_up, all_strides):  # type: ignore[no-untyped-def]
    """Return keys and table with the vertices that two or more of the given ones are next to."""
    n, d = keys.size, steps_up.size - 1
    keys, table = _grow(keys, n, 3 * n)
    count = n
    contacts = np.zeros(keys.size, np.int32)
    for index in range(n):
        for direction in range(d + 1):
            for up in range(2):
                if up:
                    key = _step_up(keys[index], steps_up[direction], d, all_strides)
                else:
                    key = _step_down(keys[index], steps_up[direction], d, all_strides)
                slot = _slot(keys, table, key)
                if table[slot] == _EMPTY:
                    if 2 * count >= table.size:
                        keys, table = _grow(keys, count, 2 * count)
                        larger = np.zeros(keys.size, np.int32)
                        larger[:count] = contacts[:count]
                        contacts = larger
                        slot = _slot(keys, table, key)
                    keys[count] = key
                    table[slot] = count
                    count += 1
                contacts[table[slot]] += 1
    kept = n
    for index in range(n, count):
        if contacts[index] >= _CONTACTS:
            keys[kept] = keys[index]
            kept += 1
    table[:] = _EMPTY
    for index in range(kept):
        table[_slot(keys, table, keys[index])] = index
    return keys[:kept], table


@njit(nogil=True, cache=True)
def _find_neighbours(keys, table, steps_up, all_strides, two_steps):  # type: ignore[no-untyped-def]
    """Return the rows (d + 1, n, 2 or 4) one step up and down, then two; n where missing."""
    n, d = keys.size, steps_up.size - 1
    neighbours = np.full((d + 1, n, 4 if two_steps else 2), n, np.int32)
    for direction in range(d + 1):
        for index in range(n):  # a step down from there is a step up from here
            key = _step_up(keys[index], steps_up[direction], d, all_strides)
            up = table[_slot(keys, table, key)]
            if up >= 0:
                neighbours[direction, index, 0] = up
                neighbours[direction, up, 1] = index
        if two_steps:
            for index in range(n):
                for side in range(2):
                    near = neighbours[direction, index, side]
                    if near < n:
                        neighbours[direction, index, 2 + side] = neighbours[direction, near, side]
    return neighbours


@njit(nogil=True, cache=True, error_model="numpy")
def _blur(values, scratch, neighbours, taps, width):  # type: ignore[no-untyped-def]
    """Blur ``values`` ((n_vertices + 1) * width,) along every direction; the last row stays zero.

    ``scratch`` is a buffer of the same size. Returns the two with the result first.
    """
    directions, n, reach = neighbours.shape
    step = lanes(width)
    centre, near, far = taps
    scratch[n * step :] = 0
    for direction in range(directions):
        for index in range(n):
            up = neighbours[direction, index, 0] * step
            down = neighbours[direction, index, 1] * step
            value = centre * load(values, index * step, width)
            value = add_scaled_pair(value, near, values, up, down, width)
            if reach == 4:
                up = neighbours[direction, index, 2] * step
                down = neighbours[direction, index, 3] * step
                value = add_scaled_pair(value, far, values, up, down, width)
            store(scratch, index * step, value)
        values, scratch = scratch, values
    return values, scratch


@njit(nogil=True, cache=True, error_model="numpy")
def _respond(splat, values):  # type: ignore[no-untyped-def]
    """Splat ones: add each entry's weights to ``values`` (n_points,)."""
    for entry in range(splat.points.size):
        a, b, c, d = splat.weights[entry]
        values[splat.points[entry]] += (a + b) + (c + d)


@njit(nogil=True, cache=True, error_model="numpy")
def _normalise(splat, values, weight, four):  # type: ignore[no-untyped-def]
    """Scale the weights of pixel i by sqrt(weight / n_i).

    ``values`` (n_points,) is the filter's response to ones, n_i what pixel i reads of it.
    """
    response = np.empty(GROUP, np.float32)
    for group in range(splat.starts.size - 1):
        first, last = at(splat.starts, group), at(splat.starts, group + 1)
        read = spread(np.float32(0), four)
        for entry in range(first, last):
            value = values[at(splat.points, entry)]
            read = read + value * load(splat.weights, entry * GROUP, four)
        store(response, 0, read)
        for pixel in range(GROUP):  # 0 beside the photo
            known = response[pixel] > 0
            response[pixel] = np.sqrt(weight / response[pixel]) if known else np.float32(0)
        scale = load(response, 0, four)
        for entry in range(first, last):
            place = entry * GROUP
            store(splat.weights, place, scale * load(splat.weights, place, four))
