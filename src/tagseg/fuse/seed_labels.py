"""Thresholded class activation maps are the plainest pseudo-labels: the baseline "seeds only"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Labels, Tags, as_float32, check_maps, labels_of_tags

__all__ = ["cam_labels"]


def cam_labels(
    score_map: npt.NDArray[np.floating],
    tags: Tags,
    *,
    threshold: float = 0.2,
    ignore_band: tuple[float, float] | None = None,
) -> Labels:
    """Label each pixel with the best present class where its score is high enough.

    These are the seeds of Oh et al. 2017 (guided segmentation), as their code makes them: the class
    with the largest score, where that is at least ``threshold`` of the class's own maximum, and
    background elsewhere.

    Args:
        score_map: float (C, H, W) in [0, 1], each present class divided by its maximum; read as
            float32.
        tags: (C,) bool; the scores of absent classes count for nothing.
        threshold: fraction of the class's maximum, over 0 up to 1.
        ignore_band: (low, high) around the threshold; pixels from low up to, not including, high
            become 255, so that only pixels from high up are foreground. None labels every pixel.

    Returns:
        labels uint8 (H, W).

    Raises:
        ConfigError: not 0 < threshold <= 1, or not 0 <= low <= threshold <= high <= 1.
        ShapeError: score_map is not a finite float (C, H, W) for C tags.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import cam_labels
        >>> score_map = np.array([[[1.0, 0.4, 0.1, 0.0]], [[0.0, 0.3, 0.25, 1.0]]])
        >>> tags = np.array([True, True])
        >>> cam_labels(score_map, tags, threshold=0.3).tolist()
        [[1, 1, 0, 2]]

        A band around the threshold leaves the doubtful pixels unlabelled.

        >>> cam_labels(score_map, tags, threshold=0.3, ignore_band=(0.2, 0.5)).tolist()
        [[1, 255, 255, 2]]
    """
    low, high = (threshold, threshold) if ignore_band is None else ignore_band
    if not (0 < threshold <= 1 and 0 <= low <= threshold <= high <= 1):
        raise ConfigError(
            f"threshold is {threshold}, ignore_band {ignore_band}",
            do="give 0 < threshold <= 1, and low <= threshold <= high <= 1",
        )
    score_map = as_float32(score_map)
    check_maps(score_map, score_map.shape[1:], "score_map")
    if tags.shape != score_map.shape[:1]:
        raise ShapeError(f"{len(score_map)} score maps for {len(tags)} tags", do="give one per tag")
    if not tags.any():
        return np.full(score_map.shape[1:], BACKGROUND, dtype=np.uint8)
    present = score_map[tags]
    winner, score = present.argmax(0), present.max(0)
    peak = present.max((1, 2))[winner]
    classes = labels_of_tags(tags)[1:].astype(np.uint8)
    found = score > 0
    labels = np.where(found & (score >= low * peak), np.uint8(IGNORE), np.uint8(BACKGROUND))
    return np.where(found & (score >= high * peak), classes[winner], labels)
