"""How large labelled things are, and the size at which a network should see them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Labels

__all__ = ["typical_size", "zoom_for"]

_MOST = 3.0
_STEP = 0.25  # of zooms, so that photos of nearly one kind are seen alike


def typical_size(labels: Iterable[Labels]) -> float | None:
    """Median over photos and classes of the square root of a class's pixels; None without any.

    Args:
        labels: uint8 (H, W) each, 0 background, 255 unknown.

    Raises:
        ShapeError: labels are not uint8 (H, W).

    Examples:
        A thing of 4 x 4 pixels and one of 2 x 8:

        >>> import numpy as np
        >>> from tagseg.segment.sizes import typical_size
        >>> labels = np.zeros((8, 8), np.uint8)
        >>> labels[:4, :4], labels[5:7] = 1, 2
        >>> typical_size([labels])
        4.0
    """
    sides = []
    for of_photo in labels:
        if of_photo.ndim != 2 or of_photo.dtype != np.uint8:
            raise ShapeError(f"labels is {of_photo.dtype}{of_photo.shape}", do="give uint8 (H, W)")
        counts = np.bincount(of_photo.ravel(), minlength=IGNORE + 1)[BACKGROUND + 1 : IGNORE]
        sides += np.sqrt(counts[counts > 0]).tolist()
    return float(np.median(sides)) if sides else None


def zoom_for(
    typical: float | None, longer: float, *, wanted: float, least: float, most: float
) -> float:
    """Factor that brings things of ``typical`` pixels to ``wanted``, in steps of a quarter.

    At least 1, since photos are at work at the size that the evidence needs and detail that is
    thrown away is gone, and at least what brings their longer side to ``least`` pixels, as what
    was trained on large pictures knows little of small ones; at most 3, beyond which photos are
    blur, and at most what brings their longer side to ``most`` pixels.

    Args:
        typical: see :func:`typical_size`; None for things of any size.
        longer: side of photos at work, pixels.
    """
    factor = least / longer if typical is None else max(wanted / typical, least / longer)
    factor = min(factor, most / longer, _MOST)
    return max(1.0, round(factor / _STEP) * _STEP)
