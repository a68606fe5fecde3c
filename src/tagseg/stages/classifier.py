"""The tag classifier, trained on tags alone, and its class activation maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagseg.data.transforms import Augmentation, crop_size
from tagseg.data.working import WorkingPhotos
from tagseg.localize.cam import ClassMapper, class_activation_maps
from tagseg.localize.classifier import tag_scores, train_tag_classifier
from tagseg.localize.layer_cam import LayerCam
from tagseg.nets.backbone import FeatureBlock
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.stages.context import Plain, Run, Split
from tagseg.stages.schedules import classifier_schedule
from tagseg.stages.score_maps import grid_score_maps
from tagseg.stages.settings import CamSettings, GapSettings, TagLossSettings
from tagseg.stages.shapes import Seen, some_shapes
from tagseg.stages.stage import Declared, ScoreMaps, Trained, trained
from tagseg.stages.tag_teaching import TaughtTags, taught_tags
from tagseg.training import Schedule

__all__ = [
    "ACTIVATIONS",
    "LAYER_CAM",
    "ClassMaps",
    "classifier_on_tags",
    "classifier_scores",
    "location_maps",
    "tag_classifier",
]

_CLASSIFIER = Declared("classifier", weights="classifier")

Net = TypeVar("Net", GapClassifier, FullyConvolutionalClassifier)


@dataclass(frozen=True)
class ClassMaps:
    """Maps that a trained classifier is asked for.

    Attributes:
        declared: the stage that keeps them.
        title: of its progress bar, and in reports.
        of: makes what gives class maps of photos from the classifier and their tags (B, C).
        stride: of the classifier's maps, pixels a position; None for edges to edges.
    """

    declared: Declared
    title: str
    of: Callable[[Any, Tensor], ClassMapper]
    stride: Callable[[Any], int | None] = lambda classifier: classifier.backbone.grid_stride


ACTIVATIONS = ClassMaps(
    Declared("location-maps"), "class activation maps", lambda classifier, tags: classifier
)


def _earlier(classifier: GapClassifier | TopPoolClassifier) -> FeatureBlock:
    """The block under the last: at most as coarse, and what it sees of the photo is smaller."""
    return classifier.backbone.feature_blocks()[-2]


def _layer_cam(classifier: GapClassifier | TopPoolClassifier, tags: Tensor) -> ClassMapper:
    return LayerCam(classifier, f"backbone.{_earlier(classifier).layers[-1]}").of(tags)


def _earlier_stride(classifier: GapClassifier | TopPoolClassifier) -> int | None:
    return None if classifier.backbone.grid_stride is None else _earlier(classifier).stride


LAYER_CAM = ClassMaps(Declared("layer-cam-maps"), "LayerCAM", _layer_cam, _earlier_stride)


def tag_classifier(
    run: Run, settings: GapSettings, *, schedule: Schedule | None = None
) -> Trained[GapClassifier]:
    """The localization network, trained on tags (Saleh et al. 3.1.2 and 4.2.2).

    ``schedule`` takes the place of the paper's.
    """
    photos, setup = run.photos, run.setup
    if schedule is None:
        schedule = classifier_schedule(settings, setup, len(photos))
    torch.manual_seed(setup.execution.seed)
    stride = settings.classifier_stride
    form = (_Form if stride is None else _UndilatedForm)(
        stride or setup.output_stride(settings),
        settings.classifier_width or (1024 if setup.backbone == "vgg16" else 256),
        settings.classifier_hidden_layers,
    )
    dilated = None if stride is None else False
    net = GapClassifier(
        setup.build_backbone(settings, output_stride=form.output_stride, dilated=dilated),
        len(photos.classes),
        hidden=form.classifier_width,
        hidden_layers=form.classifier_hidden_layers,
    )
    return classifier_on_tags(
        run, settings, net, _classifier_input(photos, settings), schedule, form=form
    )


def classifier_on_tags(
    run: Run,
    settings: TagLossSettings,
    net: Net,
    how: Augmentation,
    schedule: Schedule,
    *,
    form: Plain,
) -> Trained[Net]:
    """``net``, trained on the photos' tags; ``form`` says what it is, for the stage's key."""
    taught: TaughtTags = taught_tags(run, settings)
    fit = partial(train_tag_classifier, net, run.photos, how, schedule, teaching=taught.teaching)
    classifier = trained(
        run,
        _CLASSIFIER,
        net,
        fit,
        schedule,
        settings=[form, how, *taught.decided_by],
        inputs=taught.inputs,
        title="the tag classifier",
    )
    classifier.model.eval()
    return classifier


@dataclass(frozen=True)
class _Form(Plain):
    """The classifier as it is built: what the settings come to."""

    output_stride: int
    classifier_width: int
    classifier_hidden_layers: int


@dataclass(frozen=True)
class _UndilatedForm(_Form):
    """The same on a backbone in its own geometry."""

    dilated: bool = False


def classifier_scores(
    run: Run, classifier: nn.Module, photos: WorkingPhotos, *, side: int | None = None
) -> npt.NDArray[np.float32]:
    """Probability of each class in each photo (N, C), seen at the longer side ``side``."""
    with run.task("classifying", len(photos)) as ticks:
        return tag_scores(
            classifier,
            photos,
            execution=run.setup.execution,
            side=side,
            advance=ticks.advance,
        )


def location_maps(
    run: Run,
    settings: CamSettings,
    classifier: Trained[GapClassifier] | Trained[TopPoolClassifier],
    *,
    kind: ClassMaps = ACTIVATIONS,
    split: Split = "train",
    side: int | None = None,
) -> ScoreMaps:
    """Class activation maps of the photos' known tags (Saleh et al. Eq. 1), or others of ``kind``.

    Read as M_c in [0, 1] at working size. The classifier sees photos of the longer side ``side``,
    or at working size.
    """
    net, settings = classifier.model, settings.only(CamSettings)

    def score(x: Tensor, tags: Tensor) -> Tensor:
        maps = kind.of(net.to(x.device), tags)
        return class_activation_maps(maps, x, flip=settings.cam_flip, scales=settings.cam_scales)

    return grid_score_maps(
        run,
        replace(kind.declared, title=kind.title),
        score,
        settings=[settings, Seen(side)],
        inputs=[classifier],
        split=split,
        stride=kind.stride(net),
        side=side,
    )


def _classifier_input(photos: WorkingPhotos, settings: GapSettings) -> Augmentation:
    """Photos squeezed to 224 x 224 as in the paper; smaller ones stay as they are."""
    size, shapes = settings.classifier_size, some_shapes(photos)
    height, width = np.median(np.asarray(shapes), axis=0)
    if min(height, width) * 1.25 >= size:
        return Augmentation((size, size), stretch=True)
    return Augmentation(crop_size(shapes, size), scale=(0.8, 1.25), jitter=0.1)
