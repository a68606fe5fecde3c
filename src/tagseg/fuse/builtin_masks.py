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
    SaliencyMap,
    ScoreMap,
    Tags,
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


class PresentMaps(NamedTuple):
    """One map in [0, 1] per label that the photo may contain."""

    maps: npt.NDArray[np.float32]  # (K, H, W)
    labels: npt.NDArray[np.intp]  # (K,), background first


def binary_maps(score_map: ScoreMap, threshold: float = 0.2) -> npt.NDArray[np.bool_]:
    """B_c: where M_c is above ``threshold`` of its maximum (Saleh et al. 2017, section 3.1.2).

    Args:
        score_map: (C, H, W).
        threshold: fraction of each class's own maximum, 0.2 in the paper.

    Returns:
        bool (C, H, W); all False for a class without evidence.
    """
    return score_map > threshold * score_map.max((1, 2), keepdims=True)


def multiclass_maps(
    score_map: ScoreMap,
    foreground: SaliencyMap,
    tags: Tags,
    *,
    alpha: float = 0.5,
    threshold: float = 0.2,
    normalise: bool = True,
    elsewhere: Literal["mean", "max"] = "mean",
) -> PresentMaps:
    """P_c and P_0 of the labels in a photo, from where each class and where any object is.

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

    Args:
        score_map: (C, H, W) in [0, 1], M_c.
        foreground: (H, W) in [0, 1], P_f.
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
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}", do="give a weight from 0 to 1")
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
    truncated = foreground * binary_maps(present, threshold)  # Eq. 2
    classes = alpha * truncated + (1 - alpha) * present  # Eq. 3
    if normalise:
        peak = classes.max((1, 2), keepdims=True)
        classes = classes / np.where(peak > 0, peak, 1)
    maps = np.concatenate((background[None], classes)).astype(np.float32)
    return PresentMaps(maps, labels_of_tags(tags))


def foreground_maps(foreground: SaliencyMap) -> npt.NDArray[np.float32]:
    """Background and foreground maps (1 - P_f, P_f), float32 (2, H, W), as Eq. 7 takes P_f."""
    return np.stack((1 - foreground, foreground)).astype(np.float32)


def labels_from_maps(maps: npt.NDArray[np.float32], labels_present: npt.NDArray[np.intp]) -> Labels:
    """Label of the largest map at each pixel; the earlier label (background first) wins a tie.

    Args:
        maps: (K, H, W), evidence or probabilities.
        labels_present: (K,) label of each map.

    Returns:
        labels uint8 (H, W).

    Raises:
        ShapeError: there is not one label per map, or no map.
    """
    if maps.ndim != 3 or len(maps) != len(labels_present) or len(maps) == 0:
        raise ShapeError(
            f"maps has shape {maps.shape} for {len(labels_present)} labels",
            do=f"give one (H, W) map per label, {BACKGROUND} (background) first",
        )
    return np.asarray(labels_present, dtype=np.uint8)[maps.argmax(0)]
