"""The 93 features that DRFI describes a region of a photo by.

Jiang, Wang, Yuan, Wu, Zheng, Li: "Salient Object Detection: A Discriminative Regional Feature
Integration Approach" (CVPR 2013), Tables 1 and 2: how a region differs from the others
(29), how it differs from the photo's border (the same 29), and what it is like (35).

A region is a superpixel here: one segment of a photo at one of DRFI's levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.errors import ShapeError
from tagseg.priors.saliency.pixel_channels import (
    CHANNEL_NAMES,
    HISTOGRAM_NAMES,
    HISTOGRAM_STARTS,
    PixelChannels,
    pixel_channels,
)

__all__ = ["FEATURE_NAMES", "N_FEATURES", "PixelChannels", "pixel_channels", "region_features"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

# Codes of patterns have no order: means of them would say nothing.
_COMPARED = CHANNEL_NAMES[:-1]
_DIFFERENCES = (
    *(f"mean {name}" for name in _COMPARED),
    *(f"histogram of {name}" for name in HISTOGRAM_NAMES),
)
_PLACE = ("mean x", "mean y", "low x", "high x", "low y", "high y", "perimeter", "aspect ratio")
FEATURE_NAMES = (
    *(f"contrast: {name}" for name in _DIFFERENCES),
    *(f"backgroundness: {name}" for name in _DIFFERENCES),
    *_PLACE,
    *(f"variance of {name}" for name in CHANNEL_NAMES),
    *("area", "area of neighbours"),
)
N_FEATURES = len(FEATURE_NAMES)

_N_HISTOGRAMS = len(HISTOGRAM_NAMES)
_N_BINS = HISTOGRAM_STARTS[-1]
_N_COMPARED = len(_COMPARED)
_N_DIFFERENCES = len(_DIFFERENCES)
_REACH = 0.4  # of the contrast, in longer sides of the photo
_BORDER = 15 / 400  # width of the pseudo-background, in longer sides of the photo


@dataclass(frozen=True)
class _Pixels:
    """Pixels sorted by the region that they are in, each region's in the order of the rows.

    Attributes:
        order: indices of the flattened photo.
        starts: where each region's pixels start in ``order``, and the end of the last.
    """

    order: Int32
    starts: Int64

    @property
    def counts(self) -> Int64:
        return np.diff(self.starts)


@dataclass(frozen=True)
class _Appearance:
    """Regions' looks: the moments of each channel, and histograms without their empty bins.

    Attributes:
        means, variances: float32 (n, 25), by CHANNEL_NAMES.
        bins: bins that a region fills, one after the other by region and histogram.
        shares: what part of the region each of them holds.
        starts: int64 (n, 6), where a region's five histograms start and the last one ends.
    """

    means: Float32
    variances: Float32
    bins: Int32
    shares: Float32
    starts: Int64


def region_features(
    channels: PixelChannels, superpixels: Int32, neighbours: npt.NDArray[np.integer]
) -> Float32:
    """Describe regions: what each is like, how it differs from the others and from the border.

    Columns are named by FEATURE_NAMES. Differences are those of two regions' mean colours and
    texture responses, absolute, and the chi-square distance of histograms. Contrast is their mean
    over all other regions, weighted by area * exp(-d / 0.4) with d the distance of centroids
    in longer sides of the photo; 0 if there is no other region. Backgroundness is the
    difference to the photo's border of 15/400 of its longer side. Places are of pixels' middles in
    widths and heights of the photo, low and high the 10th and the 90th percentile; a
    perimeter counts sides of pixels, over the photo's width plus height; the aspect ratio is the
    width of the bounding box over its height; areas are shares of the photo. Hence all
    but texture, whose filters have a fixed size, stay as they are if a photo is enlarged.

    Args:
        channels: what :func:`pixel_channels` gives for the photo (H, W).
        superpixels: int32 (H, W), region ids 0..n-1, all of which occur.
        neighbours: int (E, 2), each pair of regions in touch once.

    Returns:
        float32 (n, 93), finite.

    Raises:
        ShapeError: ids are missing or negative, or the three do not belong together.
    """
    shape = channels.bins.shape[:2]
    regions = _checked_pixels(superpixels, shape)
    _check_neighbours(neighbours, len(regions.counts))
    looks = _appearance(channels, regions)
    border = _appearance(channels, _border_pixels(shape))
    extents, outlines = _extents(regions.order, regions.starts, shape[1]), _outlines(superpixels)
    return np.concatenate(
        (
            _contrasts(looks, extents[:, :2] / max(shape), regions.counts),
            _backgroundness(looks, border),
            _places(extents, outlines, shape),
            looks.variances,
            _areas(regions.counts, neighbours),
        ),
        axis=1,
        dtype=np.float32,
    )


def _checked_pixels(superpixels: Int32, shape: tuple[int, int]) -> _Pixels:
    """Sort pixels by region; ShapeError unless superpixels are ids 0..n-1 of such a photo."""
    if superpixels.dtype != np.int32 or superpixels.shape != shape:
        raise ShapeError(
            f"superpixels are {superpixels.dtype} {superpixels.shape}, the photo is {shape}",
            do="give an int32 array (H, W) of the photo's height and width",
        )
    lowest, count = int(superpixels.min()), int(superpixels.max()) + 1
    if lowest < 0 or count > superpixels.size:
        raise ShapeError(
            f"superpixels hold ids from {lowest} to {count - 1}", do="number regions 0..n-1"
        )
    order, starts = _sorted_pixels(superpixels.ravel(), count)
    empty = np.flatnonzero(np.diff(starts) == 0)
    if empty.size:
        raise ShapeError(f"superpixels hold no region {empty[0]}", do="number regions 0..n-1")
    return _Pixels(order, starts)


def _check_neighbours(neighbours: npt.NDArray[np.integer], count: int) -> None:
    integers = np.issubdtype(neighbours.dtype, np.integer)
    if not integers or neighbours.ndim != 2 or neighbours.shape[1] != 2:
        raise ShapeError(
            f"neighbours are {neighbours.dtype} {neighbours.shape}", do="give an int array (E, 2)"
        )
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < count:
        raise ShapeError(
            f"neighbours hold ids from {neighbours.min()} to {neighbours.max()}, "
            f"superpixels 0 to {count - 1}",
            do="give the neighbours of these superpixels",
        )


def _border_pixels(shape: tuple[int, int]) -> _Pixels:
    """List the pixels near the photo's rim, the pseudo-background, as one region."""
    width = max(1, round(_BORDER * max(shape)))
    near = np.ones(shape, bool)
    near[width:-width, width:-width] = False
    order = np.flatnonzero(near).astype(np.int32)
    return _Pixels(order, np.array([0, order.size]))


def _appearance(channels: PixelChannels, regions: _Pixels) -> _Appearance:
    values = channels.values.reshape(-1, len(CHANNEL_NAMES))
    means, variances = _moments(values, regions.order, regions.starts)
    histograms = _histograms(
        channels.bins.reshape(-1, _N_HISTOGRAMS), regions.order, regions.starts
    )
    return _Appearance(means, variances, *histograms)


def _contrasts(looks: _Appearance, centroids: Float64, counts: Int64) -> Float64:
    """Average each region's differences (n, 29) to all others, large and near ones foremost."""
    return _weighted_differences(
        looks.means, looks.bins, looks.shares, looks.starts, centroids, counts
    )


def _backgroundness(looks: _Appearance, border: _Appearance) -> Float32:
    """Compute the differences (n, 29) of each region to the border."""
    known = np.zeros(_N_BINS, np.float32)
    known[border.bins] = border.shares
    return _differences(looks.means, looks.bins, looks.shares, looks.starts, border.means[0], known)


def _places(extents: Float64, outlines: Int64, shape: tuple[int, int]) -> Float64:
    """Compute mean x and y, percentiles, perimeter and aspect ratio of each region (n, 8)."""
    height, width = shape
    middles = extents[:, :6] + 0.5
    box_width, box_height = extents[:, 6], extents[:, 7]
    return np.column_stack(
        (
            middles / (width, height, width, width, height, height),
            outlines / (width + height),
            box_width / box_height,
        )
    )


def _areas(counts: Int64, neighbours: npt.NDArray[np.integer]) -> Float64:
    """Compute each region's area and its neighbours' (n, 2), as shares of the photo."""
    one, other = neighbours.T
    beside = np.bincount(one, counts[other], len(counts))
    beside += np.bincount(other, counts[one], len(counts))
    return np.column_stack((counts, beside)) / counts.sum()


@njit(nogil=True, cache=True)
def _sorted_pixels(ids, count):  # type: ignore[no-untyped-def]
    """Sort pixels by region, by counting; return also where each region's pixels start."""
    starts = np.zeros(count + 1, np.int64)
    for region in ids:
        starts[region + 1] += 1
    for region in range(count):
        starts[region + 1] += starts[region]
    order, free = np.empty(ids.size, np.int32), starts.copy()
    for pixel, region in enumerate(ids):
        order[free[region]] = pixel
        free[region] += 1
    return order, starts


@njit(nogil=True, cache=True)
def _moments(values, order, starts):  # type: ignore[no-untyped-def]
    """Compute mean and variance of each channel in each region, float32 (n, channels)."""
    n, width = starts.size - 1, values.shape[1]
    means, variances = np.empty((n, width), np.float32), np.empty((n, width), np.float32)
    total, squares = np.empty(width), np.empty(width)
    for region in range(n):
        total[:] = 0
        squares[:] = 0
        for pixel in order[starts[region] : starts[region + 1]]:
            for c in range(width):
                value = np.float64(values[pixel, c])
                total[c] += value
                squares[c] += value * value
        count = starts[region + 1] - starts[region]
        for c in range(width):
            mean = total[c] / count
            means[region, c] = mean
            variances[region, c] = max(squares[c] / count - mean * mean, 0)
    return means, variances


@njit(nogil=True, cache=True)
def _histograms(pixel_bins, order, starts):  # type: ignore[no-untyped-def]
    """List the bins that each region fills, their shares of it, and where histograms start."""
    n = starts.size - 1
    bins = np.empty(pixel_bins.size, np.int32)
    shares = np.empty(pixel_bins.size, np.float32)
    begins = np.empty((n, _N_HISTOGRAMS + 1), np.int64)
    counts = np.zeros(_N_BINS, np.int64)
    end = 0
    for region in range(n):
        pixels = order[starts[region] : starts[region + 1]]
        begins[region, 0] = end
        for histogram in range(_N_HISTOGRAMS):
            first = end
            for pixel in pixels:
                b = pixel_bins[pixel, histogram]
                if counts[b] == 0:
                    bins[end] = b
                    end += 1
                counts[b] += 1
            for k in range(first, end):
                shares[k] = counts[bins[k]] / pixels.size
                counts[bins[k]] = 0
            begins[region, histogram + 1] = end
    return bins[:end].copy(), shares[:end].copy(), begins


# The order of sums and the reciprocal may change by rounding errors, but NaN stays NaN.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _difference(mean, bins, shares, begins, other_mean, other_shares, out):  # type: ignore[no-untyped-def]
    """Write absolute differences of means, then chi-square distances of histograms, to ``out``.

    As both histograms sum to 1, the distance is 1 - 2 sum ab / (a + b): only bins that both
    fill count.
    """
    for c in range(_N_COMPARED):
        out[c] = abs(mean[c] - other_mean[c])
    for histogram in range(_N_HISTOGRAMS):
        common = np.float32(0)
        for k in range(begins[histogram], begins[histogram + 1]):
            a, b = shares[k], other_shares[bins[k]]
            common += a * b / (a + b)
        out[_N_COMPARED + histogram] = max(np.float32(1) - np.float32(2) * common, np.float32(0))


@njit(nogil=True, cache=True)
def _differences(means, bins, shares, begins, other_mean, other_shares):  # type: ignore[no-untyped-def]
    """Compute regions' differences (n, 29) to one other, its histograms given with all bins."""
    out = np.empty((len(means), _N_DIFFERENCES), np.float32)
    for i in range(len(means)):
        _difference(means[i], bins, shares, begins[i], other_mean, other_shares, out[i])
    return out


@njit(nogil=True, cache=True)
def _weighted_differences(means, bins, shares, begins, centroids, counts):  # type: ignore[no-untyped-def]
    """Average the differences (n, 29) to all other regions; a pair is compared once."""
    n = len(means)
    sums, weights = np.zeros((n, _N_DIFFERENCES)), np.zeros(n)
    one, known = np.empty(_N_DIFFERENCES, np.float32), np.zeros(_N_BINS, np.float32)
    for i in range(n):
        first, last = begins[i, 0], begins[i, -1]
        for k in range(first, last):
            known[bins[k]] = shares[k]
        for j in range(i + 1, n):
            _difference(means[j], bins, shares, begins[j], means[i], known, one)
            x, y = centroids[i, 0] - centroids[j, 0], centroids[i, 1] - centroids[j, 1]
            near = np.exp(-np.sqrt(x * x + y * y) / _REACH)
            of_i, of_j = near * counts[j], near * counts[i]
            weights[i] += of_i
            weights[j] += of_j
            for c in range(_N_DIFFERENCES):
                sums[i, c] += of_i * one[c]
                sums[j, c] += of_j * one[c]
        for k in range(first, last):
            known[bins[k]] = 0
    for i in range(n):
        if weights[i] > 0:
            sums[i] /= weights[i]
    return sums


@njit(nogil=True, cache=True)
def _extents(order, starts, width):  # type: ignore[no-untyped-def]
    """Measure regions in pixels: mean x and y, low and high x, low and high y, box width, height.

    Low and high are the smallest values that at least 10 % and 90 % of the pixels do not exceed.
    """
    n = starts.size - 1
    out = np.empty((n, 8))
    columns = np.zeros(width, np.int64)
    for region in range(n):
        pixels = order[starts[region] : starts[region + 1]]
        count = pixels.size
        low, high = (count + 9) // 10, (9 * count + 9) // 10
        left, right, sum_x, sum_y = width, 0, 0, 0
        for pixel in pixels:
            y, x = divmod(pixel, width)
            columns[x] += 1
            left, right = min(left, x), max(right, x)
            sum_x += x
            sum_y += y
        out[region, 0], out[region, 1] = sum_x / count, sum_y / count
        passed = 0
        for x in range(left, right + 1):
            before, passed = passed, passed + columns[x]
            columns[x] = 0
            if before < low <= passed:
                out[region, 2] = x
            if before < high <= passed:
                out[region, 3] = x
        # The pixels lie by rows.
        out[region, 4], out[region, 5] = pixels[low - 1] // width, pixels[high - 1] // width
        out[region, 6] = right - left + 1
        out[region, 7] = pixels[-1] // width - pixels[0] // width + 1
    return out


def _outlines(superpixels: Int32) -> Int64:
    """Count the sides of its pixels that each region shares with others or the photo's rim."""
    padded = np.pad(superpixels, 1, constant_values=-1)
    sides = np.zeros(int(superpixels.max()) + 2, np.int64)
    for one, other in ((padded[1:], padded[:-1]), (padded[:, 1:], padded[:, :-1])):
        apart = one != other
        for ids in (one[apart], other[apart]):
            sides += np.bincount(ids + 1, minlength=sides.size)
    return sides[1:]
