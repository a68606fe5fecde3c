"""Confusion counts of predicted labels against ground truth, and the scores made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import IGNORE, MAX_CLASSES, Labels

__all__ = ["ConfusionMatrix"]

Scores = npt.NDArray[np.float64]


class ConfusionMatrix:
    """Pixel counts, rows ground truth, columns prediction, exact in int64.

    Pixels whose ground truth is 255 do not count. A prediction of 255 elsewhere is a wrong answer
    for the pixel's true class: it goes to one more column, the last, ``unlabelled``.

    Args:
        n_labels: number of labels L with the background, 1..255.

    Attributes:
        counts: int64 (L, L + 1); column L holds the unlabelled pixels.
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
        """Pixels of each true label that were predicted as 255, (L,)."""
        return self.counts[:, -1]

    def update(self, prediction: Labels, truth: Labels) -> None:
        """Count one photo: both uint8 (H, W); ShapeError if they do not fit."""
        for name, labels in (("prediction", prediction), ("truth", truth)):
            _check_array(name, labels)
        if prediction.shape != truth.shape:
            raise ShapeError(
                f"prediction is {prediction.shape}, ground truth is {truth.shape}",
                do="give masks of the photo's own height and width",
            )
        # One pass: the pair of bytes is the bin, so values out of range show up in the table too.
        pairs = (truth.astype(np.uint16) << 8) | prediction
        table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        self._check_values("prediction", table.sum(axis=0))
        self._check_values("truth", table.sum(axis=1))
        self.counts[:, :-1] += table[: self.n_labels, : self.n_labels]
        self.counts[:, -1] += table[: self.n_labels, IGNORE]

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
        """Intersection over union per label, float64 (L,); NaN where it is in neither side."""
        union = self.counts.sum(axis=1) + self.matrix.sum(axis=0) - self.matrix.diagonal()
        return _ratio(self.matrix.diagonal(), union)

    def mean_iou(self) -> float:
        """Mean IoU over the labels that occur in ground truth or prediction; NaN if none does."""
        return _mean(self.iou())

    def class_accuracy(self) -> Scores:
        """Share of each true label's pixels that are right, float64 (L,); NaN without pixels."""
        return _ratio(self.matrix.diagonal(), self.counts.sum(axis=1))

    def pixel_accuracy(self) -> float:
        """Share of all counted pixels that are right; NaN if none was counted."""
        return float(_ratio(self.matrix.trace(), self.counts.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Counts as JSON-able lists."""
        return {"matrix": self.matrix.tolist(), "unlabelled": self.unlabelled.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConfusionMatrix:
        """Inverse of :meth:`to_dict`; ShapeError if the counts do not fit together."""
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

    def _check_values(self, name: str, histogram: npt.NDArray[np.int64]) -> None:
        wrong = np.flatnonzero(histogram[self.n_labels : IGNORE]) + self.n_labels
        if wrong.size:
            raise ShapeError(
                f"{name} holds label {wrong[0]}, but the labels are 0..{self.n_labels - 1}",
                do=f"use the class list the mask was made with, and {IGNORE} for ignore",
            )


def _check_array(name: str, labels: Any) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 2:
        raise ShapeError(f"{name} is no uint8 array (H, W)", do="give labels as uint8 (H, W)")


def _ratio(part: Any, whole: Any) -> Any:
    """``part / whole`` in float64, NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: Scores) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
