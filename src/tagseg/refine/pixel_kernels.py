"""Kernels of the mean field: one pass over the pixels of a photo, which stores no message.

Each group of 2 x 2 pixels reads its points in the grids of both kernels, takes its softmax and is
added to the grids of the next iteration while it is in the cache. The labels of a pixel are
one machine vector. Pixels go through in blocks of groups: a pixel's softmax is a long chain of
steps, and only pixels side by side fill the machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.refine.groups import GROUP, Splat
from tagseg.refine.lanes import (
    add_inner,
    add_outer,
    at,
    exp,
    highest,
    highest_of_four,
    lanes,
    load,
    load_four,
    maximum,
    repeat_four,
    spread,
    store,
    total,
    total_of_four,
)

__all__ = [
    "BLOCK",
    "Grids",
    "Pixels",
    "Regions",
    "add_up_regions",
    "pixels_first",
    "update",
    "write_probs",
]

BLOCK = 128  # groups that go through the steps together: they fit the second cache
_LEAST_LOG = -80.0  # log Q below which a label has no chance

Float32 = npt.NDArray[np.float32]


class Grids(NamedTuple):
    """The points of the bilateral and of the smoothness kernel, and the values that they have."""

    splats: tuple[Splat, Splat]
    values: tuple[Float32, Float32]  # (n_points * lanes,) or more


class Pixels(NamedTuple):
    """The unary of a photo, by group, pixel and label, and what is the same for all pixels."""

    unary: Float32  # (groups * 4 * L + lanes,) least label of each pixel at 0
    n_labels: int
    padding: Float32  # (lanes,) 0 for labels, far below where lanes are left over
    bounded: bool  # energies cannot overflow in a float32 exponential


class Regions(NamedTuple):
    """P^n-Potts terms of every layer, numbered through; the last row stands for no region."""

    ids: npt.NDArray[np.int32]  # (layers, groups * 4)
    costs: Float32  # (n + 1, lanes) what a pixel pays in any case
    gain: Float32  # (n + 1, lanes) what it saves where all others have the label
    sums: Float32  # (n + 1, lanes) of log Q over each region
    agree: npt.NDArray[np.bool_]  # (n + 1,) whether any product over all but one pixel is left
    sums_next: Float32
    logs: Float32  # (groups * 4 * lanes,) log Q; nothing where no gain is asked for


@njit(nogil=True, cache=True, error_model="numpy")
def pixels_first(unary, moved, no_chance):  # type: ignore[no-untyped-def]
    """Write ``unary`` (L, H, W) to ``moved`` (groups * 4 * L,), the least of each pixel at 0."""
    n_labels, height, width = unary.shape
    across = (width + 1) // 2
    least = np.empty(width, np.float32)
    for y in range(height):
        least[:] = unary[0, y]
        for k in range(1, n_labels):
            for x in range(width):
                least[x] = min(least[x], unary[k, y, x])
        start = (y // 2 * across * GROUP + y % 2 * 2) * n_labels
        for k in range(n_labels):
            for x in range(width):
                pixel = x // 2 * GROUP + x % 2
                moved[start + pixel * n_labels + k] = min(unary[k, y, x] - least[x], no_chance)


@njit(nogil=True, cache=True, error_model="numpy")
def add_up_regions(pixels, ids, sums, width):  # type: ignore[no-untyped-def]
    """Add softmax(-unary) of every pixel to its region in ``sums`` (n + 1, lanes)."""
    step = lanes(width)
    none = load(pixels.padding, 0, width)
    for pixel in range(ids.size):
        share = exp(none - load(pixels.unary, pixel * pixels.n_labels, width))
        region = np.int64(ids[pixel]) * step
        mass = total(share)
        store(sums, region, load(sums, region, width) + (np.float32(1) / mass) * share)


@njit(nogil=True, cache=True, error_model="numpy")
def update(first, last, pixels, read, write, regions, rows, width):  # type: ignore[no-untyped-def]
    """Run one iteration over groups ``first`` to ``last``, from one pair of grids into another."""
    for start in range(first, last, BLOCK):
        end = min(start + BLOCK, last)
        _probabilities(start, end, pixels, read, regions, rows, width)
        _splat(start, end, write.splats[0], write.values[0], rows, width)
        _splat(start, end, write.splats[1], write.values[1], rows, width)


@njit(nogil=True, cache=True, error_model="numpy")
def write_probs(first, last, pixels, read, regions, rows, probs, width):  # type: ignore[no-untyped-def]
    """Run the last iteration, over groups ``first`` to ``last``, into ``probs`` (L, H, W)."""
    step = lanes(width)
    n_labels, height, length = probs.shape
    across = (length + 1) // 2
    start = first
    while start < last:
        y, x0 = start // across * 2, start % across * 2
        end = min(start + BLOCK, (start // across + 1) * across, last)
        _probabilities(start, end, pixels, read, regions, rows, width)
        x1 = min(length, x0 + 2 * (end - start))
        for half in range(min(2, height - y)):
            for k in range(n_labels):
                for x in range(x0, x1):
                    pixel = (x - x0) // 2 * GROUP + half * 2 + (x - x0) % 2
                    probs[k, y + half, x] = rows[pixel * step + k]
        start = end


@njit(nogil=True, cache=True, error_model="numpy")
def _probabilities(start, end, pixels, read, regions, rows, width):  # type: ignore[no-untyped-def]
    """Compute the probabilities of the pixels of groups ``start`` to ``end``, into ``rows``."""
    _energies(start, end, pixels, read.splats, read.values, rows, width)
    n = (end - start) * GROUP
    if regions.ids.size:
        _add_regions(start * GROUP, n, regions, rows, width)
    if regions.logs.size:
        _softmax_with_logs(start * GROUP, n, pixels.bounded, regions, rows, width)
    else:
        _softmax(rows, end - start, pixels.bounded, width)


@njit(nogil=True, cache=True, error_model="numpy")
def _energies(start, end, pixels, splats, values, rows, width):  # type: ignore[no-untyped-def]
    """Compute both kernels' messages minus the unary, for the pixels of some groups."""
    step, n_labels = lanes(width), pixels.n_labels
    bilateral, smooth = splats
    none = repeat_four(load(pixels.padding, 0, width))
    for group in range(start, end):
        energy = none - load_four(pixels.unary, group * GROUP * n_labels, n_labels, width)
        for entry in range(at(bilateral.starts, group), at(bilateral.starts, group + 1)):
            place = np.int64(at(bilateral.points, entry)) * step
            energy = add_outer(energy, bilateral.weights, entry * GROUP, values[0], place, width)
        for entry in range(at(smooth.starts, group), at(smooth.starts, group + 1)):
            place = np.int64(at(smooth.points, entry)) * step
            energy = add_outer(energy, smooth.weights, entry * GROUP, values[1], place, width)
        store(rows, (group - start) * GROUP * step, energy)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_regions(first, n, regions, rows, width):  # type: ignore[no-untyped-def]
    """Take the higher-order terms of pixels ``first`` to ``first + n`` from their energies."""
    step = lanes(width)
    for layer in range(regions.ids.shape[0]):
        for pixel in range(n):
            region = np.int64(regions.ids[layer, first + pixel]) * step
            energy = load(rows, pixel * step, width) - load(regions.costs, region, width)
            if regions.logs.size and regions.agree[region // step]:
                sums = load(regions.sums, region, width)
                own = load(regions.logs, (first + pixel) * step, width)
                rest = sums - maximum(own, spread(np.float32(_LEAST_LOG), width))
                nothing = spread(np.float32(0), width)
                others = exp(nothing - maximum(nothing - rest, nothing))
                energy = energy + load(regions.gain, region, width) * others
            store(rows, pixel * step, energy)


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax(rows, groups, bounded, width):  # type: ignore[no-untyped-def]
    """Take the softmax of some groups' pixels; ``bounded`` energies cannot overflow as they are."""
    step = lanes(width) * GROUP
    for k in range(0, groups * step, step):
        energy = load_four(rows, k, lanes(width), width)
        if not bounded:
            energy = energy - highest_of_four(energy)
        share = exp(energy)
        store(rows, k, share / total_of_four(share))


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax_with_logs(first, n, bounded, regions, rows, width):  # type: ignore[no-untyped-def]
    """Softmax of ``n`` pixels in place; keep log Q, and add it up over the regions."""
    step = lanes(width)
    least = spread(np.float32(_LEAST_LOG), width)
    for pixel in range(n):
        energy = load(rows, pixel * step, width)
        if not bounded:
            energy = energy - spread(highest(energy), width)
        share = exp(energy)
        mass = total(share)
        store(rows, pixel * step, (np.float32(1) / mass) * share)
        log = maximum(energy - spread(np.float32(np.log(mass)), width), least)
        store(regions.logs, (first + pixel) * step, log)
        for layer in range(regions.ids.shape[0]):
            region = np.int64(regions.ids[layer, first + pixel]) * step
            store(regions.sums_next, region, load(regions.sums_next, region, width) + log)


@njit(nogil=True, cache=True, error_model="numpy")
def _splat(start, end, splat, write, rows, width):  # type: ignore[no-untyped-def]
    """Add the probabilities of some groups to a grid."""
    step = lanes(width)
    for group in range(start, end):
        share = load_four(rows, (group - start) * GROUP * step, step, width)
        for entry in range(at(splat.starts, group), at(splat.starts, group + 1)):
            place = np.int64(at(splat.points, entry)) * step
            add_inner(write, place, splat.weights, entry * GROUP, share)
