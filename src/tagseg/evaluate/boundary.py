"""Trimap accuracy measures masks near the boundaries of objects, in bands of rising width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import IGNORE, MAX_CLASSES, Labels, check_alike, check_labels

__all__ = ["TrimapAccuracy"]

Counts = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float32]


class TrimapAccuracy:
    """Measures the accuracy within each width of a true label boundary, from exact counts.

    Kohli et al. 2009 (robust higher order potentials) and Saleh et al. 2017, 4.4.1 and Fig. 10:
    "pixel classification accuracy as a function of the bandwidth around the object boundaries".
    The papers leave the distance open; here it is Euclidean. A boundary pixel has one of another
    label above, below, left or right of it. A band of width w holds the pixels nearer than w to a
    boundary pixel: w = 1 is one pixel on either side of the boundary, w = 2 is two.

    Pixels whose ground truth is 255 are never counted, and the 255 band that VOC draws between
    objects does not hide the boundary: for its sake alone, each 255 pixel takes the nearest label
    (of equally near ones the lowest), so that the boundary runs along the middle of the band.
    With VOC's band of about 5 pixels, widths below 3 therefore hold few pixels. A 255 area within
    one label makes no boundary, nor does the edge of the photo. A prediction of 255 is wrong.

    Args:
        widths: rising widths of the band in pixels, whole numbers from 1.

    Raises:
        ConfigError: the widths are not that.

    Examples:
        The boundary is predicted a pixel too far to the right.

        >>> import numpy as np
        >>> from tagseg.evaluate import TrimapAccuracy
        >>> truth = np.array([[0, 0, 0, 1, 1, 1]], np.uint8)
        >>> trimap = TrimapAccuracy([1, 2, 3])
        >>> trimap.update(np.array([[0, 0, 0, 0, 1, 1]], np.uint8), truth)
        >>> trimap.pixels.tolist()
        [2, 4, 6]
        >>> trimap.accuracy().round(2).tolist()
        [0.5, 0.75, 0.83]
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = tuple(widths)
        whole = all(isinstance(width, int | np.integer) for width in self.widths)
        if not self.widths or not whole or (np.diff(self.widths, prepend=0) <= 0).any():
            raise ConfigError(
                f"the band widths are {list(self.widths)}",
                do="give rising whole numbers of pixels from 1",
            )
        self._pixels: Counts = np.zeros(len(self.widths), np.int64)  # between width and width
        self._right: Counts = np.zeros(len(self.widths), np.int64)

    @property
    def pixels(self) -> Counts:
        """The number of pixels counted within each width, int64 (number of widths,)."""
        return self._pixels.cumsum()

    @property
    def right(self) -> Counts:
        """The number of those whose prediction is right, int64 (number of widths,)."""
        return self._right.cumsum()

    def update(self, prediction: Labels, truth: Labels) -> None:
        """Count one photo.

        Args:
            prediction: uint8 (H, W).
            truth: uint8 (H, W).

        Raises:
            ShapeError: the two are not such arrays of one shape.
        """
        check_labels(prediction, MAX_CLASSES, "prediction")
        check_labels(truth, MAX_CLASSES, "truth")
        check_alike(prediction, truth)
        boundary = _boundary(_without_ignored(truth))
        if not boundary.any():
            return
        distance = _distance_to(boundary)
        counted = (distance < self.widths[-1]) & (truth != IGNORE)
        squares = np.rint(np.square(distance[counted], dtype=np.float64))  # whole numbers
        band = np.searchsorted(np.square(self.widths, dtype=np.float64), squares, side="right")
        right = prediction[counted] == truth[counted]
        self._pixels += np.bincount(band, minlength=len(self.widths))
        self._right += np.bincount(band[right], minlength=len(self.widths))

    def __add__(self, other: TrimapAccuracy) -> TrimapAccuracy:
        if not isinstance(other, TrimapAccuracy):
            return NotImplemented
        if other.widths != self.widths:
            raise ShapeError(
                f"trimaps of widths {list(self.widths)} and {list(other.widths)} do not add up",
                do="measure both with the same widths",
            )
        total = TrimapAccuracy(self.widths)
        total._pixels = self._pixels + other._pixels
        total._right = self._right + other._right
        return total

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Return the fraction of right pixels within each width, float64; NaN without pixels."""
        pixels, right = self.pixels, self.right
        return np.divide(right, pixels, out=np.full(pixels.shape, np.nan), where=pixels > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return widths, counts and accuracies as JSON-able lists; None where no pixels are."""
        return {
            "widths": [int(width) for width in self.widths],
            "pixels": self.pixels.tolist(),
            "right": self.right.tolist(),
            "accuracy": [None if np.isnan(a) else float(a) for a in self.accuracy()],
        }


def _without_ignored(truth: Labels) -> Labels:
    """Replace each 255 by the nearest other label, if there is one."""
    ignored = truth == IGNORE
    labels = np.unique(truth[~ignored])
    if not ignored.any() or not len(labels):
        return truth
    filled, nearest = truth.copy(), np.full(truth.shape, np.inf, np.float32)
    for label in labels:
        distance = _distance_to(truth == label)
        nearer = ignored & (distance < nearest)
        filled[nearer], nearest[nearer] = label, distance[nearer]
    return filled


def _boundary(labels: Labels) -> npt.NDArray[np.bool_]:
    """Mark the pixels with another label above, below, left or right."""
    boundary = np.zeros(labels.shape, np.bool_)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    boundary[:, 1:] |= across
    boundary[:, :-1] |= across
    boundary[1:] |= down
    boundary[:-1] |= down
    return boundary


def _distance_to(pixels: npt.NDArray[np.bool_]) -> Distances:
    """Compute every pixel's Euclidean distance to the nearest of ``pixels`` (at least one)."""
    elsewhere = np.asarray(~pixels, np.uint8)
    return np.asarray(cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
