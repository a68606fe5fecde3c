"""Masks of salient objects from boxes, and salient regions from maps.

Oh et al., "Exploiting saliency for object segmentation from image level labels" (CVPR 2017),
section 6.1: GrabCut over the average box gives the masks on which a saliency model is trained.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.working import labels_at, working_image
from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, SaliencyMap, check_image, label_of_tag

__all__ = ["OBJECT", "object_mask", "salient_mask"]

OBJECT = label_of_tag(0)
"""The label of salient objects, the one class there is."""

_SEED = 1  # of the k-means in which OpenCV begins its colour models
_FEWEST = 30  # pixels on either side of the box's edges from which colours can be learned


def object_mask(
    image: Image,
    boxes: npt.NDArray[np.float64],
    *,
    iterations: int = 5,
    side: int = 300,
    least: float = 0.1,
    core: float = 0.2,
) -> Labels:
    """Mask of the objects in ``boxes``: uint8 (H, W), 1 object, 0 background, 255 not known.

    GrabCut (Rother et al. 2004) in each box, everything outside of it being background, as in
    Khoreva et al., "Simple does it" (CVPR 2017); the objects' union. Where GrabCut finds less than
    ``least`` of the box, or has no background to learn from, their Box^i stands in: the central
    ``core`` of the box's area is object, the rest of the box is not known. The same arguments
    always give the same mask.

    Args:
        image: the photo, (H, W, 3).
        boxes: one box per object, (O, 4): left, top, right, bottom, pixels; O may be 0.
        iterations: rounds of GrabCut.
        side: GrabCut works at this longer side at most, pixels; the mask is resized to the photo.
        least: smallest share of its box that an object may cover.
        core: share of the box's area that is taken for the object where GrabCut fails.

    Raises ShapeError for a photo or boxes of another form, or boxes outside the photo.
    """
    check_image(image)
    height, width = image.shape[:2]
    _check_boxes(boxes, height, width)
    small = working_image(image, side)
    scale = np.tile(np.divide(small.shape[1::-1], (width, height)), 2)
    labels = np.full(small.shape[:2], BACKGROUND, np.uint8)
    unknown = np.zeros(small.shape[:2], bool)
    for box in boxes * scale:
        found, doubtful = _one_object(small, box, iterations, least, core)
        labels[found] = OBJECT
        unknown |= doubtful
    labels[unknown & (labels != OBJECT)] = IGNORE
    return labels_at(labels, (height, width))


def salient_mask(saliency_map: SaliencyMap, *, part: float = 0.5) -> npt.NDArray[np.bool_]:
    """Where a saliency map (H, W) reaches ``part`` of its maximum, bool (H, W).

    Oh et al. 2017, section 6.1: "threshold at 50% of the maximal foreground probability". Nothing
    is salient where the maximum is 0. Raises ShapeError for NaN, infinity or another form.
    """
    if saliency_map.ndim != 2 or not np.issubdtype(saliency_map.dtype, np.floating):
        raise ShapeError(
            f"saliency_map is a {saliency_map.dtype} array of shape {saliency_map.shape}",
            do="give a float32 array (H, W)",
        )
    if not np.isfinite(saliency_map).all():
        raise ShapeError("saliency_map holds NaN or infinity", do="check what produced it")
    peak = saliency_map.max(initial=0.0)
    if peak <= 0:
        return np.zeros(saliency_map.shape, bool)
    return saliency_map >= part * peak


def _check_boxes(boxes: npt.NDArray[np.float64], height: int, width: int) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ShapeError(f"boxes has shape {boxes.shape}", do="give finite numbers (O, 4)")
    inside = np.clip(boxes, 0, (width, height, width, height))
    if (inside[:, 2:] <= inside[:, :2]).any():
        raise ShapeError(
            f"a box is empty or outside the photo of {width} x {height}", do="check the boxes"
        )


def _one_object(
    image: Image, box: npt.NDArray[np.float64], iterations: int, least: float, core: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Where the object of ``box`` is, and where it may be, bool (h, w) each."""
    inside = _filled(image, box)
    area = np.count_nonzero(inside)
    if min(area, inside.size - area) >= _FEWEST:
        found = _grab(image, inside, iterations)
        if np.count_nonzero(found) >= least * area:
            return found, np.zeros_like(found)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * np.sqrt(core)
    return _filled(image, np.concatenate([centre - half, centre + half])), inside


def _filled(image: Image, box: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The pixels (h, w) of a box, at least one."""
    height, width = image.shape[:2]
    left, top = np.clip(np.rint(box[:2]).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.rint(box[2:]).astype(int)
    inside = np.zeros((height, width), bool)
    inside[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return inside


def _grab(image: Image, inside: npt.NDArray[np.bool_], iterations: int) -> npt.NDArray[np.bool_]:
    """GrabCut's object, bool (h, w), in the box ``inside``."""
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(_SEED)
    cv2.grabCut(image, labels, None, *models, iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return labels == cv2.GC_PR_FGD
