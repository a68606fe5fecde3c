"""Foreground segmentation, coarse to fine (Jing, Chen, Tian, 2018, III-E).

The same masks and the same rounds as :mod:`tagseg.recipes.coarse_to_fine`, with a Feature Pyramid
Network that tells objects of any class from the background. No tags are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tagseg.nets.aspp import AsppNet
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.fpn import FpnNet
from tagseg.recipes.coarse_to_fine.config import RecursionConfig
from tagseg.recipes.coarse_to_fine.masks import Target, first_masks
from tagseg.recipes.coarse_to_fine.preset import FOREGROUND_PRESET
from tagseg.recipes.coarse_to_fine.rounds import outcome_of, recursion
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.recipe import Demo, Recipe
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.settings import number

__all__ = ["RECIPE", "Config", "run"]

_FOREGROUND = 1  # the one label


@dataclass(frozen=True)
class Config(RecursionConfig):
    """Numbers of Jing et al., III-E."""

    network: Literal["fpn", "deeplab"] = number(
        "fpn", "III-E", "a Feature Pyramid Network, or DeepLab-v2 for comparison"
    )


def run(run: Run, config: Config) -> Outcome:
    """Every photo's foreground has the one label that there is."""

    def network(view_scale: float) -> AsppNet | FpnNet:
        setup = run.setup
        if config.network == "deeplab":
            backbone = setup.build_backbone(config)
            return AsppNet(backbone, 2, width=config.segmenter_width, view_scale=view_scale)
        stride = config.output_stride or backbone_kind(setup.backbone).pyramid_stride
        return FpnNet(setup.build_backbone(config, output_stride=stride), 2)

    labels = np.full(len(run.photos), _FOREGROUND, np.intp)
    target = Target(labels, ("foreground",), network, config.network, by_class=False)
    saliency = PhotoSaliency(run, config)  # files that do not fit must show before long work
    masks = first_masks(run, config, target, saliency.maps())  # III-B, III-C
    rounds = recursion(run, config, target, masks.chosen(config))  # III-D
    curves = [*saliency.curves, *rounds.curves]
    net = rounds.last.segmenter
    return outcome_of(run, config, target, masks, rounds.progression, net, curves)


RECIPE = Recipe(
    "coarse_to_fine_foreground",
    "Jing, Chen, Tian: Coarse-to-fine Semantic Segmentation from Image-level Labels, "
    "IEEE Transactions on Image Processing (foreground segmentation)",
    Config,
    run,
    uses_tags=False,
    takes=("saliency", "saliency_model", "boxes", "coarse_masks"),
    demo=Demo(one_tag=True),
    paper_preset=FOREGROUND_PRESET,
)
