"""The tag classifier: which classes are in a photo, learned from tags alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import Augmentation, augment_apart, factor_to, resize_batch
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, TagError
from tagseg.nets.backbone import Backbone
from tagseg.training import Batch, Execution, Loop, Schedule, train

__all__ = ["TagClassifier", "Teaching", "multi_label_loss", "tag_scores", "train_tag_classifier"]


class TagClassifier(Protocol):
    """An ``nn.Module`` that gives class scores before the sigmoid, (B, C), for RGB in [0, 1]."""

    backbone: Backbone

    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameters as the optimizer takes them, each group with its "name"."""


Net = TypeVar("Net", bound=TagClassifier)


def multi_label_loss(scores: Tensor, tags: Tensor) -> Tensor:
    """Sigmoid cross-entropy of scores (B, C) with tags (B, C): summed over classes, mean over B."""
    losses = functional.binary_cross_entropy_with_logits(
        scores.float(), tags.float(), reduction="none"
    )
    return losses.sum(1).mean()


def _believed(scores: Tensor, batch: Batch, epoch: int) -> Tensor:
    """The loss of tags that are complete."""
    return multi_label_loss(scores, batch["tags"])


@dataclass(frozen=True)
class Teaching:
    """What a tag classifier is taught of each of N photos, and how much of it is believed.

    Attributes:
        of_photos: arrays (N, ...) by name; "tags" (N, C) are bool, others are for the loss.
        loss: of scores (B, C), a batch with these arrays, and the number of the epoch, from 0.
    """

    of_photos: Mapping[str, npt.NDArray[Any]]
    loss: Callable[[Tensor, Batch, int], Tensor] = _believed

    def of(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """What is taught of a photo."""
        return {name: array[index] for name, array in self.of_photos.items()}

    def batch_loss(self, scores: Tensor, batch: Batch, n_photos: int) -> Tensor:
        """The loss of a batch of a training on ``n_photos``."""
        epoch = int(batch["iteration"]) * len(scores) // n_photos
        return self.loss(scores, batch, epoch)


def train_tag_classifier(
    net: Net,
    photos: WorkingPhotos,
    how: Augmentation,
    schedule: Schedule,
    *,
    train_backbone: bool = True,
    batch_scale: tuple[float, float] | None = None,
    teaching: Teaching | None = None,
    loop: Loop,
) -> Net:
    """Train a network on tags, in place (Saleh et al. 3.1.2, 4.2.2; Shimoda & Yanai 3.2, 4.2).

    Photos whose tags are not known are left out.

    Args:
        net: the classifier.
        photos: with their tags.
        how: samples are cut from photos so.
        schedule: how long and how fast.
        train_backbone: False trains the layers above the backbone only, the first of Shimoda &
            Yanai's two phases; the backbone then computes as in evaluation.
        batch_scale: range of a factor on the size of samples, drawn once per mini-batch (Shimoda &
            Yanai: 0.7 to 1.4).
        teaching: what of the photos; None for their tags, all of which are believed.
        loop: as in :func:`tagseg.training.train`.

    Raises:
        TagError: no photo has known tags.
        ConfigError: ``batch_scale`` is no range of positive factors.
    """
    known = np.flatnonzero(photos.dataset.known)
    if known.size == 0:
        raise TagError("no photo has known tags", do="tag some photos, or use --untagged negative")
    if batch_scale is not None and not 0 < batch_scale[0] <= batch_scale[1] < float("inf"):
        raise ConfigError(f"batch_scale is {batch_scale}", do="give two factors, the smaller first")

    taught = teaching if teaching is not None else Teaching({"tags": photos.tags})
    apart = loop.execution.apart

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i])
        image, _, colour = augment_apart(photos.image(index), [], how, rng, apart=apart)
        return {"image": image.transpose(2, 0, 1), **taught.of(index), **colour}

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        if not train_backbone:
            net.backbone.eval()
        x = batch["image"].float() / 255
        if batch_scale is not None:
            x = resize_batch(x, _drawn(batch_scale))
        return taught.batch_loss(module(x), batch, len(known))

    with nullcontext() if train_backbone else _frozen(net.backbone):
        train(
            cast(nn.Module, net),
            loss,
            sample,
            len(known),
            schedule,
            groups=net.parameter_groups(),
            loop=loop,
        )
    return net


@torch.no_grad()
def tag_scores(
    net: nn.Module,
    photos: WorkingPhotos,
    *,
    execution: Execution,
    scales: Sequence[float] = (1.0,),
    side: int | None = None,
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda n: None,
) -> npt.NDArray[np.float32]:
    """Probability of each class in each photo, (N, C).

    Args:
        net: gives class scores before the sigmoid, (B, C), for RGB in [0, 1].
        photos: to classify.
        execution: device and precision.
        scales: factors on the photos' size; a class has its largest score over them.
        side: longer side, in pixels, to which photos are brought before that; None for none.
        batch_size: photos at once.
        advance: called with the number of photos done.

    Raises:
        ConfigError: there is no scale, or one is not positive.
    """
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ConfigError(f"scales are {tuple(scales)}", do="give positive factors")
    net.to(execution.device).eval()
    scores = np.zeros((len(photos), len(photos.classes)), np.float32)
    low = execution.precision != torch.float32
    for indices, images in photos.batches(batch_size):
        x = torch.from_numpy(images).to(execution.device).permute(0, 3, 1, 2).float() / 255
        x = resize_batch(x, factor_to(side, x.shape[2:]))
        with torch.autocast(execution.device.type, execution.precision, enabled=low):
            logits = torch.stack([net(resize_batch(x, scale)) for scale in scales]).amax(0)
        scores[indices] = torch.sigmoid(logits.float()).cpu().numpy()
        advance(len(indices))
    return scores


def _drawn(scale: tuple[float, float]) -> float:
    """A factor from torch's generator on the CPU, which ``train`` seeds for each iteration."""
    low, high = scale
    return low + (high - low) * float(torch.rand(()))


@contextmanager
def _frozen(backbone: nn.Module) -> Iterator[None]:
    """Without gradients for the backbone's parameters, which nothing then flows through or moves.

    Those of an earlier training go too: they would count when gradients are clipped.
    """
    backbone.zero_grad(set_to_none=True)
    before = [(parameter, parameter.requires_grad) for parameter in backbone.parameters()]
    backbone.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
