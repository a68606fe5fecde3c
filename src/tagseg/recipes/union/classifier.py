"""The classifier of ``union``: trained on tags with regions hidden, to localize and to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagseg.data.transforms import crop_size
from tagseg.localize.classifier import Teaching
from tagseg.localize.hiding import hidden_cells
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.config import ClassifierSettings
from tagseg.segment.crops import CropForm, random_crop
from tagseg.stages.classifier import ClassMaps
from tagseg.stages.context import Run
from tagseg.stages.schedules import schedule_by_root
from tagseg.stages.shapes import some_shapes
from tagseg.stages.stage import Declared, Plain, Trained, trained
from tagseg.stages.tag_teaching import taught_tags
from tagseg.training import Batch, Loop, Schedule, train

__all__ = ["MAPS", "hiding_classifier", "least_side", "seen_side"]

_CLASSIFIER = Declared("hiding-classifier", weights="classifier")
MAPS = ClassMaps(
    Declared("evidence-of-tags"), "where tags are seen", lambda classifier, tags: classifier
)

_POSITIONS = 20  # of the grid along the longer side, at least
_MOST = 1024  # pixels


@dataclass(frozen=True)
class _Form(Plain):
    """The classifier as it is built."""

    output_stride: int
    classifier_top: float
    classifier_hidden: float


def least_side(backbone: str, output_stride: int) -> int:
    """The longer side under which no photo is seen, pixels: for 20 positions, and pre-training."""
    return min(_MOST, max(_POSITIONS * output_stride, backbone_kind(backbone).native_side))


def seen_side(run: Run, settings: ClassifierSettings) -> int:
    """The longer side at which the classifier sees photos, pixels.

    The photos' own, but so that its grid has 20 positions along it: on fewer, a thing of a tenth of
    the photo is two positions. Not under what its backbone was trained on, nor over 1,024.
    """
    if settings.classifier_side is not None:
        return settings.classifier_side
    longer = float(np.median(np.max(np.asarray(some_shapes(run.photos)), axis=1)))
    least = least_side(run.setup.backbone, run.setup.output_stride(settings))
    return int(min(_MOST, max(longer, least)))


def hiding_classifier(run: Run, settings: ClassifierSettings) -> Trained[TopPoolClassifier]:
    """Train it on crops of the photos with known tags, in half of which regions are hidden."""
    photos, setup = run.photos, run.setup
    torch.manual_seed(setup.execution.seed)
    backbone = setup.build_backbone(settings, output_stride=run.setup.output_stride(settings))
    net = TopPoolClassifier(backbone, len(photos.classes), fraction=settings.classifier_top)
    known = np.flatnonzero(photos.dataset.known)
    form = _crops(run, settings)
    schedule = _schedule(settings, form.size, len(known), len(photos.classes))
    taught, hidden = taught_tags(run, settings), settings.classifier_hidden
    result = trained(
        run,
        _CLASSIFIER,
        net,
        partial(_fit, run, net, known, form, hidden, schedule, taught.teaching),
        schedule,
        settings=[
            _Form(backbone.output_stride, settings.classifier_top, hidden),
            form,
            *taught.decided_by,
        ],
        inputs=taught.inputs,
        title="the classifier, with regions hidden",
    )
    result.model.eval()
    return result


def _crops(run: Run, settings: ClassifierSettings) -> CropForm:
    """Crops of photos as they are seen; large, as tags of what a crop cuts off stay."""
    shapes = np.asarray(some_shapes(run.photos))
    zoom = seen_side(run, settings) / float(np.median(shapes.max(1)))
    seen = [(round(height * zoom), round(width * zoom)) for height, width in shapes.tolist()]
    size = crop_size(seen, settings.classifier_crop, multiple=32)
    return CropForm(size, round(zoom, 3), settings.classifier_scale, 0.0)


def _schedule(
    settings: ClassifierSettings, crop: tuple[int, int], n_photos: int, n_classes: int
) -> Schedule:
    return schedule_by_root(
        settings.classifier_iterations,
        settings.classifier_batch_size or _batch_of(crop),
        settings.classifier_learning_rate,
        n_photos,
        n_classes,
        weight_decay=1e-2,
        averaging=0.99,
        multipliers={"backbone": settings.backbone_rate(settings.classifier_backbone_factor)},
    )


def _batch_of(crop: tuple[int, int]) -> int:
    """As many crops as hold the pixels of 8 of 256 x 256, but 4 at least and 8 at most."""
    return min(8, max(4, round(8 * 256**2 / (crop[0] * crop[1]))))


def _fit(
    run: Run,
    net: TopPoolClassifier,
    known: npt.NDArray[np.intp],
    form: CropForm,
    hidden: float,
    schedule: Schedule,
    teaching: Teaching,
    *,
    loop: Loop,
) -> None:
    photos, colour = run.photos, net.backbone.preprocessing.mean_colour

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        index = int(known[i % len(known)])
        crop = hidden_cells(random_crop(photos.image(index), form, rng), hidden, colour, rng)
        return {
            "image": np.ascontiguousarray(crop.transpose(2, 0, 1)),
            **teaching.of(index),
        }

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        scores = module(batch["image"].float() / 255)
        return teaching.batch_loss(scores, batch, len(known))

    train(net, loss, sample, len(known), schedule, groups=net.parameter_groups(), loop=loop)
