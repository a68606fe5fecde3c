"""The parts of a mask that become annotations: connected regions, or all of a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.formats.export.masked_photos import Per, used_labels
from tagseg.maps import Labels

__all__ = ["Region", "regions_of"]


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one class.

    Attributes:
        label: of the class.
        top, left: where ``mask`` lies in the photo, pixels.
        mask: bool (h, w), cut as closely as possible.
    """

    label: int
    top: int
    left: int
    mask: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, pixels."""
        height, width = self.mask.shape
        return self.left, self.top, int(width), int(height)


def regions_of(labels: Labels, per: Per) -> Iterator[Region]:
    """The regions of ``labels``, uint8 (H, W), by label; background and 255 have none.

    Pixels that touch at a corner are of one region, as OpenCV's and COCO's outlines have it.
    """
    for label in used_labels(labels):
        found = (labels == label).view(np.uint8)
        left, top, width, height = cv2.boundingRect(found)
        found = found[top : top + height, left : left + width]
        if per == "class":
            yield Region(label, top, left, found.view(np.bool_))
            continue
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
        for number, (x, y, w, h, _) in enumerate(boxes[1:].tolist(), start=1):
            yield Region(label, top + y, left + x, numbers[y : y + h, x : x + w] == number)
