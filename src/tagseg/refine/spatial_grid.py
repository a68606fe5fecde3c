"""Gaussian filtering of a photo through a coarse grid of cubic B-splines, nearly exact.

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

from tagseg.refine.lanes import LANES, load, spread, store

__all__ = ["GridAxis", "convolve", "grid_axis", "no_axis"]

_SIGMAS_PER_STEP = 1.5  # the grid's step is at most sigma / 1.5
_RADIUS = 5.0  # sigmas where a Gaussian, 4e-6 there, is cut
_NEGLIGIBLE = 1e-5  # of the kernel's largest value
_FREQUENCIES = 128
_FINEST_STEP = 8  # beyond, the kernel depends on sigma / step alone
_FLAT = 30.0  # photo sides from where on a Gaussian is constant on the photo, to 6e-4

Float64 = npt.NDArray[np.float64]


class GridAxis(NamedTuple):
    """One axis of the filter, over ``scale.size`` pixels and ``size`` grid points."""

    size: int  # grid points; pixel x touches the points x // step + t, t = 0..T-1
    taps: npt.NDArray[np.float32]  # (step, T) weights by x % step; T is 4, or 1 where step is 1
    kernel: npt.NDArray[np.float32]  # (2 R + 1,) symmetric, applied between the grid points
    scale: npt.NDArray[np.float32]  # (length,) 1 / sqrt(filtered ones): symmetric normalisation


def grid_axis(length: int, sigma: float) -> GridAxis:
    """Filter with exp(-x^2 / (2 sigma^2)), sigma in pixels, along an axis of ``length`` pixels."""
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


def no_axis(length: int) -> GridAxis:
    """Axis of a filter that is left out: no pixel touches any grid point."""
    nothing = np.zeros(0, np.float32)
    return GridAxis(0, nothing.reshape(1, 0), nothing, np.ones(length, np.float32))


def _gaussian(radius: int, sigma: float) -> Float64:
    return np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)


def _cubic_spline(x: Float64) -> Float64:
    a = np.abs(x)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.clip(2 - a, 0, None) ** 3 / 6)


def _least_squares_kernel(step: int, sigma: float) -> Float64:
    """Kernel M between grid points that brings B M B^T closest to the Gaussian, B the splines.

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
    """Response (length,) to a signal of ones, through the same splat, kernel and slice."""
    pixel, step = np.arange(length), taps.shape[0]
    points = (pixel // step)[:, None] + np.arange(taps.shape[1])
    weights = taps[pixel % step]
    grid = np.bincount(points.ravel(), weights.ravel(), minlength=size)
    radius = kernel.size // 2
    blurred = np.convolve(grid, kernel)[radius : radius + size]
    return (weights * blurred[points]).sum(axis=1)


@njit(nogil=True, cache=True)
def convolve(source, target, kernel, outer, length, inner):  # type: ignore[no-untyped-def]
    """Convolve the middle axis of ``source`` (outer * length * inner,) with ``kernel``.

    Outside the axis all is zero; ``inner`` is a multiple of LANES.
    """
    radius = kernel.size // 2
    for block in range(outer):
        for i in range(length):
            first, last = max(0, i - radius), min(length - 1, i + radius)
            start = block * length * inner
            for k in range(start, start + inner, LANES):
                value = spread(np.float32(0))
                for j in range(first, last + 1):
                    value = value + kernel[radius + j - i] * load(source, j * inner + k)
                store(target, i * inner + k, value)
