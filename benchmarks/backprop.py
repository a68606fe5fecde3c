"""Time and memory of guided back-propagation of three classes with VGG-16, beside its peers.

    python benchmarks/backprop.py [--sides 321 500] [--threads 1 2] [--rounds N]
    python benchmarks/backprop.py --memory | --memory-of NAME --side N
    python benchmarks/backprop.py --dcsm-memory

The network is ``FullyConvolutionalClassifier(Vgg16(32), 20)`` with random weights, the photo noise
of one side. Gradients go back to the photo, but for torch-cam (``pip install torchcam``, or
PYTHONPATH=... where it lies; left out where it cannot be imported): its LayerCAM needs them at
conv5_3 only, so most of its work is the forward pass. captum's GuidedBackprop takes a class a call.
"autograd" is one forward and three backward passes, plain, not guided. Times are the best of
interleaved rounds of wall time; a busy machine shows in "forward", without gradients.

``--memory`` measures peak memory over the network's, each method in a process of its own; two
numbers, since ours keeps copies of weights, made once. ``--dcsm-memory`` is the peak of the whole
process for five scales and 20 candidates on a photo of 500 x 375.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.localize.backprop import INPUT, ClassSaliency
from tagseg.localize.dcsm import DcsmSettings
from tagseg.localize.seeds import DistinctSeeder
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16

try:
    from captum.attr import GuidedBackprop
except Exception:
    GuidedBackprop = None
try:
    from torchcam.methods import LayerCAM
except Exception:
    LayerCAM = None

CLASSES = [3, 7, 12]
CONV5_3 = "net.backbone.features.29"
PRECISIONS = {"ours fp32": torch.float32, "ours bf16": torch.bfloat16}
DCSM_SCALES = (0.6, 0.8, 1.0, 1.2, 1.4)


class Scores(nn.Module):
    """Sums of class maps over positions, (B, C): the scores that every method here takes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.class_maps(x).sum((2, 3))


def network() -> nn.Module:
    torch.manual_seed(0)
    return FullyConvolutionalClassifier(Vgg16(32), 20).eval()


def noise(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


# Each makes its object from a network and gives what it does with a photo.


def forward(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return torch.inference_mode()(Scores(net))


def autograd(net: nn.Module) -> Callable[[Tensor], Tensor]:
    model = Scores(net)

    def gradients(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        scores = model(x)
        parts = [torch.autograd.grad(scores[0, k], x, retain_graph=True)[0] for k in CLASSES]
        return torch.stack(parts, 1)

    return gradients


def captum(net: nn.Module) -> Callable[[Tensor], Tensor]:
    guided = GuidedBackprop(Scores(net))

    def gradients(x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of hooks that are set
            return torch.stack([guided.attribute(x, k) for k in CLASSES], 1).detach()

    return gradients


def torch_cam(net: nn.Module) -> Callable[[Tensor], Tensor]:
    model = Scores(net)

    def maps(x: Tensor) -> Tensor:
        with LayerCAM(model, CONV5_3) as extract:
            scores = model(x)
            return torch.stack([extract(k, scores, retain_graph=True)[0] for k in CLASSES], 1)

    return maps


def ours(precision: torch.dtype) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
    def make(net: nn.Module) -> Callable[[Tensor], Tensor]:
        saliency = ClassSaliency(net, "guided", precision=precision)
        return lambda x: saliency.forward(x).gradients(CLASSES)[INPUT]

    return make


def methods() -> dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]]:
    """What can run here."""
    found = {"forward": forward, "autograd": autograd}
    if GuidedBackprop is not None:
        found["captum"] = captum
    if LayerCAM is not None:
        found["torch-cam"] = torch_cam
    return found | {name: ours(precision) for name, precision in PRECISIONS.items()}


def tell_what_is_missing() -> None:
    for name, peer in (("captum", GuidedBackprop), ("torch-cam", LayerCAM)):
        if peer is None:
            print(f"{name} cannot be imported: left out")


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, the best of rounds; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken[1:]) for name, taken in times.items()}


def compare_times(sides: list[int], threads: list[int], rounds: int) -> None:
    net = network()
    made = {name: make(net) for name, make in methods().items()}
    for side in sides:
        x = noise(side)
        for count in threads:
            torch.set_num_threads(count)
            runs = {name: lambda run=run, x=x: run(x) for name, run in made.items()}
            times = interleaved(runs, rounds)
            print(f"{side} x {side}, threads: {count}")
            reference = times.get("captum", times["autograd"])
            for name, taken in times.items():
                print(f"  {name:10} {taken:7.3f} s  {reference / taken:5.2f} times as fast")
            print(f"  (as {'captum' if 'captum' in times else 'autograd'})", flush=True)
        compare_results(made, x)


def compare_results(made: dict[str, Callable[[Tensor], Tensor]], x: Tensor) -> None:
    """A ReLU's input near 0 may be rounded to either side: captum differs from itself, too."""
    found = {name: made[name](x) for name in ("captum", *PRECISIONS) if name in made}
    exact = found["ours fp32"]
    if "captum" in found:
        other = made["captum"](x.to(memory_format=torch.channels_last))
        for name, gradient in (("ours fp32", exact), ("captum, channels last,", other)):
            error = (gradient - found["captum"]).norm() / found["captum"].norm()
            print(f"  relative L2 of {name} to captum {float(error):.1e}")
    pairs = zip(found["ours bf16"][0].flatten(1), exact[0].flatten(1), strict=True)
    cosines = [float(functional.cosine_similarity(a, b, dim=0)) for a, b in pairs]
    print(f"  cosine of bf16 to fp32, by class {', '.join(f'{value:.4f}' for value in cosines)}")


# Memory


def print_memory(sides: list[int]) -> None:
    for side in sides:
        for name in methods():
            _print_apart("--memory-of", name, "--side", str(side))


def _print_apart(*options: str) -> None:
    """What a process of its own prints."""
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)


def memory_of(name: str, side: int) -> None:
    torch.set_num_threads(1)
    make, net = methods()[name], network()
    with torch.inference_mode():  # loads what is loaded late, and compiles
        net.class_maps(noise(33))
    if name in PRECISIONS:
        tiny = FullyConvolutionalClassifier(Tiny(), 20).eval()
        make(tiny)(noise(33))
    before = _begin()
    run = make(net)
    run(noise(33))  # makes the copies of weights that are kept
    kept, _ = _resident("VmRSS"), _begin()
    run(noise(side))
    peak = _resident("VmHWM")
    print(
        f"{side} x {side}, {name:10} peak {(peak - before) / 1024:6.0f} MiB over the network, "
        f"{(kept - before) / 1024:.0f} MiB of it kept from photo to photo"
    )


def dcsm_memory_of(name: str) -> None:
    torch.set_num_threads(1)
    settings = DcsmSettings(scales=DCSM_SCALES, min_candidates=20)
    photo = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    net = network()  # stays, beside the copies of weights, as it does for its user
    seeder = DistinctSeeder(net, settings, side=500, precision=PRECISIONS[name])
    before = _begin()
    start = time.perf_counter()
    found = seeder(photo, np.ones(20, bool))
    taken, peak = time.perf_counter() - start, _resident("VmHWM")
    classes = len(found.classes.candidates)
    print(
        f"{name}: five scales, {classes} candidates: {taken:.1f} s, "
        f"peak of the process {peak / 2**20:.2f} GiB, {before / 2**20:.2f} GiB of it before"
    )


def _begin() -> int:
    """Let the peak begin anew; KiB of memory now."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts no longer
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    return _resident("VmRSS")


def _resident(field: str) -> int:
    """KiB of this process's memory, now (VmRSS) or at most (VmHWM)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[321, 500])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory of every method")
    parser.add_argument("--memory-of", choices=list(methods()))
    parser.add_argument("--side", type=int, default=321)
    parser.add_argument("--dcsm-memory", action="store_true")
    parser.add_argument("--dcsm-memory-of", choices=list(PRECISIONS))
    options = parser.parse_args()
    if options.memory_of:
        memory_of(options.memory_of, options.side)
    elif options.memory:
        print_memory(options.sides)
    elif options.dcsm_memory_of:
        dcsm_memory_of(options.dcsm_memory_of)
    elif options.dcsm_memory:
        for name in PRECISIONS:
            _print_apart("--dcsm-memory-of", name)
    else:
        tell_what_is_missing()
        compare_times(options.sides, options.threads, options.rounds)


if __name__ == "__main__":
    main()
