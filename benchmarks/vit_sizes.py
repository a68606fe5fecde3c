"""Time and memory of a segmenter on transformers of DINOv2's sizes, beside the library's own call.

    python benchmarks/vit_sizes.py [--sizes small base] [--side 518] [--rounds 3] [--threads 1]

One photo, random weights, 21 labels. ``tagseg`` is a segmenter as ``train`` makes it, at output
stride 14 (a patch is a patch of the photo) and 16 (what ``train`` takes). The peer is the same head
on what ``transformers.Dinov2Model`` gives when it is called with the same pixels. Each case is a
process of its own, ours and the peer's in turn; printed are medians of CPU seconds after one call
that is not counted, the ratio to the peer, and the largest peak memory, all of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any, NamedTuple

LABELS = 21
PATCH = 14
SHAPES = {"small": (384, 12, 6), "base": (768, 12, 12)}  # width, layers, heads
PASSES = ("forward", "forward and backward")
WHO = {"peer": PATCH, "tagseg": PATCH, "tagseg, stride 16": 16}  # and output stride


class Case(NamedTuple):
    """What one process measures."""

    size: str
    who: str
    what: str
    side: int
    threads: int


def network(case: Case) -> Any:
    """The segmenter on our backbone, or its head on the library's model."""
    from torch import nn
    from transformers import Dinov2Config, Dinov2Model

    from tagseg.nets.deeplab import SegmentationNet
    from tagseg.nets.hugging_face import HuggingFaceVit

    width, layers, heads = SHAPES[case.size]
    config = {
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": PATCH,
        "image_size": 518,
    }

    class Plain(nn.Module):
        """The model's patch tokens as a map, and what a segmenter asks of a backbone."""

        name, output_stride, out_channels = "plain", PATCH, width

        def __init__(self) -> None:
            super().__init__()
            values = {key: value for key, value in config.items() if key != "model_type"}
            self.model = Dinov2Model(Dinov2Config(**values))

        def forward(self, x: Any) -> Any:
            tokens = self.model(pixel_values=x).last_hidden_state[:, 1:]
            return tokens.mT.unflatten(2, (x.shape[2] // PATCH, x.shape[3] // PATCH))

    backbone = Plain() if case.who == "peer" else HuggingFaceVit(WHO[case.who], config=config)
    return SegmentationNet(backbone, LABELS)  # type: ignore[arg-type]


def measure(case: Case) -> dict[str, float]:
    """CPU seconds of the second call, peak memory in GiB, and millions of parameters."""
    import torch

    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    net, photo = network(case), torch.rand(1, 3, case.side, case.side)
    trains = case.what != "forward"
    net.train(trains)
    for _ in range(2):
        begun = time.process_time()
        with torch.inference_mode(not trains):
            scores = net(photo)
            if trains:
                scores.square().mean().backward()
        seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    return {"seconds": seconds, "peak": peak, "millions": millions}


def in_own_process(case: Case) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(size: str, what: str, side: int, threads: int, rounds: int) -> None:
    """Print one line for the peer and each of ours."""
    found: dict[str, list[dict[str, float]]] = {who: [] for who in WHO}
    for _ in range(rounds):
        for who in WHO:
            found[who].append(in_own_process(Case(size, who, what, side, threads)))
    seconds = {who: median(each["seconds"] for each in found[who]) for who in WHO}
    for who in WHO:
        peak = max(each["peak"] for each in found[who])
        print(
            f"{size:6s} {found[who][0]['millions']:6.1f} M  {what:21s} {who:18s} "
            f"{seconds[who]:7.2f} s  {seconds[who] / seconds['peer']:5.2f} x  {peak:5.2f} GiB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--side", type=int, default=518)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(Case(*json.loads(args.case)))))
        return
    print(f"one photo of {args.side} x {args.side}, {args.threads} thread(s)")
    for size in args.sizes:
        for what in PASSES:
            compare(size, what, args.side, args.threads, args.rounds)


if __name__ == "__main__":
    main()
