"""The localization cues of SEC are a few sure labels of a photo, and nothing elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Labels, Tags, as_float32, check_maps, label_of_tag

__all__ = ["localization_cues"]


def localization_cues(
    score_map: npt.NDArray[np.floating],
    background: npt.NDArray[np.bool_] | None,
    tags: Tags,
    *,
    threshold: float = 0.2,
) -> Labels:
    """Mark each present class where its score is high, and background where it is sure.

    Kolesnikov & Lampert 2016, section 4.1: where cues of two classes overlap, the class with the
    smaller area wins, its area being all of its cues. The background counts as a class. Of equal
    areas the later label wins, and any class before the background. Pixels without a cue are 255.

    Args:
        score_map: float (C, h, w) in [0, 1], at any size, read as float32; absent classes are left
            out.
        background: (h, w) bool, see :func:`tagseg.localize.background_cues.background_cues`; None
            for no cue of the background.
        tags: (C,) bool.
        threshold: fraction of the class's own maximum that a cue lies above, from 0, under 1.

    Returns:
        labels uint8 (h, w).

    Raises:
        ConfigError: not 0 <= threshold < 1.
        ShapeError: the arrays do not fit each other.

    Examples:
        The background and the first class overlap in a pixel, which goes to the smaller of both.

        >>> import numpy as np
        >>> from tagseg.fuse import localization_cues
        >>> score_map = np.array([[[0.0, 0.1, 0.1, 0.3, 1.0]]])
        >>> background = np.array([[True, True, False, True, False]])
        >>> localization_cues(score_map, background, np.array([True])).tolist()
        [[0, 0, 255, 1, 1]]
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"threshold is {threshold}", do="give a fraction from 0, under 1")
    score_map = as_float32(score_map)
    check_maps(score_map, score_map.shape[1:], "score_map")
    shape = score_map.shape[1:]
    if tags.shape != score_map.shape[:1]:
        raise ShapeError(f"{len(score_map)} score maps for {len(tags)} tags", do="give one per tag")
    regions = [] if background is None else [(BACKGROUND, _checked(background, shape))]
    for tag in np.flatnonzero(tags).tolist():
        scores = score_map[tag]
        regions.append((label_of_tag(tag), scores > threshold * scores.max(initial=0)))
    labels = np.full(shape, IGNORE, dtype=np.uint8)
    for label, region in sorted(regions, key=lambda cues: cues[1].sum(), reverse=True):
        labels[region] = label
    return labels


def _checked(background: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    if background.dtype != np.bool_ or background.shape != shape:
        raise ShapeError(
            f"background is {background.dtype} of shape {background.shape}",
            do=f"give bool of shape {shape}, as the score map",
        )
    return background
