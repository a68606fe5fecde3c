"""A foreground mask and the one class of a photo become training labels.

Jing, Chen, Tian, "Coarse-to-fine semantic segmentation from image-level labels", III-D, and the
rules a and b between rounds of IV-D.2. A photo of one class is taken to show it wherever it shows
an object at all; that this is wrong here and there is what the rounds are for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE, MAX_CLASSES, Labels, check_labels

__all__ = ["ForegroundLimits", "check_limits", "has_usable_foreground", "of_category", "one_label"]

ForegroundLimits = tuple[float, float]
"""The smallest and largest fraction of a photo's pixels that may be foreground, 0 to 1."""


def one_label(foreground: npt.NDArray[np.bool_], label: int) -> Labels:
    """Give every foreground pixel the photo's one class, and the rest background.

    Jing et al. 2018, III-D.

    Args:
        foreground: bool (H, W).
        label: the label of the one class, 1 to 254.

    Returns:
        labels uint8 (H, W).

    Raises:
        ShapeError: ``foreground`` is no bool (H, W), or ``label`` no foreground label.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import one_label
        >>> one_label(np.array([[False, True], [True, True]]), 3).tolist()
        [[0, 3], [3, 3]]
    """
    if foreground.ndim != 2 or foreground.dtype != np.bool_:
        raise ShapeError(
            f"foreground is a {foreground.dtype} array of shape {foreground.shape}",
            do="give a bool array (H, W)",
        )
    _check_label(label)
    return np.where(foreground, np.uint8(label), np.uint8(BACKGROUND))


def of_category(labels: Labels, label: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels that were predicted as the photo's own class.

    Jing et al. 2018, IV-D.2, rule b: whatever else was predicted becomes background, as "only the
    pixels belonging to the original category would be valid".

    Args:
        labels: uint8 (H, W), a prediction.
        label: the label of the photo's one class, 1 to 254.

    Returns:
        bool (H, W), a foreground for :func:`one_label`.

    Raises:
        ShapeError: ``labels`` is no uint8 (H, W), or ``label`` no foreground label.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import of_category
        >>> of_category(np.array([[0, 3, 5, 255]], np.uint8), 3).tolist()
        [[False, True, False, False]]
    """
    check_labels(labels, MAX_CLASSES)
    _check_label(label)
    return labels == label


def has_usable_foreground(labels: Labels, limits: ForegroundLimits = (0.01, 0.8)) -> bool:
    """Decide by the size of its foreground whether a photo takes part in the next round.

    Jing et al. 2018, IV-D.2, rule a: it does not "if less than 1% pixels or more than 80% pixels
    are foreground". Pixels that are not known, 255, count as neither, and not to the whole. A photo
    of which nothing is known takes no part.

    Args:
        labels: uint8 (H, W).
        limits: the smallest and the largest fraction of the known pixels that are foreground.

    Returns:
        True if the photo takes part.

    Raises:
        ConfigError: not 0 <= limits[0] < limits[1] <= 1.
        ShapeError: ``labels`` is no uint8 (H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import has_usable_foreground
        >>> has_usable_foreground(np.array([[0, 0, 7, 7]], np.uint8))
        True
        >>> has_usable_foreground(np.array([[255, 7, 7, 7]], np.uint8))
        False
    """
    check_limits(limits)
    check_labels(labels, MAX_CLASSES)
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    known = labels.size - int(counts[IGNORE])
    foreground = known - int(counts[BACKGROUND])
    least, most = limits
    return known > 0 and least * known <= foreground <= most * known


def check_limits(limits: ForegroundLimits) -> None:
    """Raise ConfigError unless 0 <= limits[0] < limits[1] <= 1."""
    least, most = limits
    if not 0 <= least < most <= 1:
        raise ConfigError(
            f"foreground_limits is {least:g},{most:g}",
            do="use two shares, 0 to 1, the lesser first",
        )


def _check_label(label: int) -> None:
    if not BACKGROUND < label < IGNORE:
        raise ShapeError(f"label {label} is no foreground label", do="use 1 to 254")
