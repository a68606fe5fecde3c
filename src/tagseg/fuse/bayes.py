"""Saliency supplements object regions: what is salient and looks like the object belongs to it.

Wang et al. 2018 (MCOF), section 4.3, after Xie et al., "Bayesian Saliency via Low and Mid Level
Cues" (2013). Eq. 2 for a region with features v:

    p(obj | v) = p(obj) p(v | obj) / (p(obj) p(v | obj) + p(bg) p(v | bg)),  p(bg) = 1 - p(obj),

where p(obj) is the saliency map's mean over the region, and p(v | obj) and p(v | bg) are the
distributions of features in the object regions that RegionNet found and in all others. How they
are estimated, the paper leaves open. Here, by a kernel over the regions j of each set S, which
count by their areas a_j:

    p(v | S) = sum_{j in S} a_j exp(-d(v, v_j) / bandwidth) / sum_{j in S} a_j,

up to a factor that both share and that Eq. 2 cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.sparse import csr_matrix

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.region_seeds import Superpixels, region_areas
from tagseg.maps import (
    BACKGROUND,
    MAX_CLASSES,
    Image,
    Labels,
    Probs,
    as_float32,
    check_image,
    check_maps,
)

__all__ = ["colour_histograms", "object_probability", "refined_regions"]

Floats = npt.NDArray[np.floating]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_BITS = 3  # of each channel of Lab: 8 bins, 512 in all
_LEAST = 0.01  # p(obj) and p(bg) at least: features can overrule any saliency


def colour_histograms(image: Image, superpixels: Superpixels) -> Float32:
    """Compute the joint histogram of each region's Lab colours, with 8 bins a channel.

    These are the features v of Wang et al. 2018, Eq. 2, unless a network gives others.

    Args:
        image: uint8 (H, W, 3) RGB.
        superpixels: (H, W) int32, ids 0..n-1.

    Returns:
        float32 (n, 512), each row summing to 1.

    Raises:
        ShapeError: the arrays do not fit each other.

    Examples:
        Of three regions, one is red, one half red and half green, and one green.

        >>> import numpy as np
        >>> from tagseg.fuse import colour_histograms
        >>> image = np.zeros((1, 4, 3), np.uint8)
        >>> image[0, :2], image[0, 2:] = (255, 0, 0), (0, 255, 0)
        >>> histograms = colour_histograms(image, np.array([[0, 1, 1, 2]], np.int32))
        >>> histograms[:, histograms.any(0)].tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    check_image(image)
    areas = region_areas(superpixels)
    if image.shape[:2] != superpixels.shape:
        raise ShapeError(
            f"photo {image.shape[:2]}, superpixels {superpixels.shape}",
            do="bring both to the same height and width",
        )
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.intp) >> (8 - _BITS)
    codes = superpixels.astype(np.intp)
    for channel in range(3):
        codes = (codes << _BITS) | lab[..., channel]
    n_bins = 1 << 3 * _BITS
    counts = np.bincount(codes.ravel(), minlength=n_bins * len(areas))
    return (counts.reshape(-1, n_bins) / areas[:, None]).astype(np.float32)


def object_probability(
    prior: Floats,
    features: Floats,
    is_object: npt.NDArray[np.bool_],
    areas: npt.NDArray[np.integer],
    *,
    bandwidth: float = 0.15,
    distance: Literal["chi2", "cosine"] = "chi2",
) -> Float32:
    """Compute p(obj | v), the probability that a region is part of the object.

    Wang et al. 2018, Eq. 2. Where one of the sets is empty, nothing is known of v: the result is
    the prior. Floats of any width are read as float32.

    Args:
        prior: float (n,) in [0, 1], p(obj): the saliency map's mean over each region. It counts as
            at least 0.01 and at most 0.99.
        features: float (n, d), v: histograms, not negative (chi2), or a network's features
            (cosine).
        is_object: (n,) bool, the object regions that RegionNet found; all others are background.
        areas: (n,) pixels of each region, above 0.
        bandwidth: distance over which the kernel falls to 1 / e, above 0.
        distance: "chi2", 1/2 sum (a - b)^2 / (a + b), in [0, 1] for histograms that sum to 1; or
            "cosine", 1 - a.b / |a| |b|.

    Returns:
        float32 (n,) in [0, 1].

    Raises:
        ConfigError: ``bandwidth`` is not above 0, or ``distance`` neither of both.
        ShapeError: the arrays do not fit each other, or hold values out of range.

    Examples:
        Regions 1 and 2 are equally salient. What looks as the object region 0 gains by it, what
        looks as the background region 3 loses.

        >>> import numpy as np
        >>> from tagseg.fuse import object_probability
        >>> prior = np.array([0.9, 0.3, 0.3, 0.1])
        >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
        >>> is_object = np.array([True, False, False, False])
        >>> found = object_probability(prior, features, is_object, np.full(4, 50))
        >>> [round(value, 2) for value in found.tolist()]
        [0.97, 0.47, 0.0, 0.0]
    """
    if not 0 < bandwidth < np.inf:
        raise ConfigError(f"bandwidth is {bandwidth}", do="give a value above 0")
    if distance not in ("chi2", "cosine"):
        raise ConfigError(f"distance is {distance!r}", do="use chi2 or cosine")
    prior, features = as_float32(prior), as_float32(features)
    _check_regions(prior, features, is_object, areas)
    belief = np.clip(prior.astype(np.float64), _LEAST, 1 - _LEAST)
    if is_object.all() or not is_object.any():
        return belief.astype(np.float32)
    distances = _chi2(features) if distance == "chi2" else _cosine(features)
    weights = np.stack((is_object, ~is_object), 1) * areas[:, None]
    likelihoods = np.exp(distances / -bandwidth) @ (weights / weights.sum(0))
    of_object, of_background = belief * likelihoods[:, 0], (1 - belief) * likelihoods[:, 1]
    total = of_object + of_background
    # Far from all regions both are 0, and nothing is known of v either.
    return np.divide(of_object, total, out=belief, where=total > 0).astype(np.float32)


def refined_regions(
    probability_map: Floats, label: int, binarise: Callable[[Probs], Floats]
) -> Labels:
    """Cut the refined object region O^R out of a map of the object's probability.

    Wang et al. 2018, section 4.3: the probability is "binarized with a CRF".

    Args:
        probability_map: float (H, W) in [0, 1], p(obj | v) of each pixel's region, read as
            float32; :func:`paint` makes it of :func:`object_probability`.
        label: the label of the photo's one class, 1..254.
        binarise: the dense CRF bound to the photo, a function from probabilities float32 (2, H, W),
            background first, to probabilities (2, H, W).

    Returns:
        labels uint8 (H, W): ``label`` where the object's probability is above 0.5 after the CRF,
        else background.

    Raises:
        ConfigError: ``label`` is no class's.
        ShapeError: probability_map is not (H, W) in [0, 1], or what binarise returns has another
            shape.

    Examples:
        Without a CRF the probability is cut at 1/2; :func:`tagseg.refine.dense_crf.dense_crf` with
        a photo in place of ``unchanged`` moves the cut to the photo's edges.

        >>> import numpy as np
        >>> from tagseg.fuse import refined_regions
        >>> def unchanged(probs):
        ...     return probs
        >>> refined_regions(np.array([[0.1, 0.4, 0.6, 0.9]]), 7, unchanged).tolist()
        [[0, 0, 7, 7]]
    """
    if not BACKGROUND < label <= MAX_CLASSES:
        raise ConfigError(f"label is {label}", do=f"give 1 to {MAX_CLASSES}")
    probability_map = as_float32(probability_map)
    _check_probability(probability_map, "probability_map", 2)
    probs = np.stack((1 - probability_map, probability_map)).astype(np.float32)
    sharp = as_float32(binarise(probs))
    check_maps(sharp, probability_map.shape, "what binarise returned")
    if len(sharp) != 2:
        raise ShapeError(f"binarise returned {len(sharp)} maps", do="return background and object")
    return np.where(sharp[1] > 0.5, np.uint8(label), np.uint8(BACKGROUND))


def _chi2(histograms: Float32) -> Float64:
    """Compute 1/2 sum (a - b)^2 / (a + b) of all pairs of rows, (n, n).

    That is 1/2 sum (a + b) - 2 sum a b / (a + b): only the bins that both have take time.
    """
    if histograms.min() < 0:
        raise ShapeError("features are below 0", do="give histograms, or take distance cosine")
    sparse = csr_matrix(histograms)
    shared = _shared(histograms, sparse.indptr, sparse.indices, sparse.data)
    totals = histograms.sum(1, dtype=np.float64)
    return np.maximum(np.add.outer(totals, totals) / 2 - 2 * shared, 0)


@njit(nogil=True, cache=True, error_model="numpy")
def _shared(histograms, starts, bins, values):  # type: ignore[no-untyped-def]
    """Sum a b / (a + b) for all pairs of rows, given dense and sparse."""
    n = len(histograms)
    shared = np.empty((n, n))
    for i in range(n):
        row = histograms[i]
        for j in range(i + 1):
            total = 0.0
            for at in range(starts[j], starts[j + 1]):
                a, b = row[bins[at]], values[at]
                total += a * b / (a + b)
            shared[i, j] = shared[j, i] = total
    return shared


def _cosine(features: Float32) -> Float64:
    """Compute 1 - a.b / |a| |b| of all pairs of rows, (n, n); it is 1 where a row is zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    return np.maximum(1 - (units @ units.T).astype(np.float64), 0)


def _check_regions(
    prior: Float32,
    features: Float32,
    is_object: npt.NDArray[np.bool_],
    areas: npt.NDArray[np.integer],
) -> None:
    _check_probability(prior, "prior", 1)
    n = len(prior)
    if features.ndim != 2 or (len(features), *is_object.shape, *areas.shape) != (n, n, n):
        raise ShapeError(
            f"prior has shape {prior.shape}, features {features.shape}, is_object "
            f"{is_object.shape}, areas {areas.shape}",
            do="give one row of each a region",
        )
    if is_object.dtype != np.bool_:
        raise ShapeError(f"is_object is a {is_object.dtype} array", do="give a bool array (n,)")
    if not np.isfinite(features).all():
        raise ShapeError("features holds NaN or infinity", do="check what produced it")
    if areas.min() <= 0:
        raise ShapeError("areas are not all above 0", do="give the pixels of each region")


def _check_probability(values: Float32, name: str, n_dimensions: int) -> None:
    if values.ndim != n_dimensions or values.size == 0:
        raise ShapeError(f"{name} has shape {values.shape}", do=f"give {n_dimensions} dimensions")
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
        raise ShapeError(f"{name} is not within 0 to 1", do="check what produced it")
