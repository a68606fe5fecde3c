"""Fully connected CRF with Gaussian edge potentials, by filter-based mean field.

Kraehenbuehl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials"
(2011); Saleh et al. (2017), section 3.1.3, Eq. 6 and 7. The energy of a labelling x is

    E(x) = sum_i theta_i(x_i) + sum_{i < j} [x_i != x_j] sum_m w_m k_m(i, j) / sqrt(n_mi n_mj),

with a bilateral kernel (position and colour) and a smoothness kernel (position), each normalised
symmetrically by n_mi = sum_j k_m(i, j). One iteration sets

    Q_i(l)  proportional to  exp(-theta_i(l) + sum_m w_m sum_j k_m(i, j) Q_j(l) / sqrt(n_mi n_mj)).

Both sums over j include i itself, as in pydensecrf. The mean field of the energy above would leave
j = i out; keeping it adds w_m / n_mi times Q_i(l), which is small where n is large (1 / 57 of the
weight in a smoothness kernel of 3 pixels) and lets a pixel of a colour that nothing else has keep
its own label, where the normalisation would otherwise have nothing to normalise.

The bilateral kernel goes through a permutohedral lattice (an approximation), the smoothness kernel
through a spline grid (close to exact). Neither stores a message: each row of pixels reads both
grids, takes its softmax and is added to the grids of the next iteration while it is in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import Image, Probs, check_image, check_maps
from tagseg.refine.lanes import LANES, exp, highest, load, maximum, spread, store, total
from tagseg.refine.lattice import Lattice, blur, build_lattice
from tagseg.refine.spatial_grid import GridAxis, convolve, grid_axis, no_axis

__all__ = ["CrfParameters", "dense_crf", "refine", "softmax_unary"]

_MAX_LABELS = 255
_NO_CHANCE = np.float32(1e30)  # energy of the labels that only fill a vector up

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CrfParameters:
    """Settings of a dense CRF; the defaults are those of SEC (Saleh et al. state none).

    ``bilateral`` is (weight, sigma in pixels, sigma in colour levels), ``smoothness`` (weight,
    sigma in pixels); None leaves a kernel out. The sigmas hold for photos whose longer side is
    ``reference_side`` pixels, or for every photo where it is None.

    Raises ConfigError for negative weights, sigmas that are not positive, negative iterations.
    """

    bilateral: tuple[float, float, float] | None = (10, 80, 13)
    smoothness: tuple[float, float] | None = (3, 3)
    iterations: int = 10
    reference_side: int | None = None

    def __post_init__(self) -> None:
        _check_kernel(self.bilateral, 3, "bilateral")
        _check_kernel(self.smoothness, 2, "smoothness")
        if not _is_whole(self.iterations) or self.iterations < 0:
            raise ConfigError(
                f"iterations is {self.iterations!r}", where="dense CRF", do="give 0 or more"
            )
        side = self.reference_side
        if side is not None and (not _is_whole(side) or side < 1):
            raise ConfigError(
                f"reference_side is {side!r}", where="dense CRF", do="give pixels or None"
            )

    def at(self, height: int, width: int) -> CrfParameters:
        """Settings for a photo of ``height`` x ``width``, with its spatial sigmas in pixels."""
        if self.reference_side is None:
            return self
        factor = max(height, width) / self.reference_side
        bilateral, smoothness = self.bilateral, self.smoothness
        if bilateral is not None:
            bilateral = (bilateral[0], bilateral[1] * factor, bilateral[2])
        if smoothness is not None:
            smoothness = (smoothness[0], smoothness[1] * factor)
        return CrfParameters(bilateral, smoothness, self.iterations)


def refine(image: Image, unary: Float32, parameters: CrfParameters) -> Probs:
    """Dense CRF of ``image`` (H, W, 3) and ``unary`` (L, H, W) with ``parameters`` at its size.

    Returns probabilities float32 (L, H, W). Raises ShapeError for arrays that do not fit.
    """
    image, unary = _check_arrays(image, unary)
    at_size = parameters.at(*image.shape[:2])
    lattice = _bilateral_lattice(image, at_size.bilateral)
    axis_y, axis_x = _smoothness_axes(image, at_size.smoothness)
    probs = np.empty_like(unary, order="C")
    _mean_field(_pixels_first(unary), lattice, axis_y, axis_x, at_size.iterations, probs)
    return probs


def dense_crf(
    image: Image,
    unary: Float32,
    *,
    bilateral: tuple[float, float, float] | None = (10, 80, 13),
    smoothness: tuple[float, float] | None = (3, 3),
    iterations: int = 10,
) -> Probs:
    """Mean-field marginals of a dense CRF (Kraehenbuehl and Koltun 2011; Saleh et al. Eq. 6).

    ``image`` is uint8 (H, W, 3), ``unary`` = -log p float32 (L, H, W); ``bilateral`` is (weight,
    sigma in pixels, sigma in colour levels), ``smoothness`` (weight, sigma in pixels), None leaves
    a kernel out. Returns float32 (L, H, W) that sums to 1 over labels; with 0 iterations it is
    softmax(-unary). Holds no lock: several photos may run in threads.

    Raises ShapeError for arrays that do not fit, ConfigError for settings that make no sense.
    """
    return refine(image, unary, CrfParameters(bilateral, smoothness, iterations))


def softmax_unary(maps: Float32) -> Float32:
    """Unary -log softmax of score maps (L, H, W) over labels (Saleh et al. Eq. 7).

    Raises ShapeError where ``maps`` is not a finite float32 (L, H, W).
    """
    maps = check_maps(maps, np.shape(maps)[1:], "maps")
    if 0 in maps.shape:
        raise ShapeError(f"maps has shape {maps.shape}", do="give at least one label and pixel")
    shifted = maps - maps.max(axis=0)
    unary: Float32 = np.log(np.exp(shifted).sum(axis=0)) - shifted
    return unary


def _check_kernel(kernel: Any, length: int, name: str) -> None:
    """Raise ConfigError where ``kernel`` is not None, nor a weight >= 0 and positive sigmas."""
    if kernel is None:
        return
    try:
        values = np.array(kernel, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    fits = values.shape == (length,) and bool(np.isfinite(values).all())
    if not fits or values[0] < 0 or (values[1:] <= 0).any():
        levels = ", sigma in colour levels" if length == 3 else ""
        raise ConfigError(
            f"{name} is {kernel!r}",
            where="dense CRF",
            do=f"give (weight, sigma in pixels{levels}) with weight >= 0 and sigmas > 0, or None",
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_arrays(image: Any, unary: Any) -> tuple[Image, Float32]:
    image = check_image(image)
    unary = check_maps(unary, image.shape[:2], "unary")
    if not 1 <= unary.shape[0] <= _MAX_LABELS:
        raise ShapeError(f"unary has {unary.shape[0]} labels", do=f"give 1 to {_MAX_LABELS}")
    return image, unary


def _bilateral_lattice(image: Image, bilateral: tuple[float, float, float] | None) -> Lattice:
    """Lattice of the bilateral kernel, with weight and symmetric normalisation in its weights."""
    height, width = image.shape[:2]
    if bilateral is None or bilateral[0] == 0:
        return _empty_lattice(height * width)
    weight, sigma_pixels, sigma_levels = bilateral
    features = np.empty((height, width, 5), np.float32)
    with np.errstate(over="ignore"):  # sigmas that small are refused by the lattice
        features[..., 0] = np.arange(width) / sigma_pixels
        features[..., 1] = np.arange(height)[:, None] / sigma_pixels
        features[..., 2:] = (np.arange(256) / sigma_levels).astype(np.float32)[image]
    lattice = build_lattice(features.reshape(-1, 5))
    _normalise(lattice, weight)
    return lattice


def _empty_lattice(n: int) -> Lattice:
    return Lattice(
        np.empty((n, 0), np.int32), np.empty((n, 0), np.float32), np.empty((0, 0, 2), np.int32)
    )


def _smoothness_axes(
    image: Image, smoothness: tuple[float, float] | None
) -> tuple[GridAxis, GridAxis]:
    """The two axes of the smoothness kernel, its weight in the vertical one."""
    height, width = image.shape[:2]
    if smoothness is None or smoothness[0] == 0:
        return no_axis(height), no_axis(width)
    weight, sigma = smoothness
    vertical = grid_axis(height, sigma)
    return vertical._replace(kernel=vertical.kernel * np.float32(weight)), grid_axis(width, sigma)


def _pixels_first(unary: Float32) -> Float32:
    """Unary (H, W, lanes), the least of each pixel moved to 0, padded with labels of no chance."""
    n_labels, height, width = unary.shape
    moved = np.full((height, width, -(-n_labels // LANES) * LANES), _NO_CHANCE)
    _transpose(unary, moved)
    return moved


@njit(nogil=True, cache=True)
def _transpose(unary, moved):  # type: ignore[no-untyped-def]
    n_labels, height, width = unary.shape
    for y in range(height):
        for x in range(width):
            least = unary[0, y, x]
            for k in range(1, n_labels):
                least = min(least, unary[k, y, x])
            for k in range(n_labels):
                moved[y, x, k] = min(unary[k, y, x] - least, _NO_CHANCE)


@njit(nogil=True, cache=True)
def _normalise(lattice, weight):  # type: ignore[no-untyped-def]
    """Scale the weights of point i by sqrt(weight / n_i), n = the lattice's response to ones."""
    n, corners = lattice.vertices.shape
    values = np.zeros((lattice.neighbours.shape[1] + 1) * LANES, np.float32)
    for i in range(n):
        for v in range(corners):
            values[lattice.vertices[i, v] * LANES] += lattice.weights[i, v]
    values, _ = blur(values, np.empty_like(values), lattice.neighbours)
    for i in range(n):
        response = np.float32(0)
        for v in range(corners):
            response += lattice.weights[i, v] * values[lattice.vertices[i, v] * LANES]
        lattice.weights[i] *= np.float32(np.sqrt(weight / response))


@njit(nogil=True, cache=True, error_model="numpy")
def _mean_field(unary, lattice, axis_y, axis_x, iterations, probs):  # type: ignore[no-untyped-def]
    """Run the mean field on ``unary`` (H, W, width) and write ``probs`` (L, H, W)."""
    height, length, width = unary.shape
    values = np.zeros((lattice.neighbours.shape[1] + 1) * width, np.float32)
    grid = np.zeros(axis_y.size * axis_x.size * width, np.float32)
    values_next, grid_next = np.empty_like(values), np.empty_like(grid)
    grid_row = np.empty(axis_x.size * width, np.float32)
    row = np.empty(length * width, np.float32)
    flat = unary.reshape(unary.size)
    for iteration in range(iterations + 1):
        values_next[:] = 0
        grid_next[:] = 0
        for y in range(height):
            _slice_grid_row(grid, axis_y, y, grid_row)
            _update_row(flat, y, lattice, axis_x, values, grid_row, row)
            if iteration == iterations:
                _write_row(row, probs, y)
                continue
            _splat_row(row, y, lattice, axis_x, values_next, grid_row)
            _splat_grid_row(grid_row, axis_y, y, grid_next)
        values, values_next = blur(values_next, values, lattice.neighbours)
        convolve(grid_next, grid, axis_y.kernel, 1, axis_y.size, axis_x.size * width)
        convolve(grid, grid_next, axis_x.kernel, axis_y.size, axis_x.size, width)
        grid, grid_next = grid_next, grid


@njit(nogil=True, cache=True, error_model="numpy")
def _slice_grid_row(grid, axis_y, y, grid_row):  # type: ignore[no-untyped-def]
    """Read the grid at row ``y`` of the photo into ``grid_row`` (grid columns * width,)."""
    step = axis_y.taps.shape[0]
    start = y // step * grid_row.size
    for k in range(0, grid_row.size, LANES):
        value = spread(np.float32(0))
        for t in range(axis_y.taps.shape[1]):
            tap = axis_y.taps[y % step, t]
            value = value + tap * load(grid, start + t * grid_row.size + k)
        store(grid_row, k, axis_y.scale[y] * value)


@njit(nogil=True, cache=True, error_model="numpy")
def _splat_grid_row(grid_row, axis_y, y, grid):  # type: ignore[no-untyped-def]
    """Add ``grid_row`` to the grid at row ``y`` of the photo."""
    step = axis_y.taps.shape[0]
    for t in range(axis_y.taps.shape[1]):
        start = (y // step + t) * grid_row.size
        tap = axis_y.taps[y % step, t] * axis_y.scale[y]
        for k in range(0, grid_row.size, LANES):
            store(grid, start + k, load(grid, start + k) + tap * load(grid_row, k))


@njit(nogil=True, cache=True, error_model="numpy")
def _update_row(unary, y, lattice, axis_x, values, grid_row, row):  # type: ignore[no-untyped-def]
    """Probabilities (W * width,) of the pixels of one row, from both kernels' messages."""
    vertices, weights, taps = lattice.vertices, lattice.weights, axis_x.taps
    length = axis_x.scale.size
    width = row.size // length
    for x in range(length):
        point, cell, phase = y * length + x, x // taps.shape[0], x % taps.shape[0]
        best = spread(np.float32(-np.inf))
        for k in range(0, width, LANES):
            energy = spread(np.float32(0))
            for t in range(taps.shape[1]):
                energy = energy + taps[phase, t] * load(grid_row, (cell + t) * width + k)
            energy = axis_x.scale[x] * energy - load(unary, point * width + k)
            for v in range(vertices.shape[1]):
                source = vertices[point, v] * width + k
                energy = energy + weights[point, v] * load(values, source)
            store(row, x * width + k, energy)
            best = maximum(best, energy)
        _softmax(row, x * width, width, highest(best))


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax(row, start, width, largest):  # type: ignore[no-untyped-def]
    """Softmax of ``row[start : start + width]`` in place."""
    mass = spread(np.float32(0))
    for k in range(start, start + width, LANES):
        share = exp(load(row, k) - spread(largest))
        store(row, k, share)
        mass = mass + share
    inverse = np.float32(1) / total(mass)
    for k in range(start, start + width, LANES):
        store(row, k, inverse * load(row, k))


@njit(nogil=True, cache=True, error_model="numpy")
def _splat_row(row, y, lattice, axis_x, values, grid_row):  # type: ignore[no-untyped-def]
    """Add the probabilities of one row to the lattice, and collect them in ``grid_row``."""
    vertices, weights, taps = lattice.vertices, lattice.weights, axis_x.taps
    length = axis_x.scale.size
    width = row.size // length
    grid_row[:] = 0
    for x in range(length):
        point, cell, phase = y * length + x, x // taps.shape[0], x % taps.shape[0]
        for k in range(0, width, LANES):
            share = load(row, x * width + k)
            for v in range(vertices.shape[1]):
                target = vertices[point, v] * width + k
                store(values, target, load(values, target) + weights[point, v] * share)
            for t in range(taps.shape[1]):
                target = (cell + t) * width + k
                tap = taps[phase, t] * axis_x.scale[x]
                store(grid_row, target, load(grid_row, target) + tap * share)


@njit(nogil=True, cache=True, error_model="numpy")
def _write_row(row, probs, y):  # type: ignore[no-untyped-def]
    n_labels, _, length = probs.shape
    width = row.size // length
    for k in range(n_labels):
        for x in range(length):
            probs[k, y, x] = row[x * width + k]
