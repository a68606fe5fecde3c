"""Multi-class masks from class activation maps and a foreground prior (Saleh et al., 3.1.2).

==========  ==================  =================================================
paper       here                shape
==========  ==================  =================================================
M_c         ``score_map``       (C, H, W), each present class with maximum 1
P_f         ``foreground``      (H, W) in [0, 1]
B_c         ``binary_maps``     (C, H, W) bool
P_0, P_c    ``maps``            (K, H, W), one per label in the photo
alpha       ``alpha``           1 = foreground prior alone, 0 = localization alone
==========  ==================  =================================================

A photo with known tags can hold the background and its present classes and nothing else, so maps
are made for those K labels only, and travel with the list of them. Absent classes cannot appear.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import (
    BACKGROUND,
    Labels,
    Tags,
    as_float32,
    check_maps,
    labels_of_tags,
)

__all__ = [
    "PresentMaps",
    "binary_maps",
    "foreground_maps",
    "labels_from_maps",
    "multiclass_maps",
]


Floats = npt.NDArray[np.floating]
Bool = npt.NDArray[np.bool_]


class PresentMaps(NamedTuple):
    """The maps of the labels that a photo may contain, and those labels.

    Attributes:
        maps: float32 (K, H, W) in [0, 1], one map per label.
        labels: int (K,), the label of each map, background first.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import PresentMaps, labels_from_maps
        >>> maps = np.array([[[0.9, 0.2]], [[0.1, 0.8]]], np.float32)
        >>> present = PresentMaps(maps, np.array([0, 5]))
        >>> labels_from_maps(*present).tolist()
        [[0, 5]]
    """

    maps: npt.NDArray[np.float32]
    labels: npt.NDArray[np.intp]


def binary_maps(score_map: Floats, threshold: float = 0.2) -> Bool:
    """Mark where each class's map is above a fraction of its maximum: B_c.

    Saleh et al. 2017, section 3.1.2. Floats of any width are read as float32.

    Args:
        score_map: float (C, H, W), M_c.
        threshold: fraction of each class's own maximum, 0.2 in the paper.

    Returns:
        bool (C, H, W); all False for a class without evidence.

    Raises:
        ShapeError: score_map is not a finite float (C, H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import binary_maps
        >>> score_map = np.array([[[0.1, 0.3, 1.0]], [[0.0, 0.0, 0.0]]])
        >>> binary_maps(score_map).tolist()
        [[[False, True, True]], [[False, False, False]]]
    """
    maps = as_float32(score_map)
    return _above(check_maps(maps, np.shape(maps)[1:], "score_map"), threshold)


def multiclass_maps(
    score_map: Floats,
    foreground: Floats,
    tags: Tags,
    *,
    alpha: float = 0.5,
    threshold: float = 0.2,
    normalise: bool = True,
    elsewhere: Literal["mean", "max"] = "mean",
) -> PresentMaps:
    """Combine where each class is with where any object is: P_0 and P_c of a photo's labels.

    Saleh et al. 2017, Eq. 2 to 5. ``alpha=0`` is the paper's "localization only" (Tables 5 and 6):
    P_c = M_c, P_0 = M_0.

    Two readings of the text are ours. C in Eq. 4 counts the photo's present classes: over all
    classes of the data set the sum would hold mostly zeros, and M_0, near 1 everywhere, would
    outvote every class. And "normalized to obtain a probability" after Eq. 3 is taken as each P_c
    over its own maximum (``normalise``). It stands before the background map exists, so it cannot
    mean a distribution over the labels, which is Eq. 7's work; and dividing by the sum over the
    classes would make a lone class 1 everywhere. Eq. 7 compares the maps by their differences, so
    they must share a scale: with a peak of 1, no present class loses to the background everywhere.
    With ``normalise=False`` one can: a class whose evidence lies where P_f is low.

    Floats of any width are read as float32.

    Args:
        score_map: float (C, H, W) in [0, 1], M_c.
        foreground: float (H, W) in [0, 1], P_f.
        tags: (C,) bool.
        alpha: weight of the foreground prior, 0 to 1.
        threshold: fraction of M_c's maximum for B_c.
        normalise: divide each P_c by its maximum.
        elsewhere: M_0 is 1 minus the mean of the present M_c (Eq. 4), or minus their maximum: the
            text before Eq. 4 asks where no class has been found, and in a photo of three classes
            a pixel that is surely one of them still has M_0 = 2/3 by the mean.

    Returns:
        The maps of the background and the present classes, and their labels. A photo without tags
        has the background alone.

    Raises:
        ConfigError: alpha is outside 0 to 1, or ``elsewhere`` is neither.
        ShapeError: shapes or types do not fit each other.

    Examples:
        Class 2 of two is in the photo. Its evidence and the foreground agree on the right.

        >>> import numpy as np
        >>> from tagseg.fuse import labels_from_maps, multiclass_maps
        >>> score_map = np.array([[[0.0, 0.0, 0.0]], [[0.1, 0.5, 1.0]]])
        >>> foreground = np.array([[0.0, 0.8, 0.9]])
        >>> maps, labels = multiclass_maps(score_map, foreground, np.array([False, True]))
        >>> maps.astype(float).round(2).tolist()
        [[[0.95, 0.35, 0.05]], [[0.05, 0.68, 1.0]]]
        >>> labels_from_maps(maps, labels).tolist()
        [[0, 2, 2]]
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}", do="give a weight from 0 to 1")
    score_map, foreground = as_float32(score_map), as_float32(foreground)
    check_maps(foreground[None], foreground.shape, "foreground")
    check_maps(score_map, foreground.shape, "score_map")
    if tags.shape != score_map.shape[:1]:
        raise ShapeError(f"{len(score_map)} score maps for {len(tags)} tags", do="give one per tag")
    present = score_map[tags]
    if elsewhere not in ("mean", "max"):
        raise ConfigError(f"elsewhere is {elsewhere!r}", do="use mean or max")
    covered = np.zeros_like(foreground)
    if len(present):
        covered = present.mean(0) if elsewhere == "mean" else present.max(0)
    uncovered = 1 - covered  # Eq. 4
    background = alpha * (1 - foreground) + (1 - alpha) * uncovered  # Eq. 5
    truncated = foreground * _above(present, threshold)  # Eq. 2
    classes = alpha * truncated + (1 - alpha) * present  # Eq. 3
    if normalise:
        peak = classes.max((1, 2), keepdims=True)
        classes = classes / np.where(peak > 0, peak, 1)
    maps = np.concatenate((background[None], classes)).astype(np.float32)
    return PresentMaps(maps, labels_of_tags(tags))


def foreground_maps(foreground: Floats) -> npt.NDArray[np.float32]:
    """Stack a background and a foreground map, (1 - P_f, P_f), as Eq. 7 of Saleh et al. takes P_f.

    Args:
        foreground: float (H, W) in [0, 1], P_f, read as float32.

    Returns:
        float32 (2, H, W), background first.

    Raises:
        ShapeError: foreground is not a finite float (H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import foreground_maps
        >>> foreground_maps(np.array([[0.25, 1.0]])).tolist()
        [[[0.75, 0.0]], [[0.25, 1.0]]]
    """
    foreground = as_float32(foreground)
    check_maps(foreground[None], foreground.shape, "foreground")
    return np.stack((1 - foreground, foreground))


def labels_from_maps(maps: Floats, labels_present: npt.NDArray[np.integer]) -> Labels:
    """Give each pixel the label of its largest map; of equal maps the earlier one wins.

    Args:
        maps: float (K, H, W), evidence or probabilities, compared as they are.
        labels_present: int (K,), the label of each map, background first.

    Returns:
        labels uint8 (H, W).

    Raises:
        ShapeError: there is not one label per map, or no map.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import labels_from_maps
        >>> maps = np.array([[[0.6, 0.2, 0.5]], [[0.4, 0.8, 0.5]]])
        >>> labels_from_maps(maps, np.array([0, 12])).tolist()
        [[0, 12, 0]]
    """
    if maps.ndim != 3 or len(maps) != len(labels_present) or len(maps) == 0:
        raise ShapeError(
            f"maps has shape {maps.shape} for {len(labels_present)} labels",
            do=f"give one (H, W) map per label, {BACKGROUND} (background) first",
        )
    return np.asarray(labels_present, dtype=np.uint8)[maps.argmax(0)]


def _above(score_map: npt.NDArray[np.float32], threshold: float) -> Bool:
    """Compare each map (C, H, W) with ``threshold`` of its maximum."""
    return score_map > threshold * score_map.max((1, 2), keepdims=True)
