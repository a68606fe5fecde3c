"""Masked RoI pooling of a photo of 500 x 375, forward and backward, beside PyTorch's ways.

    python benchmarks/masked_pooling.py [--rounds N] [--channels N] [--threads N [N ...]]

Regions are Felzenszwalb's of a photo, features 512 channels in channels_last memory, half of them
zeros, at strides 16 and 8. "loop" takes the regions one by one: it cuts out the box, multiplies by
the mask and calls ``adaptive_max_pool2d``; it is given the masks, and timed on features in both
memory formats, of which the faster counts. "tensors" is what other devices than CPUs get: all bins
at once, one cell of each at a step. "kernel" is
:func:`tagseg.nets.masked_pooling.masked_roi_pool`; "cells" is the time to find the regions' cells,
which "kernel + cells" includes and the others do not. All give the same numbers, which is checked.
Milliseconds, the best of interleaved rounds in one process: processor time with one thread, wall
time with more, for which the machine must be idle.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import skimage.data
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from tagseg.nets import masked_pooling
from tagseg.nets.masked_pooling import RegionCells, masked_roi_pool, region_cells

HEIGHT, WIDTH = 375, 500
STRIDES = {16: (24, 32), 8: (47, 63)}
TARGET = 20  # times the loop's speed, one thread
KERNEL = masked_pooling._ways
TENSORS = masked_pooling._tensor_forward, masked_pooling._tensor_backward


def superpixels() -> np.ndarray:
    image = cv2.resize(skimage.data.coffee(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return felzenszwalb(image, scale=20, sigma=0.8, min_size=100).astype(np.int32)[None]


def masks_of(cells: RegionCells) -> list[tuple[list[int], Tensor]]:
    """Box and mask of each region."""
    ends = zip(cells.offsets[:-1], cells.offsets[1:], cells.boxes.tolist(), strict=True)
    return [(box, torch.from_numpy(cells.inside[a:b].reshape(box[2:]))) for a, b, box in ends]


def loop(features: Tensor, masks: list[tuple[list[int], Tensor]]) -> Tensor:
    return torch.stack([
        adaptive_max_pool2d(features[0, :, y : y + height, x : x + width] * mask, 7)
        for (y, x, height, width), mask in masks
    ])  # fmt: skip


def tensors(features: Tensor, cells: RegionCells) -> Tensor:
    masked_pooling._ways = lambda device: TENSORS
    return masked_roi_pool(features, cells)


def clock_for(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def timed(pool: Callable[[], Tensor], features: Tensor, given: Tensor) -> tuple[float, float]:
    """Seconds forward and backward."""
    clock = clock_for(torch.get_num_threads())
    start = clock()
    pooled = pool()
    middle = clock()
    torch.autograd.grad(pooled, features, given)
    end = clock()
    masked_pooling._ways = KERNEL
    return middle - start, end - middle


def agree(runs: dict[str, tuple[Callable[[], Tensor], Tensor]]) -> None:
    """Raises where a way gives other numbers than the kernel."""
    results = {}
    for name, (pool, features) in runs.items():
        pooled = pool()
        given = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(0))
        results[name] = pooled.detach(), torch.autograd.grad(pooled, features, given)[0]
        masked_pooling._ways = KERNEL
    for pooled, gradient in results.values():
        assert torch.equal(pooled, results["kernel"][0])
        # Not where features are 0: there a zero from outside is as large.
        there = runs["kernel"][1] > 0
        torch.testing.assert_close(
            gradient * there, results["kernel"][1] * there, atol=1e-4, rtol=1e-4
        )


def measure(regions: np.ndarray, stride: int, channels: int, rounds: int) -> None:
    grid = STRIDES[stride]
    cells = region_cells(regions, grid, stride)
    masks = masks_of(cells)
    torch.manual_seed(0)
    last = torch.randn(1, channels, *grid).relu().to(memory_format=torch.channels_last)
    last.requires_grad_()
    first = last.detach().contiguous().requires_grad_()
    runs = {
        "loop, channels_last": (lambda: loop(last, masks), last),
        "loop, channels first": (lambda: loop(first, masks), first),
        "tensors": (lambda: tensors(last, cells), last),
        "kernel": (lambda: masked_roi_pool(last, cells), last),
    }
    agree(runs)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    found = []
    given = torch.rand(len(cells.ids), 7, 7, channels).permute(0, 3, 1, 2)
    for _ in range(rounds):
        start = time.process_time()  # it has one thread
        region_cells(regions, grid, stride)
        found.append(time.process_time() - start)
        for name, (pool, features) in runs.items():
            taken[name].append(timed(pool, features, given))
    report(stride, cells, taken, min(found))


def report(stride: int, cells: RegionCells, taken: dict, found: float) -> None:
    height, width = np.median(cells.boxes[:, 2:], 0)
    print(
        f"\nstride {stride}, {torch.get_num_threads()} thread(s): {len(cells.ids)} regions, boxes"
        f" of {height:.0f} x {width:.0f} cells as a rule, up to {cells.boxes[:, 2:].max()}"
    )
    print(f"{'':>22} {'forward':>8} {'backward':>9} {'both':>8} {'kernel is faster by':>20}")
    best = {name: np.min(np.array(times), 0) * 1e3 for name, times in taken.items()}
    kernel = best["kernel"].sum()
    fastest_loop = min(both.sum() for name, both in best.items() if name.startswith("loop"))
    for name, (forward, backward) in best.items():
        both = forward + backward
        print(f"{name:>22} {forward:8.2f} {backward:9.2f} {both:8.2f} {both / kernel:20.1f}")
    cells_ms = found * 1e3
    with_cells = kernel + cells_ms
    print(f"{'cells':>22} {cells_ms:8.2f}")
    print(f"{'kernel + cells':>22} {'':18} {with_cells:8.2f}")
    print(
        f"the faster loop takes {fastest_loop / kernel:.1f} times as long as the kernel"
        f" (target {TARGET}), {fastest_loop / with_cells:.1f} times with finding the cells"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    regions = superpixels()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for stride in STRIDES:
            measure(regions, stride, options.channels, options.rounds)


if __name__ == "__main__":
    main()
