"""The tag classifier: which classes are in a photo, learned from tags alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import Augmentation, augment
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.nets.gap import GapClassifier
from tagseg.training import Batch, Execution, Schedule, train

__all__ = ["multi_label_loss", "tag_scores", "train_tag_classifier"]


def multi_label_loss(scores: Tensor, tags: Tensor) -> Tensor:
    """Sigmoid cross-entropy of scores (B, C) with tags (B, C): summed over classes, mean over B."""
    losses = functional.binary_cross_entropy_with_logits(
        scores.float(), tags.float(), reduction="none"
    )
    return losses.sum(1).mean()


def train_tag_classifier(
    net: GapClassifier,
    photos: WorkingPhotos,
    how: Augmentation,
    schedule: Schedule,
    *,
    execution: Execution,
    frozen_batch_norm: bool = False,
    **hooks: Any,
) -> GapClassifier:
    """Train the localization network on tags (Saleh et al. 3.1.2, 4.2.2), in place.

    Photos whose tags are not known are left out. ``hooks`` are the checkpoint, log and ticks of
    :func:`tagseg.training.train`.

    Raises:
        TagError: no photo has known tags.
    """
    known = np.flatnonzero(photos.dataset.known)
    if known.size == 0:
        raise TagError("no photo has known tags", do="tag some photos, or use --untagged negative")

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i])
        image, _ = augment(photos.image(index), [], how, rng)
        return {"image": image.transpose(2, 0, 1), "tags": photos.tags[index]}

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return multi_label_loss(module(batch["image"].float() / 255), batch["tags"])

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


@torch.no_grad()
def tag_scores(
    net: GapClassifier,
    photos: WorkingPhotos,
    *,
    execution: Execution,
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda n: None,
) -> npt.NDArray[np.float32]:
    """Probability of each class in each photo, (N, C)."""
    net.to(execution.device).eval()
    scores = np.zeros((len(photos), len(photos.classes)), np.float32)
    low = execution.precision != torch.float32
    for indices, images in photos.batches(batch_size):
        x = torch.from_numpy(images).to(execution.device).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(execution.device.type, execution.precision, enabled=low):
            logits = net(x)
        scores[indices] = torch.sigmoid(logits.float()).cpu().numpy()
        advance(len(indices))
    return scores
