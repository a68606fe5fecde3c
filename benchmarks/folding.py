"""Time of passes with frozen batch norms, folded into convolutions, beside norms on their own.

    python benchmarks/folding.py [--rounds N]

Photos of 240 x 320 on one thread: the backbone's forward pass without gradients for one photo and
for four at once, and an iteration of training of one (``SegmentationNet`` on random labels,
forward, backward and a step of SGD) with all norms frozen. Networks are at the output stride that
recipes give them, with random weights.

"folded" is tagseg's way, which multiplies the kernels in every pass. For "norms" each norm has a
hook that does nothing: then it is called on its own. "merged" has norms merged into kernels once
and for all (``fuse_conv_bn_eval``), which is the least that folding could take, but learns at other
rates. The three take turns in one process, in another order each round. Times are the least of the
process's CPU time, which other programs disturb less than wall time; "ratio" is norms to folded,
above 1 where folding is faster, and "median" the median of the rounds' ratios. "error" is the
largest of a feature against float64, relative to the largest feature, folded and with norms.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import backbone_kind, build_backbone
from tagseg.nets.deeplab import SegmentationNet
from tagseg.training import freeze_batch_norm

HEIGHT, WIDTH, LABELS = 240, 320, 21
BATCH = 4
NAMES = ("mobilenet_v2", "efficientnet_lite0", "resnet50")
LEARNING_RATE = 1e-8  # any, so small that the features stay in range


def unfolded(net: Backbone) -> Backbone:
    """A copy whose batch norms are called on their own."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, args, output: None)
    return net


def merged(net: Backbone) -> Backbone:
    """A copy without batch norms."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        children = list(parent.named_children())
        for (name, layer), (next_name, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                convolution = fuse_conv_bn_eval(layer, norm)
                convolution.bias.requires_grad_(False)  # as the norm's parameters are frozen
                setattr(parent, name, convolution)
                setattr(parent, next_name, nn.Identity())
    return net.to(memory_format=torch.channels_last)


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


@torch.no_grad()
def error(backbone: Backbone, photo: Tensor) -> float:
    exact = copy.deepcopy(backbone).double()
    exact.set_preprocessing(exact.preprocessing)
    expected = exact(photo.double())
    return float((backbone(photo) - expected).abs().max() / expected.abs().max())


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


def compare(works: Sequence[Callable[[], object]], rounds: int) -> tuple[list[float], float]:
    """Milliseconds of each, and the median ratio of the second to the first."""
    rows = []
    for number in range(rounds + 1):
        times = [0.0] * len(works)
        for which in sorted(range(len(works)), reverse=bool(number % 2)):
            start = time.process_time()
            works[which]()
            times[which] = 1e3 * (time.process_time() - start)
        rows.append(times)
    rows = rows[1:]  # the first warms up
    return [min(column) for column in zip(*rows, strict=True)], median(r[1] / r[0] for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    photos = torch.rand(BATCH, 3, HEIGHT, WIDTH, generator=generator)
    photos = photos.contiguous(memory_format=torch.channels_last)
    photo = photos[:1]
    labels = torch.randint(0, LABELS, (1, HEIGHT, WIDTH), generator=generator)
    print(
        f"{'network':>20} {'pass':>9} {'folded ms':>10} {'norms ms':>9} {'merged ms':>10}", end=""
    )
    print(f" {'ratio':>6} {'median':>6}   error")
    for name in NAMES:
        backbone = prepared(name)
        kinds = (backbone, unfolded(backbone), merged(backbone))
        errors = [error(kind, photo) for kind in kinds[:2]]
        passes = {
            "forward": [forward(kind, photo) for kind in kinds],
            f"batch {BATCH}": [forward(kind, photos) for kind in kinds],
            "iteration": [
                iteration(SegmentationNet(copy.deepcopy(kind), LABELS), photo, labels)
                for kind in kinds
            ],
        }
        for what, works in passes.items():
            (folded, norms, once), ratio = compare(works, rounds)
            print(
                f"{name:>20} {what:>9} {folded:10.1f} {norms:9.1f} {once:10.1f}"
                f" {norms / folded:6.2f} {ratio:6.2f}   {errors[0]:.0e} {errors[1]:.0e}"
            )


if __name__ == "__main__":
    main()
