"""Localizers by name: which class is where in a photo.

A new one is a class with ``score_maps(images, tags)`` and one call of :func:`register_localizer`
beside it; the setting ``localizer`` then takes its name. It needs no training and no stage of its
own: :func:`localized` keeps its maps. Those of a trained classifier are a :class:`_OfClassifier`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tagseg.errors import ConfigError, choose_from
from tagseg.localize.attention_rollout import AttentionRelevance
from tagseg.localize.cam import ClassMapper
from tagseg.localize.grad_cam import GradCam
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.gap import GapClassifier
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import (
    ACTIVATIONS,
    LAYER_CAM,
    ClassMaps,
    location_maps,
    tag_classifier,
)
from tagseg.stages.context import Plain, Run, Split
from tagseg.stages.outcome import TagScores
from tagseg.stages.predictions import classifier_outcome
from tagseg.stages.score_maps import grid_score_maps
from tagseg.stages.settings import LocalizerSettings, Settings
from tagseg.stages.stage import Declared, ScoreMaps

__all__ = ["Localized", "Localizer", "check_localizer", "localized", "register_localizer"]

_SCORE_MAPS = Declared("score-maps")


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


@dataclass(frozen=True)
class _OfClassifier:
    """Maps of a classifier that learns the tags.

    Attributes:
        id, short: of the maps, in reports.
        kind: how they are had from it.
        of_transformers: whether the classifier must stand on one.
    """

    id: str
    short: str
    kind: ClassMaps
    of_transformers: bool = False

    def check(self, backbone: str) -> None:
        if self.of_transformers and not backbone_kind(backbone).has_attentions:
            raise ConfigError(
                f"localizer {self.id} reads attentions, and the backbone {backbone} has none",
                do="use a transformer, --backbone hf:FOLDER, or localizer=grad_cam",
            )

    def __call__(self, run: Run, settings: LocalizerSettings) -> Localized:
        classifier = tag_classifier(run, settings)
        return Localized(
            self.id,
            self.short,
            self.kind.title,
            lambda split: location_maps(run, settings, classifier, kind=self.kind, split=split),
            (classifier.stage,),
            classifier_outcome(run, classifier.model),
        )


def _grad_cam(classifier: GapClassifier, tags: Tensor) -> ClassMapper:
    """Of what the backbone gives; on a transformer of the last block's patches, before its norm.

    At the classifier's own last layer it would be its class activation maps.
    """
    layer, backbone = "backbone", classifier.backbone
    if backbone.has_attentions:
        layer += f".{backbone.feature_blocks()[-1].layers[-1]}"
    return GradCam(classifier, layer).of(tags)


def _rollout(classifier: GapClassifier, tags: Tensor) -> ClassMapper:
    return AttentionRelevance(classifier).of(tags)


@dataclass(frozen=True)
class _Untrained:
    """Maps of a :class:`Localizer`, kept on its own grid."""

    name: str
    make: Callable[[Run], Localizer]

    def check(self, backbone: str) -> None:
        """It has no backbone."""

    def __call__(self, run: Run, settings: LocalizerSettings) -> Localized:
        localizer, arithmetic = self.make(run), _Arithmetic(run.setup.means().precision)

        def maps_of(split: Split) -> ScoreMaps:
            return grid_score_maps(
                run,
                _SCORE_MAPS,
                localizer.score_maps,
                settings=[arithmetic],
                inputs=[localizer.key],
                split=split,
            )

        return Localized(self.name, self.name, f"score maps of {self.name}", maps_of)


_LOCALIZERS: dict[str, _OfClassifier | _Untrained] = {
    made.id: made
    for made in (
        _OfClassifier("cam", "CAM", ACTIVATIONS),
        _OfClassifier(
            "grad_cam", "Grad-CAM", ClassMaps(Declared("grad-cam-maps"), "Grad-CAM", _grad_cam)
        ),
        _OfClassifier("layer_cam", "LayerCAM", LAYER_CAM),
        _OfClassifier(
            "rollout",
            "rollout",
            ClassMaps(Declared("rollout-maps"), "attention rollout by class", _rollout),
            of_transformers=True,
        ),
    )
}


def register_localizer(name: str, make: Callable[[Run], Localizer]) -> None:
    """Let the setting ``localizer`` take ``name``; ``make`` is called once a run.

    Raises:
        ConfigError: the name is another's.
    """
    localizer = _Untrained(name, make)
    if _LOCALIZERS.get(name, localizer) != localizer:
        raise ConfigError(f"there is a localizer {name!r} already", do="choose another name")
    _LOCALIZERS[name] = localizer


def localized(run: Run, settings: LocalizerSettings) -> Localized:
    """Score maps by the localizer that is configured.

    "cam", "grad_cam", "layer_cam" and "rollout" train a classifier on the tags.

    Raises:
        ConfigError: there is no localizer of that name, or it cannot be had on the backbone.
    """
    check_localizer(settings, run.setup.backbone)
    return _LOCALIZERS[settings.localizer](run, settings)


def check_localizer(settings: Settings, backbone: str | None = None) -> None:
    """Raise ConfigError if there is no localizer of the name that is configured.

    Or if it cannot be had on ``backbone``, where that is given.
    """
    if not isinstance(settings, LocalizerSettings):
        return
    name = settings.localizer
    if name not in _LOCALIZERS:
        raise ConfigError(f"there is no localizer {name!r}", do=choose_from(_LOCALIZERS, name))
    if backbone is not None:
        _LOCALIZERS[name].check(backbone)


@dataclass(frozen=True)
class _Arithmetic(Plain):
    """What networks compute in."""

    precision: str
