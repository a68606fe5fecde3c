"""Time of Eq. 3 to 5 of distinct class saliency maps, and their kernels beside torch, one thread.

    python benchmarks/dcsm.py

First table: what a scale and a layer add (Eq. 4 and a term of Eq. 5) for K classes that are all
targets and candidates, on a photo of 500 x 375. The peer is the torch code that runs where there
is no CPU kernel: a pass per candidate, then maximum, division and tanh. Second table: the maximum
over channels and the enlarging of Eq. 3 at VGG-16's blocks 3 to 5, and both variants of all the
rest. Times are the best of interleaved rounds in one process. Last, how much memory five scales,
nine layers and 20 classes take once there are gradients.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from tagseg.localize import dcsm
from tagseg.localize.dcsm import CandidateClasses, DcsmSettings, aggregate, layer_saliency

ROUNDS = 15
SHAPE = (375, 500)
CLASSES = (3, 4, 20)
BLOCKS = {"block 3": (256, 4), "block 4": (512, 8), "block 5": (512, 16)}  # channels, stride
ALPHA = 3.0


def best(*runs: Callable[[], object]) -> list[float]:
    """Milliseconds of each, the best of interleaved rounds; the first round does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - start))
    return [min(taken[1:]) for taken in times]


def step_by_torch(raw: Tensor, rows: np.ndarray, total: Tensor) -> None:
    maps = dcsm._subtracted_by_torch(raw, rows, rows)
    total += dcsm._saturated(maps, dcsm._peaks(maps), ALPHA)


def step_by_kernels(raw: Tensor, rows: np.ndarray, total: Tensor) -> None:
    maps, peaks = dcsm._subtracted(raw, rows, rows)
    dcsm._add_saturated(total, maps, peaks, ALPHA, 1.0)


def compare_steps() -> None:
    print(f"{'classes':>8} {'torch ms':>9} {'tagseg ms':>9} {'ratio':>6}")
    for k in CLASSES:
        raw, rows = torch.rand(k, *SHAPE), np.arange(k)
        ours, theirs = torch.zeros_like(raw), torch.zeros_like(raw)
        step_by_kernels(raw, rows, ours)
        step_by_torch(raw, rows, theirs)
        torch.testing.assert_close(ours, theirs)
        peer, kernels = best(
            lambda raw=raw, rows=rows, out=theirs: step_by_torch(raw, rows, out),
            lambda raw=raw, rows=rows, out=ours: step_by_kernels(raw, rows, out),
        )
        print(f"{k:8} {peer:9.2f} {kernels:9.2f} {peer / kernels:6.1f}")


def every_class(k: int, scales: int = 1) -> CandidateClasses:
    return CandidateClasses(np.ones(k, bool), np.arange(k), np.ones((scales, k), bool))


def time_parts() -> None:
    print(f"\n{'classes':>8} {'part':>18} {'ms':>8}")
    for k in CLASSES:
        for name, (channels, stride) in BLOCKS.items():
            gradient = torch.randn(k, channels, *(-(-side // stride) for side in SHAPE))
            (taken,) = best(lambda g=gradient, s=stride: layer_saliency(g, SHAPE, stride=s))
            print(f"{k:8} {'Eq. 3, ' + name:>18} {taken:8.2f}")
        step, classes = [(0, torch.rand(k, *SHAPE))], every_class(k)
        for variant in ("paper", "code"):
            settings = DcsmSettings(variant=variant)
            (taken,) = best(lambda p=step, c=classes, s=settings: aggregate(p, c, s))
            print(f"{k:8} {'rest, ' + variant:>18} {taken:8.2f}")


def peak_memory() -> None:
    def steps() -> Iterator[tuple[int, Tensor]]:
        for scale in range(5):
            for _ in range(9):
                yield scale, torch.rand(20, *SHAPE)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings = DcsmSettings(scales=(0.6, 0.8, 1.0, 1.2, 1.4))
    start = time.perf_counter()
    aggregate(steps(), every_class(20, scales=5), settings)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\n45 steps of 20 classes: {seconds:.2f} s, random maps included;")
    print(f"peak {after / 2**10:.0f} MiB, {before / 2**10:.0f} MiB of it before")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step_by_kernels(torch.rand(2, 4, 4), np.arange(2), torch.zeros(2, 4, 4))  # compiles
    peak_memory()  # first: the peak of a process never falls
    print()
    compare_steps()
    time_parts()


if __name__ == "__main__":
    main()
