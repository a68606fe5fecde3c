"""Train a segmenter on pseudo-labels, or on tags with a loss: on all pixels or on its own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import Augmentation, augment_apart
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.nets.backbone import upsample_grid
from tagseg.nets.deeplab import SegmentationNet, coarse_labels
from tagseg.training import Batch, Loop, Sample, Schedule, train

__all__ = [
    "GridBatch",
    "GridNet",
    "GridObjective",
    "Objective",
    "fit_on_grid",
    "fit_segmenter",
    "known_photos",
]

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


class GridNet(Protocol):
    """An ``nn.Module`` that scores the positions of its own grid."""

    @property
    def coarse_stride(self) -> int:
        """Input pixels per position of ``coarse``."""

    @property
    def coarse_grid_stride(self) -> int | None:
        """The same where position i lies on pixel coarse_stride * i, else None."""

    def coarse(self, x: Tensor, /) -> Tensor:
        """Logits of its own grid, (B, L, h, w), for RGB in [0, 1], (B, 3, H, W)."""

    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameters as the optimizer takes them, each group with its "name"."""


class GridBatch(NamedTuple):
    """What is known of a batch of crops at the positions of the network's grid.

    Attributes:
        tags: (B, C) bool.
        labels: (B, h, w) uint8; 255 where nothing is known.
        images: (B, h, w, 3) uint8, the mean colour around each position.
        inside: (B, h, w) bool; False in the padding of photos that are smaller than the crop.
    """

    tags: Tensor
    labels: Tensor
    images: Tensor
    inside: Tensor


GridObjective = Callable[[Tensor, GridBatch], Tensor]
Net = TypeVar("Net", bound=GridNet)


def fit_segmenter(
    net: SegmentationNet,
    photos: WorkingPhotos,
    targets: Callable[[int], Labels],
    objective: Objective,
    how: Augmentation,
    schedule: Schedule,
    *,
    chosen: npt.NDArray[np.intp] | None = None,
    loop: Loop,
) -> SegmentationNet:
    """Train ``net`` in place.

    Args:
        targets: training labels (h, w) of photo i at working size; 255 where nothing is known.
        objective: loss of scores (B, C+1, H, W), tags (B, C) and labels (B, H, W); labels are 255
            outside the photo, too.
        chosen: the photos to draw from, some maybe several times; None for all whose tags are
            known.
        loop: as in :func:`tagseg.training.train`.

    Raises:
        TagError: no photo has known tags.
    """
    known = known_photos(photos) if chosen is None else chosen

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        scores = module(batch["image"].float() / 255)
        return objective(scores, batch["tags"], batch["labels"])

    train(
        net,
        loss,
        _crops(photos, known, targets, how, apart=loop.execution.apart),
        len(known),
        schedule,
        groups=net.parameter_groups(),
        loop=loop,
    )
    return net


def fit_on_grid(
    net: Net,
    photos: WorkingPhotos,
    targets: Callable[[int], Labels],
    objective: GridObjective,
    how: Augmentation,
    schedule: Schedule,
    *,
    loss_stride: int | None = None,
    chosen: npt.NDArray[np.intp] | None = None,
    loop: Loop,
) -> Net:
    """Train ``net`` in place on the grid of its scores, as DeepLab does (Chen et al. 2015, 2017).

    Labels are brought to the grid by nearest neighbour. Arguments and errors are those of
    :func:`fit_segmenter`, but for these:

    Args:
        objective: loss of scores (B, L, h, w) and a :class:`GridBatch`.
        loss_stride: pixels per position of a finer grid, to which the scores are upsampled
            bilinearly; None for the network's own.
    """
    known = known_photos(photos) if chosen is None else chosen
    stride = loss_stride or net.coarse_stride

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        scores = cast(GridNet, module).coarse(batch["image"].float() / 255)
        if stride != net.coarse_grid_stride:
            shape = (batch["image"].shape[2], batch["image"].shape[3])
            full = upsample_grid(scores.float(), shape, net.coarse_grid_stride)
            scores = full[..., ::stride, ::stride]
        on_grid = GridBatch(
            batch["tags"],
            coarse_labels(batch["labels"], stride),
            _colours(batch["image"], stride),
            coarse_labels(batch["inside"], stride) != IGNORE,
        )
        return objective(scores, on_grid)

    train(
        cast(nn.Module, net),
        loss,
        _crops(photos, known, targets, how, apart=loop.execution.apart, with_inside=True),
        len(known),
        schedule,
        groups=net.parameter_groups(),
        loop=loop,
    )
    return net


def known_photos(photos: WorkingPhotos) -> npt.NDArray[np.intp]:
    """Indices of the photos whose tags are known; TagError if there is none."""
    known = np.flatnonzero(photos.dataset.known)
    if known.size == 0:
        raise TagError("no photo has known tags", do="tag some photos, or use --untagged negative")
    return known


def _crops(
    photos: WorkingPhotos,
    known: npt.NDArray[np.intp],
    targets: Callable[[int], Labels],
    how: Augmentation,
    *,
    apart: bool,
    with_inside: bool = False,
) -> Sample:
    """Cut samples of the photos ``known``; "inside" is 255 in padding and 0 elsewhere."""

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i])
        maps = [targets(index)]
        if with_inside:
            maps.append(np.full(maps[0].shape, BACKGROUND, np.uint8))
        image, cut, colour = augment_apart(photos.image(index), maps, how, rng, apart=apart)
        names = ("labels", "inside")[: len(cut)]
        return {
            "image": image.transpose(2, 0, 1),
            **{name: np.ascontiguousarray(m) for name, m in zip(names, cut, strict=True)},
            "tags": photos.tags[index],
            **colour,
        }

    return sample


def _colours(images: Tensor, stride: int) -> Tensor:
    """Mean colours (B, h, w, 3) around the pixels stride * i of uint8 images (B, 3, H, W)."""
    reach = (stride - 1) // 2
    means = functional.avg_pool2d(
        images.float(), 2 * reach + 1, stride, padding=reach, count_include_pad=False
    )
    return means.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
