"""Time of minimum barrier saliency, by step and beside the same method in plain numpy.

    python benchmarks/saliency.py [PHOTO]

Times are medians over interleaved rounds on one thread; keep the linear algebra on one thread too,
OMP_NUM_THREADS=1. The first call includes compilation, or reading the compiled scans from numba's
cache. The peer scans by anti-diagonals, whose pixels do not depend on each other, all channels at
once: as much as numpy can do at a time. Its distances are the same to the bit.

scikit-image's superpixels stand beside both: the saliency of boundary connectivity (Zhu et al.
2014) begins with them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage.segmentation import slic

from tagseg.priors.saliency import minimum_barrier
from tagseg.priors.saliency.minimum_barrier import minimum_barrier_saliency

ROUNDS = 15
SIZE = 500, 375
PASSES = 3
STEPS = {
    "_small_lab": "smaller, Lab",
    "_distance_of_colours": "raster scans",
    "border_contrast": "border contrast",
    "_nearness_to_centre": "centre",
    "_smoothed": "smoothing",
    "_contrasted": "contrast",
    "_resized": "larger again",
}


def timed(function: Callable, times: list[float]) -> Callable:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        times.append(1e3 * (time.perf_counter() - start))
        return result

    return wrapper


def diagonals(height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inner pixels (rows, columns) by their anti-diagonal."""
    found = []
    for total in range(2, height + width - 3):
        rows = np.arange(max(1, total - width + 2), min(height - 2, total - 1) + 1)
        found.append((rows, total - rows))
    return found


def numpy_distance(lab: np.ndarray, passes: int) -> np.ndarray:
    """What ``_distance_of_colours`` gives, without a compiler."""
    value = np.ascontiguousarray(lab.transpose(2, 0, 1), np.float32)
    distance = np.zeros_like(value)
    distance[:, 1:-1, 1:-1] = np.inf
    upper, lower = value.copy(), value.copy()
    pixels = diagonals(*lab.shape[:2])
    for scan in range(passes):
        step = 1 if scan % 2 == 0 else -1
        for y, x in pixels[::step]:
            own, best = value[:, y, x], distance[:, y, x]
            top, bottom = upper[:, y, x], lower[:, y, x]
            for v, u in ((y - step, x), (y, x - step)):
                high, low = np.maximum(upper[:, v, u], own), np.minimum(lower[:, v, u], own)
                nearer = high - low < best
                best = np.where(nearer, high - low, best)
                top, bottom = np.where(nearer, high, top), np.where(nearer, low, bottom)
            distance[:, y, x], upper[:, y, x], lower[:, y, x] = best, top, bottom
    total = distance.sum(0, dtype=np.float64)
    return total / total.max()


def with_peer(photo: np.ndarray) -> np.ndarray:
    own = minimum_barrier._distance_of_colours
    minimum_barrier._distance_of_colours = numpy_distance
    try:
        return minimum_barrier_saliency(photo)
    finally:
        minimum_barrier._distance_of_colours = own


def superpixels(photo: np.ndarray) -> np.ndarray:
    small = cv2.resize(photo, (400, 300), interpolation=cv2.INTER_AREA)
    return slic(small, n_segments=200, compactness=20, start_label=0)


def step_times(photo: np.ndarray) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    own = {name: getattr(minimum_barrier, name) for name in STEPS}
    try:
        for name, function in own.items():
            setattr(minimum_barrier, name, timed(function, times[name]))
        minimum_barrier_saliency(photo)
    finally:
        for name, function in own.items():
            setattr(minimum_barrier, name, function)
    return {name: sum(parts) for name, parts in times.items()}


def read_photo() -> np.ndarray:
    if len(sys.argv) > 1:
        with Image.open(Path(sys.argv[1])) as picture:
            return np.asarray(picture.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC))


def main() -> None:
    cv2.setNumThreads(1)
    photo = read_photo()
    first: list[float] = []
    ours = timed(minimum_barrier_saliency, first)(photo)
    np.testing.assert_array_equal(ours, with_peer(photo))
    totals: dict[str, list[float]] = {"compiled": [], "numpy": [], "superpixels": []}
    steps: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        timed(minimum_barrier_saliency, totals["compiled"])(photo)
        timed(with_peer, totals["numpy"])(photo)
        timed(superpixels, totals["superpixels"])(photo)
        steps.append(step_times(photo))
    print(f"{SIZE[0]}x{SIZE[1]}, one thread, ms a photo; first call {first[0]:.0f}")
    for name, title in STEPS.items():
        print(f"  {title:28}{median(one[name] for one in steps):8.2f}")
    compiled, plain, slic_ms = (median(values) for values in totals.values())
    print(f"{'minimum barrier saliency':30}{compiled:8.2f}  ({1e3 / compiled:.0f} photos a second)")
    print(f"{'the same, scans in numpy':30}{plain:8.2f}  {plain / compiled:.1f} times as long")
    print(f"{'SLIC superpixels alone':30}{slic_ms:8.2f}  {slic_ms / compiled:.1f} times as long")


if __name__ == "__main__":
    main()
