"""What one accelerator does with tagseg: throughput, share of its peak, and waiting for photos.

    python benchmarks/gpu.py                        # 8 minutes at most, on the GPU that is there
    python benchmarks/gpu.py --device cpu --quick   # every part once at toy size, in CI
    python benchmarks/gpu.py --only peak "train vgg16 classifier" crf

Each part is a process of its own that prints its rows as it goes; one that fails or takes too long
is one line, and the next begins. Networks have random weights: time does not depend on them.
"peak" is what a product of two large matrices reaches in the type of the training, measured here,
and the percentages are of that; operations are counted by PyTorch (forward and backward,
convolutions and matrix products). "waits" is the part of a training's time that goes by while no
photo is ready: one minus the time with samples from memory over that with JPEGs read and decoded
for each sample. The last part trains ``builtin_priors`` on drawn scenes on the device, and lets the
CPU segment the same photos with the segmenter that came of it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tagseg
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.data.transforms import colour_change
from tagseg.localize.backprop import ClassSaliency
from tagseg.localize.cam import class_activation_maps
from tagseg.localize.classifier import multi_label_loss
from tagseg.localize.dcsm import (
    DcsmSettings,
    aggregate,
    candidate_classes,
    layer_saliency,
)
from tagseg.losses.pixel import cross_entropy
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import build_backbone
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.gap import GapClassifier
from tagseg.nets.hugging_face import HuggingFaceVit
from tagseg.nets.masked_pooling import masked_roi_pool, region_cells
from tagseg.nets.pyramid import PyramidNet
from tagseg.refine import CrfParameters, exact_dense_crf, refine
from tagseg.run.engine import (
    choose_device,
    choose_precision,
    choose_workers,
    set_threads,
    usable_cores,
)
from tagseg.session.train import Options
from tagseg.training import Batch, Execution, Loop, Schedule, train

CLASSES = 20
VIT_BASE = {
    "model_type": "dinov2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 14,
    "image_size": 518,
}


class Place(NamedTuple):
    """Where a part runs, and whether at toy size."""

    device: torch.device
    precision: torch.dtype
    quick: bool

    def take(self, usual: int, quick: int) -> int:
        """A number of the part."""
        return quick if self.quick else usual

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def backbone(self, name: str, stride: int) -> Backbone:
        """The network, or ``tiny`` at toy size."""
        if self.quick:
            return build_backbone("tiny", output_stride=8)
        if name == "vit_base":
            return HuggingFaceVit(16, config=VIT_BASE)
        return build_backbone(name, output_stride=stride)


class Trained(NamedTuple):
    """A training that is measured: its network, the side of its crops, and photos a batch."""

    net: nn.Module
    side: int
    batch: int


def milliseconds(place: Place, work: Callable[[], Any], rounds: int = 5) -> float:
    """Median of some rounds; one before them is not counted."""
    taken = []
    for _ in range(rounds + 1):
        place.wait()
        begun = time.perf_counter()
        work()
        place.wait()
        taken.append(1e3 * (time.perf_counter() - begun))
    return median(taken[1:])


def say(row: str, **values: object) -> None:
    """One row, at once."""
    print(f"{row:38s}" + "".join(f"  {name} {value}" for name, value in values.items()), flush=True)


# --- parts -----------------------------------------------------------------------------------


def peak(place: Place) -> float:
    """Operations a second of a product of matrices in the training's type."""
    n = place.take(8192, 256)
    a, b = torch.rand(2, n, n, device=place.device, dtype=place.precision).unbind()
    return 2e3 * n**3 / milliseconds(place, lambda: a @ b, 10)


def measure_peak(place: Place) -> None:
    type_name = str(place.precision).removeprefix("torch.")
    say("peak", tera=f"{peak(place) / 1e12:.1f} operations a second, {type_name}")


def classifier(place: Place, name: str) -> Trained:
    """A tag classifier on photos of 224 pixels."""
    net = GapClassifier(place.backbone(name, 16), CLASSES, place.take(1024, 8))
    return Trained(net, place.take(224, 48), place.take(32, 2))


def published(place: Place, name: str) -> Trained:
    """DeepLab-LargeFOV on crops of 321 pixels."""
    return Trained(
        SegmentationNet(place.backbone(name, 8), CLASSES + 1, width=8 if place.quick else None),
        place.take(321, 48),
        place.take(10, 2),
    )


def pyramid(place: Place, name: str) -> Trained:
    """The pyramid on crops of 320 pixels."""
    stride = 16 if name == "vit_base" else 32
    backbone = (
        build_backbone("tiny", output_stride=16) if place.quick else place.backbone(name, stride)
    )
    net = PyramidNet(backbone, CLASSES + 1, channels=32 if place.quick else None)
    return Trained(net, place.take(320, 64), place.take(16, 2))


def loss_of(net: nn.Module, batch: Batch) -> Tensor:
    """What the network learns by."""
    scores = net(batch["image"].float() / 255)
    if scores.ndim == 2:
        return multi_label_loss(scores, batch["tags"])
    return cross_entropy(scores, batch["tags"], batch["labels"])


def sample_of(side: int, photo: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A crop of a photo (H, W, 3), its tags and labels, drawn."""
    y, x = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    crop = photo[y : y + side, x : x + side]
    return {
        "image": np.ascontiguousarray(crop.transpose(2, 0, 1)),
        "tags": rng.random(CLASSES) < 0.1,
        "labels": rng.integers(0, CLASSES + 1, (side, side)).astype(np.uint8),
    }


def loaders(place: Place) -> int:
    """Processes that load photos."""
    return 0 if place.quick else choose_workers(None, place.device)


def seconds_of_training(place: Place, what: Trained, iterations: int, folder: Path | None) -> float:
    """Of some iterations through the one training loop, the first ones not counted.

    Samples are cut from a photo in memory, or from the JPEGs of ``folder``, by as many processes
    as ``--workers auto`` has. Where the device works apart, it changes their colours.
    """
    rng = np.random.default_rng(0)
    height = max(what.side, place.take(375, 64))
    photo = rng.integers(0, 256, (height, max(what.side, place.take(500, 80)), 3)).astype(np.uint8)
    paths = sorted(folder.iterdir()) if folder is not None else []

    def sample(i: int, drawn: np.random.Generator) -> dict[str, np.ndarray]:
        shown = cv2.imread(str(paths[i % len(paths)])) if paths else photo
        change = colour_change(drawn.uniform(0.9, 1.1) * np.eye(3), np.zeros((3, 3)), 0.5)
        return sample_of(what.side, shown, drawn) | (change if execution.apart else {})

    begun: list[float] = []
    warm = place.take(10, 1)

    class Clock:
        """Notes when the first iterations are done."""

        done = 0

        def advance(self, n: int = 1) -> None:
            self.done += n
            if self.done == warm:
                place.wait()
                begun.append(time.perf_counter())

        def skip(self, n: int) -> None:
            self.done += n

    workers = loaders(place) if folder is not None else 0
    execution = Execution(place.device, place.precision, workers=workers)
    schedule = Schedule(iterations + warm, what.batch, 1e-4)
    train(what.net, loss_of, sample, 1000, schedule, loop=Loop(execution, True, ticks=Clock()))
    place.wait()
    return time.perf_counter() - begun[0]


def operations(place: Place, what: Trained) -> float:
    """Of the forward and backward pass of one photo."""
    net = what.net.to(place.device)
    one = {"image": torch.zeros(1, 3, what.side, what.side, dtype=torch.uint8)}
    one["tags"] = torch.zeros(1, CLASSES, dtype=torch.bool)
    one["labels"] = torch.zeros(1, what.side, what.side, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        loss_of(net, {name: value.to(place.device) for name, value in one.items()}).backward()
    net.zero_grad()
    return float(counter.get_total_flops())


def measure_training(place: Place, make: Callable[[Place, str], Trained], name: str) -> None:
    what, iterations = make(place, name), place.take(40, 3)
    count = operations(place, what)
    seconds = seconds_of_training(place, what, iterations, None)
    a_second = iterations * what.batch / seconds
    share = a_second * count / peak(place)
    row = f"train {make.__name__}, {name}"
    say(row, photos=f"{a_second:.1f} a second", batch=f"{what.batch} x {what.side}")
    say(row, peak=f"{100 * share:.1f} %", photo=f"{count / 1e9:.1f} billion operations")
    if place.device.type == "cuda":
        say(row, memory=f"{torch.cuda.max_memory_allocated(place.device) / 2**30:.1f} GiB")


def write_photos(folder: Path, count: int, shape: tuple[int, int]) -> None:
    """Photos as cameras make them: smooth, with some noise."""
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        photo = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(photo + rng.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def measure_waiting(place: Place) -> None:
    with tempfile.TemporaryDirectory() as name:
        shape = (375, 500) if not place.quick else (64, 80)
        write_photos(Path(name), place.take(400, 8), shape)
        for make, backbone in ((classifier, "efficientnet_lite0"), (pyramid, "efficientnet_lite0")):
            iterations = place.take(60, 3)
            alone = seconds_of_training(place, make(place, backbone), iterations, None)
            read = seconds_of_training(place, make(place, backbone), iterations, Path(name))
            waits = max(0.0, 1 - alone / read)
            row = f"waits for photos, {make.__name__}, {backbone}"
            say(row, share=f"{100 * waits:.0f} %", loaders=loaders(place))


def measure_class_maps(place: Place) -> None:
    side, batch = place.take(321, 48), place.take(16, 2)
    net = (
        GapClassifier(place.backbone("vgg16", 8), CLASSES, place.take(1024, 8))
        .to(place.device)
        .eval()
    )
    photos = torch.rand(batch, 3, side, side, device=place.device)
    low = place.precision != torch.float32

    def work() -> Tensor:
        with torch.autocast(place.device.type, place.precision, enabled=low):
            return class_activation_maps(net, photos, scales=(1.0, 1.5))

    taken = milliseconds(place, work)
    say("class maps, vgg16, two scales", photos=f"{1e3 * batch / taken:.1f} a second")


def measure_distinct_maps(place: Place) -> None:
    side = place.take(321, 48)
    net = (
        GapClassifier(place.backbone("vgg16", 8), CLASSES, place.take(1024, 8))
        .to(place.device)
        .eval()
    )
    layers = [layer for block in net.backbone.feature_blocks()[-3:] for layer in block.layers]
    saliency = ClassSaliency(net, "guided", layers=[f"backbone.{layer}" for layer in layers])
    photo = torch.rand(1, 3, side, side, device=place.device)
    settings = DcsmSettings(scales=(1.0,))
    classes = candidate_classes([np.linspace(0.9, 0.1, CLASSES)], settings)

    def work() -> Tensor:
        gradients = saliency.forward(photo).gradients(classes.classes.tolist())
        maps = [(0, layer_saliency(g[0], (side, side), stride=None)) for g in gradients.values()]
        return aggregate(maps, classes, settings)

    taken = milliseconds(place, work, 3)
    say(f"DCSM, vgg16, {len(layers)} layers", photos=f"{1e3 / taken:.1f} a second")


def measure_crf(place: Place) -> None:
    """Exact inference on the device beside the fast one on the CPU's cores, by size."""
    wins = 0
    for side in (9, 17) if place.quick else (41, 81, 161, 321, 512):
        exact, fast = crf_times(place, side)
        wins = side * side if exact < fast else wins
        row = f"CRF, {side} x {side}, {CLASSES + 1} labels"
        say(row, exact=f"{exact:.1f} ms", fast=f"{fast:.1f} ms on the CPU")
    say("CRF, exact wins", pixels=f"up to {wins}")


def crf_times(place: Place, side: int) -> tuple[float, float]:
    """Milliseconds of a square photo, exact and fast; on a CPU exact is tried on small ones."""
    rng, parameters = np.random.default_rng(0), CrfParameters()
    image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    probs = rng.dirichlet(np.ones(CLASSES + 1), (side, side)).transpose(2, 0, 1)
    unary = -np.log(np.maximum(probs, 1e-7)).astype(np.float32)
    fast = milliseconds(place, lambda: refine(image, unary, parameters), 3)
    if place.device.type == "cpu" and side > 41:
        return math.inf, fast
    images = torch.from_numpy(image)[None].to(place.device)
    energies = torch.from_numpy(unary)[None].to(place.device)
    return milliseconds(place, lambda: exact_dense_crf(images, energies, parameters), 3), fast


def measure_pooling(place: Place) -> None:
    grid, count = place.take(41, 9), place.take(150, 6)
    rng = np.random.default_rng(0)
    shape = (8 * grid, 8 * grid)
    coarse = rng.integers(0, count, (grid // 2, grid // 2)).astype(np.int32)
    regions = cv2.resize(coarse, shape, interpolation=cv2.INTER_NEAREST)[None]
    cells = region_cells(regions, (grid, grid), 8)
    features = torch.rand(1, 512, grid, grid, device=place.device, requires_grad=True)

    def work() -> Tensor:
        return torch.autograd.grad(masked_roi_pool(features, cells).sum(), features)[0]

    taken = milliseconds(place, work)
    say(f"masked pooling, {len(cells.ids)} regions", photos=f"{1e3 / taken:.1f} a second")


def measure_recipe(place: Place) -> None:
    """``builtin_priors`` end to end, and its segmenter on the CPU."""
    count, held = place.take(300, 6), place.take(20, 2)
    side = place.take(321, 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, truth = scene_dataset(SCENES, count + held, height=side, width=side)
        values = {"schedule": "short"}
        if place.quick:
            values |= {"classifier_iterations": 2, "segmenter_iterations": 2}
        device, weights = str(place.device), "none"
        begun = time.perf_counter()
        tagseg.train(
            photos,
            "builtin_priors",
            values,
            val=photos.names[count:],
            ground_truth=tagseg.GroundTruth(truth, photos.classes),
            out=folder / "run",
            options=Options("tiny" if place.quick else "vgg16", weights, device=device),
        )
        seconds = time.perf_counter() - begun
        say("builtin_priors", photos=count, seconds=f"{seconds:.0f}")
        there = tagseg.load_segmenter(folder / "run", device=device)
        here = tagseg.load_segmenter(folder / "run", device="cpu")
        pictures = [photos.image(count + i) for i in range(held)]
        same = [
            np.mean(there.predict(p, refine=False) == here.predict(p, refine=False))
            for p in pictures
        ]
        say(
            "its segmenter there and on the CPU", equal=f"{100 * np.mean(same):.2f} % of the pixels"
        )


PARTS: Mapping[str, Callable[[Place], None]] = {
    "peak": measure_peak,
    "train vgg16 classifier": lambda place: measure_training(place, classifier, "vgg16"),
    "train vgg16 segmenter": lambda place: measure_training(place, published, "vgg16"),
    "train resnet101 segmenter": lambda place: measure_training(place, published, "resnet101"),
    "train lite0 pyramid": lambda place: measure_training(place, pyramid, "efficientnet_lite0"),
    "train vit_base classifier": lambda place: measure_training(place, classifier, "vit_base"),
    "train vit_base pyramid": lambda place: measure_training(place, pyramid, "vit_base"),
    "waiting": measure_waiting,
    "class maps": measure_class_maps,
    "dcsm": measure_distinct_maps,
    "crf": measure_crf,
    "pooling": measure_pooling,
    "recipe": measure_recipe,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... [default: auto]")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts [default: 8]")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="toy sizes: that every part works")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None:
        device = choose_device(args.device)
        if device.type == "cpu":
            set_threads(usable_cores())
        torch.manual_seed(0)
        PARTS[args.part](
            Place(device, choose_precision("fp32" if args.quick else "auto", device), args.quick)
        )
        return
    sys.exit(run_all(args.only, args.device, args.quick, 60 * args.minutes))


def run_all(parts: Sequence[str], device: str, quick: bool, seconds: float) -> int:
    """Each part in its own process while there is time; how many gave nothing."""
    begun, failed = time.monotonic(), 0
    for position, part in enumerate(parts):
        left = seconds - (time.monotonic() - begun)
        # What remains is shared out, and a part may take the time of three.
        limit = min(left, 3 * left / (len(parts) - position))
        command = [sys.executable, __file__, "--device", device, "--part", part]
        why = run_one([*command, *(["--quick"] if quick else [])], limit)
        if why:
            failed += 1
            print(f"{part:38s}  failed: {why}", flush=True)
    print(f"{len(parts) - failed} of {len(parts)} parts in {time.monotonic() - begun:.0f} s")
    return failed


def run_one(command: Sequence[str], limit: float) -> str:
    """Run a part, whose rows are printed as they come; why it failed, or nothing."""
    if limit < 1:
        return "no time left"
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done in {limit:.0f} s"
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit {done.returncode}") if done.returncode else ""


if __name__ == "__main__":
    main()
