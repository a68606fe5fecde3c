"""The classifier of Oh et al. that tells components apart and gives gradients (4.2, 6.1, F)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tagseg.data.transforms import Augmentation
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier, initialise_from_imagenet
from tagseg.nets.gap import GapClassifier
from tagseg.stages.classifier import classifier_on_tags, tag_classifier
from tagseg.stages.context import Plain, Run
from tagseg.stages.schedules import guide_classifier_schedule
from tagseg.stages.settings import GapSettings, number
from tagseg.stages.stage import Trained

__all__ = ["GuideClassifier", "GuideClassifierSettings", "guide_classifier"]

GuideClassifier = Trained[GapClassifier] | Trained[FullyConvolutionalClassifier]

_VGG_STRIDE, _OTHER_STRIDE = 32, 16  # 7 x 7 positions of 224 pixels, and 14 x 14


@dataclass(frozen=True)
class GuideClassifierSettings(GapSettings):
    """Which of two forms it has, and its training."""

    classifier_form: Literal["pooled", "fully_connected"] = number(
        "pooled",
        "assumed",
        "pooled: convolutions and a mean; fully_connected: VGG-16's fc6 to fc8, of whole photos "
        "squeezed to classifier_size",
    )

    def idle(self) -> dict[str, str]:
        """fc6 and fc7 are two."""
        found = super().idle()
        if self.classifier_form == "fully_connected":
            found["classifier_hidden_layers"] = "classifier_form=pooled"
        return found


def guide_classifier(run: Run, settings: GuideClassifierSettings) -> GuideClassifier:
    """The classifier, trained as all of Oh et al.'s are (F)."""
    schedule = guide_classifier_schedule(settings, run.setup, len(run.photos))
    if settings.classifier_form == "pooled":
        return tag_classifier(run, settings, schedule=schedule)
    net, side = _network(run, settings), settings.classifier_size
    form = _FullyConnectedForm(net.backbone.output_stride, net.fc6.out_channels, side)
    how = Augmentation((side, side), stretch=True)
    return classifier_on_tags(run, settings, net, how, schedule, form=form)


@dataclass(frozen=True)
class _FullyConnectedForm(Plain):
    """The classifier as it is built: what the settings come to."""

    output_stride: int
    classifier_width: int
    fully_connected_side: int
    dilated: bool = False


def _network(run: Run, settings: GuideClassifierSettings) -> FullyConvolutionalClassifier:
    """VGG-16 of Table 6, with ImageNet's fc6 and fc7 where the weights have such that fit."""
    setup, stride = run.setup, settings.classifier_stride
    if stride is None:
        stride = _VGG_STRIDE if setup.backbone == "vgg16" else _OTHER_STRIDE
    torch.manual_seed(setup.execution.seed)
    net = FullyConvolutionalClassifier(
        setup.build_backbone(settings, output_stride=stride, dilated=False),
        len(run.photos.classes),
        hidden=settings.classifier_width,
        side=settings.classifier_size,
    )
    if setup.weights is not None:
        initialise_from_imagenet(net, setup.weights.state)
    return net
