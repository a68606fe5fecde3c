"""Time of our dense CRF beside pydensecrf2's, interleaved in one process; and how exact both are.

    python benchmarks/dense_crf.py [PHOTO ...] [--exact] [--rounds N]

pydensecrf2 (``pip install -e .[bench]``: it builds from source) is left out where it cannot be
imported. Each PHOTO is brought to 500 x 375; without one the picture is scikit-image's cup of
coffee. Times are medians of wall time, the peer's on one thread: it has no other. Then follow the
cost of higher-order terms, photos a second through a pool, and peak memory. ``--exact`` compares
labels, probabilities and the first message with the exact mean field: minutes a photo.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from statistics import median

import numpy as np
import skimage.data
from exact_mean_field import ExactMeanField, softmax
from PIL import Image
from skimage.segmentation import felzenszwalb

from tagseg.refine.dense_crf import dense_crf, softmax_unary

try:
    from pydensecrf.densecrf import DenseCRF2D
except Exception:
    DenseCRF2D = None

SIZE = (500, 375)
SMOOTHNESS = (3, 3)
ITERATIONS = 10
CASES = [(21, (10, 80, 13)), (21, (4, 121, 5)), (3, (10, 80, 13))]
FILTERS = ("lattice", "fine")
POOL_PHOTOS = 16


def photo(path: str | None):
    picture = Image.open(path).convert("RGB") if path else Image.fromarray(skimage.data.coffee())
    return np.array(picture.resize(SIZE, Image.Resampling.BICUBIC))  # writable: the peer asks


@cache
def make_unary(n_labels: int):
    """Unary of smooth random score maps."""
    coarse = np.random.default_rng(0).normal(0, 1.5, (n_labels, 24, 32)).astype(np.float32)
    maps = [Image.fromarray(m).resize(SIZE, Image.Resampling.BICUBIC) for m in coarse]
    return softmax_unary(np.stack([np.asarray(m) for m in maps]))


def ours(image, unary, bilateral, iterations=ITERATIONS, **options):
    return dense_crf(
        image, unary, bilateral=bilateral, smoothness=SMOOTHNESS, iterations=iterations, **options
    )


def peer(image, unary, bilateral, iterations=ITERATIONS):
    """The same CRF by pydensecrf2."""
    n_labels, height, width = unary.shape
    crf = DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(unary.reshape(n_labels, -1))
    crf.addPairwiseGaussian(sxy=SMOOTHNESS[1], compat=SMOOTHNESS[0])
    weight, sigma_pixels, sigma_levels = bilateral
    crf.addPairwiseBilateral(sxy=sigma_pixels, srgb=sigma_levels, rgbim=image, compat=weight)
    return np.array(crf.inference(iterations)).reshape(unary.shape)


def interleaved(functions: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median milliseconds of each function, called in turn."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def compare_times(image, rounds: int) -> None:
    for n_labels, bilateral in CASES:
        unary = make_unary(n_labels)
        runs: dict[str, Callable] = {
            f"{name}, {threads} thread{'s' * (threads > 1)}": partial(
                ours, image, unary, bilateral, filter=name, threads=threads
            )
            for name in FILTERS
            for threads in (1, 2)
        }
        if DenseCRF2D is not None:
            runs["pydensecrf2"] = partial(peer, image, unary, bilateral)
        times = interleaved(runs, rounds)
        print(f"{n_labels} labels, {bilateral}")
        for name, elapsed in times.items():
            ratio = times["pydensecrf2"] / elapsed if "pydensecrf2" in times else float("nan")
            print(f"  {name:20} {elapsed:6.1f} ms  {ratio:5.2f} times as fast")


def compare_higher_order(image, rounds: int) -> None:
    regions = felzenszwalb(image, 100, 0.8, 100)
    print(f"higher-order terms over {regions.max() + 1} regions")
    for n_labels in (21, 3):
        for name in FILTERS:
            run = partial(ours, image, make_unary(n_labels), (10, 80, 13), filter=name)
            times = interleaved({"without": run, "with": partial(run, regions=regions)}, rounds)
            ratio = times["with"] / times["without"]
            print(f"  {n_labels:2} labels, {name:7} {ratio:.2f} times the time without")


def compare_throughput(image) -> None:
    """Photos a second on all cores: ours in threads, the peer (it holds the lock) in processes."""
    cores, unary = len(os.sched_getaffinity(0)), make_unary(21)
    for name in FILTERS:
        with ThreadPoolExecutor(cores) as pool:
            run = partial(ours, image, unary, (10, 80, 13), filter=name)
            print(f"pool of {cores} threads, {name}: {_photos_a_second(pool, run):.1f} photos/s")
    if DenseCRF2D is not None:
        with ProcessPoolExecutor(cores) as pool:
            run = partial(_peer_of_label_count, image, 21)
            rate = _photos_a_second(pool, run)
            print(f"pool of {cores} processes, pydensecrf2: {rate:.1f} photos/s")


def _peer_of_label_count(image, n_labels: int) -> float:
    return float(peer(image, make_unary(n_labels), (10, 80, 13))[0, 0, 0])


def _photos_a_second(pool, run: Callable) -> float:
    for done in [pool.submit(run) for _ in range(4)]:
        done.result()
    start = time.perf_counter()
    for done in [pool.submit(run) for _ in range(POOL_PHOTOS)]:
        done.result()
    return POOL_PHOTOS / (time.perf_counter() - start)


def compare_with_exact(image, name: str) -> None:
    for n_labels, bilateral in CASES[:2]:
        unary = make_unary(n_labels)
        exact = ExactMeanField(image, bilateral, SMOOTHNESS)
        probs = exact.run(unary, ITERATIONS)
        message = exact.message(softmax(-unary.astype(np.float64)))
        message -= message.mean(axis=0)
        runs = {f: partial(ours, image, unary, bilateral, filter=f) for f in FILTERS}
        if DenseCRF2D is not None:
            runs["pydensecrf2"] = partial(peer, image, unary, bilateral)
        for method, run in runs.items():
            found, first = run(iterations=ITERATIONS), run(iterations=1)
            agreement = (found.argmax(axis=0) == probs.argmax(axis=0)).mean()
            got = (
                np.log(np.maximum(first, 1e-30)) + unary
            )  # the message, but for one number a pixel
            got -= got.mean(axis=0)
            error = np.sqrt(((got - message) ** 2).sum() / (message**2).sum())
            print(
                f"{name} {n_labels} labels {bilateral} {method:12} same labels {agreement:.4f}  "
                f"mean |dQ| {np.abs(found - probs).mean():.1e}  rms of a message {error:.4f}",
                flush=True,
            )


def print_memory(path: str | None) -> None:
    """Peak memory over the inputs, each case in a process of its own."""
    for name in ("none", *FILTERS):
        command = [sys.executable, __file__, "--memory-of", name, *([path] if path else [])]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def memory_of(name: str, image) -> None:
    unary = make_unary(21)
    small = image[:16, :16].copy()
    for known in FILTERS:  # compiled and loaded before anything is measured
        dense_crf(small, np.ascontiguousarray(unary[:, :16, :16]), filter=known)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts no longer
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # begin the peak anew
    if name != "none":
        ours(image, unary, (10, 80, 13), filter=name)
    after = _resident("VmHWM")
    print(f"peak memory over the inputs, 21 labels, {name}: {(after - before) / 1024:.0f} MiB")


def _resident(field: str) -> int:
    """KiB of this process's memory, now (VmRSS) or at most (VmHWM)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-of", choices=["none", *FILTERS])
    options = parser.parse_args()
    paths = options.photos or [None]
    if options.memory_of:
        memory_of(options.memory_of, photo(paths[0]))
        return
    start = time.perf_counter()
    ours(photo(paths[0]), make_unary(3), (10, 80, 13))
    print(f"first call {time.perf_counter() - start:.1f} s")
    for path in paths:
        image, name = photo(path), os.path.basename(path or "coffee")
        print(name)
        if options.exact:
            compare_with_exact(image, name)
            continue
        compare_times(image, options.rounds)
        compare_higher_order(image, options.rounds)
        compare_throughput(image)
        print_memory(path)


if __name__ == "__main__":
    main()
