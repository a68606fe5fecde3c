"""Time of DRFI's 93 region features, by step and beside the same features in plain numpy.

    python benchmarks/drfi.py [PHOTO ...]

Photos are brought to 500 x 375. Times are the least over rounds, in processor time on one thread
but for the line that says otherwise; keep OMP_NUM_THREADS=1. The peer takes colours
and patterns from scikit-image, texture from scipy, and works through masks of the regions with
numpy; its region features are checked against ours on the same pixel channels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import cv2
import numpy as np
import skimage.data
from PIL import Image
from scipy.signal import fftconvolve
from skimage.color import rgb2gray, rgb2hsv, rgb2lab
from skimage.feature import local_binary_pattern
from skimage.filters import gaussian

from tagseg.priors.saliency import pixel_channels as channels_module
from tagseg.priors.saliency import region_features as features_module
from tagseg.priors.saliency.drfi import DRFI_LEVELS
from tagseg.priors.saliency.pixel_channels import HISTOGRAM_STARTS, leung_malik_filters
from tagseg.priors.saliency.region_features import pixel_channels, region_features
from tagseg.priors.superpixels import superpixel_levels, superpixel_neighbours

SIZE = 500, 375
REFERENCE_SIDE = 400
TARGET = 1.5  # seconds a photo, 15 levels, superpixels included, two cores
ROUNDS = 5
PEER_ROUNDS = 2
CHANNEL_STEPS = {"_texture": "filters", "_binary_patterns": "patterns", "_colour_bins": "bins"}
REGION_STEPS = {
    "_checked_pixels": "sorting, checks",
    "_moments": "means, variances",
    "_histograms": "histograms",
    "_contrasts": "pair contrast",
    "_backgroundness": "backgroundness",
    "_extents": "percentiles, box",
    "_outlines": "perimeter",
}


def timed(function: Callable, spent: dict[str, float], name: str) -> Callable:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = function(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + 1e3 * (time.process_time() - start)
        return result

    return wrapper


def steps_of(module: Any, names: dict[str, str], run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of a run's steps, of the whole and of what is left."""
    spent: dict[str, float] = {}
    kept = {name: getattr(module, name) for name in names}
    try:
        for name, function in kept.items():
            setattr(module, name, timed(function, spent, names[name]))
        start = time.process_time()
        run()
        whole = 1e3 * (time.process_time() - start)
    finally:
        for name, function in kept.items():
            setattr(module, name, function)
    return {**spent, "rest": whole - sum(spent.values()), "whole": whole}


def least(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The least of each step; the first round, which compiles, does not count."""
    return {name: min(one[name] for one in rounds[1:]) for name in rounds[0]}


def best(run: Callable, rounds: int, clock: Callable[[], float] = time.process_time) -> float:
    """Milliseconds, the least over rounds; the first does not count."""
    times = []
    for _ in range(rounds + 1):
        start = clock()
        run()
        times.append(1e3 * (clock() - start))
    return min(times[1:])


def plain_channels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and bins as PixelChannels has them, by scikit-image and scipy."""
    rgb = gaussian(image, 1, truncate=2, mode="mirror", channel_axis=2)
    low, high = np.array([0, -86.2, -107.9]), np.array([100, 98.3, 94.5])
    lab, hsv = (rgb2lab(rgb) - low) / (high - low), rgb2hsv(rgb)
    grey = rgb2gray(rgb)
    padded = np.pad(grey, 9, mode="reflect")
    filters = leung_malik_filters()[:, ::-1, ::-1]
    texture = np.stack([np.abs(fftconvolve(padded, f, "valid")) for f in filters], axis=2)
    patterns = local_binary_pattern((255 * grey).astype(np.uint8), 8, 1)
    bins = [
        np.clip((colours * 8).astype(int), 0, 7) @ np.array([1, 8, 64])
        for colours in (rgb, lab, hsv)
    ]
    bins = np.stack((*bins, texture.argmax(2), patterns.astype(int)), 2)
    values = np.concatenate((rgb, lab, hsv, texture, patterns[..., None] / 255), 2)
    return values, bins + np.array(HISTOGRAM_STARTS[:-1])


def plain_differences(mean, shares, means, all_shares):
    """Differences (n, 29) of one region to others: (n, 24) means, (n, 1807) histograms."""
    total = shares + all_shares
    parts = np.square(shares - all_shares) / np.where(total > 0, total, 1)
    distances = np.add.reduceat(parts, HISTOGRAM_STARTS[:-1], axis=1) / 2
    return np.concatenate((np.abs(mean - means), distances), axis=1)


def plain_look(values, bins):
    """Means, variances and all bins of the pixels that are given."""
    counts = np.bincount(bins.ravel(), minlength=HISTOGRAM_STARTS[-1])
    return values.mean(0), values.var(0), counts / len(values)


def plain_place(mask: np.ndarray) -> list[float]:
    height, width = mask.shape
    y, x = np.nonzero(mask)
    share = partial(np.percentile, q=[10, 90], method="inverted_cdf")
    padded = np.pad(mask, 1).astype(np.int8)
    sides = sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1))
    return [
        (x.mean() + 0.5) / width,
        (y.mean() + 0.5) / height,
        *(share(x) + 0.5) / width,
        *(share(y) + 0.5) / height,
        sides / (width + height),
        (np.ptp(x) + 1) / (np.ptp(y) + 1),
    ]


def plain_features(values: np.ndarray, bins: np.ndarray, superpixels, pairs) -> np.ndarray:
    """The 93 features with a mask a region and a row of all bins a pair."""
    count, side = superpixels.max() + 1, max(superpixels.shape)
    masks = [superpixels == i for i in range(count)]
    looks = [plain_look(values[mask], bins[mask]) for mask in masks]
    means, variances, shares = (np.stack(parts) for parts in zip(*looks, strict=True))
    means = means[:, :-1]
    places = np.array([plain_place(mask) for mask in masks])
    centres = places[:, :2] * superpixels.shape[::-1] / side
    areas = np.array([mask.sum() for mask in masks])
    contrasts = np.zeros((count, means.shape[1] + bins.shape[2]))
    for i in range(count):
        weights = areas * np.exp(-np.linalg.norm(centres - centres[i], axis=1) / 0.4)
        weights[i] = 0
        if count > 1:
            found = plain_differences(means[i], shares[i], means, shares)
            contrasts[i] = weights @ found / weights.sum()
    rim = max(1, round(15 / 400 * side))
    border = np.ones(superpixels.shape, bool)
    border[rim:-rim, rim:-rim] = False
    mean, _, known = plain_look(values[border], bins[border])
    beside = [areas[pairs[(pairs == i).any(1)]].sum() for i in range(count)]
    touching = np.array([(pairs == i).sum() for i in range(count)])
    return np.column_stack(
        (
            contrasts,
            plain_differences(mean[:-1], known, means, shares),
            places,
            variances,
            areas / areas.sum(),
            (beside - touching * areas) / areas.sum(),
        )
    )


def all_features(image: np.ndarray, threads: int) -> list[np.ndarray]:
    """Features of all levels, superpixels included."""
    levels, channels = (
        superpixel_levels(image, DRFI_LEVELS, reference_side=REFERENCE_SIDE),
        pixel_channels(image),
    )

    def of_level(superpixels: np.ndarray) -> np.ndarray:
        return region_features(channels, superpixels, superpixel_neighbours(superpixels))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(of_level, levels))


def photos(paths: list[str]) -> dict[str, np.ndarray]:
    found = {path: np.array(Image.open(path).convert("RGB")) for path in paths}
    if not found:
        found = {name: getattr(skimage.data, name)() for name in ("coffee", "astronaut")}
    return {
        name: cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for name, image in found.items()
    }


def show(title: str, steps: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, ms in steps.items():
        print(f"  {name:<20}{ms:9.2f} ms")


def beside(name: str, peer: float, ours: float) -> None:
    print(f"  {name:<20}{peer:9.1f} ms {ours:9.1f} ms {peer / ours:7.1f}")


def report(name: str, image: np.ndarray) -> None:
    levels = superpixel_levels(image, DRFI_LEVELS, reference_side=REFERENCE_SIDE)
    pairs = [superpixel_neighbours(superpixels) for superpixels in levels]
    channels = pixel_channels(image)
    counts = [superpixels.max() + 1 for superpixels in levels]
    print(f"\n{name}: {len(levels)} levels of {min(counts)} to {max(counts)} regions")

    def regions() -> None:
        for superpixels, touching in zip(levels, pairs, strict=True):
            region_features(channels, superpixels, touching)

    def plain_regions() -> None:
        for superpixels, touching in zip(levels, pairs, strict=True):
            plain_features(channels.values, channels.bins, superpixels, touching)

    def runs(module, names, run):
        return least([steps_of(module, names, run) for _ in range(ROUNDS + 1)])

    of_pixels = runs(channels_module, CHANNEL_STEPS, lambda: pixel_channels(image))
    of_regions = runs(features_module, REGION_STEPS, regions)
    show("pixel channels", of_pixels)
    show(f"region features of {len(levels)} levels", of_regions)
    cut = partial(superpixel_levels, image, DRFI_LEVELS, reference_side=REFERENCE_SIDE)
    print(f"\n  {'superpixels':<20}{best(cut, ROUNDS):9.2f} ms")
    ms = best(lambda: [superpixel_neighbours(s) for s in levels], ROUNDS)
    print(f"  {'neighbours':<20}{ms:9.2f} ms")
    print(f"  {'all, 1 thread':<20}{best(partial(all_features, image, 1), ROUNDS):9.2f} ms")
    ms = best(partial(all_features, image, 2), ROUNDS, time.perf_counter)
    print(f"  {'all, 2 threads':<20}{ms:9.2f} ms by the clock; target {1e3 * TARGET:.0f} ms")
    for superpixels, touching in list(zip(levels, pairs, strict=True))[:3]:
        np.testing.assert_allclose(
            region_features(channels, superpixels, touching),
            plain_features(channels.values.astype(float), channels.bins, superpixels, touching),
            rtol=1e-4,
            atol=2e-6,
        )
    print(f"\n  {'beside':<20}{'peer':>12}{'tagseg':>13}{'ratio':>8}")
    peer = best(lambda: plain_channels(image), PEER_ROUNDS)
    beside("pixel channels", peer, of_pixels["whole"])
    beside("region features", best(plain_regions, PEER_ROUNDS), of_regions["whole"])


def main() -> None:
    cv2.setNumThreads(1)
    for name, image in photos(sys.argv[1:]).items():
        report(name, image)


if __name__ == "__main__":
    main()
