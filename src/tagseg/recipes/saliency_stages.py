"""The stages of gradient-based class saliency: classifier, maps, and the masks made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tagseg.data.transforms import Augmentation
from tagseg.localize.classifier import train_tag_classifier
from tagseg.maps import Image, ScoreMap, Tags
from tagseg.nets.catalog import build_backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier, initialise_from_imagenet
from tagseg.recipes.base import Run, Split
from tagseg.recipes.distinct_segmenter import SeederSettings
from tagseg.recipes.schedules import two_phase_schedules
from tagseg.recipes.stages import some_shapes
from tagseg.recipes.trainings import trained
from tagseg.run.workspace import Stage
from tagseg.training import Schedule

if TYPE_CHECKING:
    from tagseg.recipes.dcsm import Config

__all__ = ["ScoreMaps", "fully_convolutional_classifier", "photo_score_maps", "seeder_settings"]

ScoreMaps = Callable[[int], ScoreMap]
Seeder = Callable[[Image, Tags | None], ScoreMap]


def square_side(run: Run, config: Config) -> int:
    """Side of the square that photos are put on: as configured, or the longest photo's."""
    if config.square is not None:
        return config.square
    return max(map(max, some_shapes(run.photos)))


def fully_convolutional_classifier(
    run: Run, config: Config
) -> tuple[FullyConvolutionalClassifier, Stage]:
    """The tag classifier with global max pooling, in two phases (Shimoda & Yanai 3.2, 4.2).

    The first phase trains the layers above the backbone; a backbone that starts from random
    weights has nothing that this could spare, and goes without.
    """
    setup, photos = run.setup, run.photos
    net = _network(run, config)
    fill = net.backbone.preprocessing.mean_colour
    side = square_side(run, config)
    how = Augmentation((side, side), jitter=0.1, letterbox=fill)
    upper, whole = two_phase_schedules(config, setup, len(photos))
    made_from = {
        **setup.settings(),
        "photo_side": config.photo_side,
        "output_stride": net.backbone.output_stride,
        "width": net.fc6.out_channels,
        "input": asdict(how),
        "batch_scale": list(config.batch_scale),
    }
    inputs: list[Stage | str] = [run.photos_key]
    if setup.weights is not None:
        inputs.append(_phase(run, config, net, "classifier-upper", made_from, upper, how, inputs))
    stage = _phase(run, config, net, "classifier", made_from, whole, how, inputs)
    # As a training leaves it, so that a run that goes on computes alike; nothing is copied then.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval(), stage


def _network(run: Run, config: Config) -> FullyConvolutionalClassifier:
    setup = run.setup
    stride = config.classifier_stride
    if stride is None:
        stride = 32 if setup.backbone == "vgg16" else setup.output_stride(config)
    torch.manual_seed(setup.execution.seed)
    backbone = build_backbone(setup.backbone, setup.weights, output_stride=stride)
    net = FullyConvolutionalClassifier(
        backbone, len(run.photos.classes), hidden=config.classifier_width
    )
    if setup.weights is not None:
        initialise_from_imagenet(net, setup.weights.state)
    return net


def _phase(
    run: Run,
    config: Config,
    net: FullyConvolutionalClassifier,
    name: str,
    made_from: dict[str, Any],
    schedule: Schedule,
    how: Augmentation,
    inputs: list[Stage | str],
) -> Stage:
    """Train ``net`` in place, or load what was trained before."""
    title = "the tag classifier" + (", upper layers" if name != "classifier" else "")
    fit = partial(
        train_tag_classifier,
        net,
        run.photos,
        how,
        schedule,
        train_backbone=name == "classifier",
        batch_scale=config.batch_scale,
    )
    return trained(run, name, title, net, fit, schedule, made_from, inputs, tensors="classifier")


def photo_score_maps(
    run: Run,
    name: str,
    seeder: Seeder,
    made_from: dict[str, Any],
    after: Stage,
    *,
    split: Split = "train",
) -> tuple[ScoreMaps, Stage]:
    """Score maps (C, h, w) of every photo at working size, of its tags where they are known."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", made_from, [key, after]) as stage:
        if stage.pending:
            store = stage.maps("score-maps")
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)
            with run.task(name.replace("-", " "), len(photos)) as ticks:
                ticks.skip(len(photos) - len(todo))
                for photo in todo:
                    index = index_of[photo]
                    tags = photos.tags[index] if photos.dataset.known[index] else None
                    scores = seeder(photos.image(index), tags)
                    present = np.asarray(scores.any((1, 2)))
                    store.put(photo, present=present, scores=scores[present].astype(np.float16))
                    ticks.advance(1)

    def read(index: int) -> ScoreMap:
        arrays = stage.maps("score-maps").get(photos.names[index])
        scores = np.zeros((len(photos.classes), *photos.image(index).shape[:2]), np.float32)
        scores[arrays["present"]] = arrays["scores"]
        return scores

    return read, stage


def seeder_settings(run: Run, config: Config) -> SeederSettings:
    """The numbers of Eq. 3 to 5, as configured."""
    side = square_side(run, config)
    return SeederSettings(config.equations(), config.blocks, config.method, side)
