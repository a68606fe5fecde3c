"""The tag classifier and its class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.transforms import (
    Augmentation,
    crop_size,
    factor_to,
    resize_batch,
    resized_shape,
)
from tagseg.data.working import WorkingPhotos
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.classifier import tag_scores, train_tag_classifier
from tagseg.maps import ScoreMap
from tagseg.nets.gap import GapClassifier
from tagseg.run.workspace import Stage
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run, Split
from tagseg.stages.labels import each_batch
from tagseg.stages.schedules import classifier_schedule
from tagseg.stages.shapes import some_shapes
from tagseg.stages.trained import trained
from tagseg.training import Schedule

__all__ = [
    "LocationMaps",
    "classifier_scores",
    "location_maps",
    "tag_classifier",
    "trained_classifier",
]

LocationMaps = Callable[[int], ScoreMap]


def tag_classifier(
    run: Run, config: TrainingConfig, *, schedule: Schedule | None = None
) -> tuple[GapClassifier, Stage]:
    """The localization network, trained on tags (Saleh et al. 3.1.2 and 4.2.2).

    ``schedule`` takes the place of the paper's.
    """
    photos = run.photos
    if schedule is None:
        schedule = classifier_schedule(config, run.setup, len(photos))
    width = _classifier_width(run, config)
    torch.manual_seed(run.setup.execution.seed)
    net = GapClassifier(
        run.setup.build_backbone(config),
        len(photos.classes),
        hidden=width,
        hidden_layers=config.classifier_hidden_layers,
    )
    form = {
        "output_stride": run.setup.output_stride(config),
        "hidden_layers": config.classifier_hidden_layers,
        "width": width,
    }
    how = _classifier_input(photos, config)
    return trained_classifier(run, config, net, form, how, schedule)


def trained_classifier(
    run: Run,
    config: TrainingConfig,
    net: GapClassifier,
    form: Mapping[str, Any],
    how: Augmentation,
    schedule: Schedule,
    *,
    name: str = "classifier",
    title: str = "the tag classifier",
) -> tuple[GapClassifier, Stage]:
    """``net`` of ``form``, trained on the tags of samples cut as ``how`` says."""
    made_from = {
        **run.setup.settings(),
        "photo_side": config.photo_side,
        **form,
        "input": asdict(how),
    }
    fit = partial(train_tag_classifier, net, run.photos, how, schedule)
    stage = trained(
        run, name, title, net, fit, schedule, made_from, [run.photos_key], tensors="classifier"
    )
    return net.eval(), stage


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
    config: TrainingConfig,
    classifier: GapClassifier,
    after: Stage,
    *,
    split: Split = "train",
    side: int | None = None,
) -> tuple[LocationMaps, Stage]:
    """Class activation maps of the photos' known tags (Saleh et al. Eq. 1).

    Stored on the network's grid, of present classes only; read as M_c in [0, 1] at working size.
    The classifier sees photos of the longer side ``side``, or at working size.
    """
    photos, key, prefix = run.part(split)
    flip, scales = config.cam_flip, config.cam_scales
    # The classifier's key tells the training photos, and no others.
    inputs: list[Stage | str] = [after] if split == "train" else [after, key]
    made_from = {"flip": flip, "scales": list(scales), "side": side}
    with run.stage(f"{prefix}location-maps", made_from, inputs) as stage:
        if stage.pending:
            store = stage.maps("class-maps")

            def compute(images: torch.Tensor, indices: list[int]) -> None:
                images = resize_batch(images, factor_to(side, images.shape[2:]))
                maps = class_activation_maps(classifier, images, flip=flip, scales=scales)
                for index, classes in zip(indices, maps.float().cpu().numpy(), strict=True):
                    present = classes[photos.tags[index]].astype(np.float16)
                    store.put(photos.names[index], present=present)

            classifier.to(run.setup.execution.device)
            each_batch(run, photos, "class activation maps", store.missing, compute)

    def read(index: int) -> ScoreMap:
        present = stage.maps("class-maps").get(photos.names[index])["present"]
        tags = photos.tags[index]
        maps = np.zeros((len(tags), *present.shape[1:]), np.float32)
        maps[tags] = present
        shape = photos.image(index).shape[:2]
        seen = resized_shape(shape, factor_to(side, shape))
        return normalised_maps(maps, tags, shape, stride=classifier.backbone.grid_stride, seen=seen)

    return read, stage


def _classifier_input(photos: WorkingPhotos, config: TrainingConfig) -> Augmentation:
    """Photos squeezed to 224 x 224 as in the paper; smaller ones stay as they are."""
    size, shapes = config.classifier_size, some_shapes(photos)
    height, width = np.median(np.asarray(shapes), axis=0)
    if min(height, width) * 1.25 >= size:
        return Augmentation((size, size), stretch=True)
    return Augmentation(crop_size(shapes, size), scale=(0.8, 1.25), jitter=0.1)


def _classifier_width(run: Run, config: TrainingConfig) -> int:
    return config.classifier_width or (1024 if run.setup.backbone == "vgg16" else 256)
