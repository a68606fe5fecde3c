"""Saliency maps are scored by how well they find the objects of photos, whatever their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE, MAX_CLASSES, Labels, as_float32, check_labels

__all__ = ["SaliencyScores"]

Values = npt.NDArray[np.float64]

_LEVELS = 256  # thresholds 0/255, 1/255, ..., 1
_BETA2 = 0.3  # Achanta et al. 2009: precision counts for more than recall
_GOOD_IOU = 0.6  # Oh et al. 2017, section 5.1


class SaliencyScores:
    """Scores saliency maps against ground truth and averages the scores over photos.

    The object pixels are those of any foreground class; pixels whose ground truth is 255 do not
    count. The measures, each of one photo and then averaged:

    - mean absolute error of the map to the objects' 0 or 1;
    - precision and recall of the pixels of at least k / 255 (as float32), k = 0..255. Where a map
      has no such pixel both are 0;
    - intersection over union of the pixels of at least half of the map's maximum, as Oh et al.
      2017 cut their maps; a map of zeros marks none.

    Photos without object pixels have neither recall nor objects to meet: they count for the error
    alone, and photos that are all ignored not at all.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import SaliencyScores
        >>> scores = SaliencyScores()
        >>> scores.update(np.array([[0.0, 0.6, 0.8, 1.0]]), np.array([[0, 0, 1, 1]], np.uint8))
        >>> summary = scores.summary()
        >>> [(name, round(summary[name], 3)) for name in ("mae", "max_f", "mean_iou")]
        [('mae', 0.2), ('max_f', 1.0), ('mean_iou', 0.667)]
    """

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._ious: list[float] = []
        self._precision: Values = np.zeros(_LEVELS)
        self._recall: Values = np.zeros(_LEVELS)

    @property
    def thresholds(self) -> Values:
        """The 256 thresholds, rising, float64 (256,)."""
        return np.arange(_LEVELS) / (_LEVELS - 1)

    def update(self, saliency_map: npt.NDArray[np.floating], truth: Labels) -> None:
        """Count one photo.

        Args:
            saliency_map: float (H, W) in [0, 1], read as float32.
            truth: uint8 (H, W), labels 0 background, 255 ignored, any other an object.

        Raises:
            ShapeError: the two are not such arrays of one shape; nothing is counted then.
        """
        check_labels(truth, MAX_CLASSES, "truth")
        saliency_map = as_float32(saliency_map)
        _check_saliency(saliency_map, truth.shape)
        known = truth != IGNORE
        if not known.any():
            return
        values, objects = saliency_map[known], truth[known] != BACKGROUND
        self._errors.append(float(np.abs(values.astype(np.float64) - objects).mean()))
        if not objects.any():
            return
        self._count_levels(values, objects)
        highest = saliency_map.max()
        salient = values >= highest / 2 if highest > 0 else np.zeros_like(objects)
        self._ious.append(float((salient & objects).sum() / (salient | objects).sum()))

    def precision(self) -> Values:
        """Return the mean precision at each threshold, float64 (256,); NaN without objects."""
        return self._mean(self._precision)

    def recall(self) -> Values:
        """Return the mean recall at each threshold, float64 (256,); NaN without objects."""
        return self._mean(self._recall)

    def f_measure(self) -> Values:
        """Compute the F-measure of the mean precision and recall, float64 (256,).

        Achanta et al. 2009, "Frequency-tuned salient region detection": (1 + b) P R / (b P + R)
        with b = 0.3; 0 where both are 0.
        """
        precision, recall = self.precision(), self.recall()
        weighted = _BETA2 * precision + recall
        above = (1 + _BETA2) * precision * recall
        return np.divide(above, weighted, out=above.copy(), where=weighted != 0)

    def summary(self) -> dict[str, float]:
        """Return the scores by name; NaN where no photo has them.

        ``photos`` and ``photos_with_objects`` are counts, ``mae`` the mean absolute error,
        ``max_f`` and ``mean_f`` of the F-measure over thresholds, ``mean_iou`` of the maps cut at
        half of their maximum, and ``share_iou_over_0.6`` of photos.
        """
        ious, f_measure = np.array(self._ious), self.f_measure()
        return {
            "photos": len(self._errors),
            "photos_with_objects": len(ious),
            "mae": _mean_of(self._errors),
            "max_f": float(f_measure.max()),
            "mean_f": float(f_measure.mean()),
            "mean_iou": _mean_of(ious),
            f"share_iou_over_{_GOOD_IOU}": _mean_of(ious > _GOOD_IOU),
        }

    def _count_levels(
        self, values: npt.NDArray[np.float32], objects: npt.NDArray[np.bool_]
    ) -> None:
        limits = self.thresholds.astype(np.float32)
        level = np.searchsorted(limits, values, side="right") - 1
        marked = _at_least(np.bincount(level, minlength=_LEVELS))
        hits = _at_least(np.bincount(level[objects], minlength=_LEVELS))
        self._precision += hits / np.maximum(marked, 1)
        self._recall += hits / hits[0]

    def _mean(self, total: Values) -> Values:
        return total / len(self._ious) if self._ious else np.full(_LEVELS, np.nan)


def _at_least(histogram: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Count the pixels that reach each level, from those whose highest level it is."""
    return histogram[::-1].cumsum()[::-1]


def _mean_of(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _check_saliency(saliency_map: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(saliency_map, np.ndarray) or saliency_map.dtype != np.float32:
        kind = getattr(saliency_map, "dtype", type(saliency_map).__name__)
        raise ShapeError(f"saliency_map is of type {kind}", do="give a float array (H, W)")
    if saliency_map.shape != shape:
        raise ShapeError(
            f"saliency_map has shape {saliency_map.shape}, ground truth {shape}",
            do="give a map of the photo's own height and width",
        )
    if not ((saliency_map >= 0) & (saliency_map <= 1)).all():
        raise ShapeError("saliency_map holds NaN or values outside 0..1", do="scale it to 0..1")
