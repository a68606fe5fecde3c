"""Predicted masks are scored against ground truth, as a set by class and photo by photo."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tagseg.data.finding import find_masks
from tagseg.data.legends import Legend
from tagseg.data.masks import open_mask, read_mask
from tagseg.errors import MaskError, ShapeError, first_few
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import Labels, check_labels

__all__ = ["MaskScores", "Measured", "evaluate_masks"]

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclass(frozen=True)
class MaskScores:
    """Tells how well a set of predicted masks agrees with ground truth.

    Attributes:
        classes: the C foreground classes in label order.
        confusion: pixel counts over all compared photos.
        photos: mean IoU of each compared photo over the labels in its ground truth or prediction;
            NaN where its ground truth is 255 throughout.
        missing: photos with ground truth and no prediction.
        extra: predictions without ground truth.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import ConfusionMatrix, MaskScores
        >>> confusion = ConfusionMatrix(2)
        >>> truth, prediction = np.array([[[0, 0, 1, 1]], [[0, 0, 0, 1]]], np.uint8)
        >>> confusion.update(prediction, truth)
        >>> scores = MaskScores(("cat",), confusion, {"a": confusion.mean_iou()})
        >>> round(scores.miou, 3)
        0.583
        >>> [(row["class"], round(row["iou"], 3)) for row in scores.table()]
        [('background', 0.667), ('cat', 0.5)]
    """

    classes: tuple[str, ...]
    confusion: ConfusionMatrix
    photos: Mapping[str, float]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def miou(self) -> float:
        """The mean IoU of the set, from the pixels of all photos together."""
        return self.confusion.mean_iou()

    def table(self) -> list[dict[str, Any]]:
        """Make a row per label: its class name, ``iou``, ``accuracy`` and pixel counts.

        ``iou`` and ``accuracy`` are None where they are not defined.
        """
        counts = self.confusion
        return [
            {
                "class": name,
                "iou": _number(iou),
                "accuracy": _number(accuracy),
                "truth_pixels": int(truth),
                "predicted_pixels": int(predicted),
                "unlabelled_pixels": int(unlabelled),
            }
            for name, iou, accuracy, truth, predicted, unlabelled in zip(
                ("background", *self.classes),
                counts.iou(),
                counts.class_accuracy(),
                counts.counts.sum(axis=1),
                counts.matrix.sum(axis=0),
                counts.unlabelled,
                strict=True,
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values; scores that are not defined are None."""
        return {
            "miou": _number(self.miou),
            "pixel_accuracy": _number(self.confusion.pixel_accuracy()),
            "photos_compared": len(self.photos),
            "photos_missing": len(self.missing),
            "photos_extra": len(self.extra),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "classes": self.table(),
            "confusion": self.confusion.to_dict(),
            "photo_miou": {name: _number(score) for name, score in self.photos.items()},
        }

    def examples(self, count: int) -> dict[str, list[str]]:
        """List up to ``count`` names of the best, median and worst photos, none of them twice."""
        scored = [(score, name) for name, score in self.photos.items() if not np.isnan(score)]
        ranked = [name for _, name in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]
        count = min(count, max(len(ranked) // 3, 1))
        best, rest = ranked[:count], ranked[count:]
        worst = rest[len(rest) - count :][::-1] if len(rest) >= count else []
        middle = rest[: len(rest) - len(worst)]
        start = max((len(middle) - count) // 2, 0)
        return {"best": best, "median": middle[start : start + count], "worst": worst}


class Measured(Protocol):
    """Pixel counts of photos by name, kept for a comparison that goes on after an interruption."""

    def get(self, name: str) -> ConfusionMatrix | None:
        """Those of a photo, if they are known."""

    def __setitem__(self, name: str, counts: ConfusionMatrix) -> None: ...


def evaluate_masks(
    predictions: Path | Mapping[str, Labels],
    ground_truth: GroundTruth | Mapping[str, Labels],
    classes: Sequence[str],
    *,
    names: Collection[str] | None = None,
    allow_missing: bool = False,
    measured: Measured | None = None,
) -> MaskScores:
    """Compare predicted masks with ground truth, photo by photo.

    Args:
        predictions: a folder of masks named after the photos, or labels uint8 (H, W) by name.
        ground_truth: the true labels, uint8 (H, W) by name, or where they come from.
        classes: the C foreground classes in label order, without background.
        names: the photos of the split; of these, those with ground truth are compared.
        allow_missing: leave photos without a prediction out of the scores instead of stopping.
        measured: what is known of photos from before, and where the rest is kept.

    Raises:
        MaskError: a photo has no prediction, no photo is left to compare, or a mask does not fit.
        DataError: the folder does not exist, or two of its masks have the same name.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import evaluate_masks
        >>> truth = {"a": np.array([[0, 0, 1, 1]], np.uint8), "b": np.array([[0, 2]], np.uint8)}
        >>> masks = {"a": np.array([[0, 0, 1, 1]], np.uint8), "b": np.array([[0, 1]], np.uint8)}
        >>> scores = evaluate_masks(masks, truth, ["cat", "dog"])
        >>> scores.confusion.iou().round(3).tolist()
        [1.0, 0.667, 0.0]
        >>> round(scores.miou, 3)
        0.556
        >>> scores.photos["a"]
        1.0
    """
    if isinstance(ground_truth, Mapping):
        ground_truth = GroundTruth(ground_truth, classes)
    if tuple(classes) != ground_truth.classes:
        raise MaskError(
            "the classes are not those of the ground truth, in its order",
            do="read both with one class list",
        )
    source = (
        _MaskFolder(predictions, len(classes)) if isinstance(predictions, Path) else predictions
    )
    with_truth = set(ground_truth.names())
    wanted = sorted(with_truth if names is None else with_truth & set(names))
    compared = [name for name in wanted if name in source]
    missing = tuple(name for name in wanted if name not in source)
    where = predictions if isinstance(predictions, Path) else "predictions"
    _check_coverage(compared, missing, where, allow_missing)
    confusion, photos = ConfusionMatrix(len(classes) + 1), {}
    for name in compared:
        one = measured.get(name) if measured is not None else None
        if one is None:
            one = _compare(source[name], ground_truth, name, len(classes) + 1)
            if measured is not None:
                measured[name] = one
        confusion += one
        photos[name] = one.mean_iou()
    extra = () if names is not None else tuple(sorted(set(source) - with_truth))
    return MaskScores(tuple(classes), confusion, photos, missing, extra)


class _MaskFolder(Mapping[str, Labels]):
    """The masks of a folder by name, each read when it is asked for.

    Palette files are read by their colours where these are VOC's in another order.
    """

    def __init__(self, folder: Path, n_classes: int) -> None:
        self._paths = find_masks(folder)
        self._legend = Legend(n_classes)
        jpegs = [] if self._paths else [p for p in folder.rglob("*") if p.suffix.lower() in _JPEG]
        if jpegs:
            raise MaskError(
                f"no masks in this folder, but {len(jpegs)} JPEG files, and JPEG changes class ids",
                where=folder,
                do="save masks as PNG",
            )

    def __getitem__(self, name: str) -> Labels:
        mask = open_mask(self._paths[name])
        reading = self._legend.read(mask.content)
        if reading.by == "colour" and not reading.strange:
            return reading.table()[mask.values]
        return read_mask(self._paths[name]) if not mask.numbered else mask.values

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the mask
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _compare(
    prediction: Labels, ground_truth: GroundTruth, name: str, n_labels: int
) -> ConfusionMatrix:
    one = ConfusionMatrix(n_labels)
    try:
        height, width = check_labels(prediction, n_labels - 1, "prediction").shape
        one.update(prediction, ground_truth.labels(name, (height, width)))
    except ShapeError as error:
        raise MaskError(error.what, where=name, do=error.do) from None
    return one


def _check_coverage(
    compared: Sequence[str], missing: Sequence[str], where: object, allow_missing: bool
) -> None:
    first = first_few(missing, 5)
    if not compared:
        raise MaskError(
            "no photo has both a mask and ground truth"
            + (f" (no mask for {first})" * bool(missing)),
            where=where,
            do="check that both are named after the photos",
        )
    if missing and not allow_missing:
        total = len(compared) + len(missing)
        raise MaskError(
            f"{len(missing)} of {total} photos with ground truth have no mask: {first}",
            where=where,
            do="predict them too, or score the others only, with --allow-missing",
        )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
