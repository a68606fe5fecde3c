"""Where maps put each class on average (Saleh et al., Figure 9)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import Tags

__all__ = ["GRID", "AverageMaps", "overlap"]

GRID = 64
"""Rows and columns that a map of any size is brought to."""

Values = npt.NDArray[np.float64]


class AverageMaps:
    """The mean map of each class over the photos with its tag: Figure 9 of Saleh et al.

    The paper does not say how photos of several sizes are put over one another. Here each map is
    brought to 64 x 64 by area, whatever its proportions, so that the middle is the middle and an
    edge is an edge. Every photo counts once for each of its tags.

    Args:
        classes: how many there are.

    Attributes:
        photos: of each class, int64 (C,).

    Examples:
        A class on the left in one photo and everywhere in another.

        >>> import numpy as np
        >>> from tagseg.evaluate import AverageMaps
        >>> average = AverageMaps(1)
        >>> average.update(np.array([[[1.0, 0.0]]]), np.array([True]))
        >>> average.update(np.ones((1, 3, 3)), np.array([True]))
        >>> average.mean()[0, 0, [0, -1]].tolist()
        [1.0, 0.5]
    """

    def __init__(self, classes: int) -> None:
        self.photos = np.zeros(classes, np.int64)
        self._sums = np.zeros((classes, GRID, GRID))
        self._known = np.zeros((classes, GRID, GRID))

    def update(
        self,
        maps: npt.NDArray[np.generic],
        tags: Tags,
        known: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Add the maps of one photo.

        Args:
            maps: (K, H, W) in [0, 1], one for each of the photo's K tags, in order; read as
                float32.
            tags: bool (C,).
            known: bool (H, W), pixels that count; all if not given.

        Raises:
            ShapeError: they do not fit one another, or have no pixels.
        """
        present = np.flatnonzero(tags)
        fits = maps.ndim == 3 and len(maps) == len(present) and tags.shape == self.photos.shape
        if not fits or 0 in maps.shape[1:]:
            raise ShapeError(
                f"maps of shape {maps.shape} for {len(present)} of {len(tags)} tags",
                do="give one map (H, W) for each of the photo's tags",
            )
        counted = np.ones(maps.shape[1:]) if known is None else known.astype(np.float64)
        if counted.shape != maps.shape[1:]:
            raise ShapeError(f"known is {counted.shape}, the maps are {maps.shape[1:]}")
        down, across = (_area_weights(n) for n in maps.shape[1:])
        self._sums[present] += down @ (maps.astype(np.float32) * counted) @ across.T
        self._known[present] += down @ counted @ across.T
        self.photos[present] += 1

    def mean(self) -> Values:
        """Return the mean maps, float64 (C, 64, 64); 0 where nothing is known."""
        return np.divide(
            self._sums, self._known, out=np.zeros_like(self._sums), where=self._known > 0
        )


def overlap(a: Values, b: Values) -> float:
    """Return which part of two average maps lies at the same places, 0 to 1; NaN if one is empty.

    Both are divided by their sum, so that only places count and not how high a map is; then the
    smaller of the two is summed.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate.location import overlap
        >>> overlap(np.array([[1.0, 1.0]]), np.array([[0.0, 3.0]]))
        0.5
    """
    if a.shape != b.shape:
        raise ShapeError(f"maps of {a.shape} and {b.shape} have no common places")
    if not a.any() or not b.any():
        return float("nan")
    return float(np.minimum(a / a.sum(), b / b.sum()).sum())


def _area_weights(size: int) -> Values:
    """Which part of each of 64 equal cells each of ``size`` pixels covers, (64, size)."""
    cells, pixels = np.arange(GRID)[:, None] / GRID, np.arange(size)[None] / size
    ends = np.minimum(cells + 1 / GRID, pixels + 1 / size)
    return np.maximum(ends - np.maximum(cells, pixels), 0) * GRID
