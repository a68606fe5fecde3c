"""Evidence of classes and of objects put together: probabilities of a photo's labels, and votes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import numpy as np

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.region_seeds import Superpixels, region_means
from tagseg.maps import IGNORE, Labels, Probs, SaliencyMap, ScoreMap, as_float32, check_maps

__all__ = ["Joining", "agreed_labels", "fused_probabilities", "joined_maps", "region_votes"]

Joining = Literal["mean", "product"]

_SHARPNESS = 4  # power of the evidence; see docs/union.md


def fused_probabilities(
    score_map: ScoreMap,
    salient: SaliencyMap | None,
    *,
    threshold: float,
    joining: Joining = "mean",
) -> Probs:
    """Probabilities (T + 1, H, W) of the background and of the photo's T classes.

    A class has as evidence its score map, or the mean of that and what stands out, or the square
    root of their product: the mean forgives one that has missed a thing, the product asks for both.
    The background has ``threshold`` everywhere. All evidence to the fourth power, over its sum.

    Args:
        score_map: of the classes that the photo shows (T, H, W), in [0, 1].
        salient: where any object is (H, W), in [0, 1]; None leaves it out.
        threshold: evidence from which on a class wins over the background.
        joining: how the two are joined.

    Raises:
        ShapeError: a map has the wrong shape or type, or the two differ in size.
        ConfigError: a threshold that nothing or everything passes, or another joining.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import fused_probabilities
        >>> seen, stands_out = np.array([[[0.9, 0.1]]]), np.array([[0.8, 0.1]])
        >>> probs = fused_probabilities(seen, stands_out, threshold=0.4)
        >>> probs.argmax(0).tolist(), bool(probs[1, 0, 0] > 0.95)
        ([[1, 0]], True)
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold is {threshold}", do="use over 0, below 1")
    if joining not in get_args(Joining):
        raise ConfigError(f"joining is {joining!r}", do="use mean or product")
    score_map = as_float32(score_map)
    check_maps(score_map, np.shape(score_map)[1:], "score_map")
    evidence = score_map if salient is None else _joined(score_map, salient, joining)
    shape = (1, *score_map.shape[1:])
    every = np.concatenate((np.full(shape, threshold, np.float32), evidence))
    every = (every / every.max(0)) ** _SHARPNESS  # the power of what is tiny would be 0
    return every / every.sum(0)


def joined_maps(score_maps: Sequence[ScoreMap]) -> ScoreMap:
    """Several score maps of the same classes as one (T, H, W): their geometric mean.

    What one of them does not see is not there: a fine map of an early layer fires on every edge, a
    coarse one of the last layer spreads. Of several, each class is divided by its maximum again.

    Args:
        score_maps: each (T, H, W), in [0, 1].

    Raises:
        ShapeError: there are none, or they differ in shape.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import joined_maps
        >>> coarse, fine = np.array([[[1.0, 1.0, 0.0]]]), np.array([[[0.36, 1.0, 1.0]]])
        >>> joined_maps([coarse, fine])
        array([[[0.6, 1. , 0. ]]], dtype=float32)
    """
    if not score_maps or len({np.shape(one) for one in score_maps}) > 1:
        raise ShapeError("no score maps of one shape", do="give one or more of (T, H, W)")
    every = [as_float32(one) for one in score_maps]
    for one in every:
        check_maps(one, one.shape[1:], "score_maps")
    if len(every) == 1:
        return every[0]
    joined = reduce(np.multiply, every) ** np.float32(1 / len(every))
    peaks = joined.max((1, 2), keepdims=True, initial=0.0)
    return joined / np.where(peaks > 0, peaks, np.float32(1))


def region_votes(probs: Probs, regions: Superpixels) -> Probs:
    """Each pixel's probabilities (L, H, W) as the mean over its region: all its pixels vote.

    Args:
        probs: of a photo's labels (L, H, W).
        regions: ids 0..n-1 of superpixels or other regions (H, W).

    Raises:
        ShapeError: the arrays do not fit each other.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import region_votes
        >>> probs = np.array([[[1.0, 0.0, 0.5, 0.0]], [[0.0, 1.0, 0.5, 1.0]]])
        >>> region_votes(probs, np.array([[0, 0, 0, 1]], np.int32))[1].tolist()
        [[0.5, 0.5, 0.5, 1.0]]
    """
    return np.take(region_means(probs, regions), regions, axis=1)


def agreed_labels(votes: Probs, *, least: float) -> Labels:
    """The likeliest label (H, W) where it has enough votes, and 255 elsewhere.

    What several ways to labels agree on is right more often than what any of them says. Of a class
    that nowhere has enough, the pixels stay that have its most: a photo's tag teaches something.

    Args:
        votes: mean of the probabilities of all ways (L, H, W), background first.
        least: of the votes that a label needs.

    Raises:
        ShapeError: the votes are no (L, H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import agreed_labels
        >>> votes = np.array([[[0.9, 0.4, 0.1, 0.3]], [[0.1, 0.6, 0.9, 0.7]]])
        >>> agreed_labels(votes, least=0.8).tolist()
        [[0, 255, 1, 255]]
    """
    if np.ndim(votes) != 3:
        raise ShapeError(f"votes of shape {np.shape(votes)}", do="give (L, H, W)")
    votes = as_float32(votes)
    labels, most = votes.argmax(0).astype(np.uint8), votes.max(0)
    needed = np.full(len(votes), least)
    for label in range(1, len(votes)):
        needed[label] = min(least, most[labels == label].max(initial=0.0))
    return np.where(most < needed[labels], np.uint8(IGNORE), labels)


def _joined(score_map: ScoreMap, salient: SaliencyMap, joining: Joining) -> ScoreMap:
    if np.shape(salient) != score_map.shape[1:]:
        raise ShapeError(
            f"a saliency map of {np.shape(salient)} for score maps of {score_map.shape}",
            do="bring them to one size",
        )
    salient = as_float32(salient)
    check_maps(salient[None], salient.shape, "salient")
    if joining == "mean":
        return (score_map + salient) * np.float32(0.5)
    return np.sqrt(score_map * salient)
