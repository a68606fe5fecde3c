"""Superpixels: regions that grow along the least differences between neighbouring pixels.

Felzenszwalb, Huttenlocher: "Efficient Graph-Based Image Segmentation" (IJCV 2004), with the
details of scikit-image's ``felzenszwalb``: 8-neighbours, one pass over the Euclidean distances of
blurred RGB colours, small regions absorbed in the order of the edges. Where no two edges are
equally long to seven digits, the regions and their ids are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import Image, check_image

__all__ = [
    "SuperpixelSettings",
    "Superpixels",
    "neighbours",
    "superpixel_levels",
    "superpixel_neighbours",
    "superpixels",
]

Superpixels = npt.NDArray[np.int32]

UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_TRUNCATE = 4.0  # standard deviations at which the blur ends, as in scipy
_MAX_BLUR = 100.0  # pixels; beyond it the blur's kernel is larger than photos are
_DIGIT = 16  # bits that one pass of the radix sort puts in order
_DIRECTION = np.uint32(2)  # bits of an edge's number that tell the neighbour; the others: pixel


@dataclass(frozen=True)
class SuperpixelSettings:
    """Numbers of Felzenszwalb & Huttenlocher 2004.

    Attributes:
        scale: k, above 0: colour difference (of 255) times pixels; more makes larger superpixels.
        sigma: standard deviation in pixels of the blur before, 0 to 100.
        min_size: pixels below which a superpixel is absorbed by a neighbour, 1 or more.

    Raises:
        ConfigError: a number is out of range.

    Examples:
        Few, large superpixels:

        >>> from tagseg.priors import SuperpixelSettings
        >>> SuperpixelSettings(scale=400.0, min_size=300)
        SuperpixelSettings(scale=400.0, sigma=0.8, min_size=300)
    """

    scale: float = 100.0
    sigma: float = 0.8
    min_size: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.scale < np.inf:
            raise ConfigError(f"scale is {self.scale}", do="give a value above 0")
        if not 0 <= self.sigma <= _MAX_BLUR:
            raise ConfigError(f"sigma is {self.sigma}", do=f"give pixels, 0 to {_MAX_BLUR:g}")
        if not isinstance(self.min_size, int) or self.min_size < 1:
            raise ConfigError(f"min_size is {self.min_size}", do="give whole pixels, 1 or more")


class _Growth(NamedTuple):
    """Regions that grow, as a forest over pixels, and the edges that may still join them.

    ``parent`` of a root is itself and of any other pixel an earlier one, so that a root is the
    first pixel of its region. ``size`` and ``inner`` (Int(C) in the paper: the longest edge of
    the region's spanning tree) hold at roots.
    """

    parent: UInt32  # (H * W,)
    size: npt.NDArray[np.int32]
    inner: Float32
    edges: UInt64  # (E,) shortest first; see _columns


def superpixels(
    image: Image,
    settings: SuperpixelSettings | None = None,
    *,
    reference_side: int | None = None,
) -> Superpixels:
    """Divide a photo into superpixels, regions of alike colour.

    Felzenszwalb & Huttenlocher 2004, Algorithm 1; the same superpixels as scikit-image's
    ``felzenszwalb`` gives, but for edges that are equally long to seven digits.

    Args:
        image: uint8 (H, W, 3) RGB; floats are refused.
        settings: by default MCOF's starting point.
        reference_side: longer side in pixels of the photos that the settings are for. In a photo
            of f times that side, ``min_size`` and ``scale``, which is divided by a region's area,
            are taken times f^2. Small photos then have more regions than large ones, as their
            neighbouring pixels differ more; ``scale`` times f would keep the number, and lose
            outlines. ``sigma`` stays, because it blurs away the noise of single pixels.
            None: the settings as given.

    Returns:
        int32 (H, W), ids 0..n-1 in the order of the superpixels' first pixels; each superpixel is
        connected in 8-neighbours.

    Raises:
        ShapeError: image is not uint8 (H, W, 3).
        ConfigError: reference_side is below 1.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import SuperpixelSettings, superpixels
        >>> image = np.full((40, 60, 3), 90, np.uint8)
        >>> image[10:30, 20:40] = (200, 40, 40)
        >>> ids = superpixels(image, SuperpixelSettings(sigma=0.0))
        >>> np.bincount(ids.ravel()).tolist()  # the ground's and the square's pixels
        [2000, 400]
    """
    levels = [settings or SuperpixelSettings()]
    return superpixel_levels(image, levels, reference_side=reference_side)[0]


def superpixel_levels(
    image: Image, levels: Sequence[SuperpixelSettings], *, reference_side: int | None = None
) -> list[Superpixels]:
    """Divide a photo into superpixels by each of several settings, quicker than one by one.

    Levels of one ``sigma`` share the blur, the sorted edges and what all their scales agree on.

    Args:
        image: uint8 (H, W, 3) RGB.
        levels: settings, in any order.
        reference_side: as in :func:`superpixels`.

    Returns:
        Superpixels int32 (H, W) for each of ``levels``, as :func:`superpixels` gives them.

    Raises:
        ShapeError: image is not uint8 (H, W, 3).
        ConfigError: reference_side is below 1.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import SuperpixelSettings, superpixel_levels
        >>> noise = np.random.default_rng(0).integers(0, 60, (40, 60, 3))
        >>> image = noise.astype(np.uint8)
        >>> levels = [SuperpixelSettings(scale=scale, min_size=20) for scale in (10.0, 1e5)]
        >>> fine, coarse = superpixel_levels(image, levels)
        >>> bool(fine.max() > 10), int(coarse.max()) + 1
        (True, 1)
    """
    check_image(image)
    factor = _area_factor(image, reference_side)
    scales: dict[float, set[float]] = {}
    for level in levels:
        scales.setdefault(level.sigma, set()).add(level.scale * factor)
    common = {sigma: _common_growth(image, sigma, of_sigma) for sigma, of_sigma in scales.items()}
    shape = image.shape[:2]
    maps = []
    for level in levels:
        min_size = max(1, round(level.min_size * factor))
        maps.append(_finished(common[level.sigma], shape, level.scale * factor, min_size))
    return maps


def superpixel_neighbours(superpixels: Superpixels) -> npt.NDArray[np.int32]:
    """List the pairs of superpixels that touch, by 4-neighbours.

    Args:
        superpixels: int32 (H, W), ids 0..n-1.

    Returns:
        int32 (E, 2), in each row ids i < j, each pair once, sorted by i, then j.

    Raises:
        ShapeError: superpixels is not int32 (H, W), is empty, or holds a negative id.

    Examples:
        Superpixels 1 and 2 touch at a corner only:

        >>> import numpy as np
        >>> from tagseg.priors import superpixel_neighbours
        >>> superpixel_neighbours(np.array([[0, 1], [2, 3]], np.int32)).tolist()
        [[0, 1], [0, 2], [1, 3], [2, 3]]
    """
    if not isinstance(superpixels, np.ndarray) or superpixels.dtype != np.int32:
        raise ShapeError("superpixels is no int32 array", do="give what superpixels() returns")
    if superpixels.ndim != 2 or superpixels.size == 0 or superpixels.min() < 0:
        raise ShapeError(
            f"superpixels of shape {superpixels.shape} is no map of ids 0..n-1",
            do="give an int32 array (H, W)",
        )
    one = np.concatenate((superpixels[:, :-1].ravel(), superpixels[:-1].ravel()))
    other = np.concatenate((superpixels[:, 1:].ravel(), superpixels[1:].ravel()))
    differ = one != other
    one, other = one[differ], other[differ]
    count = int(superpixels.max()) + 1
    pairs = np.unique(np.minimum(one, other).astype(np.int64) * count + np.maximum(one, other))
    return np.stack((pairs // count, pairs % count), axis=1).astype(np.int32)


neighbours = superpixel_neighbours  # the short name, within this module


def _area_factor(image: Image, reference_side: int | None) -> float:
    """Return how many pixels of the photo stand for one of a photo of the reference size."""
    if reference_side is None:
        return 1.0
    if reference_side < 1:
        raise ConfigError(f"reference_side is {reference_side}", do="give pixels, 1 or more")
    return (max(image.shape[:2]) / reference_side) ** 2


def _common_growth(image: Image, sigma: float, scales: set[float]) -> _Growth:
    """Grow regions as far as all scales agree, and keep the edges on which they might not.

    While two regions join at the least scale, they join at all. Where the least scale refuses,
    both are held from there on, and so is what later edges would join to them; their edges
    are left to each scale. With one scale, nothing is to be held, and the regions are final.
    """
    height, width = image.shape[:2]
    edges = _sorted(_edges(_blurred(image, sigma)))
    parent = np.arange(height * width, dtype=np.uint32)
    size = np.ones(parent.size, np.int32)
    inner = np.zeros(parent.size, np.float32)
    left = _grow(*_columns(edges), width, parent, size, inner, min(scales), len(scales) > 1)
    return _Growth(parent, size, inner, edges[left])


def _finished(common: _Growth, shape: tuple[int, ...], scale: float, min_size: int) -> Superpixels:
    """Finish one level's regions; small ones are absorbed."""
    parent, size, inner = common.parent.copy(), common.size.copy(), common.inner.copy()
    # Edges refused at this very scale are refused again: one of the regions never changed.
    left = _grow(*_columns(common.edges), shape[1], parent, size, inner, scale, False)
    _absorb(_columns(common.edges[left])[0], shape[1], parent, size, min_size)
    return _numbered(parent).reshape(shape)


def _blurred(image: Image, sigma: float) -> Float64:
    """Blur the photo (0..255) as scipy's Gaussian filter does, its border reflected.

    In double precision, because the order of the least differences decides the regions: in
    single, one photo and level in 60 falls below a mutual information of 0.99 with scikit-image.
    """
    width = 2 * int(_TRUNCATE * sigma + 0.5) + 1
    colours = np.ascontiguousarray(image, np.float64)
    blurred = cv2.GaussianBlur(colours, (width, width), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float64)


def _edges(colours: Float64) -> UInt64:
    """List all edges between 8-neighbours of (H, W, 3), with the distances of their colours."""
    height, width, _ = colours.shape
    count = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1)
    edges = np.empty(count, np.uint64)
    _connect(colours, *_columns(edges))
    return edges


def _columns(edges: UInt64) -> tuple[UInt32, Float32]:
    """View the two halves of each edge: its number, and above it its length as a float32.

    The number is four times that of a pixel, plus 0 to 3 for its neighbour to the right, below,
    below to the right and below to the left. In one word, both move together through the caches.
    """
    return edges.view("<u4")[0::2], edges.view("<f4")[1::2]


def _sorted(edges: UInt64) -> UInt64:
    """Sort edges, shortest first, by radix: floats >= 0 are in the order of their bits."""
    for shift in range(32, 64, _DIGIT):
        edges = _sort_by_digit(edges, np.uint64(shift))
    return edges


@njit(nogil=True, cache=True, error_model="numpy")
def _connect(colours, numbers, lengths):  # type: ignore[no-untyped-def]
    """Fill both columns of the edges, in the order of their first pixels."""
    height, width, _ = colours.shape
    at = 0
    for y in range(height):
        for x in range(width):
            for direction, (dy, dx) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
                v, u = y + dy, x + dx
                if v < height and 0 <= u < width:
                    red = colours[y, x, 0] - colours[v, u, 0]
                    green = colours[y, x, 1] - colours[v, u, 1]
                    blue = colours[y, x, 2] - colours[v, u, 2]
                    numbers[at] = (y * width + x) << _DIRECTION | direction
                    lengths[at] = np.sqrt(red * red + green * green + blue * blue)
                    at += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _sort_by_digit(edges, shift):  # type: ignore[no-untyped-def]
    """Sort edges by one digit; where it is the same, they stay as they were."""
    mask, step = np.uint64((1 << _DIGIT) - 1), np.uint32(1)
    place = np.zeros((1 << _DIGIT) + 1, np.uint32)
    for edge in edges:
        place[((edge >> shift) & mask) + np.uint64(1)] += step
    for digit in range(1, place.size):
        place[digit] += place[digit - 1]
    ordered = np.empty_like(edges)
    for edge in edges:
        digit = (edge >> shift) & mask
        ordered[place[digit]] = edge
        place[digit] += step
    return ordered


@njit(nogil=True, inline="always")
def _root(parent, pixel):  # type: ignore[no-untyped-def]
    """Find the first pixel of the region; halve the path to it on the way."""
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@njit(nogil=True, inline="always")
def _offsets(width):  # type: ignore[no-untyped-def]
    """Return how much larger the neighbour's number is than the pixel's, by direction."""
    return np.array([1, width, width + 1, width - 1], np.uint32)


@njit(nogil=True, cache=True, error_model="numpy")
def _grow(numbers, lengths, width, parent, size, inner, scale, hold):  # type: ignore[no-untyped-def]
    """Join regions along edges up to Int(C) + k / |C| (Eq. 3 and 4); return the edges left over.

    Those are the positions of the edges between regions that did not join. With ``hold``, no
    such region joins any other afterwards. Pixels' numbers are unsigned throughout, because numba
    checks signed ones for counting from the end.
    """
    offsets, direction = _offsets(width), np.uint32((1 << _DIRECTION) - 1)
    limit = (inner + scale / size).astype(np.float32)
    left = np.empty(numbers.size, np.uint32)
    count = 0
    for i in range(numbers.size):
        pixel = numbers[i] >> _DIRECTION
        one = _root(parent, pixel)
        other = _root(parent, pixel + offsets[numbers[i] & direction])
        if one == other:
            continue
        length = lengths[i]
        if length < min(limit[one], limit[other]):
            first, second = min(one, other), max(one, other)
            parent[second] = first
            size[first] += size[second]
            inner[first] = length
            limit[first] = length + scale / size[first]
        else:
            if hold:
                limit[one] = limit[other] = -1
            left[count] = i
            count += 1
    return left[:count]


@njit(nogil=True, cache=True, error_model="numpy")
def _absorb(numbers, width, parent, size, min_size):  # type: ignore[no-untyped-def]
    """Join regions below the minimum size to the neighbour at their shortest edge."""
    offsets, direction = _offsets(width), np.uint32((1 << _DIRECTION) - 1)
    for number in numbers:
        pixel = number >> _DIRECTION
        one = _root(parent, pixel)
        other = _root(parent, pixel + offsets[number & direction])
        if one != other and (size[one] < min_size or size[other] < min_size):
            first, second = min(one, other), max(one, other)
            parent[second] = first
            size[first] += size[second]


@njit(nogil=True, cache=True, error_model="numpy")
def _numbered(parent):  # type: ignore[no-untyped-def]
    """Number the pixels' regions 0..n-1; one pass does, as parents come before children."""
    ids = np.empty(parent.size, np.int32)
    count = 0
    for pixel in range(parent.size):
        if parent[pixel] == pixel:
            ids[pixel] = count
            count += 1
        else:
            ids[pixel] = ids[parent[pixel]]
    return ids
