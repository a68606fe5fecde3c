"""What SEC's losses cost: its CRF in the training loop beside the network's own iteration.

    python benchmarks/seed_expand_constrain.py [PHOTO ...] [--rounds N] [--network]

Two loops: the paper's (15 crops of 321 x 321 pixels, 41 x 41 positions, 21 labels) and a small one
(16 photos of 96 x 128, 12 x 16 positions, 9 labels). Images are brought to the grid; the CRF has
SEC's settings for training. First the milliseconds of a batch by kind of CRF, all interleaved in
one process: the exact mean field, the two filters of ``dense_crf_batch``, and pydensecrf2 (one
photo after another, as all its users do) where it can be imported; then the three losses, forward
and backward. Given are the median of wall time and, for machines that others use too, the least
processor time. Then how far the CRFs are apart, on scores at random and on surer ones.
``--exact-pixels`` finds the size up to which the exact mean field is quicker than the filters.
``--network`` times one iteration of DeepLab-LargeFOV on VGG-16.

Crops come from the PHOTOs, by default from pictures in scikit-image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tagseg.losses.seed_expand_constrain import (
    constrain_loss,
    decay_at,
    expand_loss,
    sec_probabilities,
    seed_loss,
)
from tagseg.refine import exact_crf
from tagseg.refine.dense_crf import CrfParameters
from tagseg.refine.exact_crf import dense_crf_batch, exact_dense_crf

try:
    from pydensecrf.densecrf import DenseCRF2D
except Exception:
    DenseCRF2D = None

FACTOR = 12.0  # of the sigmas, from photos to score maps: 500 pixels to 41
SEC = CrfParameters((10, 80 / FACTOR, 13), (3, 3 / FACTOR), iterations=10)
FILTERS = ("lattice", "fine")
SHARPNESS = {"unsure": 1.5, "sure": 6.0}  # spread of the scores


@dataclass(frozen=True)
class Loop:
    """A batch of the training loop: photos, labels, the crops' pixels and the grid's positions."""

    photos: int
    labels: int
    crop: tuple[int, int]
    grid: tuple[int, int]


LOOPS = (Loop(15, 21, (321, 321), (41, 41)), Loop(16, 9, (96, 128), (12, 16)))


def pictures(paths: list[str]) -> list[np.ndarray]:
    if not paths:
        return [skimage.data.coffee(), skimage.data.astronaut(), skimage.data.chelsea()]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def images_of(loop: Loop, sources: list[np.ndarray]) -> Tensor:
    """Random crops, brought to the grid by area: uint8 (B, h, w, 3)."""
    rng = np.random.default_rng(0)
    crops = []
    for photo in range(loop.photos):
        source = sources[photo % len(sources)]
        larger = max(1.0, *(c / s for c, s in zip(loop.crop, source.shape, strict=False)))
        source = cv2.resize(source, None, fx=larger + 1e-3, fy=larger + 1e-3)
        corner = [rng.integers(0, s - c + 1) for s, c in zip(source.shape, loop.crop, strict=False)]
        crop = source[corner[0] :, corner[1] :][: loop.crop[0], : loop.crop[1]]
        crops.append(cv2.resize(crop, loop.grid[::-1], interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(crops))


def scores_of(loop: Loop, spread: float) -> Tensor:
    """Smooth random scores (B, L, h, w)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(loop.photos, loop.labels, 6, 6, generator=generator) * spread
    return interpolate(coarse, loop.grid, mode="bicubic", align_corners=False)


def filtered(images: Tensor, unary: Tensor, parameters: CrfParameters) -> Tensor:
    """dense_crf_batch, by its filters whatever the size."""
    limit, exact_crf.EXACT_PIXELS_CPU = exact_crf.EXACT_PIXELS_CPU, 0
    try:
        return dense_crf_batch(images, unary, parameters)
    finally:
        exact_crf.EXACT_PIXELS_CPU = limit


def peer(images: Tensor, unary: Tensor, parameters: CrfParameters) -> Tensor:
    """pydensecrf2, photo by photo."""
    labels, height, width = unary.shape[1:]
    weight, pixels, levels = parameters.bilateral
    probs = []
    for image, costs in zip(images.numpy(), unary.numpy(), strict=True):
        crf = DenseCRF2D(width, height, labels)
        crf.setUnaryEnergy(np.ascontiguousarray(costs.reshape(labels, -1)))
        crf.addPairwiseGaussian(sxy=parameters.smoothness[1], compat=parameters.smoothness[0])
        crf.addPairwiseBilateral(sxy=pixels, srgb=levels, rgbim=image.copy(), compat=weight)
        probs.append(np.array(crf.inference(parameters.iterations)).reshape(costs.shape))
    return torch.from_numpy(np.stack(probs))


def crfs(images: Tensor, unary: Tensor) -> dict[str, Callable[[], Tensor]]:
    runs: dict[str, Callable[[], Tensor]] = {"exact": partial(exact_dense_crf, images, unary, SEC)}
    for name in FILTERS:
        runs[name] = partial(filtered, images, unary, replace(SEC, filter=name))
    if DenseCRF2D is not None:
        runs["pydensecrf2"] = partial(peer, images, unary, SEC)
    return runs


def three_losses(loop: Loop) -> Callable[[], None]:
    """Forward and backward of all three from the scores on, as the recipe adds them up."""
    generator = torch.Generator().manual_seed(1)
    scores = scores_of(loop, SHARPNESS["unsure"]).requires_grad_()
    refined = torch.softmax(scores_of(loop, SHARPNESS["sure"]), 1)
    tags = torch.rand(loop.photos, loop.labels - 1, generator=generator) < 0.1
    cues = refined.argmax(1).to(torch.uint8)
    cues[torch.rand(cues.shape, generator=generator) < 0.6] = 255
    positions = loop.grid[0] * loop.grid[1]
    decays = {
        "foreground_decay": decay_at(0.996, positions),
        "background_decay": decay_at(0.999, positions),
    }

    def run() -> None:
        scores.grad = None
        probs = sec_probabilities(scores)
        seed, expand = seed_loss(probs, cues), expand_loss(probs, tags, **decays)
        (seed + expand + constrain_loss(probs, refined)).backward()

    return run


class Time(NamedTuple):
    """Milliseconds."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:8.1f} ({self.processor:7.1f})"


def measured(run: Callable) -> Time:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Time(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor))


def interleaved(runs: dict[str, Callable], rounds: int) -> dict[str, Time]:
    """Median wall and least processor time of each, called in turn; the first round warms up."""
    rows = [{name: measured(run) for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    return {
        name: Time(median(r[name].wall for r in rows), min(r[name].processor for r in rows))
        for name in runs
    }


def compare_times(loop: Loop, images: Tensor, rounds: int) -> None:
    runs = {**crfs(images, -scores_of(loop, SHARPNESS["unsure"])), "losses": three_losses(loop)}
    found = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found[threads] = interleaved(runs, rounds)
    print(f"{'':12} {'1 thread':>18} {'2 threads':>18}  ms a batch, wall (processor)")
    for name in runs:
        print(f"{name:12} {found[1][name]} {found[2][name]}")


def compare_results(loop: Loop, images: Tensor) -> None:
    """How far apart the CRFs are; what the CRF moves at all, for scale."""
    for name, spread in SHARPNESS.items():
        scores = scores_of(loop, spread)
        probs = sec_probabilities(scores)
        results = {kind: run().double() for kind, run in crfs(images, -scores).items()}
        exact = results.pop("exact")
        print(f"from exact, {name} scores: mean |dQ|, largest |dQ|, same labels, constrain loss")
        for kind, q in {"no CRF": probs.double(), **results, "exact": exact}.items():
            gap, same = (q - exact).abs(), (q.argmax(1) == exact.argmax(1)).double().mean()
            loss = constrain_loss(probs.double(), q)
            print(f"  {kind:12} {gap.mean():8.1e} {gap.max():8.1e} {same:7.4f} {loss:7.4f}")


def find_exact_pixels(sources: list[np.ndarray], rounds: int) -> None:
    print("ms a batch of 15, 21 labels, by side of the grid: wall (processor)")
    for side in (16, 24, 28, 32, 36, 41, 48, 64):
        loop = Loop(15, 21, (8 * side, 8 * side), (side, side))
        runs = crfs(images_of(loop, sources), -scores_of(loop, SHARPNESS["unsure"]))
        for threads in (1, 2):
            torch.set_num_threads(threads)
            times = interleaved(runs, rounds)
            shown = "  ".join(f"{name} {found}" for name, found in times.items())
            print(f"  {side:3} ({side * side:4} positions), {threads} threads: {shown}", flush=True)


def time_network(rounds: int) -> None:
    """One iteration of the segmenter (no optimizer's step), for scale."""
    from tagseg.nets.deeplab import SegmentationNet
    from tagseg.nets.vgg import Vgg16

    torch.set_num_threads(2)
    net = SegmentationNet(Vgg16(8), 21).to(memory_format=torch.channels_last)  # type: ignore
    images = torch.rand(15, 3, 321, 321)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = sec_probabilities(net.coarse(images)).log().mean()
        loss.backward()

    found = interleaved({"network": run}, rounds)["network"]
    print(f"network, 15 crops of 321 x 321, bf16, 2 threads: {found} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--exact-pixels", action="store_true")
    options = parser.parse_args()
    sources = pictures(options.photos)
    if options.exact_pixels:
        find_exact_pixels(sources, options.rounds)
        return
    for loop in LOOPS:
        height, width = loop.grid
        print(f"{loop.photos} photos, {height} x {width} positions, {loop.labels} labels")
        images = images_of(loop, sources)
        compare_times(loop, images, options.rounds)
        compare_results(loop, images)
    if options.network:
        time_network(2)


if __name__ == "__main__":
    main()
