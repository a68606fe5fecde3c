"""Train and apply RegionNet: the labels of regions (Wang et al. 2018, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import Augmentation, augment_apart, factor_to, resize_batch
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Image
from tagseg.nets.regionnet import RegionNet
from tagseg.segment.fit import known_photos
from tagseg.training import Batch, Execution, Loop, Schedule, train

__all__ = [
    "balanced_draw",
    "describe_regions",
    "fit_regions",
    "predict_regions",
]

Superpixels = npt.NDArray[np.int32]
RegionLabels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


def fit_regions(
    net: RegionNet,
    photos: WorkingPhotos,
    superpixels_of: Callable[[int], Superpixels],
    labels_of: Callable[[int], RegionLabels],
    how: Augmentation,
    schedule: Schedule,
    *,
    regions_per_photo: int = 64,
    loop: Loop,
) -> RegionNet:
    """Train ``net`` in place on labelled regions: Eq. 1 of Wang et al. 2018.

    The loss is the mean of the cross-entropy over the regions of a batch where Eq. 1 has their
    sum: so the learning rate does not depend on how many there are. Which regions of a photo are
    in it says :func:`balanced_draw`, among those that the crop shows a part of.

    Args:
        superpixels_of: region ids (h, w) of photo i at working size, from 0.
        labels_of: label of each region of photo i, (n,); 255 for those that teach nothing.
        how: how crops are cut; ``scale`` enlarges photos (Fast R-CNN's have 600 pixels on the
            shorter side).
        regions_per_photo: most regions of a photo that are drawn each time.
        loop: as in :func:`tagseg.training.train`.

    Photos whose tags are not known are left out.

    Raises:
        TagError: no photo has known tags.
        ShapeError: superpixels are not of a photo's size, or have ids without a label.
    """
    known = known_photos(photos)

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i])
        regions, labels = superpixels_of(index), labels_of(index)
        image = photos.image(index)
        _check(image, regions, labels, photos.names[index])
        image, regions, colour = _cut(image, regions, how, rng, apart=loop.execution.apart)
        regions, labels = _drawn(regions, labels, regions_per_photo, rng)
        return {"image": image.transpose(2, 0, 1), "regions": regions, "labels": labels, **colour}

    train(
        net,
        _loss,
        sample,
        len(known),
        schedule,
        groups=net.parameter_groups(),
        loop=loop,
    )
    return net


def balanced_draw(
    labels: RegionLabels, most: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Choose regions of a photo to train on: as many of each label as there are.

    Labels take turns, background last, until ``most`` regions are drawn or none is left; so what
    one label lacks others fill. Background regions, of which a photo has the most, are never more
    than the foreground's; in a photo without foreground they are at most half of ``most``.

    Args:
        labels: label of each region (n,); those of 255 are not drawn.
        most: how many regions may be drawn.
        rng: says which regions of a label.

    Returns:
        Indices of the chosen regions, ascending.
    """
    turns = np.empty(len(labels), np.intp)
    order = rng.permutation(len(labels))
    for label in np.unique(labels):
        queue = order[labels[order] == label]
        turns[queue] = np.arange(len(queue))
    background = labels == BACKGROUND
    foreground = int(np.count_nonzero(~background & (labels != IGNORE)))
    limit = foreground or max(1, most // 2)
    allowed = (labels != IGNORE) & ~(background & (turns >= limit))
    waiting = np.flatnonzero(allowed)
    places = np.lexsort((background[waiting], turns[waiting]))
    return np.sort(waiting[places[:most]])


def predict_regions(
    net: RegionNet,
    images: npt.NDArray[np.uint8],
    superpixels: Sequence[Superpixels],
    *,
    execution: Execution,
    side: int | None = None,
) -> list[Rows]:
    """Label probabilities f(R) of every region of photos of one size.

    Where photos are made smaller for the network the regions keep their size, so that none is
    lost; its pixels find their cells by proportion.

    Args:
        net: moved to the device and left in evaluation mode.
        images: (B, h, w, 3).
        superpixels: (h, w) region ids of each photo, from 0.
        side: pixels to which the photos' longer side is brought for the network; None leaves it.

    Returns:
        float32 (n_i, L) for each photo, n_i one more than its highest id: a row per id, which sums
        to 1, or to 0 for an id that no pixel has.

    Raises:
        ShapeError: superpixels are not of the photos' size or number, or have ids below 0.
    """

    def probabilities(x: Tensor, regions: Superpixels) -> tuple[Tensor, Tensor]:
        logits, ids = net(x, regions)
        return torch.softmax(logits.float(), 1), ids

    return _rows_per_photo(net, probabilities, images, superpixels, execution, side)


def describe_regions(
    net: RegionNet,
    images: npt.NDArray[np.uint8],
    superpixels: Sequence[Superpixels],
    *,
    execution: Execution,
    side: int | None = None,
) -> list[Rows]:
    """Activations of fc7 of every region, (n_i, width): a feature v for Eq. 2.

    Arguments and errors are those of :func:`predict_regions`.
    """
    return _rows_per_photo(net, net.features_of, images, superpixels, execution, side)


def _loss(net: nn.Module, batch: Batch) -> Tensor:
    scores_of_labelled = cast(RegionNet, net).scores_of_labelled
    logits, labels = scores_of_labelled(
        batch["image"].float() / 255, batch["regions"], batch["labels"]
    )
    # Not "mean", which is not a number where a batch shows no labelled region.
    total = functional.cross_entropy(logits.float(), labels, reduction="sum")
    return total / max(1, len(labels))


def _check(image: Image, regions: Superpixels, labels: RegionLabels, name: str) -> None:
    if regions.shape != image.shape[:2]:
        raise ShapeError(
            f"superpixels have shape {regions.shape}, the photo is {image.shape[:2]}",
            where=name,
            do="bring both to the same height and width",
        )
    if regions.min() < 0 or regions.max() >= len(labels):
        raise ShapeError(
            f"region ids from {regions.min()} to {regions.max()}, but {len(labels)} labels",
            where=name,
            do="number the regions from 0 and give a label to each",
        )


def _cut(
    image: Image,
    regions: Superpixels,
    how: Augmentation,
    rng: np.random.Generator,
    *,
    apart: bool,
) -> tuple[Image, Superpixels, dict[str, npt.NDArray[np.float32]]]:
    """A crop of a photo and of its regions, which are -1 in padding, and what is left to do."""
    outside = np.zeros(regions.shape, np.uint8)
    image, (regions, outside), colour = augment_apart(
        image, [regions, outside], how, rng, apart=apart
    )
    return image, np.where(outside == IGNORE, np.int32(-1), regions), colour


def _drawn(
    regions: Superpixels, labels: RegionLabels, most: int, rng: np.random.Generator
) -> tuple[Superpixels, RegionLabels]:
    """Up to ``most`` regions numbered anew, -1 elsewhere, and their labels, filled up with 255."""
    present = np.unique(regions[regions >= 0])
    drawn = present[balanced_draw(labels[present], most, rng)]
    numbers = np.full(len(labels) + 1, -1, np.int32)  # the last one stands for -1
    numbers[drawn] = np.arange(len(drawn), dtype=np.int32)
    chosen = np.full(most, IGNORE, np.uint8)
    chosen[: len(drawn)] = labels[drawn]
    return numbers[regions], chosen


@torch.no_grad()
def _rows_per_photo(
    net: RegionNet,
    apply: Callable[[Tensor, Superpixels], tuple[Tensor, Tensor]],
    images: npt.NDArray[np.uint8],
    superpixels: Sequence[Superpixels],
    execution: Execution,
    side: int | None,
) -> list[Rows]:
    """The rows that ``apply`` gives to the regions of a batch, by photo and region id."""
    regions = _stacked(superpixels, images)
    net.to(execution.device).eval()
    x = torch.from_numpy(np.require(images, requirements=("C", "W"))).to(execution.device)
    x = resize_batch(x.permute(0, 3, 1, 2).float() / 255, factor_to(side, images.shape[1:3]))
    if x.shape[2] > images.shape[1] or x.shape[3] > images.shape[2]:
        regions = _enlarged(regions, (x.shape[2], x.shape[3]))
    low = execution.precision != torch.float32
    with torch.autocast(execution.device.type, execution.precision, enabled=low):
        rows, ids = apply(x, regions)
    filled, places = rows.float().cpu().numpy(), ids.cpu().numpy()
    result = [np.zeros((int(m.max()) + 1, filled.shape[1]), np.float32) for m in superpixels]
    for photo, out in enumerate(result):
        own = places[:, 0] == photo
        out[places[own, 1]] = filled[own]
    return result


def _stacked(superpixels: Sequence[Superpixels], images: npt.NDArray[np.uint8]) -> Superpixels:
    shapes = [m.shape for m in superpixels]
    if shapes != [images.shape[1:3]] * len(images):
        raise ShapeError(
            f"superpixels of shapes {shapes} for images of shape {images.shape}",
            do="give one map per photo, of its height and width",
        )
    stacked = np.stack(superpixels)
    if stacked.min() < 0:
        raise ShapeError("superpixels hold ids below 0", do="number the regions from 0")
    return stacked


def _enlarged(regions: Superpixels, shape: tuple[int, int]) -> Superpixels:
    """Regions at a larger size, by nearest neighbour, so that they fill their cells."""
    nearest = cv2.INTER_NEAREST_EXACT
    return np.stack([cv2.resize(m, shape[::-1], interpolation=nearest) for m in regions])
