"""Ultrametric contour map: a watershed's basins, merged in the order of their boundaries' strength.

Arbelaez, Maire, Fowlkes, Malik, "Contour detection and hierarchical image segmentation" (2011),
section 4, with the arithmetic mean as the strength of a boundary.
"""

from __future__ import annotations

import heapq
import numbers
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError, ShapeError
from tagseg.priors.float_arrays import float_array

__all__ = ["ContourMap", "Regions", "check_threshold", "watershed_basins"]

Float32: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.floating]
Regions: TypeAlias = npt.NDArray[np.int32]
Integers: TypeAlias = npt.NDArray[np.int32]

_NEARBY = 3.0  # pixels of the oriented maps on either side that tell a boundary's direction


@dataclass(frozen=True)
class ContourMap:
    """A photo's boundaries, and the regions between them at every threshold.

    A region is what no boundary above the threshold divides. :meth:`of` builds the map from
    boundary strengths, :func:`tagseg.priors.crisp_contour_map` from a photo; :meth:`regions` then
    takes a fraction of a millisecond.

    Arbelaez et al. 2011, section 4.

    Attributes:
        boundaries: float32 (H, W) in [0, 1], strength of the boundary through each pixel.
        basins: int32 (H, W), the finest regions, ids 0..n-1.
        merges: int32 (n - 1, 2), pairs of basins whose regions merge, in order of strength.
        strengths: float32 (n - 1,), mean strength of the boundary that each merge takes away,
            never less than the one before.

    Examples:
        A weak boundary runs through column 1, a strong one through column 4:

        >>> import numpy as np
        >>> from tagseg.priors import ContourMap
        >>> strengths = np.zeros((2, 7))
        >>> strengths[:, 1], strengths[:, 4] = 0.3, 0.8
        >>> whole = ContourMap.of(strengths)
        >>> for threshold in (0.1, 0.5, 0.9):
        ...     print(whole.regions(threshold)[0].tolist())
        [0, 0, 1, 1, 1, 2, 2]
        [0, 0, 0, 0, 0, 1, 1]
        [0, 0, 0, 0, 0, 0, 0]
    """

    boundaries: Float32
    basins: Regions
    merges: Integers
    strengths: Float32

    def regions(self, threshold: float) -> Regions:
        """Label the regions that boundaries stronger than ``threshold`` part.

        Regions of a higher threshold are unions of regions of a lower one.

        Args:
            threshold: strength of a boundary, from 0 to 1.

        Returns:
            int32 (H, W), ids 0..n-1; each region is connected in 4-neighbours.

        Raises:
            ConfigError: threshold is not in [0, 1].
        """
        check_threshold(threshold)
        n_merges = int(np.searchsorted(self.strengths, threshold, side="right"))
        labels = _labels_after(self.merges[:n_merges], len(self.merges) + 1)
        return labels[self.basins]

    @classmethod
    def of(cls, boundaries: Floats, oriented: Floats | None = None) -> ContourMap:
        """Build the map from the strength of the boundary at each pixel.

        Basins are those of the watershed without lines. The strength between two regions is the
        mean over all pairs of 4-neighbours that their boundary parts. Such a pair's strength is the
        larger one of the two pixels', or, given ``oriented``, the strength there of boundaries
        that run as this one does: the flanks of a strong boundary then do not make short ones
        across it strong.

        Args:
            boundaries: float (H, W) in [0, 1].
            oriented: float (n, h, w) in [0, 1], on a grid over the same photo, maybe coarser;
                map k is the strength of boundaries whose normal is at angle k pi / n to the rows.

        Raises:
            ShapeError: an array has another shape or no floats, is empty, or leaves [0, 1].
        """
        boundaries = _strengths(boundaries, 2, "boundaries")
        basins = watershed_basins(boundaries)
        n = int(basins.max()) + 1
        total = sum(int((np.diff(basins, axis=axis) != 0).sum()) for axis in (0, 1))
        keys, links, strengths = _links(boundaries, basins, n, total)
        order = np.argsort(keys, kind="stable")
        keys, links, strengths = keys[order], links[order], strengths[order]
        if oriented is not None:
            oriented = _strengths(oriented, 3, "oriented")
            scale = np.array(oriented.shape[1:]) / boundaries.shape
            strengths = _oriented_strengths(keys, links, oriented, *scale)
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        sums = np.add.reduceat(strengths, starts, dtype=np.float64) if n > 1 else np.empty(0)
        counts = np.diff(starts, append=len(keys))
        pairs = np.stack([keys[starts] // n, keys[starts] % n], 1).astype(np.int32)
        return cls(boundaries, basins, *_merge(n, pairs, sums, counts))


def check_threshold(threshold: float) -> None:
    """Raise ConfigError unless ``threshold`` is a number in [0, 1]."""
    if not isinstance(threshold, numbers.Real) or not 0 <= threshold <= 1:
        raise ConfigError(
            f"threshold is {threshold!r}", where="crisp regions", do="give a strength from 0 to 1"
        )


def watershed_basins(heights: Float32) -> Regions:
    """Label the basins of the watershed of ``heights`` (H, W), without lines between them.

    Returns int32 (H, W), ids 0..n-1. Every pixel drains to the lowest of its 4-neighbours, the
    first of equals, down to a minimum; basins are 4-connected, numbered as they first occur in
    reading order.
    """
    return _drain(np.ascontiguousarray(heights))


def _strengths(values: Any, n_axes: int, name: str) -> Float32:
    """Return strengths as contiguous float32, if they have so many axes and are in [0, 1]."""
    form = f"with {n_axes} axes"
    strengths = float_array(values, name, form)
    if strengths.ndim != n_axes or strengths.size == 0:
        raise ShapeError(
            f"{name} is a {values.dtype} array of shape {strengths.shape}",
            do=f"give a float array {form}",
        )
    if not (strengths.min() >= 0 and strengths.max() <= 1):
        raise ShapeError(f"{name} leaves [0, 1] or holds NaN", do="scale it to [0, 1]")
    return np.ascontiguousarray(strengths)


@njit(nogil=True, cache=True, error_model="numpy")
def _drain(heights: Float32) -> Regions:
    rows, columns = heights.shape
    flat = heights.reshape(-1)
    parent = np.empty(flat.size, np.int32)
    for y in range(rows):
        for x in range(columns):
            here = y * columns + x
            low = here
            if x > 0 and flat[here - 1] <= flat[low]:
                low = here - 1
            if y > 0 and flat[here - columns] <= flat[low]:
                low = here - columns
            if x + 1 < columns and flat[here + 1] < flat[low]:
                low = here + 1
            if y + 1 < rows and flat[here + columns] < flat[low]:
                low = here + columns
            parent[here] = low
    return _number(parent).reshape(rows, columns)


@njit(nogil=True, cache=True, error_model="numpy")
def _root(parent: Integers, node: int) -> int:
    """Find the root of ``node``; halve the paths on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True, error_model="numpy")
def _number(parent: Integers) -> Integers:
    """Number 0..n-1 the trees that ``parent`` links, in order of first occurrence."""
    ids = np.full(parent.size, -1, np.int32)
    out = np.empty(parent.size, np.int32)
    count = 0
    for node in range(parent.size):
        root = _root(parent, node)
        if ids[root] < 0:
            ids[root] = count
            count += 1
        out[node] = ids[root]
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _labels_after(merges: Integers, n_basins: int) -> Integers:
    parent = np.arange(n_basins).astype(np.int32)
    for k in range(len(merges)):
        one, two = _root(parent, merges[k, 0]), _root(parent, merges[k, 1])
        parent[max(one, two)] = min(one, two)
    return _number(parent)


@njit(nogil=True, cache=True, error_model="numpy")
def _links(heights, basins, n, total):  # type: ignore[no-untyped-def]
    """List the pairs of 4-neighbours in different basins, in reading order.

    There are ``total`` of them among ``n`` basins. Returns the key of each (both ids in one
    number), where it is (row, column, 1 if the neighbour is below, 0 if it is to the right), and
    the larger strength of the two.
    """
    rows, columns = heights.shape
    keys = np.empty(total, np.int64)
    links = np.empty((total, 3), np.int32)
    strengths = np.empty(total, np.float32)
    count = 0
    for y in range(rows):
        for x in range(columns):
            for down in range(2):
                y2, x2 = y + down, x + 1 - down
                if y2 < rows and x2 < columns and basins[y, x] != basins[y2, x2]:
                    one, two = basins[y, x], basins[y2, x2]
                    keys[count] = np.int64(min(one, two)) * n + max(one, two)
                    links[count, 0], links[count, 1], links[count, 2] = y, x, down
                    strengths[count] = max(heights[y, x], heights[y2, x2])
                    count += 1
    return keys, links, strengths


@njit(nogil=True, cache=True, error_model="numpy")
def _oriented_strengths(keys, links, oriented, scale_y, scale_x):  # type: ignore[no-untyped-def]
    """Look up at each link (sorted by key) the strength along its own boundary's direction."""
    strengths = np.empty(len(keys), np.float32)
    n = len(oriented)
    for k in range(len(keys)):
        y, x, down = links[k]
        bin_ = _normal(keys, links, k, _NEARBY / scale_y) * n / np.pi
        low = int(np.floor(bin_))
        share = np.float32(bin_ - low)
        row = (y + 0.5 * down + 0.5) * scale_y - 0.5
        column = (x + 0.5 * (1 - down) + 0.5) * scale_x - 0.5
        one = _interpolated(oriented[low % n], row, column)
        two = _interpolated(oriented[(low + 1) % n], row, column)
        strengths[k] = (np.float32(1) - share) * one + share * two
    return strengths


@njit(nogil=True, cache=True, error_model="numpy")
def _normal(keys, links, k, reach):  # type: ignore[no-untyped-def]
    """Find the angle of a boundary's normal at link k, from its links within ``reach`` of it."""
    count = sy = sx = syy = sxx = sxy = 0.0
    for step in (-1, 1):
        j = k if step < 0 else k + 1
        while 0 <= j < len(keys) and keys[j] == keys[k] and abs(links[j, 0] - links[k, 0]) <= reach:
            dy = links[j, 0] - links[k, 0] + 0.5 * links[j, 2]
            dx = links[j, 1] - links[k, 1] + 0.5 * (1 - links[j, 2])
            if abs(dx) <= reach:
                count += 1
                sy, sx = sy + dy, sx + dx
                syy, sxx, sxy = syy + dy * dy, sxx + dx * dx, sxy + dx * dy
            j += step
    vy, vx, vxy = syy - sy * sy / count, sxx - sx * sx / count, sxy - sx * sy / count
    if abs(vx - vy) + abs(vxy) < 1e-6:  # a lone link, or a bend: what the link itself parts
        return np.pi / 2 * links[k, 2]
    return 0.5 * np.arctan2(2 * vxy, vx - vy) + np.pi / 2


@njit(nogil=True, cache=True, error_model="numpy")
def _interpolated(values, row, column):  # type: ignore[no-untyped-def]
    rows, columns = values.shape
    row, column = min(max(row, 0.0), rows - 1.0), min(max(column, 0.0), columns - 1.0)
    y, x = int(row), int(column)
    y2, x2 = min(y + 1, rows - 1), min(x + 1, columns - 1)
    fy, fx = np.float32(row - y), np.float32(column - x)
    above = values[y, x] + fx * (values[y, x2] - values[y, x])
    below = values[y2, x] + fx * (values[y2, x2] - values[y2, x])
    return above + fy * (below - above)


@njit(nogil=True, cache=True, error_model="numpy")
def _merge(
    n: int, pairs: Integers, sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> tuple[Integers, Float32]:
    """Merge the two regions of the weakest mean boundary until one is left.

    ``pairs`` are edges. The two ends of edge e are slots 2 e and 2 e + 1; the slots of a region
    form a chain from ``first`` through ``after``. An edge that doubles another one after a merge is
    added to it and marked dead with count 0; ``version`` tells the heap's stale entries.
    """
    m = len(pairs)
    ends = pairs.copy()
    sums, counts = sums.copy(), counts.copy()
    first = np.full(n, -1, np.int64)
    after = np.empty(2 * m, np.int64)
    degree = np.zeros(n, np.int64)
    version = np.zeros(m, np.int64)
    heap = [(0.0, np.int64(0), np.int64(0)) for _ in range(0)]  # tells numba the type
    for e in range(m):
        heap.append((sums[e] / counts[e], np.int64(e), np.int64(0)))
        for side in range(2):
            region = ends[e, side]
            after[2 * e + side] = first[region]
            first[region] = 2 * e + side
            degree[region] += 1
    heapq.heapify(heap)
    edges, chains = (ends, sums, counts, version), (first, after, degree)
    seen = np.full(n, -1, np.int64)
    merges = np.empty((max(n - 1, 0), 2), np.int32)
    strengths = np.empty(max(n - 1, 0), np.float32)
    done = 0
    while heap and done < n - 1:
        mean, edge, stamp = heapq.heappop(heap)
        if counts[edge] == 0 or version[edge] != stamp:
            continue
        keep, gone = ends[edge, 0], ends[edge, 1]
        if degree[keep] < degree[gone]:
            keep, gone = gone, keep
        merges[done, 0], merges[done, 1] = keep, gone
        strengths[done] = mean if done == 0 else max(np.float32(mean), strengths[done - 1])
        done += 1
        counts[edge] = 0
        _absorb(keep, gone, edges, chains, seen, heap)
    return merges, strengths


@njit(nogil=True, cache=True, error_model="numpy")
def _absorb(keep, gone, edges, chains, seen, heap):  # type: ignore[no-untyped-def]
    """Hand the edges of region ``gone`` to ``keep``; edges to a common neighbour become one.

    ``edges`` and ``chains`` are the arrays of :func:`_merge`; ``seen`` (n,) is -1 before and after.
    """
    ends, sums, counts, version = edges
    first, after, degree = chains
    slot = first[keep]
    first[keep] = -1
    degree[keep] = 0
    while slot >= 0:
        following = after[slot]
        edge = slot // 2
        if counts[edge] > 0:
            seen[ends[edge, 1 - slot % 2]] = edge
            after[slot] = first[keep]
            first[keep] = slot
            degree[keep] += 1
        slot = following
    slot = first[gone]
    while slot >= 0:
        following = after[slot]
        edge = slot // 2
        if counts[edge] > 0:
            other = ends[edge, 1 - slot % 2]
            twin = seen[other]
            if twin >= 0:
                sums[twin] += sums[edge]
                counts[twin] += counts[edge]
                counts[edge] = 0
                version[twin] += 1
                heapq.heappush(heap, (sums[twin] / counts[twin], twin, version[twin]))
            else:
                ends[edge, slot % 2] = keep
                after[slot] = first[keep]
                first[keep] = slot
                degree[keep] += 1
        slot = following
    slot = first[keep]
    while slot >= 0:
        seen[ends[slot // 2, 1 - slot % 2]] = -1
        slot = after[slot]
