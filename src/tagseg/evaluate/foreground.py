"""Foreground masks are scored by the IoU of each photo's foreground, by the photo's class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagseg.errors import MaskError, ShapeError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import BACKGROUND, IGNORE, MAX_CLASSES, Labels, Tags, check_labels, tags_of_labels

__all__ = ["ForegroundScores", "foreground_scores"]

_ANY_CLASS = np.ones(256, np.uint8)  # label -> 0 background, 1 an object of any class, 255 unknown
_ANY_CLASS[[BACKGROUND, IGNORE]] = BACKGROUND, IGNORE


@dataclass(frozen=True)
class ForegroundScores:
    """Tells how well masks find the objects of photos (Jing et al. 2018, Table IV).

    Attributes:
        classes: the C foreground classes in label order.
        photos: IoU of the foreground of each compared photo; NaN for a photo without an object in
            its ground truth, which counts for no class.
        members: bool (N, C), which classes each photo counts for, in the order of ``photos``.
        confusion: pixel counts of background and foreground over all compared photos, those
            without objects too.

    Examples:
        Two photos show cats and one a dog, which was found by half.

        >>> import numpy as np
        >>> from tagseg.evaluate import ConfusionMatrix, ForegroundScores
        >>> members = np.array([[True, False], [True, False], [False, True]])
        >>> photos = {"a": 0.8, "b": 0.6, "c": 0.5}
        >>> scores = ForegroundScores(("cat", "dog"), photos, members, ConfusionMatrix(2))
        >>> scores.counts().tolist(), scores.iou().round(2).tolist()
        ([2, 1], [0.7, 0.5])
        >>> round(scores.average(), 2)
        0.6
    """

    classes: tuple[str, ...]
    photos: Mapping[str, float]
    members: npt.NDArray[np.bool_]
    confusion: ConfusionMatrix

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of photos that count for each class, int64 (C,)."""
        return self.members.sum(axis=0, dtype=np.int64)

    def iou(self) -> npt.NDArray[np.float64]:
        """Average the IoU over the photos of each class, float64 (C,); NaN if it has none."""
        values = np.fromiter(self.photos.values(), np.float64, len(self.photos))
        return np.array(
            [values[chosen].mean() if chosen.any() else np.nan for chosen in self.members.T],
            np.float64,
        )

    def share_over(self, iou: float) -> float:
        """Share of the photos with objects whose foreground has more than this IoU; or NaN.

        Oh et al. 2017, 5.1: about 20 % of VOC's photos have saliency of an IoU over 0.6.
        """
        values = np.fromiter(self.photos.values(), np.float64, len(self.photos))
        known = values[~np.isnan(values)]
        return float((known > iou).mean()) if known.size else float("nan")

    def average(self) -> float:
        """Average :meth:`iou` over the classes that have photos; NaN if none has."""
        values = self.iou()
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else float("nan")


def foreground_scores(
    masks: Mapping[str, Labels],
    ground_truth: GroundTruth | Mapping[str, Labels],
    tags: Mapping[str, Tags],
    classes: Sequence[str],
    *,
    names: Collection[str] | None = None,
) -> ForegroundScores:
    """Compare masks that find objects of any class with ground truth, photo by photo.

    Jing et al. 2018, IV-C and Table IV: the Jaccard index of the foreground M_n of photo n with
    the true one G_n,

        J_n = |M_n & G_n| / |M_n | G_n|,   J_c = mean of J_n over the photos of class c,

    and "Average", the mean of J_c over the classes. G_n is the pixels of any class. Pixels whose
    ground truth is 255 do not count; a mask of 255 elsewhere is not foreground. Photos without an
    object in the ground truth are left out, as the table's numbers of images tell: 82, 89 and 93 of
    the 100 photos of each class, the others being noise.

    Args:
        masks: labels uint8 (H, W) by name; foreground is all that is neither 0 nor 255.
        ground_truth: the true labels, uint8 (H, W) by name, or where they come from.
        tags: bool (C,) by name, for the photos whose tags are known. A photo counts for each of
            its tags; one that is not here, for each of the classes in its ground truth.
        classes: the C foreground classes in label order, without background.
        names: the photos of the split; of these, those with ground truth are compared.

    Raises:
        MaskError: a photo has no mask, no photo has ground truth, or a mask does not fit.
        ShapeError: tags are not bool (C,).

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import foreground_scores
        >>> truth = {"a": np.array([[0, 2, 2, 255]], np.uint8)}
        >>> masks = {"a": np.array([[0, 0, 1, 1]], np.uint8)}
        >>> tags = {"a": np.array([False, True])}
        >>> scores = foreground_scores(masks, truth, tags, ["cat", "dog"])
        >>> scores.photos["a"]
        0.5
        >>> scores.iou().tolist()
        [nan, 0.5]
    """
    if isinstance(ground_truth, Mapping):
        ground_truth = GroundTruth(ground_truth, classes)
    if tuple(classes) != ground_truth.classes:
        raise MaskError(
            "the classes are not those of the ground truth, in its order",
            do="read both with one class list",
        )
    chosen = sorted(filter(ground_truth.has, ground_truth.names() if names is None else set(names)))
    if not chosen:
        raise MaskError("no photo has ground truth", do="check that masks are named as the photos")
    total, photos, members = ConfusionMatrix(2), {}, []
    for name in chosen:
        mask = _mask(masks, name)
        truth = ground_truth.labels(name, mask.shape)  # type: ignore[arg-type]
        one = ConfusionMatrix(2)
        one.update(_ANY_CLASS[mask], _ANY_CLASS[truth])
        has_object = one.counts[1].any()
        photos[name] = float(one.iou()[1]) if has_object else float("nan")
        members.append(_classes_of(name, truth, tags, len(classes)) & has_object)
        total += one
    return ForegroundScores(tuple(classes), photos, np.array(members), total)


def _mask(masks: Mapping[str, Labels], name: str) -> Labels:
    if name not in masks:
        raise MaskError("has ground truth and no mask", where=name, do="predict it too")
    try:
        return check_labels(masks[name], MAX_CLASSES, "mask")
    except ShapeError as error:
        raise MaskError(error.what, where=name, do=error.do) from None


def _classes_of(name: str, truth: Labels, tags: Mapping[str, Tags], n_classes: int) -> Tags:
    if name not in tags:
        return tags_of_labels(truth, n_classes)
    known = tags[name]
    if known.dtype != np.bool_ or known.shape != (n_classes,):
        raise ShapeError(
            f"the tags of {name} are {known.dtype} {known.shape} for {n_classes} classes",
            do="give a bool array, one value per class",
        )
    return known
