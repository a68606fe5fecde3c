"""Time of crisp boundaries by stage, and how well their regions follow objects.

    python benchmarks/crisp.py [PHOTO]           time, on one thread and on two
    python benchmarks/crisp.py --regions FOLDER  regions beside Felzenszwalb's, in VOC's layout

Times are medians over interleaved rounds of wall time, and of processor time for the whole, which
tells a busy machine from a slow one. The first call includes compilation, or reading the
compiled kernels from numba's cache. Keep the linear algebra on one thread, OMP_NUM_THREADS=1: two
threads are then those of our kernels.

FOLDER holds JPEGImages, SegmentationClass and val.txt. Achievable segmentation accuracy (ASA) is
the share of pixels that are right if each region takes the label that most of it has.
Felzenszwalb's scale is searched for each photo until there are as many regions as ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb

from tagseg.priors import crisp, spectral
from tagseg.priors.crisp import crisp_contour_map

ROUNDS = 9
SIZE = 500, 375
THREADS = 1, 2
STAGES = [  # module, name of the function that it calls, what it is
    (crisp, "colour_features", "features: colour"),
    (crisp, "texture_features", "features: texture"),
    (crisp, "sample_pairs", "sampled pairs"),
    (crisp, "pair_information", "kernel density and PMI"),
    (crisp, "fit_forest", "forest fit"),
    (crisp, "kept_affinity", "forest prediction, affinity"),
    (spectral, "coarsen", "coarser affinities"),
    (spectral, "generalised_eigenvectors", "eigenvectors"),
    (spectral, "upsample", "eigenvectors at full size"),
    (crisp, "whitened", "whitening"),
    (crisp, "oriented_energy", "oriented energy"),
    (crisp.ContourMap, "of", "watershed and merging"),
]
THRESHOLDS = 0.1, 0.13, 0.2, 0.3
EVERY = 6  # photo of the list
PEER_MIN_SIZES = 20, 100  # skimage's default, and what suits few regions


def timed(function: Callable, times: list[float]) -> Callable:
    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        times.append(1e3 * (time.perf_counter() - start))
        return result

    return wrapper


def by_stage(photo: np.ndarray, threads: int) -> dict[str, float]:
    """Milliseconds of one call by stage; stages that run side by side are added up."""
    kept, times = [], {}
    for owner, name, title in STAGES:
        function = getattr(owner, name)
        kept.append((owner, name, vars(owner)[name]))
        times[title] = []
        setattr(owner, name, timed(function, times[title]))
    total: list[float] = []
    timed(crisp_contour_map, total)(photo, threads=threads)
    for owner, name, function in kept:
        setattr(owner, name, function)
    return {title: sum(parts) for title, parts in times.items()} | {"by stages, total": total[0]}


def time_stages(photo: np.ndarray) -> None:
    elapsed: list[float] = []
    timed(crisp_contour_map, elapsed)(photo)
    print(f"{SIZE[0]}x{SIZE[1]}, first call {elapsed[0]:.0f} ms")
    totals: dict[int, list[float]] = {threads: [] for threads in THREADS}
    processor: dict[int, list[float]] = {threads: [] for threads in THREADS}
    stages: dict[int, list[dict[str, float]]] = {threads: [] for threads in THREADS}
    for _ in range(ROUNDS):
        for threads in THREADS:
            busy = time.process_time()
            timed(crisp_contour_map, totals[threads])(photo, threads=threads)
            processor[threads].append(1e3 * (time.process_time() - busy))
            stages[threads].append(by_stage(photo, threads))
    whole = crisp_contour_map(photo)
    cut: list[float] = []
    for _ in range(ROUNDS):
        timed(whole.regions, cut)(0.1)
    print(f"{'ms on threads':30}" + "".join(f"{threads:8}" for threads in THREADS))
    for title in stages[THREADS[0]][0]:
        row = [median(one[title] for one in stages[threads]) for threads in THREADS]
        print(f"{title:30}" + "".join(f"{value:8.1f}" for value in row))
    for title, measured in (("contour map", totals), ("its processor time", processor)):
        row = [median(measured[threads]) for threads in THREADS]
        print(f"{title:30}" + "".join(f"{value:8.1f}" for value in row))
    print(f"regions of one more threshold {median(cut):8.1f}")


def achievable_accuracy(regions: np.ndarray, truth: np.ndarray) -> float:
    known = truth != 255
    if not known.any():
        return float("nan")
    counts = np.zeros((regions.max() + 1, 256))
    np.add.at(counts, (regions[known], truth[known]), 1)
    return counts.max(1).sum() / known.sum()


def peer_regions(photo: np.ndarray, n_regions: int, min_size: int) -> np.ndarray:
    """Felzenszwalb's regions, of the scale that comes closest to ``n_regions`` of them."""
    low, high, best = 1.0, 1e5, None
    for _ in range(16):
        scale = np.sqrt(low * high)
        found = felzenszwalb(photo, scale=scale, sigma=0.8, min_size=min_size)
        n = found.max() + 1
        if best is None or abs(n - n_regions) < abs(best.max() + 1 - n_regions):
            best = found
        low, high = (scale, high) if n > n_regions else (low, scale)
    return best


def compare_regions(folder: Path) -> None:
    names = (folder / "val.txt").read_text().split()[::EVERY]
    rows = []
    for name in names:
        photo = np.asarray(Image.open(folder / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        truth = np.asarray(Image.open(folder / "SegmentationClass" / f"{name}.png"))
        whole = crisp_contour_map(photo)
        for threshold in THRESHOLDS:
            ours = whole.regions(threshold)
            n = int(ours.max()) + 1
            row = [threshold, n, achievable_accuracy(ours, truth)]
            for min_size in PEER_MIN_SIZES:
                theirs = peer_regions(photo, n, min_size)
                row += [int(theirs.max()) + 1, achievable_accuracy(theirs, truth)]
            rows.append(row)
    table = np.array(rows)
    peers = "".join(f"   Felzenszwalb, >= {size} px" for size in PEER_MIN_SIZES)
    print(f"{len(names)} photos; regions (median) and ASA (mean)\nthreshold   crisp{'':12}{peers}")
    for threshold in THRESHOLDS:
        of_this = table[table[:, 0] == threshold]
        cells = [
            f"{np.median(of_this[:, k]):8.0f} {np.nanmean(of_this[:, k + 1]):.4f}"
            for k in (1, 3, 5)
        ]
        print(f"{threshold:9}" + "         ".join(cells))


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--regions":
        compare_regions(Path(sys.argv[2]))
        return
    if len(sys.argv) > 1:
        photo = Image.open(sys.argv[1]).convert("RGB")
    else:
        noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = Image.fromarray(noise)
    time_stages(np.asarray(photo.resize(SIZE, Image.Resampling.BICUBIC)))


if __name__ == "__main__":
    main()
