"""Time of the gradients of depthwise convolutions beside PyTorch's, layer by layer and as a whole.

    python benchmarks/depthwise.py [--rounds N] [--threads N] [--precision fp32|bf16]

First layers of EfficientNet-Lite0 and MobileNetV2 as they see a batch of 8 crops of 192 x 224: the
gradients of input and kernel. Then an iteration of both backbones with frozen norms, forward and
backward, at the output strides 16 and 32. "PyTorch" is the same network with
``torch.nn.functional.conv2d``. Both take turns in one process. Times are the least of the rounds,
of the process's CPU time; "ratio" is PyTorch's time to ours, above 1 where ours is faster, "error"
the largest difference of a gradient from PyTorch's in float32, relative to the largest: of ours and
of PyTorch's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from tagseg.nets import depthwise
from tagseg.nets.catalog import build_backbone
from tagseg.nets.depthwise import convolve
from tagseg.training import freeze_batch_norm

BATCH, HEIGHT, WIDTH = 8, 192, 224
# Channels, height and width of the input, kernel, stride, dilation.
LAYERS = (
    (96, 96, 112, 3, 2, 1),
    (144, 48, 56, 5, 2, 1),
    (240, 24, 28, 5, 1, 1),
    (672, 12, 14, 5, 1, 1),
    (1152, 12, 14, 5, 1, 2),
    (960, 12, 14, 3, 1, 2),
)
NETS = (("efficientnet_lite0", 16), ("efficientnet_lite0", 32), ("mobilenet_v2", 16))


@contextmanager
def plain() -> Iterator[None]:
    """All convolutions and their gradients are PyTorch's."""
    with mock.patch.object(depthwise, "_bad_gradients", return_value=False):
        yield


def timed(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Least milliseconds of ``work``, ours and PyTorch's."""
    best = [float("inf")] * 2
    for number in range(rounds + 1):
        for which in sorted(range(2), reverse=bool(number % 2)):
            start = time.process_time()
            if which:
                with plain():
                    work()
            else:
                work()
            if number:  # the first round warms up
                best[which] = min(best[which], 1e3 * (time.process_time() - start))
    return best[0], best[1]


def errors(gradients: Callable[[], tuple[Tensor, ...]]) -> list[float]:
    ours = gradients()
    with plain():
        theirs = gradients()
        with torch.autocast("cpu", enabled=False):
            right = gradients()
    return [_error(found, right) for found in (ours, theirs)]


def _error(found: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> float:
    pairs = zip(found, right, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def layer(form: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    channels, height, width, kernel, stride, dilation = form
    x = torch.rand(BATCH, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(channels, 1, kernel, kernel, requires_grad=True)
    x.requires_grad_()
    sides = [(side, side) for side in (stride, dilation * (kernel // 2), dilation)]
    with torch.no_grad():
        slopes = torch.rand_like(F.conv2d(x, weight, None, *sides, channels))

    def gradients() -> tuple[Tensor, ...]:
        y = convolve(x, weight, None, *sides, channels)
        return torch.autograd.grad(y, (x, weight), slopes.to(y.dtype))

    return gradients


def network(name: str, output_stride: int) -> Callable[[], tuple[Tensor, ...]]:
    torch.manual_seed(0)
    net = build_backbone(name, output_stride=output_stride).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze_batch_norm(net.train())
    x = torch.rand(BATCH, 3, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def gradients() -> tuple[Tensor, ...]:
        last = net(x).float()
        return torch.autograd.grad(last.square().mean(), learned)

    return gradients


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'':>32} {'ours ms':>8} {'PyTorch ms':>11} {'ratio':>6}   errors")
    works = {str(form): layer(form) for form in LAYERS}
    works |= {f"{name}, stride {stride}": network(name, stride) for name, stride in NETS}
    for what, work in works.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            ours, theirs = timed(work, args.rounds)
            both = "  ".join(f"{error:.0e}" for error in errors(work))
        print(f"{what:>32} {ours:8.1f} {theirs:11.1f} {theirs / ours:6.2f}   {both}")


if __name__ == "__main__":
    main()
