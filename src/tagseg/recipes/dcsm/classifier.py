"""The stages of gradient-based class saliency: classifier, maps, and the masks made of them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from tagseg.data.transforms import Augmentation
from tagseg.localize.classifier import train_tag_classifier
from tagseg.nets.catalog import build_backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier, initialise_from_imagenet
from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.config import Config as TwoPhaseConfig
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Setup
from tagseg.stages.distinct_segmenter import SeederSettings
from tagseg.stages.schedules import _short, uses_paper_schedule
from tagseg.stages.shapes import some_shapes
from tagseg.stages.trained import trained
from tagseg.training import Schedule

__all__ = ["fully_convolutional_classifier", "seeder_settings", "two_phase_schedules"]


def two_phase_schedules(
    config: TwoPhaseConfig, setup: Setup, n_photos: int
) -> tuple[Schedule, Schedule]:
    """Shimoda & Yanai 4.2 (batches of 2, rate 1e-5, 30,000 and 20,000 iterations), or short ones.

    The first is of the layers above the backbone alone.
    """
    if uses_paper_schedule(config, setup, n_photos):
        size, rate = config.classifier_batch_size or 2, config.classifier_learning_rate or 1e-5
        counts = config.upper_iterations or 30_000, config.classifier_iterations or 20_000
        upper, whole = (
            Schedule(count, size, rate, optimizer="sgd", policy="step", steps=())
            for count in counts
        )
        return upper, whole
    upper, whole = (
        _short(
            iterations,
            config.classifier_batch_size,
            config.classifier_learning_rate,
            epochs,
            config.classifier_backbone_factor,
            n_photos,
        )
        for iterations, epochs in (
            (config.upper_iterations, config.upper_epochs),
            (config.classifier_iterations, config.classifier_epochs),
        )
    )
    return upper, whole


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


def seeder_settings(run: Run, config: Config) -> SeederSettings:
    """The numbers of Eq. 3 to 5, as configured."""
    side = square_side(run, config)
    return SeederSettings(config.equations(), config.blocks, config.method, side)
