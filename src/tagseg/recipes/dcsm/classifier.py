"""The tag classifier of DCSM, trained in two phases, and the numbers of its maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from tagseg.data.transforms import Augmentation
from tagseg.localize.classifier import train_tag_classifier
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier, initialise_from_imagenet
from tagseg.recipes.dcsm.config import ClassifierFormSettings, Config, TwoPhaseSettings
from tagseg.stages.context import Plain, Run, Setup
from tagseg.stages.distinct_segmenter import SeederSettings
from tagseg.stages.schedules import short_schedule, uses_paper_schedule
from tagseg.stages.score_maps import LayerWeights, layer_weights
from tagseg.stages.shapes import some_shapes
from tagseg.stages.stage import Declared, Input, Trained, trained
from tagseg.stages.tag_teaching import taught_tags
from tagseg.training import Schedule

__all__ = [
    "fully_convolutional_classifier",
    "seeder_settings",
    "two_phase_schedules",
    "weights_of_layers",
]

_UPPER = Declared("classifier-upper", weights="classifier")
_CLASSIFIER = Declared("classifier", weights="classifier")


def two_phase_schedules(
    config: TwoPhaseSettings, setup: Setup, n_photos: int
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
        short_schedule(
            iterations,
            config.classifier_batch_size,
            config.classifier_learning_rate,
            epochs,
            config.backbone_rate(config.classifier_backbone_factor),
            n_photos,
        )
        for iterations, epochs in (
            (config.upper_iterations, config.upper_epochs),
            (config.classifier_iterations, config.classifier_epochs),
        )
    )
    return upper, whole


def square_side(run: Run, settings: ClassifierFormSettings) -> int:
    """Side of the square that photos are put on: as configured, or the longest photo's."""
    if settings.square is not None:
        return settings.square
    return max(map(max, some_shapes(run.photos)))


def fully_convolutional_classifier(
    run: Run, settings: TwoPhaseSettings
) -> Trained[FullyConvolutionalClassifier]:
    """The tag classifier with global max pooling, in two phases (Shimoda & Yanai 3.2, 4.2).

    The first phase trains the layers above the backbone; a backbone that starts from random
    weights has nothing that this could spare, and goes without.
    """
    setup, photos = run.setup, run.photos
    net = _network(run, settings)
    side = square_side(run, settings)
    how = Augmentation(
        (side, side),
        flip=settings.classifier_flip,
        jitter=settings.classifier_jitter,
        letterbox=net.backbone.preprocessing.mean_colour,
    )
    upper, whole = two_phase_schedules(settings, setup, len(photos))
    taught, scale = taught_tags(run, settings), settings.batch_scale
    fit = partial(
        train_tag_classifier, net, photos, how, batch_scale=scale, teaching=taught.teaching
    )
    form = [_Form(net.backbone.output_stride, net.fc6.out_channels, scale), how, *taught.decided_by]
    before: list[Input] = [*taught.inputs]
    if setup.weights is not None:
        first = trained(
            run,
            _UPPER,
            net,
            partial(fit, upper, train_backbone=False),
            upper,
            settings=form,
            inputs=taught.inputs,
            title="the tag classifier, upper layers",
        )
        before.append(first)
    found = trained(
        run,
        _CLASSIFIER,
        net,
        partial(fit, whole, train_backbone=True),
        whole,
        settings=form,
        inputs=before,
        title="the tag classifier",
    )
    # As a training leaves it, so that a run that goes on computes alike; nothing is copied then.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval()
    return found


@dataclass(frozen=True)
class _Form(Plain):
    """The classifier as it is built, and its batches: what the settings come to."""

    output_stride: int
    classifier_width: int
    batch_scale: tuple[float, float]


def _network(run: Run, settings: TwoPhaseSettings) -> FullyConvolutionalClassifier:
    setup = run.setup
    stride = settings.classifier_stride
    if stride is None and setup.backbone == "vgg16":
        stride = 32
    torch.manual_seed(setup.execution.seed)
    backbone = setup.build_backbone(settings, output_stride=stride)
    net = FullyConvolutionalClassifier(
        backbone, len(run.photos.classes), hidden=settings.classifier_width
    )
    if setup.weights is not None:
        initialise_from_imagenet(net, setup.weights.state)
    return net


def weights_of_layers(net: FullyConvolutionalClassifier, config: Config) -> list[LayerWeights]:
    """The weights of the layers in Eq. 5, if they differ and the variant heeds them."""
    return layer_weights(net.backbone, config.blocks) if config.variant == "paper" else []


def seeder_settings(run: Run, config: Config) -> SeederSettings:
    """The numbers of Eq. 3 to 5, as configured."""
    side = square_side(run, config)
    return SeederSettings(config.equations(), config.blocks, config.method, side)
