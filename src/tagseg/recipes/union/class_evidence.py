"""Kinds of evidence of where classes are, all by the classifier that learned from tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch

from tagseg.data.transforms import factor_to, resized_shape
from tagseg.data.working import resized
from tagseg.localize.backprop import Method
from tagseg.localize.dcsm import DcsmSettings
from tagseg.localize.seeds import DistinctSeeder, GradientSeeder
from tagseg.maps import Image, ScoreMap, Tags
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.classifier import MAPS
from tagseg.recipes.union.config import EvidenceSettings
from tagseg.stages.classifier import LAYER_CAM, ClassMaps, location_maps
from tagseg.stages.context import Plain, Run
from tagseg.stages.score_maps import photo_score_maps
from tagseg.stages.shapes import Seen
from tagseg.stages.stage import Declared, Once, ScoreMaps, Trained

__all__ = ["class_evidence", "kinds_of"]

_GRADIENTS = Declared("gradient-evidence", title="where tags are seen, by gradients")
_DISTINCT = Declared("distinct-evidence", title="where tags are seen, by distinct maps")
_SIGMA = 10.0  # of gradients' Gaussian, pixels of a photo of 500 (Oh et al. 2017, code, for G2)
_BLOCKS = (3, 4, 5)  # of distinct maps (Shimoda and Yanai 2016, 4.4)

Classifier = Trained[TopPoolClassifier]
Seeing = Callable[[Image, Tags], ScoreMap]  # maps (C, H, W) of a photo at its size


def kinds_of(run: Run, settings: EvidenceSettings) -> tuple[str, ...]:
    """Names of the kinds that are asked for, on the run's backbone."""
    return settings.evidence_kinds(on_transformer=backbone_kind(run.setup.backbone).has_attentions)


def class_evidence(
    run: Run, settings: EvidenceSettings, classifier: Classifier, side: int
) -> dict[str, ScoreMaps]:
    """Score maps (C, h, w) of the training photos' known tags, by name of their kind.

    Args:
        side: longer side at which the classifier sees photos, pixels.
    """
    make: dict[str, Callable[[], ScoreMaps]] = {
        "cam": partial(_of_grid, run, settings, classifier, side, MAPS),
        "layer_cam": partial(_of_grid, run, settings, classifier, side, LAYER_CAM),
        "gradients": partial(_gradients, run, classifier, side),
        "dcsm": partial(_distinct, run, classifier, side),
    }
    return {name: make[name]() for name in kinds_of(run, settings)}


def _of_grid(
    run: Run, settings: EvidenceSettings, classifier: Classifier, side: int, kind: ClassMaps
) -> ScoreMaps:
    return location_maps(run, settings, classifier, kind=kind, side=side)


@dataclass(frozen=True)
class _Gradients(Plain):
    """Back-propagation to the photo's colours, and its Gaussian."""

    method: Method
    seed_sigma: float


@dataclass(frozen=True)
class _Distinct(Plain):
    """Back-propagation to the feature maps of some blocks."""

    method: Method
    blocks: tuple[int, ...]


def _method(run: Run) -> Method:
    """Guided back-propagation changes ReLUs, of which a transformer has none."""
    return "plain" if backbone_kind(run.setup.backbone).has_attentions else "guided"


def _gradients(run: Run, classifier: Classifier, side: int) -> ScoreMaps:
    """Class saliency at the photo's colours (Oh et al. 2017, 4.2)."""
    how = _Gradients(_method(run), _SIGMA)

    def seeder(net: TopPoolClassifier, precision: torch.dtype) -> Seeing:
        return GradientSeeder(net, how.method, sigma=how.seed_sigma, precision=precision)

    return _by_gradients(run, classifier, side, _GRADIENTS, seeder, [how])


def _distinct(run: Run, classifier: Classifier, side: int) -> ScoreMaps:
    """Distinct class saliency maps (Shimoda and Yanai 2016, 3.3)."""
    how, equations = _Distinct(_method(run), _BLOCKS), DcsmSettings()

    def seeder(net: TopPoolClassifier, precision: torch.dtype) -> Seeing:
        see = DistinctSeeder(
            net, equations, side=side, blocks=how.blocks, method=how.method, precision=precision
        )
        return lambda image, tags: see(image, tags).score_map

    return _by_gradients(run, classifier, side, _DISTINCT, seeder, [how, equations])


def _by_gradients(
    run: Run,
    classifier: Classifier,
    side: int,
    declared: Declared,
    seeder: Callable[[TopPoolClassifier, torch.dtype], Seeing],
    decided_by: list[object],
) -> ScoreMaps:
    """Maps of photos that are seen at the longer side ``side``, brought to working size."""
    execution = run.setup.execution

    @Once
    def see() -> Seeing:  # not for stages that are finished
        return seeder(classifier.model.eval().to(execution.device), execution.precision)

    def make(image: Image, tags: Tags | None) -> ScoreMap:
        shape = image.shape[:2]
        if tags is None or not tags.any():
            return np.zeros((len(run.photos.classes), *shape), np.float32)
        height, width = resized_shape(shape, factor_to(side, shape))
        return _at(see()(resized(image, (width, height)), tags), shape)

    return photo_score_maps(
        run, declared, make, settings=[*decided_by, Seen(side)], inputs=[classifier]
    )


def _at(scores: ScoreMap, shape: tuple[int, ...]) -> ScoreMap:
    """Maps (C, h, w) at ``shape``, by area if smaller, else bilinearly."""
    if scores.shape[1:] == shape:
        return scores
    way = cv2.INTER_AREA if shape[1] < scores.shape[2] else cv2.INTER_LINEAR
    found = np.zeros((len(scores), *shape), np.float32)
    for place in np.flatnonzero(scores.any((1, 2))):
        found[place] = cv2.resize(scores[place], shape[::-1], interpolation=way)
    return found
