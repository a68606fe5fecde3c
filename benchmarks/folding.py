"""Time of passes with frozen batch norms, folded into convolutions, beside norms on their own.

    python benchmarks/folding.py [--rounds N]

A photo of 240 x 320 on one thread: the backbone's forward pass without gradients, and an iteration
of training (``SegmentationNet`` on random labels, forward, backward and a step of SGD) with all
norms frozen. Networks are at the output stride that recipes give them, with random weights. A norm
with a hook is not folded, so one that does nothing makes the other kind. The two take turns in one
process, in another order each round; times are medians of wall time, and the ratio is the median of
the rounds' ratios, unfolded to folded: above 1 folding is faster. "differs" is the largest
difference of the features, relative to the largest feature.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import build_backbone, backbone_kind
from tagseg.nets.deeplab import SegmentationNet
from tagseg.training import freeze_batch_norm

HEIGHT, WIDTH, LABELS = 240, 320, 21
NAMES = ("mobilenet_v2", "efficientnet_lite0", "resnet50")
LEARNING_RATE = 1e-8  # any, so small that the features stay in range


def unfolded(net: nn.Module) -> nn.Module:
    """A copy whose batch norms are called on their own."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, args, output: None)
    return net


def prepared(name: str) -> Backbone:
    """With statistics of a photo, so that features stay in range; channels-last as in training."""
    torch.manual_seed(0)
    net = build_backbone(name, output_stride=backbone_kind(name).usual_stride)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.rand(2, 3, HEIGHT // 2, WIDTH // 2))
    return net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def forward(backbone: nn.Module, photo: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return backbone(photo)

    return run


def iteration(net: nn.Module, photo: Tensor, labels: Tensor) -> Callable[[], object]:
    net.train()
    freeze_batch_norm(net)
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, LEARNING_RATE, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(net(photo), labels).backward()
        optimizer.step()

    return run


def compare(works: tuple[Callable[[], object], ...], rounds: int) -> tuple[float, float, float]:
    """Milliseconds of the first and of the second, and the ratio of the second to the first."""
    rows = []
    for number in range(rounds + 1):
        times = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            works[which]()
            times[which] = 1e3 * (time.perf_counter() - start)
        rows.append(times)
    rows = rows[1:]  # the first warms up
    first, second = (median(column) for column in zip(*rows, strict=True))
    return first, second, median(row[1] / row[0] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    photo = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
    photo = photo.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, LABELS, (1, HEIGHT, WIDTH), generator=generator)
    print(f"{'network':>20} {'pass':>9} {'folded ms':>10} {'norms ms':>9} {'ratio':>6} differs")
    for name in NAMES:
        backbone = prepared(name)
        kinds = (backbone, unfolded(backbone))
        with torch.no_grad():
            features = [kind(photo) for kind in kinds]
        differs = float((features[0] - features[1]).abs().max() / features[1].abs().max())
        passes = {
            "forward": tuple(forward(kind, photo) for kind in kinds),
            "iteration": tuple(
                iteration(SegmentationNet(copy.deepcopy(kind), LABELS), photo, labels)
                for kind in kinds
            ),
        }
        for what, works in passes.items():
            folded, norms, ratio = compare(works, rounds)
            print(f"{name:>20} {what:>9} {folded:10.1f} {norms:9.1f} {ratio:6.2f} {differs:.0e}")


if __name__ == "__main__":
    main()
