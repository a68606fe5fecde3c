"""The classifier of ``union``: trained on tags with regions hidden, to localize and to judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagseg.data.transforms import crop_size
from tagseg.localize.cam import class_activation_maps
from tagseg.localize.classifier import multi_label_loss
from tagseg.localize.hiding import hidden_cells
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.config import ClassifierSettings, EvidenceSettings
from tagseg.segment.crops import CropForm, random_crop
from tagseg.stages.context import Run, Split
from tagseg.stages.score_maps import grid_score_maps
from tagseg.stages.shapes import Seen, some_shapes
from tagseg.stages.stage import Declared, Plain, ScoreMaps, Trained, trained
from tagseg.training import Batch, Loop, Schedule, train

__all__ = ["hiding_classifier", "localized", "seen_side"]

_CLASSIFIER = Declared("hiding-classifier", weights="classifier")
_MAPS = Declared("evidence-of-tags")

_POSITIONS = 20  # of the grid along the longer side, at least
_MOST = 1024  # pixels
_FEWEST, _PER_ROOT = 300, 4.0  # iterations


@dataclass(frozen=True)
class _Form(Plain):
    """The classifier as it is built."""

    output_stride: int
    classifier_top: float
    classifier_hidden: float


def seen_side(run: Run, settings: ClassifierSettings) -> int:
    """The longer side at which the classifier sees photos, pixels.

    The photos' own, but so that its grid has 20 positions along it: on fewer, a thing of a tenth of
    the photo is two positions. Not under what its backbone was trained on, nor over 1,024.
    """
    if settings.classifier_side is not None:
        return settings.classifier_side
    longer = float(np.median(np.max(np.asarray(some_shapes(run.photos)), axis=1)))
    least = max(_POSITIONS * _stride(run, settings), backbone_kind(run.setup.backbone).native_side)
    return int(min(_MOST, max(longer, least)))


def hiding_classifier(run: Run, settings: ClassifierSettings) -> Trained[TopPoolClassifier]:
    """Train it on crops of the photos with known tags, in half of which regions are hidden."""
    photos, setup = run.photos, run.setup
    torch.manual_seed(setup.execution.seed)
    backbone = setup.build_backbone(settings, output_stride=_stride(run, settings))
    net = TopPoolClassifier(backbone, len(photos.classes), fraction=settings.classifier_top)
    known = np.flatnonzero(photos.dataset.known)
    form, schedule = _crops(run, settings), _schedule(settings, len(known), len(photos.classes))
    result = trained(
        run,
        _CLASSIFIER,
        net,
        partial(_fit, run, net, known, form, settings.classifier_hidden, schedule),
        schedule,
        settings=[
            _Form(backbone.output_stride, settings.classifier_top, settings.classifier_hidden),
            form,
        ],
        title="the classifier, with regions hidden",
    )
    result.model.eval()
    return result


def localized(
    run: Run,
    settings: EvidenceSettings,
    classifier: Trained[TopPoolClassifier],
    side: int,
    *,
    split: Split = "train",
) -> ScoreMaps:
    """Where the classifier sees each known tag, averaged over sizes, in [0, 1]."""
    net, views = classifier.model, settings.only(EvidenceSettings)

    def score(x: Tensor, tags: Tensor) -> Tensor:
        mapper = net.to(x.device).eval()
        return class_activation_maps(mapper, x, flip=views.cam_flip, scales=views.cam_scales)

    return grid_score_maps(
        run,
        _MAPS,
        score,
        settings=[_Views(views.cam_flip, views.cam_scales), Seen(side)],
        inputs=[classifier],
        split=split,
        stride=net.backbone.grid_stride,
        side=side,
        title="where tags are seen",
    )


@dataclass(frozen=True)
class _Views(Plain):
    """How the classifier looks at photos."""

    cam_flip: bool
    cam_scales: tuple[float, ...]


def _stride(run: Run, settings: ClassifierSettings) -> int:
    return settings.output_stride or backbone_kind(run.setup.backbone).usual_stride


def _crops(run: Run, settings: ClassifierSettings) -> CropForm:
    """Crops of photos as they are seen; large, as tags of what a crop cuts off stay."""
    shapes = np.asarray(some_shapes(run.photos))
    zoom = seen_side(run, settings) / float(np.median(shapes.max(1)))
    seen = [(round(height * zoom), round(width * zoom)) for height, width in shapes.tolist()]
    size = crop_size(seen, settings.classifier_crop, multiple=32)
    return CropForm(size, round(zoom, 3), settings.classifier_scale, 0.0)


def _schedule(settings: ClassifierSettings, n_photos: int, n_classes: int) -> Schedule:
    usual = max(_FEWEST, round(_PER_ROOT * math.sqrt(n_photos * (n_classes + 1))))
    return Schedule(
        settings.classifier_iterations or usual,
        settings.classifier_batch_size,
        settings.classifier_learning_rate,
        optimizer="adamw",
        policy="poly",
        weight_decay=1e-2,
        warmup=20,
        clip=5.0,
        averaging=0.99,
        multipliers={"backbone": settings.backbone_rate(settings.classifier_backbone_factor)},
    )


def _fit(
    run: Run,
    net: TopPoolClassifier,
    known: npt.NDArray[np.intp],
    form: CropForm,
    hidden: float,
    schedule: Schedule,
    *,
    loop: Loop,
) -> None:
    photos, colour = run.photos, net.backbone.preprocessing.mean_colour

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i % len(known)])
        crop = hidden_cells(random_crop(photos.image(index), form, rng), hidden, colour, rng)
        return {
            "image": np.ascontiguousarray(crop.transpose(2, 0, 1)),
            "tags": photos.tags[index],
        }

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return multi_label_loss(module(batch["image"].float() / 255), batch["tags"])

    train(net, loss, sample, len(known), schedule, groups=net.parameter_groups(), loop=loop)
