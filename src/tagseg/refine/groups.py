"""Pixels in groups of 2 x 2, and the grid points that each group touches.

A filter adds every pixel to some points of a coarse grid (splat), filters there (blur), and reads
the same points back (slice). Neighbouring pixels share most of their points. So a group holds each
of its points once, with four weights: half the memory traffic of single pixels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tagseg.refine.lanes import Width

__all__ = ["GROUP", "Filter", "NoFilter", "Splat", "groups_of"]

GROUP = 4  # pixels: (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)

Float32 = npt.NDArray[np.float32]


class Splat(NamedTuple):
    """The points that the pixels of a photo touch, in one list of entries."""

    starts: npt.NDArray[np.int32]  # (groups + 1,) where the entries of each group begin
    points: npt.NDArray[np.int32]  # (entries,)
    weights: npt.NDArray[np.float32]  # (entries, 4) of the group's pixels, 0 outside of the photo


class Filter(Protocol):
    """A symmetrically normalised Gaussian filter of a photo."""

    @property
    def splat(self) -> Splat:
        """The points of each pixel, its normalisation in the weights."""

    @property
    def n_points(self) -> int:
        """Points of the grid, with those that only stand in for missing ones."""

    def blur(self, values: Float32, scratch: Float32, width: Width) -> tuple[Float32, Float32]:
        """Filter ``values`` (at least n_points * lanes); return the two, the result first."""


class NoFilter:
    """Stands for a kernel that is left out: no pixel touches any point."""

    n_points = 0

    def __init__(self, height: int, width: int) -> None:
        starts = np.zeros(groups_of(height, width) + 1, np.int32)
        self.splat = Splat(starts, np.empty(0, np.int32), np.empty((0, GROUP), np.float32))

    def blur(self, values: Float32, scratch: Float32, width: Width) -> tuple[Float32, Float32]:
        """Do nothing."""
        return values, scratch


def groups_of(height: int, width: int) -> int:
    """Return the number of groups of a photo."""
    return -(-height // 2) * -(-width // 2)
