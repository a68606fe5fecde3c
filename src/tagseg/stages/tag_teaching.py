"""What a run's tag classifier is taught, by which loss, and what decides on that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tagseg.localize.classifier import Teaching
from tagseg.losses.image_tags import hill_loss, rejected_share, rejection_loss, tag_cross_entropy
from tagseg.stages.context import Plain, Run
from tagseg.stages.settings import TagLossSettings
from tagseg.stages.stage import Input
from tagseg.stages.tag_doubts import absent_key, tag_doubts
from tagseg.training import Batch

__all__ = ["TaughtTags", "taught_tags"]


@dataclass(frozen=True)
class TaughtTags:
    """A teaching, and what of it stands in a stage's key: nothing where all tags are believed.

    Attributes:
        teaching: for :func:`tagseg.localize.classifier.train_tag_classifier`.
        decided_by: settings of the stage.
        inputs: what it is made from.
    """

    teaching: Teaching
    decided_by: list[object] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)


@dataclass(frozen=True)
class CrossEntropy(Plain):
    """Of what is known."""

    tag_loss: str = "bce"

    def __call__(self, scores: Tensor, batch: Batch, epoch: int) -> Tensor:
        """The loss of a batch."""
        return tag_cross_entropy(scores, batch["tags"], known=batch.get("known"))


@dataclass(frozen=True)
class Hill(Plain):
    """The Hill loss with the focal margin (Zhang et al. 2021)."""

    hill_peak: float
    hill_margin: float
    hill_gamma: float
    tag_loss: str = "hill"

    def __call__(self, scores: Tensor, batch: Batch, epoch: int) -> Tensor:
        """The loss of a batch."""
        return hill_loss(
            scores,
            batch["tags"],
            known=batch.get("known"),
            absent=batch.get("absent"),
            peak=self.hill_peak,
            margin=self.hill_margin,
            gamma=self.hill_gamma,
        )


@dataclass(frozen=True)
class Rejection(Plain):
    """Without the largest losses of what is not tagged (Kim et al. 2022); by the epoch alone."""

    rejection_rate: float
    tag_loss: str = "rejection"

    def __call__(self, scores: Tensor, batch: Batch, epoch: int) -> Tensor:
        """The loss of a batch."""
        share = rejected_share(epoch, self.rejection_rate)
        known, absent = batch.get("known"), batch.get("absent")
        return rejection_loss(scores, batch["tags"], share, known=known, absent=absent)


@dataclass(frozen=True)
class _Absent(Plain):
    """The hash of what is surely absent, where a loss asks."""

    absent: str


@dataclass(frozen=True)
class _Selected(Plain):
    """From which confidence on tags are left out."""

    missing_confidence: float


def taught_tags(run: Run, settings: TagLossSettings) -> TaughtTags:
    """What the tag classifier of a recipe is taught of the training photos.

    Pairs of photo and class of which nobody knows teach nothing. With ``tag_loss=selection`` those
    whose tag is probably missing or wrong do not either: small-loss selection, by the losses of
    probes that have not seen the photo instead of the classifier's own, which may have learned
    them by heart.
    """
    dataset, kind = run.photos.dataset, settings.chosen_loss()
    arrays: dict[str, npt.NDArray[Any]] = {"tags": dataset.tags}
    if dataset.unsure is not None:
        arrays["known"] = ~dataset.unsure
    if kind == "bce":
        return _believed(arrays)
    if kind == "selection":
        return _selected(run, settings, arrays)
    loss = _LOSSES[kind](settings)
    decided_by: list[object] = [loss]
    if dataset.absent is not None:
        arrays["absent"] = dataset.absent
        decided_by.append(_Absent(absent_key(run)))
    return TaughtTags(Teaching(arrays, loss), decided_by)


_LOSSES: Mapping[str, Callable[[TagLossSettings], Hill | Rejection]] = {
    "hill": lambda s: Hill(s.hill_peak, s.hill_margin, s.hill_gamma),
    "rejection": lambda s: Rejection(s.rejection_rate),
}


def _believed(arrays: dict[str, npt.NDArray[Any]]) -> TaughtTags:
    """Cross-entropy; what nobody knows is in the photos' own key."""
    if "known" not in arrays:
        return TaughtTags(Teaching(arrays))
    return TaughtTags(Teaching(arrays, CrossEntropy()))


def _selected(
    run: Run, settings: TagLossSettings, arrays: dict[str, npt.NDArray[Any]]
) -> TaughtTags:
    doubts, least = tag_doubts(run, settings), settings.missing_confidence
    assert doubts is not None  # tags are in doubt, or selection would have been refused
    sure = doubts.confidence < least
    arrays["known"] = arrays.get("known", np.ones_like(sure)) & sure
    loss = CrossEntropy("selection")
    return TaughtTags(Teaching(arrays, loss), [loss, _Selected(least)], [doubts])
