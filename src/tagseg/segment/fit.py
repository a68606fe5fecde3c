"""Train a segmenter on pseudo-labels, or on tags with a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from tagseg.data.transforms import Augmentation, augment
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.maps import Labels
from tagseg.nets.deeplab import SegmentationNet
from tagseg.training import Batch, Execution, Schedule, train

__all__ = ["Objective", "fit_segmenter"]

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def fit_segmenter(
    net: SegmentationNet,
    photos: WorkingPhotos,
    targets: Callable[[int], Labels],
    objective: Objective,
    how: Augmentation,
    schedule: Schedule,
    *,
    execution: Execution,
    frozen_batch_norm: bool = False,
    **hooks: Any,
) -> SegmentationNet:
    """Train ``net`` in place.

    Args:
        targets: training labels (h, w) of photo i at working size; 255 where nothing is known.
        objective: loss of scores (B, C+1, H, W), tags (B, C) and labels (B, H, W); labels are 255
            outside the photo, too.
        hooks: checkpoint, log and ticks of :func:`tagseg.training.train`.

    Photos whose tags are not known are left out.

    Raises:
        TagError: no photo has known tags.
    """
    known = np.flatnonzero(photos.dataset.known)
    if known.size == 0:
        raise TagError("no photo has known tags", do="tag some photos, or use --untagged negative")

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i])
        image, (labels,) = augment(photos.image(index), [targets(index)], how, rng)
        return {
            "image": image.transpose(2, 0, 1),
            "labels": np.ascontiguousarray(labels),
            "tags": photos.tags[index],
        }

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        scores = module(batch["image"].float() / 255)
        return objective(scores, batch["tags"], batch["labels"])

    train(
        net,
        loss,
        sample,
        len(known),
        schedule,
        groups=net.parameter_groups(),
        frozen_batch_norm=frozen_batch_norm,
        execution=execution,
        **hooks,
    )
    return net
