"""A dense CRF from arrays that fit: filters and terms are built, and the mean field is run.

What stands here and below brings numba along and compiles; :mod:`tagseg.refine.dense_crf`, which
checks what users give, imports it at the first photo.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from tagseg.maps import Image, Probs
from tagseg.refine.dense_crf import CrfParameters
from tagseg.refine.groups import GROUP, Filter, NoFilter, groups_of
from tagseg.refine.higher_order import HigherOrder, costs_of_means, number_regions, region_costs
from tagseg.refine.lanes import Width
from tagseg.refine.lattice import FINE, STANDARD, Blur, Lattice, build_lattice
from tagseg.refine.mean_field import Filters, MeanField
from tagseg.refine.pixel_kernels import Pixels, Regions, add_up_regions, pixels_first
from tagseg.refine.spatial_grid import SplineGrid
from tagseg.threads import in_threads

__all__ = ["infer"]

_WIDTHS = (4, 8, 16, 32, 64, 128, 256)  # lanes that kernels are compiled for
_NO_CHANCE = np.float32(1e30)  # energy of the labels that only fill a vector up
_BOUNDED = 20.0  # sum of weights up to which no energy overflows exp
_LARGEST_COST = 40.0  # of regions, up to which the best label's exp does not vanish

Float32 = npt.NDArray[np.float32]
_NOTHING = np.zeros(0, np.float32)
_NO_REGIONS = Regions(
    ids=np.empty((0, 0), np.int32),
    costs=_NOTHING,
    gain=_NOTHING,
    sums=_NOTHING,
    agree=np.zeros(0, np.bool_),
    sums_next=_NOTHING,
    logs=_NOTHING,
)


def infer(
    image: Image,
    unary: Float32,
    parameters: CrfParameters,
    layers: list[npt.NDArray[np.integer]],
    higher_order: HigherOrder | None,
    maps: Float32 | None,
    threads: int,
) -> Probs:
    """Return probabilities (L, H, W); ``maps`` are P of Eq. 8, None for softmax of -unary."""
    at_size = parameters.at(*image.shape[:2])
    width = Width(next(lanes for lanes in _WIDTHS if lanes >= len(unary)))
    pixels = _pixels(unary, width)
    terms = _regions(layers, higher_order or HigherOrder(), pixels, maps, width)
    pixels = pixels._replace(bounded=_is_bounded(at_size, terms) and len(unary) > 1)
    probs = np.empty_like(unary, order="C")
    filters = _filters(image, at_size, threads)
    field = MeanField(pixels, filters, terms, probs, width, threads)
    field.run(at_size.iterations)
    return probs


def _filters(image: Image, parameters: CrfParameters, threads: int) -> Filters:
    """Build the filters of both kernels, in the order in which the iterations take their turns."""
    jobs = [*_bilateral_filters(image, parameters), _smoothness_filter(image, parameters)]
    *bilateral, smooth = in_threads(lambda job: job(), jobs, threads)
    return [(filter_, smooth) for filter_ in bilateral]


def _bilateral_filters(image: Image, parameters: CrfParameters) -> list[Callable[[], Filter]]:
    """Return what builds the lattices of the bilateral kernel: one, or two that take turns."""
    if parameters.bilateral is None or parameters.bilateral[0] == 0:
        return [partial(NoFilter, *image.shape[:2])]
    weight, sigma_pixels, sigma_levels = parameters.bilateral
    features = _bilateral_features(image, sigma_pixels, sigma_levels)
    if parameters.filter == "lattice":
        return [partial(_lattice_filter, features, STANDARD, weight)]
    return [partial(_lattice_filter, features, FINE, weight, shift) for shift in (0.0, 1.0)]


def _smoothness_filter(image: Image, parameters: CrfParameters) -> Callable[[], Filter]:
    """Return what builds the filter of the smoothness kernel."""
    height, width = image.shape[:2]
    if parameters.smoothness is None or parameters.smoothness[0] == 0:
        return partial(NoFilter, height, width)
    weight, sigma = parameters.smoothness
    if parameters.filter == "lattice":
        return partial(_lattice_filter, _positions(height, width, sigma), STANDARD, weight)
    return partial(SplineGrid, height, width, sigma, weight)


def _lattice_filter(features: Float32, blur: Blur, weight: float, shift: float = 0.0) -> Lattice:
    lattice = build_lattice(features, blur, shift=shift)
    lattice.normalise(weight)
    return lattice


def _positions(height: int, width: int, sigma: float) -> Float32:
    """Return the coordinates (2, H, W) in sigmas."""
    features = np.empty((2, height, width), np.float32)
    with np.errstate(over="ignore"):  # sigmas that small are refused by the lattice
        features[0] = np.arange(width) / sigma
        features[1] = (np.arange(height) / sigma)[:, None]
    return features


def _bilateral_features(image: Image, sigma_pixels: float, sigma_levels: float) -> Float32:
    """Return the coordinates and colours (5, H, W) in sigmas."""
    height, width = image.shape[:2]
    features = np.empty((5, height, width), np.float32)
    features[:2] = _positions(height, width, sigma_pixels)
    with np.errstate(over="ignore"):
        levels = (np.arange(256) / sigma_levels).astype(np.float32)
    for channel in range(3):
        np.take(levels, image[..., channel], out=features[2 + channel])
    return features


def _pixels(unary: Float32, width: Width) -> Pixels:
    n_labels, height, length = unary.shape
    moved = np.zeros(groups_of(height, length) * GROUP * n_labels + width.lanes, np.float32)
    pixels_first(unary, moved, _NO_CHANCE)
    padding = np.where(np.arange(width.lanes) < n_labels, 0, -_NO_CHANCE).astype(np.float32)
    return Pixels(moved, n_labels, padding, False)


def _is_bounded(parameters: CrfParameters, regions: Regions) -> bool:
    """Return whether exp of the energies stays in float32, and the best label's does not vanish."""
    reach = sum(kernel[0] for kernel in (parameters.bilateral, parameters.smoothness) if kernel)
    layers = len(regions.ids)
    if layers:
        reach += layers * float(regions.gain.max())
        if layers * float(regions.costs.max()) > _LARGEST_COST:
            return False
    return reach <= _BOUNDED


def _regions(
    layers: list[npt.NDArray[np.integer]],
    strengths: HigherOrder,
    pixels: Pixels,
    maps: Float32 | None,
    width: Width,
) -> Regions:
    """Build the terms of all layers, their regions numbered through."""
    if not layers:
        return _NO_REGIONS
    slots = groups_of(*layers[0].shape) * GROUP
    numbered = [number_regions(layer) for layer in layers]
    total = sum(len(sizes) for _, sizes in numbered)
    costs, gain = np.zeros((2, total + 1, width.lanes), np.float32)
    ids = np.full((len(layers), slots // GROUP, GROUP), total, np.int32)
    start = 0
    for (layer, sizes), places in zip(numbered, ids, strict=True):
        end = start + len(sizes)
        _by_group(np.where(layer < len(sizes), layer + start, total), places)
        if maps is None:
            sums = np.zeros((total + 1) * width.lanes, np.float32)
            add_up_regions(pixels, places.ravel(), sums, width)
            means = sums.reshape(-1, width.lanes)[start:end, : pixels.n_labels] / sizes[:, None]
            gamma = costs_of_means(means, strengths.gamma_max)
        else:
            gamma = region_costs(layer, sizes, maps, strengths.gamma_max)
        paid = strengths.area_weight * sizes[:, None] * gamma
        costs[start:end, : pixels.n_labels] = paid - paid.min(axis=1, keepdims=True)
        gain[start:end, : pixels.n_labels] = strengths.weight * (strengths.gamma_max - gamma)
        start = end
    rows = total + 1 if gain.any() else 0
    return Regions(
        ids=ids.reshape(len(layers), -1),
        costs=costs.ravel(),
        gain=gain.ravel(),
        sums=np.zeros(rows * width.lanes, np.float32),
        agree=np.zeros(total + 1, np.bool_),
        sums_next=np.zeros(rows * width.lanes, np.float32),
        logs=np.zeros(slots * width.lanes if rows else 0, np.float32),
    )


def _by_group(ids: npt.NDArray[np.integer], places: npt.NDArray[np.int32]) -> None:
    """Put ``ids`` (H, W) into ``places`` (groups, 4); what lies beside the photo stays."""
    height, length = ids.shape
    grid = places.reshape(-(-height // 2), -(-length // 2), 2, 2)
    for dy in range(2):
        for dx in range(2):
            part = ids[dy::2, dx::2]
            grid[: part.shape[0], : part.shape[1], dy, dx] = part
