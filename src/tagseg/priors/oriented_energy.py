"""Boundary strength by orientation: how steeply a stack of maps changes in each direction.

Isola et al. (2014), section 4, after Arbelaez et al. (2011), section 3.2: the absolute responses of
oriented first-derivative-of-Gaussian filters, summed over the maps.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.priors.row_blocks import RowBlocks

__all__ = ["derivative_filters", "oriented_energy"]

Float32: TypeAlias = npt.NDArray[np.float32]


def oriented_energy(
    maps: Float32, *, sigma: float, support: float, n_orientations: int, blocks: RowBlocks
) -> Float32:
    """Sum |cos t dx + sin t dy| of maps (H, W, K) over K: float32 (orientations, H, W).

    dx and dy are derivatives of a round Gaussian along columns and rows, which combine to the
    derivative in every direction t = 0, pi / n, 2 pi / n, ...; the boundary runs across t. Maps go
    on beyond the border with the border's values.

    Args:
        maps: float32 (H, W, K), contiguous.
        sigma: of the Gaussian, in pixels.
        support: half the filter's width, in sigmas.
        n_orientations: how many directions.
        blocks: what runs the kernel.
    """
    smooth, derivative = derivative_filters(sigma, support)
    angles = np.arange(n_orientations) * np.pi / n_orientations
    energy = np.empty((n_orientations, *maps.shape[:2]), np.float32)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    blocks.run(_filter, len(maps), maps, smooth, derivative, cosines, sines, energy)
    return energy


def derivative_filters(sigma: float, support: float) -> tuple[Float32, Float32]:
    """Draw a Gaussian and its first derivative, of unit absolute sums, for use by correlation."""
    steps = np.arange(-int(np.ceil(support * sigma)), int(np.ceil(support * sigma)) + 1)
    smooth = np.exp(-(steps**2) / (2 * sigma**2))
    derivative = steps * smooth
    return (
        (smooth / smooth.sum()).astype(np.float32),
        (derivative / np.abs(derivative).sum()).astype(np.float32),
    )


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _filter(first_row, last_row, maps, smooth, derivative, cosines, sines, energy):  # type: ignore[no-untyped-def]
    height, width, n = maps.shape
    radius = len(smooth) // 2
    smoothed = np.empty((width, n), np.float32)  # one row, filtered along its column
    steep = np.empty((width, n), np.float32)
    dx, dy = np.empty(n, np.float32), np.empty(n, np.float32)
    for y in range(first_row, last_row):
        smoothed[:] = 0
        steep[:] = 0
        for step in range(-radius, radius + 1):
            source = maps[min(max(y + step, 0), height - 1)]
            g, d = smooth[step + radius], derivative[step + radius]
            for x in range(width):
                for k in range(n):
                    smoothed[x, k] += g * source[x, k]
                    steep[x, k] += d * source[x, k]
        for x in range(width):
            dx[:] = 0
            dy[:] = 0
            for step in range(-radius, radius + 1):
                x2 = min(max(x + step, 0), width - 1)
                g, d = smooth[step + radius], derivative[step + radius]
                for k in range(n):
                    dx[k] += d * smoothed[x2, k]
                    dy[k] += g * steep[x2, k]
            for o in range(len(cosines)):
                total = np.float32(0)
                for k in range(n):
                    total += abs(cosines[o] * dx[k] + sines[o] * dy[k])
                energy[o, y, x] = total
