"""Regions get their first labels from heat maps and later ones from masks (Wang et al. 2018, MCOF).

A photo's regions are superpixels with the ids 0..n-1; a label a region is a uint8 (n,): 0
background, k + 1 for tag k, 255 where nothing is known.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    Labels,
    Tags,
    as_float32,
    check_labels,
    check_maps,
    labels_of_tags,
)

__all__ = [
    "Superpixels",
    "Unseeded",
    "object_regions",
    "paint",
    "region_areas",
    "region_labels",
    "region_means",
    "region_seeds",
]

Value = TypeVar("Value", bound=np.generic)
Unseeded = Literal["ignore", "background"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Superpixels = npt.NDArray[np.int32]  # (H, W), ids 0..n-1
RegionLabels = npt.NDArray[np.uint8]  # (n,)


def region_seeds(
    score_map: npt.NDArray[np.floating],
    superpixels: Superpixels,
    neighbours: npt.NDArray[np.integer],
    tags: Tags,
    *,
    threshold: float = 0.7,
    background_threshold: float = 0.2,
    unseeded: Unseeded = "ignore",
) -> RegionLabels:
    """Find the initial object seeds: regions where a class's heat peaks or is high.

    Wang et al. 2018, section 4.1, which leaves the thresholds open. The heat of a region is the
    mean of the class's map, divided by its maximum over the regions.

    * A seed of a class has heat of at least ``threshold``; or it has at least
      ``background_threshold`` and is a local maximum: no neighbour has more. Neighbours of
      exactly the same heat count as one region in this.
    * A seed of several classes goes to the one with the highest heat there; of equals, which
      peaks on one region always are, to the class whose seeds cover the fewest pixels, as in
      Kolesnikov and Lampert 2016 (SEC), then to the lower label.
    * Background is what has less than ``background_threshold`` for each of the present classes.
      What lies in between is not known; or it is background too, as section 4.2 has it, where all
      regions but the seeds are "initially labeled as background".

    Args:
        score_map: float (C, H, W) in [0, 1], read as float32; maps of absent classes are never
            read.
        superpixels: (H, W) int32, ids 0..n-1.
        neighbours: (E, 2) int, pairs of ids that touch, each pair once.
        tags: (C,) bool; without any, all is background.
        threshold: fraction of the class's maximum.
        background_threshold: fraction of it, above 0 and up to ``threshold``.
        unseeded: what becomes of regions that are neither, "ignore" or "background".

    Returns:
        uint8 (n,): a label a region; 255 for the regions that are ignored.

    Raises:
        ConfigError: not 0 < background_threshold <= threshold <= 1, or another ``unseeded``.
        ShapeError: the arrays do not fit each other.

    Examples:
        Four regions in a row. The first is a local maximum, the third is high, the last is cold.

        >>> import numpy as np
        >>> from tagseg.fuse import region_seeds
        >>> superpixels = np.array([[0, 1, 2, 3]], np.int32)
        >>> neighbours = np.array([[0, 1], [1, 2], [2, 3]])
        >>> score_map = np.array([[[0.5, 0.3, 1.0, 0.1]]])
        >>> region_seeds(score_map, superpixels, neighbours, np.array([True])).tolist()
        [1, 255, 1, 0]
        >>> found = region_seeds(
        ...     score_map, superpixels, neighbours, np.array([True]), unseeded="background")
        >>> found.tolist()
        [1, 0, 1, 0]
    """
    if not 0 < background_threshold <= threshold <= 1:
        raise ConfigError(
            f"threshold is {threshold}, background_threshold {background_threshold}",
            do="give 0 < background_threshold <= threshold <= 1",
        )
    if unseeded not in get_args(Unseeded):
        raise ConfigError(f"unseeded is {unseeded!r}", do="use ignore or background")
    areas = region_areas(superpixels)
    _check_neighbours(neighbours, len(areas))
    if tags.shape != score_map.shape[:1]:
        raise ShapeError(f"{len(score_map)} score maps for {len(tags)} tags", do="give one per tag")
    if not tags.any():
        return np.full(len(areas), BACKGROUND, np.uint8)
    present = check_maps(as_float32(score_map[tags]), superpixels.shape, "score_map")
    heat = _over_maximum(_sums(present, superpixels, len(areas)) / areas)
    peaks = _local_maxima(heat, neighbours) & (heat >= background_threshold)
    seeds = peaks | (heat >= threshold)
    cold = (heat < background_threshold).all(0)
    between = BACKGROUND if unseeded == "background" else IGNORE
    labels = np.where(cold, np.uint8(BACKGROUND), np.uint8(between))
    classes = labels_of_tags(tags)[1:].astype(np.uint8)
    return np.where(seeds.any(0), classes[_winners(heat, seeds, areas)], labels)


def region_labels(
    labels: Labels, superpixels: Superpixels, *, min_fraction: float = 0.5
) -> RegionLabels:
    """Give each region the label that most of its pixels have: how masks become seeds.

    Wang et al. 2018, Algorithm 1, line 11.

    Args:
        labels: (H, W) uint8.
        superpixels: (H, W) int32, ids 0..n-1.
        min_fraction: the fraction of the region's pixels, ignored ones counted, that the label
            must have; above 0, up to 1.

    Returns:
        uint8 (n,): 255 where no label has that many; of two labels with half of the pixels each,
        the lower one.

    Raises:
        ConfigError: not 0 < min_fraction <= 1.
        ShapeError: the arrays do not fit each other.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import region_labels
        >>> superpixels = np.array([[0, 0, 0, 1, 1, 1]], np.int32)
        >>> labels = np.array([[2, 2, 0, 0, 255, 2]], np.uint8)
        >>> region_labels(labels, superpixels).tolist()
        [2, 255]
        >>> region_labels(labels, superpixels, min_fraction=0.3).tolist()
        [2, 0]
    """
    if not 0 < min_fraction <= 1:
        raise ConfigError(f"min_fraction is {min_fraction}", do="give a fraction above 0, up to 1")
    areas = region_areas(superpixels)
    check_labels(labels, MAX_CLASSES)
    _check_same_size(labels, superpixels, "labels")
    n_labels = IGNORE + 1
    pairs = superpixels.ravel().astype(np.intp) * n_labels + labels.ravel()
    counts = np.bincount(pairs, minlength=n_labels * len(areas)).reshape(-1, n_labels)
    most = counts[:, :IGNORE].argmax(1)
    fraction = counts[np.arange(len(areas)), most] / areas
    return np.where(fraction >= min_fraction, most, IGNORE).astype(np.uint8)


def object_regions(probs: npt.NDArray[np.floating], tags: Tags) -> RegionLabels:
    """Label each region with its best class, or background if that is not in the photo: O.

    Wang et al. 2018, end of section 4.2: "we can remove wrong predictions and label them as
    background". A region whose best class is absent does not go to its second best.

    Args:
        probs: float (n, C+1), RegionNet's probabilities, background first; compared as they are.
        tags: (C,) bool.

    Returns:
        uint8 (n,): a label a region; of equals, the lowest.

    Raises:
        ShapeError: probs is not (n, C+1) for C tags, or holds NaN or infinity.

    Examples:
        The second region's best class is not in the photo.

        >>> import numpy as np
        >>> from tagseg.fuse import object_regions
        >>> probs = np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1]])
        >>> object_regions(probs, np.array([True, False])).tolist()
        [1, 0, 0]
    """
    if probs.ndim != 2 or tags.ndim != 1 or probs.shape[1] != len(tags) + 1:
        raise ShapeError(
            f"probs has shape {probs.shape}, tags {tags.shape}", do="give (n, C+1) and (C,)"
        )
    if not np.isfinite(probs).all():
        raise ShapeError("probs holds NaN or infinity", do="check what produced it")
    possible = np.concatenate(([True], tags))
    best = probs.argmax(1)
    return np.where(possible[best], best, BACKGROUND).astype(np.uint8)


def paint(values: npt.NDArray[Value], superpixels: Superpixels) -> npt.NDArray[Value]:
    """Give every pixel what its region has: a label, a heat or a probability.

    Args:
        values: (n,), of any type.
        superpixels: (H, W) int32, ids 0..n-1.

    Returns:
        (H, W) of the type of ``values``.

    Raises:
        ShapeError: there is not one value a region.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import paint
        >>> superpixels = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
        >>> paint(np.array([0.5, 1.0, 0.0]), superpixels).tolist()
        [[0.5, 0.5, 1.0], [0.5, 0.0, 1.0]]
    """
    n_regions = len(region_areas(superpixels))
    if values.shape != (n_regions,):
        raise ShapeError(f"values has shape {values.shape}", do=f"give ({n_regions},)")
    return np.take(values, superpixels)


def region_areas(superpixels: Superpixels) -> npt.NDArray[np.int64]:
    """Count the pixels of each region.

    Args:
        superpixels: int (H, W), ids 0..n-1.

    Returns:
        int64 (n,), in pixels.

    Raises:
        ShapeError: superpixels is not (H, W) or does not hold all the ids 0..n-1.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import region_areas
        >>> region_areas(np.array([[0, 0, 1], [0, 2, 1]], np.int32)).tolist()
        [3, 2, 1]
    """
    if (
        not isinstance(superpixels, np.ndarray)
        or superpixels.ndim != 2
        or superpixels.dtype.kind not in "iu"
        or superpixels.size == 0
    ):
        what = getattr(superpixels, "dtype", type(superpixels).__name__)
        shape = getattr(superpixels, "shape", "")
        raise ShapeError(f"superpixels is {what} {shape}", do="give an int32 array (H, W)")
    # Ids without gaps are fewer than the pixels; this also keeps the count's memory bounded.
    if superpixels.min() >= 0 and superpixels.max() < superpixels.size:
        areas = np.bincount(superpixels.ravel())
        if areas.all():
            return areas
    raise ShapeError("superpixels has ids with gaps or below 0", do="number the regions 0..n-1")


def region_means(
    maps: npt.NDArray[np.floating], superpixels: Superpixels
) -> npt.NDArray[np.float32]:
    """Average each map over each region.

    Args:
        maps: float (H, W) or (N, H, W), finite; a saliency map or class maps.
        superpixels: (H, W) int32, ids 0..n-1.

    Returns:
        float32 (n,) or (N, n).

    Raises:
        ShapeError: the arrays do not fit each other, or a map holds NaN or infinity.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import region_means
        >>> superpixels = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
        >>> region_means(np.array([[0.0, 0.5, 1.0], [1.0, 0.25, 0.5]]), superpixels).tolist()
        [0.5, 0.75, 0.25]
    """
    areas = region_areas(superpixels)
    _check_same_size(maps, superpixels, "maps")
    means = _sums(maps.reshape(-1, *superpixels.shape), superpixels, len(areas)) / areas
    if not np.isfinite(means).all():
        raise ShapeError("maps holds NaN or infinity", do="check what produced it")
    return means.reshape(*maps.shape[:-2], -1).astype(np.float32)


def _sums(maps: npt.NDArray[np.floating], superpixels: Superpixels, n_regions: int) -> Float64:
    """Sum each map (N, H, W) over each region, (N, n)."""
    shifts = n_regions * np.arange(len(maps))
    ids = superpixels.ravel() + shifts[:, None]
    sums = np.bincount(ids.ravel(), maps.ravel(), n_regions * len(maps))
    return np.asarray(sums, np.float64).reshape(len(maps), n_regions)


def _over_maximum(means: Float64) -> Float32:
    """Divide each row by its maximum; zeros where nothing is above 0.

    The result has the precision of maps, so that a heat of 0.7 there reaches a threshold of 0.7.
    """
    highest = means.max(1, keepdims=True)
    heat = np.divide(means, highest, out=np.zeros_like(means), where=highest > 0)
    return heat.astype(np.float32)


def _local_maxima(heat: Float32, neighbours: npt.NDArray[np.integer]) -> Bool:
    """Find the regions (N, n) without a hotter neighbour; equal ones that touch count as one."""
    shifts = heat.shape[1] * np.arange(len(heat))
    first, second = (np.add.outer(shifts, ids).ravel() for ids in neighbours.T)
    flat = heat.ravel()
    equal = flat[first] == flat[second]
    links = np.ones(np.count_nonzero(equal), bool), (first[equal], second[equal])
    graph = coo_matrix(links, shape=(flat.size, flat.size))
    n_plateaus, plateau = connected_components(graph, directed=False)
    colder = np.where(flat[first] < flat[second], first, second)[~equal]
    beaten = np.zeros(n_plateaus, bool)
    beaten[plateau[colder]] = True
    return ~beaten[plateau].reshape(heat.shape)


def _winners(heat: Float32, seeds: Bool, areas: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Find the class (n,) that a region is a seed of: the hottest, then that of smallest seeds."""
    order = np.argsort(seeds @ areas, kind="stable")
    return order[np.where(seeds, heat, -1)[order].argmax(0)]


def _check_neighbours(neighbours: Any, n_regions: int) -> None:
    if (
        not isinstance(neighbours, np.ndarray)
        or neighbours.ndim != 2
        or neighbours.shape[1] != 2
        or neighbours.dtype.kind not in "iu"
    ):
        what = getattr(neighbours, "dtype", type(neighbours).__name__)
        shape = getattr(neighbours, "shape", "")
        raise ShapeError(f"neighbours is {what} {shape}", do="give an integer array (E, 2)")
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < n_regions:
        raise ShapeError(
            f"neighbours holds ids {neighbours.min()} to {neighbours.max()}",
            do=f"use ids 0 to {n_regions - 1}",
        )


def _check_same_size(maps: npt.NDArray, superpixels: Superpixels, name: str) -> None:
    if maps.ndim < 2 or maps.shape[-2:] != superpixels.shape:
        raise ShapeError(
            f"{name} has shape {maps.shape}, superpixels {superpixels.shape}",
            do="bring both to the same height and width",
        )
