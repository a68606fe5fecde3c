"""Small trainings with every loss of the house, by one process or as one of several.

Run as a script (RANK, SIZE, PORT, FOLDER), this is one of several.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tagseg import losses
from tagseg.data.transforms import resize_batch
from tagseg.localize.classifier import _drawn
from tagseg.nets.regionnet import RegionNet
from tagseg.nets.tiny import Tiny
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.ranks.group import together
from tagseg.refine.dense_crf import CrfParameters
from tagseg.segment.fit import GridBatch
from tagseg.segment.regions import _loss as region_loss
from tagseg.stages.crf_loss import GridAndBoundaries, constrain_to_boundaries
from tagseg.training import Batch, Execution, Loop, Schedule, train

CLASSES, SIDE, REGIONS = 3, 16, 5
ITERATIONS = 3
CRF = CrfParameters(bilateral=(4.0, 5.0, 5.0), smoothness=(1.0, 1.0), iterations=2)


class Net(nn.Module):
    """Convolutions with batch norms and dropouts of both kinds; scores of pixels, or of photos."""

    def __init__(self, *, of_photos: bool) -> None:
        super().__init__()
        self.of_photos = of_photos
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            *(nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout2d(0.3)),
        )
        self.scores = nn.Conv2d(8, CLASSES if of_photos else CLASSES + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.scores(self.body(x))
        return found.mean((2, 3)) if self.of_photos else found


class Case(NamedTuple):
    """A training: the network's kind, its loss, and how many samples a batch has."""

    net: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    batch: int = 5
    precision: torch.dtype = torch.float32
    iterations: int = ITERATIONS


def _of_pixels(loss: Callable[[Tensor, Batch], Tensor], batch: int = 5, **named: Any) -> Case:
    def of_batch(net: nn.Module, batch: Batch) -> Tensor:
        return loss(net(batch["image"].float() / 255), batch)

    return Case(lambda: Net(of_photos=False), of_batch, batch, **named)


def _of_photos(loss: Callable[[Tensor, Tensor], Tensor]) -> Case:
    def of_batch(net: nn.Module, batch: Batch) -> Tensor:
        x = resize_batch(batch["image"].float() / 255, _drawn((0.7, 1.4)))
        return loss(net(x), batch["tags"])

    return Case(lambda: Net(of_photos=True), of_batch)


def _grid(batch: Batch) -> GridBatch:
    colours = batch["image"].permute(0, 2, 3, 1).contiguous()
    return GridBatch(batch["tags"], batch["labels"], colours, batch["labels"] >= 0)


def _sec(scores: Tensor, batch: Batch) -> Tensor:
    probs = losses.sec_probabilities(scores)
    return (
        losses.seed_loss(probs, batch["labels"])
        + losses.expand_loss(probs, batch["tags"])
        + constrain_to_boundaries(scores, probs, _grid(batch), CRF)
    )


def _double(net: nn.Module, batch: Batch) -> Tensor:
    return losses.pixel_loss(net(batch["image"].double() / 255), batch["labels"], balanced=True)


CASES: dict[str, Case] = {
    # What rounding adds grows from iteration to iteration; in double precision it stays small.
    "long": Case(lambda: Net(of_photos=False).double(), _double, iterations=60),
    "pixel": _of_pixels(lambda s, b: losses.pixel_loss(s, b["labels"])),
    "balanced": _of_pixels(lambda s, b: losses.pixel_loss(s, b["labels"], balanced=True)),
    "dice": _of_pixels(lambda s, b: losses.dice_loss(s, b["labels"])),
    "lovasz": _of_pixels(lambda s, b: losses.lovasz_loss(s, b["labels"])),
    "lse tags": _of_pixels(lambda s, b: losses.tag_loss(s, b["tags"])),
    "lse foreground": _of_pixels(
        lambda s, b: losses.foreground_loss(s, b["tags"], b["labels"] > 0)
    ),
    "lse masks": _of_pixels(lambda s, b: losses.class_mask_loss(s, b["tags"], b["masks"])),
    "sec": _of_pixels(_sec),
    "guided": _of_pixels(lambda s, b: GridAndBoundaries(CRF)(s, _grid(b))),
    "tags": _of_photos(losses.tag_cross_entropy),
    "hill": _of_photos(losses.hill_loss),
    "rejection": _of_photos(lambda s, t: losses.rejection_loss(s, t, 0.3)),
    "student": _of_pixels(
        lambda s, b: (s[:, 0] - b["labels"].float() / 255).square().sum((1, 2)).mean()
    ),
    "regions": Case(lambda: RegionNet(Tiny(16), CLASSES + 1, 8), region_loss),
    "fewer photos than processes": _of_pixels(lambda s, b: losses.pixel_loss(s, b["labels"]), 1),
    "bf16": _of_pixels(lambda s, b: losses.pixel_loss(s, b["labels"]), precision=torch.bfloat16),
}


def sample(index: int, rng: np.random.Generator) -> dict[str, Any]:
    tags = np.arange(CLASSES) <= index % CLASSES
    labels = rng.choice([0, *range(1, 2 + index % CLASSES), 255], (SIDE, SIDE)).astype(np.uint8)
    rows = np.arange(SIDE, dtype=np.int32)
    return {
        "image": rng.integers(0, 256, (3, SIDE, SIDE), np.uint8),
        "tags": tags,
        "labels": labels,
        "masks": np.where(labels > 1 + index % CLASSES, 0, labels),
        "regions": np.repeat((rows // 4 if index % 2 else rows // 6)[:, None], SIDE, 1),
    }


def region_sample(index: int, rng: np.random.Generator) -> dict[str, Any]:
    return sample(index, rng) | {"labels": rng.integers(0, CLASSES + 1, REGIONS).astype(np.uint8)}


def trained(name: str, ranks: Ranks = ALONE, **loop: Any) -> dict[str, Tensor]:
    """The losses of the iterations, and the weights after them."""
    case, values = CASES[name], []
    torch.manual_seed(1)
    net = case.net()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        value = case.loss(module, batch)
        values.append(value.detach())
        return value

    train(
        net,
        loss,
        region_sample if name == "regions" else sample,
        7,
        Schedule(case.iterations, case.batch, 0.05, clip=1.0),
        loop=Loop(Execution(precision=case.precision, seed=2), ranks=ranks, **loop),
    )
    return {"losses": torch.stack(values), **net.state_dict()}


def exchanged(ranks: Ranks) -> dict[str, Any]:
    """What a process gets from the others, by every way that there is."""
    own = torch.arange(2.0 * ranks.rank).view(ranks.rank, 2).requires_grad_()  # 0, 1, 2 rows
    joined = ranks.joined(own)
    (joined.square().sum() * 0.5).backward()
    summed = torch.full((2,), 1.0 + ranks.rank, requires_grad=True)
    (ranks.total(summed) * summed).sum().backward()
    flags = torch.tensor([ranks.rank == 1, True])
    grown = [torch.full((2, 2), float(ranks.rank)), torch.full((3,), ranks.rank)]
    ranks.sum_in_place(grown)
    same = [torch.full((2, 2), 5.0 + ranks.rank), torch.tensor(7 + ranks.rank)]
    ranks.as_in_first(same)
    with ranks.apart():
        assert ranks.is_apart
        assert ranks.first(lambda: ranks.rank) == ranks.rank
        try:
            ranks.gathered(1)
        except RuntimeError as error:
            refused = str(error)
    return {
        "joined": joined.detach(),
        "own gradient": own.grad,
        "total gradient": summed.grad,
        "flags": ranks.joined(flags),
        "grown": grown,
        "same": same,
        "first": ranks.first(lambda: {"rank": ranks.rank}),
        "gathered": ranks.gathered("abc"[ranks.rank]),
        "brought": ranks.brought(ranks.rank),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "lengths": list(ranks.lengths(ranks.rank)),
        "refused": refused,
    }


def as_rank(rank: int, size: int, port: int, out: str) -> None:
    """Every training as one of several processes, each of which writes what came out."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    with together(torch.device("cpu")) as ranks:
        found = {name: trained(name, ranks) for name in CASES}
        weights = ranks.gathered([one["losses"].tolist() for one in found.values()])
        assert all(same == weights[0] for same in weights)
        torch.save({"trained": found, "exchanged": exchanged(ranks)}, f"{out}/{rank}.pt")


if __name__ == "__main__":
    as_rank(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
