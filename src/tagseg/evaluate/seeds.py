"""Score maps are scored by precision and recall of their classes over thresholds, and their mP.

These are the measures of Oh et al. 2017 (guided segmentation), section 4.2, figure 3 and table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError, MaskError, ShapeError
from tagseg.maps import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    Labels,
    SaliencyMap,
    ScoreMap,
    Tags,
    as_float32,
    check_labels,
    check_maps,
)

__all__ = ["CentreMeanShape", "PrecisionRecall", "SeedCurves"]

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_STEPS = 1000  # thresholds 1/1000, 2/1000, ..., 1
_HIT, _ON_BACKGROUND, _ON_OTHER = 0, 1, 2  # what the pixel of a winning class is in truth
_KINDS = ("hits", "on_background", "on_other_classes")
_FOREGROUND_RECALL, _BACKGROUND_RECALL = 0.2, 0.8  # where mP reads the two curves
_GRID = 64  # rows and columns of the mean shape
_CHUNK = 4096  # pixels whose winners stay in the fastest cache
_IGNORE = np.uint8(IGNORE)


class PrecisionRecall(NamedTuple):
    """A curve of precision and recall over rising thresholds.

    Attributes:
        precision: float64 (T,); NaN where nothing is predicted.
        recall: float64 (T,); NaN where nothing is true.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import PrecisionRecall
        >>> curve = PrecisionRecall(np.array([0.4, 0.6, 1.0]), np.array([0.9, 0.5, 0.1]))
        >>> [round(curve.precision_at(recall), 2) for recall in (0.05, 0.3, 0.5, 0.95)]
        [1.0, 0.8, 0.6, nan]
    """

    precision: Values
    recall: Values

    def precision_at(self, recall: float) -> float:
        """Return the precision at a recall in 0..1, linear between the curve's points.

        Of several thresholds with the same recall the best precision counts. Below the curve's
        least recall its precision there holds: dropping seeds at random loses recall alone.
        NaN if the curve never reaches the recall.
        """
        known = ~(np.isnan(self.precision) | np.isnan(self.recall))
        if not known.any() or self.recall[known].max() < recall:
            return float("nan")
        recalls, place = np.unique(self.recall[known], return_inverse=True)
        best = np.zeros(len(recalls))
        np.maximum.at(best, place, self.precision[known])
        return float(np.interp(recall, recalls, best))


class SeedCurves:
    """Counts seeds at all thresholds in one pass, and makes precision and recall of that.

    Oh et al. 4.2: a pixel whose foreground scores are all below tau is background, and any other
    pixel is the class with the highest score. Of equal scores the lowest class wins. The thresholds
    are tau = 0.001, 0.002, ..., 1 as float32, and a pixel of score tau is foreground: each winning
    score is counted under the highest threshold that it reaches, so that all curves are those of
    the unrounded scores. A pixel whose scores are all 0 is background at every threshold. Pixels
    whose ground truth is 255 do not count.

    Args:
        n_classes: number of foreground classes C, 1..254.

    Attributes:
        counts: int64 (3, C, 1001), the pixels by what they are in truth (the winning class,
            background, another class), their winning class, and the thresholds that they reach.
        truth_pixels: int64 (C + 1,), the pixels of each true label.

    Raises:
        ShapeError: ``n_classes`` is out of range.

    Examples:
        From 0.5 up, the wrong pixel of the only class is no longer a seed.

        >>> import numpy as np
        >>> from tagseg.evaluate import SeedCurves
        >>> curves = SeedCurves(1)
        >>> curves.update(np.array([[[0.0, 0.4, 0.7, 1.0]]]), np.array([[0, 0, 1, 1]], np.uint8))
        >>> [round(curves.miou(threshold), 3) for threshold in (0.3, 0.5, 0.9)]
        [0.583, 1.0, 0.583]
        >>> curves.foreground().precision[[299, 499]].round(3).tolist()
        [0.667, 1.0]
        >>> curves.mean_precision()
        1.0
    """

    def __init__(self, n_classes: int) -> None:
        if not 1 <= n_classes <= MAX_CLASSES:
            raise ShapeError(f"n_classes is {n_classes}", do=f"give 1..{MAX_CLASSES}")
        self.n_classes = n_classes
        self.counts: Counts = np.zeros((len(_KINDS), n_classes, _STEPS + 1), np.int64)
        self.truth_pixels: Counts = np.zeros(n_classes + 1, np.int64)

    @property
    def thresholds(self) -> Values:
        """The T = 1000 thresholds, rising, float64 (T,)."""
        return np.arange(1, _STEPS + 1) / _STEPS

    def update(self, score_map: npt.NDArray[np.floating], truth: Labels) -> None:
        """Count one photo.

        Args:
            score_map: float (C, H, W) in [0, 1], read as float32.
            truth: uint8 (H, W), labels 0..C or 255.

        Raises:
            ShapeError: the two do not fit the classes or each other; nothing is counted then.
        """
        check_labels(truth, self.n_classes, "truth")
        score_map = as_float32(score_map)
        if not isinstance(score_map, np.ndarray) or score_map.dtype != np.float32:
            check_maps(score_map, truth.shape, "score_map")  # says what it is instead
        if score_map.shape != (self.n_classes, *truth.shape):
            raise ShapeError(
                f"score_map has shape {score_map.shape} for {self.n_classes} classes and ground "
                f"truth of shape {truth.shape}",
                do="give one map per class, of the photo's own height and width",
            )
        counts, truth_pixels = np.zeros_like(self.counts), np.zeros(256, np.int64)
        scores = np.ascontiguousarray(score_map).reshape(self.n_classes, -1)
        if not _count(scores, truth.ravel(), _reached_from(), counts, truth_pixels):
            raise ShapeError(
                "score_map holds NaN or values outside 0..1", do="divide each map by its maximum"
            )
        self.counts += counts
        self.truth_pixels += truth_pixels[: self.n_classes + 1]

    def __add__(self, other: SeedCurves) -> SeedCurves:
        if not isinstance(other, SeedCurves):
            return NotImplemented
        if other.n_classes != self.n_classes:
            raise ShapeError(
                f"seed curves of {self.n_classes} and {other.n_classes} classes do not add up",
                do="compare runs with the same classes",
            )
        total = SeedCurves(self.n_classes)
        total.counts = self.counts + other.counts
        total.truth_pixels = self.truth_pixels + other.truth_pixels
        return total

    def per_label(self) -> PrecisionRecall:
        """Return each label's precision and recall, background first, float64 (C + 1, T) each."""
        predicted, hits = self._predicted_and_hits()
        return PrecisionRecall(_ratio(hits, predicted), _ratio(hits, self.truth_pixels[:, None]))

    def background(self) -> PrecisionRecall:
        """Return the background's curve; its recall rises with the threshold."""
        precision, recall = self.per_label()
        return PrecisionRecall(precision[BACKGROUND], recall[BACKGROUND])

    def foreground(self) -> PrecisionRecall:
        """Average precision and recall over the classes at each threshold.

        Only classes that the ground truth has count. One without predicted pixels at a threshold
        makes no claim there that could be right or wrong: it is left out of the mean precision,
        and counts as 0 in the mean recall. The recall falls as the threshold rises.
        """
        present = np.flatnonzero(self.truth_pixels[1:]) + 1
        precision, recall = self.per_label()
        return PrecisionRecall(_mean_of_known(precision[present]), _mean_of_known(recall[present]))

    def foreground_precision(self) -> float:
        """Return the foreground precision at 20 % recall, half of mP; NaN if it is not reached."""
        return self.foreground().precision_at(_FOREGROUND_RECALL)

    def background_precision(self) -> float:
        """Return the background precision at 80 % recall, half of mP; NaN if it is not reached."""
        return self.background().precision_at(_BACKGROUND_RECALL)

    def mean_precision(self) -> float:
        """Average foreground precision at 20 % and background precision at 80 % recall (mP)."""
        return (self.foreground_precision() + self.background_precision()) / 2

    def miou(self, threshold: float) -> float:
        """Average the seeds' IoU over the labels in ground truth or prediction; NaN if none is.

        Raises:
            ConfigError: the threshold is none of :attr:`thresholds`.
        """
        step = round(threshold * _STEPS) if np.isfinite(threshold) else 0
        if not 1 <= step <= _STEPS or abs(step - threshold * _STEPS) > 1e-6:
            raise ConfigError(
                f"threshold is {threshold}", do=f"give a multiple of {1 / _STEPS:g} over 0 up to 1"
            )
        return float(self._mious()[step - 1])

    def oracle_miou(self) -> tuple[float, float]:
        """Find the best (threshold, mean IoU) with the ground truth: for analysis only."""
        scores = self._mious()
        if np.isnan(scores).all():
            return float("nan"), float("nan")
        best = int(np.nanargmax(scores))
        return float(self.thresholds[best]), float(scores[best])

    def summary(self) -> dict[str, Any]:
        """Return mP, its halves and both curves as JSON-able values; None where not defined."""
        curves = {"foreground": self.foreground(), "background": self.background()}
        return {
            "mean_precision": _number(self.mean_precision()),
            "foreground_precision_at_20_recall": _number(self.foreground_precision()),
            "background_precision_at_80_recall": _number(self.background_precision()),
            "thresholds": self.thresholds.tolist(),
            **{
                f"{name}_{axis}": [_number(round(float(value), 6)) for value in values]
                for name, curve in curves.items()
                for axis, values in curve._asdict().items()
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-able lists."""
        return {
            **{kind: table.tolist() for kind, table in zip(_KINDS, self.counts, strict=True)},
            "truth_pixels": self.truth_pixels.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SeedCurves:
        """Invert :meth:`to_dict`; raises ShapeError if the counts do not fit together."""
        try:
            counts = np.stack([np.asarray(data[kind], np.int64) for kind in _KINDS])
            truth_pixels = np.asarray(data["truth_pixels"], np.int64)
        except (KeyError, TypeError, ValueError, OverflowError):
            counts, truth_pixels = np.empty((0, 0, 0), np.int64), np.empty(0, np.int64)
        if not _belong_together(counts, truth_pixels):
            raise ShapeError(
                "the seed counts are not those of one set of photos",
                do="write them anew with tagseg evaluate",
            )
        result = cls(counts.shape[1])
        result.counts, result.truth_pixels = counts, truth_pixels
        return result

    def _predicted_and_hits(self) -> tuple[Counts, Counts]:
        """Count the pixels predicted as each label and those that are right, (C + 1, T) each."""
        reached = self.counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
        classes = reached.sum(axis=0)
        background = self.truth_pixels.sum() - classes.sum(axis=0)
        true_background = self.truth_pixels[BACKGROUND] - reached[_ON_BACKGROUND].sum(axis=0)
        return np.vstack((background, classes)), np.vstack((true_background, reached[_HIT]))

    def _mious(self) -> Values:
        predicted, hits = self._predicted_and_hits()
        return _mean_of_known(_ratio(hits, predicted + self.truth_pixels[:, None] - hits))


class CentreMeanShape:
    """The baseline of Oh et al. 4.2 that always outputs the average mask shape.

    "It works as a lower bound on the localisation performance"; the paper says no more. Here the
    shape is the mean of ground-truth foreground masks (any label over 0), each resized to 64 x 64
    by area; pixels of 255 are in no mean. As it reads ground truth it serves to judge other seeds,
    and never to train.

    Examples:
        Two masks of which the second one is larger.

        >>> import numpy as np
        >>> from tagseg.evaluate import CentreMeanShape
        >>> shape = CentreMeanShape()
        >>> shape.update(np.array([[0, 0, 3, 0]], np.uint8))
        >>> shape.update(np.array([[0, 1, 1, 0]], np.uint8))
        >>> shape.saliency_map((1, 4)).tolist()
        [[0.0, 0.5, 1.0, 0.0]]
        >>> shape.score_map(np.array([False, True]), (1, 4)).tolist()
        [[[0.0, 0.0, 0.0, 0.0]], [[0.0, 0.5, 1.0, 0.0]]]
    """

    def __init__(self) -> None:
        self._foreground = np.zeros((_GRID, _GRID))
        self._known = np.zeros((_GRID, _GRID))

    def update(self, truth: Labels) -> None:
        """Add the mask of one photo, uint8 (H, W); raises ShapeError if it is something else."""
        known = check_labels(truth, MAX_CLASSES, "truth") != IGNORE
        if 0 in truth.shape:
            raise ShapeError(f"truth has shape {truth.shape}", do="give a mask with pixels")
        self._foreground += _to_grid(known & (truth != BACKGROUND))
        self._known += _to_grid(known)

    def mean_shape(self) -> Values:
        """Return the fraction of photos with an object there, float64 (64, 64); 0 if all have 255.

        Raises:
            MaskError: no photo was added.
        """
        if not self._known.any():
            raise MaskError("no ground truth was added to the mean shape", do="add masks first")
        return np.divide(
            self._foreground, self._known, out=np.zeros((_GRID, _GRID)), where=self._known > 0
        )

    def saliency_map(self, shape: tuple[int, int]) -> SaliencyMap:
        """Return the mean shape at a photo's (height, width) over its maximum, float32 (H, W)."""
        shape_map = cv2.resize(self.mean_shape(), shape[::-1], interpolation=cv2.INTER_LINEAR)
        peak = shape_map.max()
        return (shape_map / (peak if peak > 0 else 1)).astype(np.float32)

    def score_map(self, tags: Tags, shape: tuple[int, int]) -> ScoreMap:
        """Return that map for each present class of tags (C,), zeros for the others: (C, H, W).

        In a photo with several classes all scores are equal, so that the lowest one wins.
        """
        return self.saliency_map(shape) * tags[:, None, None].astype(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _count(scores, truth, reached_from, counts, truth_pixels):  # type: ignore[no-untyped-def]
    """Count scores (C, N) and truth (N,); False, and no right counts, at a score not in 0..1."""
    best, winner = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.int32)
    for start in range(0, truth.size, _CHUNK):
        part = scores[:, start : start + _CHUNK]
        if not _find_winners(part, best, winner):
            return False
        for i in range(part.shape[1]):
            label = truth[start + i]
            if label == _IGNORE:
                continue
            kind = _ON_OTHER
            if label == winner[i] + 1:
                kind = _HIT
            elif label == BACKGROUND:
                kind = _ON_BACKGROUND
            counts[kind, winner[i], _level(best[i], reached_from)] += 1
            truth_pixels[label] += 1
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _find_winners(scores, best, winner):  # type: ignore[no-untyped-def]
    """Find each pixel's highest of scores (C, N) and its class; False if one is not in 0..1."""
    n_classes, size = scores.shape
    best[:size] = 0
    winner[:size] = 0
    outside = 0
    for c in range(n_classes):
        plane = scores[c]
        for i in range(size):
            score = plane[i]
            outside |= not (score >= 0 and score <= 1)
            higher = score > best[i]
            winner[i] = c if higher else winner[i]
            best[i] = score if higher else best[i]
    return outside == 0


@njit(nogil=True, cache=True, error_model="numpy")
def _level(score, reached_from):  # type: ignore[no-untyped-def]
    """Count the thresholds that the score reaches; the product is off by one at the most."""
    level = int(score * np.float32(_STEPS))
    if reached_from[level] > score:
        return level - 1
    if reached_from[level + 1] <= score:
        return level + 1
    return level


def _reached_from() -> npt.NDArray[np.float32]:
    """List the lowest score of each level: 0, the thresholds, and a bound never reached."""
    return np.append(np.arange(_STEPS + 1) / _STEPS, np.inf).astype(np.float32)


def _belong_together(counts: Counts, truth_pixels: Counts) -> bool:
    if counts.ndim != 3 or truth_pixels.shape != (counts.shape[1] + 1,):
        return False
    if not 1 <= counts.shape[1] <= MAX_CLASSES or counts.shape[2] != _STEPS + 1:
        return False
    if (counts < 0).any():
        return False
    return bool(
        counts.sum() == truth_pixels.sum()
        and counts[_ON_BACKGROUND].sum() == truth_pixels[BACKGROUND]
        and (counts[_HIT].sum(axis=1) <= truth_pixels[1:]).all()
    )


def _to_grid(mask: npt.NDArray[np.bool_]) -> Values:
    return np.asarray(
        cv2.resize(mask.astype(np.float64), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    )


def _ratio(part: Counts, whole: Counts) -> Values:
    """Divide part by whole; NaN where the whole is 0."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean_of_known(values: Values) -> Values:
    """Average over the first axis without NaN; NaN where nothing else is."""
    known = ~np.isnan(values)
    total, number = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
