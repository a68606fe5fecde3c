"""Gaussian filtering in the plane through a coarse grid of cubic B-splines, nearly exact.

A Gaussian of several pixels leaves no detail, so it is applied on a grid with a point every
``step`` pixels: splat (each pixel adds its value to 4 x 4 grid points, with B-spline weights),
convolve, slice (each pixel reads the same 4 x 4 points). The kernel between is the least-squares
one, which brings the three together as close to the Gaussian as the splines can be: a message
along one axis is within 6e-4 of exact for noise in [0, 1]. A Gaussian under 3 pixels has step 1:
then the grid is the photo, and the filter the Gaussian itself, cut where it has lost all weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.refine.groups import GROUP, Splat
from tagseg.refine.lanes import Width, add_scaled, at, lanes, spread, store

__all__ = ["GridAxis", "SplineGrid", "convolve", "grid_axis"]

_SIGMAS_PER_STEP = 1.5  # the grid's step is at most sigma / 1.5
_RADIUS = 5.0  # sigmas where a Gaussian, 4e-6 there, is cut
_NEGLIGIBLE = 1e-5  # of the kernel's largest value
_FREQUENCIES = 128
_FINEST_STEP = 8  # beyond, the kernel depends on sigma / step alone
_FLAT = 30.0  # photo sides from where on a Gaussian is constant on the photo, to 6e-4

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class GridAxis(NamedTuple):
    """One axis of the filter, over ``scale.size`` pixels and ``size`` grid points."""

    size: int  # grid points; pixel x touches the points x // step + t, t = 0..T-1
    taps: npt.NDArray[np.float32]  # (step, T) weights by x % step; T is 4, or 1 where step is 1
    kernel: npt.NDArray[np.float32]  # (2 R + 1,) symmetric, applied between the grid points
    scale: npt.NDArray[np.float32]  # (length,) 1 / sqrt(filtered ones): symmetric normalisation


class SplineGrid:
    """Filter with weight * exp(-|x|^2 / (2 sigma^2)), sigma in pixels, normalised symmetrically."""

    def __init__(self, height: int, width: int, sigma: float, weight: float) -> None:
        self.vertical, self.horizontal = grid_axis(height, sigma), grid_axis(width, sigma)
        self._weight = np.float32(weight)
        (first_y, weights_y), (first_x, weights_x) = (
            _pairs_of_pixels(axis) for axis in (self.vertical, self.horizontal)
        )
        most = first_y.size * first_x.size * weights_y.shape[1] * weights_x.shape[1]
        starts = np.zeros(first_y.size * first_x.size + 1, np.int32)
        points, weights = np.empty(most, np.int32), np.empty((most, GROUP), np.float32)
        columns = self.horizontal.size
        _splat(first_y, first_x, weights_y, weights_x, columns, starts, points, weights)
        self.splat = Splat(starts, points[: starts[-1]], weights[: starts[-1]])

    @property
    def n_points(self) -> int:
        """Points of the grid."""
        return self.vertical.size * self.horizontal.size

    def blur(self, values: Float32, scratch: Float32, width: Width) -> tuple[Float32, Float32]:
        """Convolve ``values`` along both axes; return result and scratch."""
        vertical, horizontal = self.vertical, self.horizontal
        inner = horizontal.size * width.lanes
        kernel = vertical.kernel * self._weight
        convolve(values, scratch, kernel, 1, vertical.size, inner, width)
        sizes = (vertical.size, horizontal.size, width.lanes)
        convolve(scratch, values, horizontal.kernel, *sizes, width)
        return values, scratch


def _pairs_of_pixels(axis: GridAxis) -> tuple[npt.NDArray[np.int64], Float32]:
    """Return each pair of pixels' first point, and its weights (pairs, T + 1, 2) from there on.

    The symmetric normalisation is in the weights. Pixels and points past the end have none.
    """
    step, taps = axis.taps.shape
    pixels = np.arange(axis.scale.size)
    first = pixels[::2] // step
    weights = np.zeros((first.size, taps + 1, 2), np.float32)
    offset = pixels // step - first[pixels // 2]  # 0 or 1: where the pair lies across two cells
    for t in range(taps):
        values = axis.taps[pixels % step, t] * axis.scale
        weights[pixels // 2, offset + t, pixels % 2] = values
    return first, weights


def grid_axis(length: int, sigma: float) -> GridAxis:
    """Return the filter with exp(-x^2 / (2 sigma^2)) along an axis of ``length`` pixels."""
    sigma = min(sigma, _FLAT * length)
    step = max(1, int(sigma / _SIGMAS_PER_STEP))
    if step == 1:
        taps, kernel = np.ones((1, 1)), _gaussian(min(length - 1, int(_RADIUS * sigma)), sigma)
    else:
        taps = _cubic_spline(np.arange(step)[:, None] / step + 1 - np.arange(4))
        fine = min(step, _FINEST_STEP)
        kernel = _least_squares_kernel(fine, sigma * fine / step)
    size = -(-length // step) + taps.shape[1] - 1
    scale = _ones_filtered(length, size, taps, kernel) ** -0.5
    return GridAxis(
        size, taps.astype(np.float32), kernel.astype(np.float32), scale.astype(np.float32)
    )


def _gaussian(radius: int, sigma: float) -> Float64:
    return np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)


def _cubic_spline(x: Float64) -> Float64:
    a = np.abs(x)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.clip(2 - a, 0, None) ** 3 / 6)


def _least_squares_kernel(step: int, sigma: float) -> Float64:
    """Return the kernel M between grid points that brings B M B^T closest to the Gaussian.

    M = (B^T B)^-1 B^T G B (B^T B)^-1 is a quotient of sums over aliases in the Fourier domain.
    """
    angle = 2 * np.pi * np.fft.rfftfreq(_FREQUENCIES)
    pixels = np.arange(-2 * step, 2 * step + 1)
    spline = _cubic_spline(pixels / step)
    radius = int(np.ceil(2 * _RADIUS * sigma))
    gaussian = _gaussian(radius, sigma)
    gram, target = np.zeros_like(angle), np.zeros_like(angle)
    for alias in range(step):
        frequency = (angle + 2 * np.pi * alias) / step
        power = (np.cos(np.outer(frequency, pixels)) @ spline) ** 2
        gram += power
        target += power * (np.cos(np.outer(frequency, np.arange(-radius, radius + 1))) @ gaussian)
    kernel = np.fft.fftshift(np.fft.irfft(step * target / gram**2))
    kept = np.flatnonzero(np.abs(kernel) > _NEGLIGIBLE * np.abs(kernel).max())
    return kernel[kept[0] : _FREQUENCIES + 1 - kept[0]]


def _ones_filtered(length: int, size: int, taps: Float64, kernel: Float64) -> Float64:
    """Return the response (length,) to ones, through the same splat, kernel and slice."""
    pixel, step = np.arange(length), taps.shape[0]
    points = (pixel // step)[:, None] + np.arange(taps.shape[1])
    weights = taps[pixel % step]
    grid = np.bincount(points.ravel(), weights.ravel(), minlength=size)
    radius = kernel.size // 2
    blurred = np.convolve(grid, kernel)[radius : radius + size]
    return (weights * blurred[points]).sum(axis=1)


@njit(nogil=True, cache=True, error_model="numpy")
def _splat(first_y, first_x, weights_y, weights_x, columns, starts, points, weights):  # type: ignore[no-untyped-def]
    """Fill the entries of all groups, the products of both axes' (see _pairs_of_pixels)."""
    entry = 0
    for y in range(first_y.size):
        for x in range(first_x.size):
            for t in range(weights_y.shape[1]):
                top, bottom = weights_y[y, t, 0], weights_y[y, t, 1]
                if top == 0 and bottom == 0:
                    continue
                for s in range(weights_x.shape[1]):
                    left, right = weights_x[x, s, 0], weights_x[x, s, 1]
                    if left == 0 and right == 0:
                        continue
                    points[entry] = (first_y[y] + t) * columns + first_x[x] + s
                    weights[entry, 0], weights[entry, 1] = top * left, top * right
                    weights[entry, 2], weights[entry, 3] = bottom * left, bottom * right
                    entry += 1
            starts[y * first_x.size + x + 1] = entry


@njit(nogil=True, cache=True, error_model="numpy")
def convolve(source, target, kernel, outer, length, inner, width):  # type: ignore[no-untyped-def]
    """Convolve the middle axis of ``source`` (outer * length * inner,) with ``kernel``.

    Outside the axis all is zero; ``inner`` is a multiple of the lanes.
    """
    radius = kernel.size // 2
    for block in range(outer):
        for i in range(length):
            first, last = max(0, i - radius), min(length - 1, i + radius)
            start = block * length * inner
            for k in range(start, start + inner, lanes(width)):
                value = spread(np.float32(0), width)
                for j in range(first, last + 1):
                    factor = at(kernel, radius + j - i)
                    value = add_scaled(value, factor, source, j * inner + k, width)
                store(target, i * inner + k, value)
