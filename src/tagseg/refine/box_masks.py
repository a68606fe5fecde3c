"""Masks of boxes, by GrabCut, and boxes of masks.

Oh et al., "Exploiting saliency for object segmentation from image level labels" (CVPR 2017),
section 6.1: GrabCut over the average box gives the masks on which a saliency model is trained.
Jing et al. 2018 go the other way for Table I's "bounding boxes of enhanced masks".
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.working import labels_at, working_image
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, check_image, label_of_tag
from tagseg.refine.grabcut import FEWEST, Mask, grab

__all__ = ["OBJECT", "boxed", "object_mask"]

OBJECT = label_of_tag(0)
"""The label of salient objects, the one class there is."""


def object_mask(
    image: Image,
    boxes: npt.NDArray[np.float64],
    *,
    iterations: int = 5,
    side: int = 300,
    min_fraction: float = 0.1,
    core: float = 0.2,
) -> Labels:
    """Make a mask of the objects in ``boxes``, by GrabCut (Rother et al. 2004) in each of them.

    Everything outside of a box is background, as in Khoreva et al., "Simple does it" (CVPR 2017);
    the mask is the objects' union. Where GrabCut finds less than ``min_fraction`` of the box, or
    has no background to learn from, their Box^i stands in: the central ``core`` of the box's area
    is object, the rest of the box is not known. The same arguments always give the same mask.

    Args:
        image: RGB photo (H, W, 3), uint8.
        boxes: one box per object (O, 4), float: left, top, right, bottom, pixels; O may be 0.
        iterations: rounds of GrabCut.
        side: GrabCut works at this longer side at most, pixels; the mask is resized to the photo.
        min_fraction: smallest share of its box that an object may cover.
        core: share of the box's area that is taken for the object where GrabCut fails.

    Returns:
        Labels (H, W), uint8: 1 object, 0 background, 255 not known.

    Raises:
        ShapeError: The photo or the boxes have another form, or a box lies outside the photo.

    Examples:
        A dark disc on a bright ground, in a box that leaves it some room:

        >>> import numpy as np
        >>> from tagseg.refine import object_mask
        >>> y, x = np.mgrid[:80, :80] - 40
        >>> disc = x**2 + y**2 < 24**2
        >>> image = np.where(disc[..., None], 50, 210).astype(np.uint8).repeat(3, axis=2)
        >>> mask = object_mask(image, np.array([[12.0, 12.0, 68.0, 68.0]]))
        >>> np.unique(mask).tolist(), int(((mask == 1) != disc).sum())
        ([0, 1], 0)
    """
    check_image(image)
    height, width = image.shape[:2]
    _check_boxes(boxes, height, width)
    small = working_image(image, side)
    scale = np.tile(np.divide(small.shape[1::-1], (width, height)), 2)
    labels = np.full(small.shape[:2], BACKGROUND, np.uint8)
    unknown = np.zeros(small.shape[:2], bool)
    for box in boxes * scale:
        found, doubtful = _one_object(small, box, iterations, min_fraction, core)
        labels[found] = OBJECT
        unknown |= doubtful
    labels[unknown & (labels != OBJECT)] = IGNORE
    return labels_at(labels, (height, width))


def boxed(mask: Mask, *, min_fraction: float = 0.2) -> Mask:
    """Fill the bounding box of a mask's foreground (Jing et al. 2018, Table I).

    There is one box per photo, around all larger components together, as one label per photo names
    one thing; specks that GrabCut leaves behind would otherwise stretch it over the photo.

    Args:
        mask: bool (H, W).
        min_fraction: components (8-neighbours) below this share of the largest one do not count,
            0 to 1.

    Returns:
        The box (H, W), bool; empty if there is no foreground.

    Raises:
        ConfigError: ``min_fraction`` is not from 0 to 1.
        ShapeError: ``mask`` is not a bool (H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.refine import boxed
        >>> mask = np.zeros((5, 12), bool)
        >>> mask[1:4, 2] = mask[2, 2:7] = True  # seven pixels in two strokes
        >>> mask[4, 11] = True  # a speck
        >>> print(boxed(mask).astype(int))
        [[0 0 0 0 0 0 0 0 0 0 0 0]
         [0 0 1 1 1 1 1 0 0 0 0 0]
         [0 0 1 1 1 1 1 0 0 0 0 0]
         [0 0 1 1 1 1 1 0 0 0 0 0]
         [0 0 0 0 0 0 0 0 0 0 0 0]]
    """
    if not 0 <= min_fraction <= 1:
        raise ConfigError(f"min_fraction is {min_fraction}", do="give a share from 0 to 1")
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError(
            f"mask is a {mask.dtype} array of shape {mask.shape}", do="give a bool array (H, W)"
        )
    box = np.zeros_like(mask)
    if not mask.any():
        return box
    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:]
    left, top, width, height, area = stats[:, :5].T
    kept = area >= min_fraction * area.max()
    rows = slice(top[kept].min(), (top + height)[kept].max())
    columns = slice(left[kept].min(), (left + width)[kept].max())
    box[rows, columns] = True
    return box


def _check_boxes(boxes: npt.NDArray[np.float64], height: int, width: int) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ShapeError(f"boxes has shape {boxes.shape}", do="give finite numbers (O, 4)")
    inside = np.clip(boxes, 0, (width, height, width, height))
    if (inside[:, 2:] <= inside[:, :2]).any():
        raise ShapeError(
            f"a box is empty or outside the photo of {width} x {height}", do="check the boxes"
        )


def _one_object(
    image: Image, box: npt.NDArray[np.float64], iterations: int, min_fraction: float, core: float
) -> tuple[Mask, Mask]:
    """Return where the object of ``box`` is, and where it may be, bool (h, w) each."""
    inside = _filled(image, box)
    area = np.count_nonzero(inside)
    if min(area, inside.size - area) >= FEWEST:
        labels = np.where(inside, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_BGD))
        found = grab(image, labels, iterations)
        if np.count_nonzero(found) >= min_fraction * area:
            return found, np.zeros_like(found)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * np.sqrt(core)
    return _filled(image, np.concatenate([centre - half, centre + half])), inside


def _filled(image: Image, box: npt.NDArray[np.float64]) -> Mask:
    """Return the pixels (h, w) of a box, at least one."""
    height, width = image.shape[:2]
    left, top = np.clip(np.rint(box[:2]).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.rint(box[2:]).astype(int)
    inside = np.zeros((height, width), bool)
    inside[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return inside
