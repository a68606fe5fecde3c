"""Localizers by name: which class is where in a photo.

A new one is a class with ``score_maps(images, tags)`` and one call of :func:`register_localizer`
beside it; the setting ``localizer`` then takes its name. It needs no training and no stage of its
own: :func:`localized` keeps its maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tagseg.errors import ConfigError, choose_from
from tagseg.localize.cam import normalised_maps
from tagseg.maps import ScoreMap
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import location_maps, tag_classifier
from tagseg.stages.context import Plain, Run, Split
from tagseg.stages.outcome import TagScores
from tagseg.stages.predictions import classifier_outcome
from tagseg.stages.settings import LocalizerSettings, Settings
from tagseg.stages.stage import Declared, Images, ScoreMaps, network_input, per_batch

__all__ = ["Localized", "Localizer", "check_localizer", "localized", "register_localizer"]

_SCORE_MAPS = Declared("score-maps")
_CAM = "cam"


class Localizer(Protocol):
    """What says where each class is.

    Attributes:
        key: hash of its weights and numbers: of all that decides on its answers.
    """

    key: str

    def score_maps(self, images: Tensor, tags: Tensor) -> Tensor:
        """Scores (B, C, h', w') of photos (B, 3, h, w) in [0, 1] with tags (B, C), on any grid."""


@dataclass(frozen=True)
class Localized:
    """Score maps of the known tags, and what there is to show of them.

    Attributes:
        id, short, title: of the maps, in reports.
        maps_of: maps (C, h, w) of a split's photos, each class's between 0 and 1.
        curves: what logged a training.
        tag_scores: of the validation photos, if the localizer classifies.
    """

    id: str
    short: str
    title: str
    maps_of: Callable[[Split], ScoreMaps]
    curves: tuple[Stage, ...] = ()
    tag_scores: TagScores | None = None


_LOCALIZERS: dict[str, Callable[[Run], Localizer]] = {}


def register_localizer(name: str, make: Callable[[Run], Localizer]) -> None:
    """Let the setting ``localizer`` take ``name``; ``make`` is called once a run.

    Raises:
        ConfigError: the name is another's.
    """
    if name == _CAM or _LOCALIZERS.get(name, make) != make:
        raise ConfigError(f"there is a localizer {name!r} already", do="choose another name")
    _LOCALIZERS[name] = make


def localized(run: Run, settings: LocalizerSettings) -> Localized:
    """Score maps by the localizer that is configured; "cam" trains a classifier on the tags.

    Raises:
        ConfigError: there is no localizer of that name.
    """
    name = settings.localizer
    check_localizer(settings)
    if name == _CAM:
        return _by_activations(run, settings)
    localizer = _LOCALIZERS[name](run)
    return Localized(name, name, f"score maps of {name}", partial(_kept, run, localizer))


def check_localizer(settings: Settings) -> None:
    """Raise ConfigError if there is no localizer of the name that is configured."""
    known = [_CAM, *_LOCALIZERS]
    if isinstance(settings, LocalizerSettings) and settings.localizer not in known:
        name = settings.localizer
        raise ConfigError(f"there is no localizer {name!r}", do=choose_from(known, name))


@dataclass(frozen=True)
class _Arithmetic(Plain):
    """What networks compute in."""

    precision: str


def _by_activations(run: Run, settings: LocalizerSettings) -> Localized:
    classifier = tag_classifier(run, settings)

    def maps_of(split: Split) -> ScoreMaps:
        return location_maps(run, settings, classifier, split=split)

    return Localized(
        _CAM,
        "CAM",
        "class activation maps",
        maps_of,
        (classifier.stage,),
        classifier_outcome(run, classifier.model),
    )


def _kept(run: Run, localizer: Localizer, split: Split) -> ScoreMaps:
    """Its maps, kept on its own grid, of present classes only; read as those of CAM are."""
    photos, execution = run.part(split).photos, run.setup.execution

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, Any]]:
        tags = torch.from_numpy(photos.tags[indices])
        with network_input(execution, images) as x:
            maps = localizer.score_maps(x, tags.to(x.device))
        for index, classes in zip(indices, maps.float().cpu().numpy(), strict=True):
            yield {"class-maps": {"present": classes[photos.tags[index]].astype(np.float16)}}

    stage = per_batch(
        run,
        _SCORE_MAPS,
        ["class-maps"],
        make,
        settings=[_Arithmetic(run.setup.means().precision)],
        inputs=[localizer.key],
        split=split,
    )

    def read(index: int) -> ScoreMap:
        present = stage.maps("class-maps").get(photos.names[index])["present"]
        tags = photos.tags[index]
        maps = np.zeros((len(tags), *present.shape[1:]), np.float32)
        maps[tags] = present
        return normalised_maps(maps, tags, photos.image(index).shape[:2], stride=None)

    return ScoreMaps(stage, read)
