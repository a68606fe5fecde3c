"""Which of several masks of one photo a person would pick, simulated from ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tagseg.errors import ShapeError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.maps import Labels, check_alike

__all__ = ["best_mask"]


def best_mask(masks: Sequence[Labels], truth: Labels, n_classes: int) -> int:
    """The place of the mask with the highest mean IoU; of equal ones the first.

    The mean is over the labels that the photo's ground truth holds, the background's among them
    if it is there, and over those that the mask alone holds, which have an IoU of 0. So a mask
    gains nothing by a class that is not there. Pixels that ground truth ignores do not count.

    This simulates the person of CheckMask (Saleh et al. 2017, 4.3), who sees the photo; nothing
    that is trained on tags may call it.

    Args:
        masks: labels uint8 (H, W) of one photo, one or more.
        truth: its ground truth, of the same size.

    Raises:
        ShapeError: there is no mask, or one has another size.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import best_mask
        >>> truth = np.array([[0, 0, 1, 1]], np.uint8)
        >>> rows = ([0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 2, 2])
        >>> masks = [np.array([row], np.uint8) for row in rows]
        >>> best_mask(masks, truth, n_classes=2)
        0
    """
    if not masks:
        raise ShapeError("there is no mask to pick", do="give one or more")
    found = []
    for mask in masks:
        check_alike(mask, truth)
        counts = ConfusionMatrix(n_classes + 1)
        counts.update(mask, truth)
        found.append(np.nan_to_num(counts.mean_iou(), nan=-1.0))
    return int(np.argmax(found))
