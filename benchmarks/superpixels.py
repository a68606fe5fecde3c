"""Superpixels beside scikit-image's felzenszwalb: how alike, and milliseconds a photo.

    python benchmarks/superpixels.py [--photos FOLDER] [--count N] [--rounds N]

Photos are those of FOLDER, evenly chosen, or scikit-image's own; each as it is and brought to 500
x 375. Settings are MCOF's starting point (one run a photo) and the 15 levels of DRFI. First table:
normalised mutual information with scikit-image, over photos and settings, and how many maps are
the same in each pixel. Second: processor time on one thread, the best of interleaved rounds; the
15 levels of scikit-image are 15 runs. cv2's contrib version has a row where it can be imported.
Third: the parts of one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from skimage.segmentation import felzenszwalb
from sklearn.metrics import normalized_mutual_info_score

from tagseg.data.finding import find_photos
from tagseg.data.images import decode_photo
from tagseg.priors.superpixels import (
    SuperpixelSettings,
    superpixel_levels,
    superpixel_neighbours,
    superpixels,
)
from tagseg.run.engine import set_threads

kernel = import_module("tagseg.priors.superpixels")  # the package names the function so

SIZE = (500, 375)
TARGET_RATIO, TARGET_AGREEMENT = 8, 0.99
MCOF = [SuperpixelSettings(100, 0.8, 100)]
DRFI = [
    SuperpixelSettings(scale, sigma, min_size)
    for sigma, scale, min_size in (
        (0.8, 100, 150),
        (0.8, 400, 300),
        (0.9, 200, 200),
        (0.9, 100, 200),
        (0.8, 300, 150),
        (1.0, 200, 150),
        (0.9, 300, 300),
        (1.0, 100, 150),
        (1.0, 500, 300),
        (0.9, 200, 300),
        (0.8, 600, 200),
        (1.0, 600, 300),
        (0.8, 200, 150),
        (1.0, 500, 200),
        (0.8, 400, 150),
    )
]
SETTINGS = {"MCOF": MCOF, "DRFI, 15 levels": DRFI}


def load(folder: Path | None, count: int) -> list[np.ndarray]:
    if folder is None:
        return [getattr(skimage.data, name)() for name in ("coffee", "chelsea", "astronaut")]
    paths = list(find_photos(folder).values())
    return [decode_photo(path) for path in paths[:: max(1, len(paths) // count)][:count]]


def resized(photo: np.ndarray) -> np.ndarray:
    size = SIZE if photo.shape[1] >= photo.shape[0] else SIZE[::-1]
    method = cv2.INTER_AREA if max(photo.shape) > max(size) else cv2.INTER_LINEAR
    return cv2.resize(photo, size, interpolation=method)


def peer(image: np.ndarray, levels: list[SuperpixelSettings]) -> list[np.ndarray]:
    return [
        felzenszwalb(image, scale=one.scale, sigma=one.sigma, min_size=one.min_size)
        for one in levels
    ]


def contrib(image: np.ndarray, levels: list[SuperpixelSettings]) -> list[np.ndarray]:
    make = cv2.ximgproc.segmentation.createGraphSegmentation
    return [make(one.sigma, one.scale, one.min_size).processImage(image) for one in levels]


def best(rounds: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Processor milliseconds of each, the best of interleaved rounds after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: min(taken[1:]) for name, taken in times.items()}


def compare(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, bool]:
    agreement = normalized_mutual_info_score(ours.ravel(), theirs.ravel())
    return agreement, np.array_equal(ours, theirs)


def describe_agreement(photo_sets: dict[str, list[np.ndarray]]) -> None:
    print(f"{'agreement':>10} {'settings':>16} {'maps':>5} {'mean':>8} {'least':>8} {'same':>7}")
    for size, photos in photo_sets.items():
        for name, levels in SETTINGS.items():
            found = [
                compare(*both)
                for photo in photos
                for both in zip(superpixel_levels(photo, levels), peer(photo, levels), strict=True)
            ]
            agreements, same = zip(*found, strict=True)
            print(
                f"{size:>10} {name:>16} {len(found):5} {np.mean(agreements):8.4f}"
                f" {min(agreements):8.4f} {np.mean(same):7.1%}"
            )
    print(f"target: {TARGET_AGREEMENT} or more\n")


def describe_times(photo_sets: dict[str, list[np.ndarray]], rounds: int) -> None:
    """Means over photos of each photo's best times."""
    versions = {"ours": superpixel_levels, "skimage": peer}
    if hasattr(cv2, "ximgproc"):
        versions["cv2 contrib"] = contrib
    print(f"{'time':>10} {'settings':>16} {'version':>12} {'ms':>8} {'times ours':>11}")
    for size, photos in photo_sets.items():
        for name, levels in SETTINGS.items():
            taken = [
                best(rounds, **{key: partial(run, one, levels) for key, run in versions.items()})
                for one in photos
            ]
            means = {key: float(np.mean([one[key] for one in taken])) for key in versions}
            for key, ms in means.items():
                print(f"{size:>10} {name:>16} {key:>12} {ms:8.2f} {ms / means['ours']:11.1f}")
    print(f"target: {TARGET_RATIO} or more beside skimage\n")


def describe_parts(photo: np.ndarray, rounds: int) -> None:
    one, whole = MCOF[0], superpixels(photo)
    blurred = kernel._blurred(photo, one.sigma)
    edges = kernel._edges(blurred)
    grown = partial(kernel._common_growth, photo, one.sigma)
    common, pending = grown({one.scale}), grown({one.scale, 2 * one.scale})
    rest = (photo.shape[:2], one.scale, one.min_size)
    parts = best(
        rounds,
        blur=partial(kernel._blurred, photo, one.sigma),
        edges=partial(kernel._edges, blurred),
        sort=partial(kernel._sorted, edges),
        grow=partial(grown, {one.scale}),
        finish=partial(kernel._finished, common, *rest),
        finish_of_many=partial(kernel._finished, pending, *rest),
        neighbours=partial(superpixel_neighbours, whole),
    )
    parts["grow"] -= parts["blur"] + parts["edges"] + parts["sort"]
    print("parts of a run, ms:", ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items()))
    kept = pending.edges.size / edges.size
    print(f"edges left to each of several scales: {kept:.0%}; regions: {whole.max() + 1}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    set_threads(1)
    photos = load(options.photos, options.count)
    photo_sets = {"native": photos, "500 x 375": [resized(photo) for photo in photos]}
    describe_agreement(photo_sets)
    describe_times(photo_sets, options.rounds)
    describe_parts(photo_sets["500 x 375"][0], options.rounds)


if __name__ == "__main__":
    main()
