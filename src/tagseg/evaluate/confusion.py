"""A confusion matrix counts predicted labels against ground truth and makes scores of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ShapeError
from tagseg.maps import IGNORE, MAX_CLASSES, Labels, check_alike

__all__ = ["ConfusionMatrix"]

Scores = npt.NDArray[np.float64]

_CHUNK = 4096  # pixels whose bins stay in the fastest cache
_RUN = 64  # pixels that are counted as one if all have the same bin: most of a mask has
_TABLES = 4  # neighbours count in different tables, so that no count waits for the one before
_NEXT = np.uint8(1)  # labels count from 255, which wraps to 0


class ConfusionMatrix:
    """Counts pixels by their true label (rows) and their predicted one (columns), in int64.

    Pixels whose ground truth is 255 do not count. A prediction of 255 elsewhere is a wrong answer
    for the pixel's true class: it goes to one more column, the last, ``unlabelled``.

    Args:
        n_labels: number of labels L with the background, 1..255.

    Attributes:
        counts: int64 (L, L + 1); column L holds the unlabelled pixels.

    Raises:
        ShapeError: ``n_labels`` is out of range.

    Examples:
        The last pixel has no ground truth and does not count.

        >>> import numpy as np
        >>> from tagseg.evaluate import ConfusionMatrix
        >>> confusion = ConfusionMatrix(2)
        >>> prediction = np.array([[0, 0, 1, 1, 255, 1]], np.uint8)
        >>> confusion.update(prediction, np.array([[0, 0, 0, 1, 1, 255]], np.uint8))
        >>> confusion.matrix.tolist(), confusion.unlabelled.tolist()
        ([[2, 1], [0, 1]], [0, 1])
        >>> confusion.iou().round(3).tolist()
        [0.667, 0.333]
        >>> confusion.mean_iou(), confusion.pixel_accuracy()
        (0.5, 0.6)
    """

    def __init__(self, n_labels: int) -> None:
        if not 1 <= n_labels <= MAX_CLASSES + 1:
            raise ShapeError(
                f"n_labels is {n_labels}", do=f"give 1..{MAX_CLASSES + 1}, with background"
            )
        self.n_labels = n_labels
        self.counts: npt.NDArray[np.int64] = np.zeros((n_labels, n_labels + 1), np.int64)

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """The counts without the unlabelled column, (L, L)."""
        return self.counts[:, :-1]

    @property
    def unlabelled(self) -> npt.NDArray[np.int64]:
        """The pixels of each true label that were predicted as 255, (L,)."""
        return self.counts[:, -1]

    def update(self, prediction: Labels, truth: Labels) -> None:
        """Count one photo.

        Args:
            prediction: uint8 (H, W), labels 0..L-1 or 255.
            truth: uint8 (H, W), labels 0..L-1 or 255.

        Raises:
            ShapeError: the two are not such arrays of one shape; nothing is counted then.
        """
        for name, labels in (("prediction", prediction), ("truth", truth)):
            _check_array(name, labels)
        check_alike(prediction, truth)
        size = self.n_labels + 1
        tables = np.zeros((_TABLES, size * size), np.int64)
        if not _count(prediction.ravel(), truth.ravel(), size, tables):
            self._check_values("prediction", prediction)
            self._check_values("truth", truth)
        table = tables.sum(axis=0).reshape(size, size)
        self.counts[:, :-1] += table[1:, 1:]
        self.counts[:, -1] += table[1:, 0]

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        if other.n_labels != self.n_labels:
            raise ShapeError(
                f"confusion matrices of {self.n_labels} and {other.n_labels} labels do not add up",
                do="compare runs with the same classes",
            )
        total = ConfusionMatrix(self.n_labels)
        total.counts = self.counts + other.counts
        return total

    def iou(self) -> Scores:
        """Return each label's intersection over union, float64 (L,); NaN if it is in neither."""
        union = self.counts.sum(axis=1) + self.matrix.sum(axis=0) - self.matrix.diagonal()
        return _ratio(self.matrix.diagonal(), union)

    def mean_iou(self) -> float:
        """Average the IoU over the labels in ground truth or prediction; NaN if none is."""
        return _mean(self.iou())

    def class_accuracy(self) -> Scores:
        """Return the fraction of each true label's pixels that are right, float64 (L,), or NaN."""
        return _ratio(self.matrix.diagonal(), self.counts.sum(axis=1))

    def pixel_accuracy(self) -> float:
        """Return the fraction of all counted pixels that are right; NaN if none was counted."""
        return float(_ratio(self.matrix.trace(), self.counts.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-able lists."""
        return {"matrix": self.matrix.tolist(), "unlabelled": self.unlabelled.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConfusionMatrix:
        """Invert :meth:`to_dict`; raises ShapeError if the counts do not fit together."""
        try:
            matrix = np.asarray(data["matrix"], dtype=np.int64)
            unlabelled = np.asarray(data["unlabelled"], dtype=np.int64)
            counts = np.column_stack((matrix, unlabelled))
        except (KeyError, TypeError, ValueError, OverflowError):
            counts = np.empty((0, 0), np.int64)
        if counts.shape[0] + 1 != counts.shape[1] or (counts < 0).any():
            raise ShapeError(
                "the confusion counts are not a square matrix and its unlabelled column",
                do="write them anew with tagseg evaluate",
            )
        result = cls(len(counts))
        result.counts = counts
        return result

    def _check_values(self, name: str, labels: Labels) -> None:
        histogram = np.bincount(labels.ravel(), minlength=256)
        wrong = np.flatnonzero(histogram[self.n_labels : IGNORE]) + self.n_labels
        if wrong.size:
            raise ShapeError(
                f"{name} holds label {wrong[0]}, but the labels are 0..{self.n_labels - 1}",
                do=f"use the class list the mask was made with, and {IGNORE} for ignore",
            )


@njit(nogil=True, cache=True, error_model="numpy")
def _count(prediction, truth, size, tables):  # type: ignore[no-untyped-def]
    """Count the pairs of two flat arrays; False, and no right counts, at a label out of range.

    Labels are moved up by one with 255 as 0; the bin of a pair is ``truth * size + prediction``.
    """
    bins = np.empty(_CHUNK, np.uint16)
    for start in range(0, truth.size, _CHUNK):
        columns, rows = prediction[start : start + _CHUNK], truth[start : start + _CHUNK]
        if max(_highest(columns), _highest(rows)) >= size:
            return False
        for i in range(rows.size):
            row, column = np.uint8(rows[i] + _NEXT), np.uint8(columns[i] + _NEXT)
            bins[i] = np.uint16(row) * np.uint16(size) + np.uint16(column)
        _count_bins(bins[: rows.size], tables)
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _highest(labels):  # type: ignore[no-untyped-def]
    highest = np.uint8(0)
    for i in range(labels.size):
        highest = max(highest, np.uint8(labels[i] + _NEXT))
    return highest


@njit(nogil=True, cache=True, error_model="numpy")
def _count_bins(bins, tables):  # type: ignore[no-untyped-def]
    whole = bins.size // _RUN * _RUN
    for i in range(0, whole, _RUN):
        differs = np.uint16(0)
        for k in range(_RUN):
            differs |= bins[i + k] ^ bins[i]
        if differs == 0:
            tables[0, bins[i]] += _RUN
            continue
        for k in range(i, i + _RUN, _TABLES):
            for t in range(_TABLES):
                tables[t, bins[k + t]] += 1
    for i in range(whole, bins.size):
        tables[0, bins[i]] += 1


def _check_array(name: str, labels: Any) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 2:
        raise ShapeError(f"{name} is no uint8 array (H, W)", do="give labels as uint8 (H, W)")


def _ratio(part: Any, whole: Any) -> Any:
    """Divide part by whole in float64; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: Scores) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
