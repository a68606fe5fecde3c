"""Time of the losses on tags and masks, forward + backward, beside a cross-entropy.

    python benchmarks/losses.py

Each loss is timed on the same random scores with a cross-entropy on the same masks, interleaved
in one process; the ratio is to that cross-entropy. Times are medians of wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss

ROUNDS = 11
SHAPES = [(16, 9, 96, 128), (1, 21, 321, 321)]  # photos, labels, height, width
TAGS_PER_PHOTO = 2


def make_losses(shape: tuple[int, ...]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The losses as functions of the scores; the masks hold each photo's labels at random."""
    photos, labels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(photos, labels - 1, generator=generator).argsort(1)
    tags = order < TAGS_PER_PHOTO
    present = torch.cat([torch.zeros(photos, 1), order.argsort(1)[:, :TAGS_PER_PHOTO] + 1], 1)
    pick = torch.randint(0, TAGS_PER_PHOTO + 1, (photos, height * width), generator=generator)
    masks = present.gather(1, pick).reshape(photos, height, width).to(torch.uint8)
    targets, foreground = masks.long(), masks > 0
    return {
        "cross_entropy": lambda scores: cross_entropy(scores, targets),
        "class_mask_loss": lambda scores: class_mask_loss(scores, tags, masks),
        "foreground_loss": lambda scores: foreground_loss(scores, tags, foreground),
        "tag_loss": lambda scores: tag_loss(scores, tags),
    }


def milliseconds(loss: Callable[[Tensor], Tensor], scores: Tensor) -> float:
    scores.grad = None
    start = time.perf_counter()
    loss(scores).backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    print(f"{'scores':>16} threads {'loss':>16} {'ms':>7} {'ratio':>6}")
    for shape in SHAPES:
        losses = make_losses(shape)
        scores = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rounds = [
                {name: milliseconds(loss, scores) for name, loss in losses.items()}
                for _ in range(ROUNDS + 1)
            ][1:]  # the first warms up
            times = {name: median(row[name] for row in rounds) for name in losses}
            for name, ms in times.items():
                ratio = ms / times["cross_entropy"]
                size = "x".join(map(str, shape))
                print(f"{size:>16} {threads:7d} {name:>16} {ms:7.1f} {ratio:6.1f}")


if __name__ == "__main__":
    main()
