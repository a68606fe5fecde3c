"""How well things are found by their size: IoU of each true component, in parts of equal number."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError
from tagseg.maps import BACKGROUND, IGNORE, MAX_CLASSES, Labels, check_alike, check_labels

__all__ = ["ObjectSizes", "SizePart"]

_CORNERS = 8  # pixels that touch at a corner are one component


class SizePart(NamedTuple):
    """Components of similar size.

    Attributes:
        largest: area of the largest of them, as a fraction of its photo.
        components: how many there are.
        iou: the mean of their IoU.
    """

    largest: float
    components: int
    iou: float


class ObjectSizes:
    """IoU of true components with what was predicted there, against the components' area.

    Mean IoU over pixels is that of the largest things; this asks of each thing whether it was
    found. A component is a connected area (8 neighbours) of one class in the ground truth. It is
    compared with the predicted components of its class that touch it, without their pixels in the
    class's other true components and where the truth is 255. The background is no component.

    Examples:
        A thing of four pixels is found but for one, a thing of one pixel is not.

        >>> import numpy as np
        >>> from tagseg.evaluate import ObjectSizes
        >>> truth = np.array([[1, 1, 1, 1, 0, 2, 0, 0]], np.uint8)
        >>> sizes = ObjectSizes()
        >>> sizes.update(np.array([[0, 1, 1, 1, 0, 0, 0, 0]], np.uint8), truth)
        >>> [part._asdict() for part in sizes.parts(2)]
        ... # doctest: +NORMALIZE_WHITESPACE
        [{'largest': 0.125, 'components': 1, 'iou': 0.0},
         {'largest': 0.5, 'components': 1, 'iou': 0.75}]
    """

    def __init__(self) -> None:
        self._areas: list[float] = []
        self._ious: list[float] = []

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
        known = truth != IGNORE
        for label in np.unique(truth).tolist():
            if label in (BACKGROUND, IGNORE):
                continue
            true = _components(truth == label)
            found = _components((prediction == label) & known)
            self._areas += (np.bincount(true.ravel())[1:] / truth.size).tolist()
            self._ious += _ious(true, found)

    def parts(self, count: int = 5) -> list[SizePart]:
        """The components by area, smallest first, in ``count`` parts of equal number.

        Fewer parts where there are fewer components. ConfigError if ``count`` is under 1.
        """
        if count < 1:
            raise ConfigError(f"{count} parts", do="use 1 or more")
        order = np.argsort(self._areas, kind="stable")
        areas, ious = np.asarray(self._areas)[order], np.asarray(self._ious)[order]
        shares = zip(np.array_split(areas, count), np.array_split(ious, count), strict=True)
        return [
            SizePart(float(area[-1]), len(area), float(iou.mean()))
            for area, iou in shares
            if len(area)
        ]


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Components of a mask (H, W) from 1, 0 elsewhere."""
    labelled = cv2.connectedComponents(mask.view(np.uint8), connectivity=_CORNERS)[1]
    return labelled  # type: ignore[return-value]


def _ious(true: npt.NDArray[np.int32], found: npt.NDArray[np.int32]) -> list[float]:
    """IoU of each true component with the found ones that touch it."""
    shared = np.zeros((true.max() + 1, found.max() + 1), np.int64)
    pairs, counts = np.unique(
        true.ravel().astype(np.int64) * shared.shape[1] + found.ravel(), return_counts=True
    )
    shared.ravel()[pairs] = counts
    areas, outside = shared[1:].sum(1), shared[0].copy()  # outside: in no true component
    outside[0] = 0
    touching = shared[1:] > 0
    touching[:, 0] = False
    both = np.where(touching, shared[1:], 0).sum(1)
    union = areas + (touching * outside).sum(1)
    return (both / union).tolist()
