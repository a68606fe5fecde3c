"""One label per photo: a foreground mask and a single class become training labels.

Jing, Chen, Tian, "Coarse-to-fine semantic segmentation from image-level labels", III-D, and the
rules a and b between rounds of IV-D.2. A photo of one class is taken to show it wherever it shows
an object at all; that this is wrong here and there is what the rounds are for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Labels, check_labels

__all__ = ["ForegroundLimits", "check_limits", "has_usable_foreground", "of_category", "one_label"]

ForegroundLimits = tuple[float, float]
"""Least and largest share of a photo's pixels that may be foreground, 0 to 1."""


def one_label(foreground: npt.NDArray[np.bool_], label: int) -> Labels:
    """The photo's category for every foreground pixel (H, W), background for the rest (III-D).

    Args:
        foreground: bool (H, W).
        label: of the one class, 1 to 254.

    Raises:
        ShapeError: ``foreground`` is no bool (H, W), or ``label`` no foreground label.
    """
    if foreground.ndim != 2 or foreground.dtype != np.bool_:
        raise ShapeError(
            f"foreground is a {foreground.dtype} array of shape {foreground.shape}",
            do="give a bool array (H, W)",
        )
    _check_label(label)
    return np.where(foreground, np.uint8(label), np.uint8(BACKGROUND))


def of_category(labels: Labels, label: int) -> npt.NDArray[np.bool_]:
    """Where ``labels`` (H, W) hold the photo's own category, bool (H, W) (IV-D.2, rule b).

    Whatever else was predicted there becomes background: "only the pixels belonging to the
    original category would be valid".

    Raises:
        ShapeError: ``labels`` is no uint8 (H, W), or ``label`` no foreground label.
    """
    check_labels(labels, IGNORE - 1)
    _check_label(label)
    return labels == label


def has_usable_foreground(labels: Labels, limits: ForegroundLimits = (0.01, 0.8)) -> bool:
    """Whether a photo takes part in the next round (IV-D.2, rule a).

    It does not "if less than 1% pixels or more than 80% pixels are foreground". Pixels that are
    not known, 255, count as neither, and not to the whole. A photo of which nothing is known
    takes no part.
    """
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    known = labels.size - int(counts[IGNORE])
    foreground = known - int(counts[BACKGROUND])
    least, most = limits
    return known > 0 and least * known <= foreground <= most * known


def check_limits(limits: ForegroundLimits) -> None:
    """Raise ConfigError unless 0 <= least < most <= 1."""
    least, most = limits
    if not 0 <= least < most <= 1:
        raise ConfigError(
            f"foreground_limits is {least:g},{most:g}",
            do="use two shares, 0 to 1, the lesser first",
        )


def _check_label(label: int) -> None:
    if not BACKGROUND < label < IGNORE:
        raise ShapeError(f"label {label} is no foreground label", do="use 1 to 254")
