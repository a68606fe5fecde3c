"""Labels where tags may be missing or wrong: nothing is taught of what is in doubt."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tagseg.maps import BACKGROUND, IGNORE, Labels, SaliencyMap

__all__ = ["without_doubtful"]


def without_doubtful(
    labels: Labels,
    missing: SaliencyMap,
    *,
    threshold: float,
    stronger: SaliencyMap | None = None,
    wrong: Iterable[int] = (),
) -> Labels:
    """Labels in which strong evidence for a class that is not tagged is ignored, not background.

    Background is what no tag explains. Where a tag is missing its object would be taught to be
    background, which is worse than nothing; there the label becomes 255. Or it would be taught to
    be a tagged class, where labels go by what stands out: labels of tagged classes become 255 where
    the missing one is seen more strongly. Labels of tags that are probably wrong become 255 too.

    Args:
        labels: (H, W) uint8.
        missing: (H, W), evidence for the classes that are probably there although not tagged, 1
            where it is strongest; 0 where there is none.
        threshold: from which on evidence counts.
        stronger: (H, W), ``missing`` where it is more than the evidence for any tagged class, 0
            elsewhere; None for nowhere.
        wrong: labels whose tags are probably wrong.

    Returns:
        (H, W) uint8; ``labels`` themselves where nothing is in doubt.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import without_doubtful
        >>> labels = np.array([[0, 0, 1, 2]], np.uint8)
        >>> missing = np.array([[0.1, 0.9, 0.9, 0.0]], np.float32)
        >>> without_doubtful(labels, missing, threshold=0.2, wrong=[2]).tolist()
        [[0, 255, 1, 255]]
    """
    doubtful = (labels == BACKGROUND) & (missing >= threshold) & (missing > 0)
    if stronger is not None:
        doubtful |= (stronger >= threshold) & (stronger > 0)
    doubtful |= np.isin(labels, list(wrong))
    return np.where(doubtful, np.uint8(IGNORE), labels) if doubtful.any() else labels
