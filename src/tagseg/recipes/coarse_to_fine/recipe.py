"""Coarse to fine (Jing, Chen, Tian, 2018): one label per photo, and masks that get finer.

A network that learned from video without any labels says where a photo shows an object at all.
GrabCut makes that mask follow the colours, the photo's one label names it, and DeepLab learns from
such masks of all photos; what it predicts for them, cut to the label and by GrabCut again, is what
it learns from in the next round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagseg.errors import TagError
from tagseg.maps import label_of_tag
from tagseg.nets.aspp import AsppNet
from tagseg.recipes.coarse_to_fine.config import RecursionConfig
from tagseg.recipes.coarse_to_fine.masks import Target, first_masks
from tagseg.recipes.coarse_to_fine.preset import PRESET
from tagseg.recipes.coarse_to_fine.rounds import outcome_of, recursion
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.recipe import Demo, Recipe
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.settings import MaskSettings, PyramidSettings, TagSettings, number
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "Config", "run", "single_target"]


@dataclass(frozen=True)
class Config(MaskSettings, TagSettings, RecursionConfig, PyramidSettings):
    """Numbers of Jing et al.: one label per photo, DeepLab-v2."""

    masks_by_tags: bool = number(
        False, "III-D", "final masks hold known tags only; a photo may show more than its one label"
    )


def run(run: Run, config: Config) -> Outcome:
    """III-B to III-D: coarse masks, GrabCut, one label, rounds of DeepLab-v2."""
    target = single_target(run, config)
    saliency = PhotoSaliency(run, config)  # files that do not fit must show before long work
    masks = first_masks(run, config, target, saliency.maps())  # III-B, III-C
    rounds = recursion(run, config, target, masks.chosen(config))  # III-D
    net, curves = rounds.last.segmenter, [*saliency.curves, *rounds.curves]
    if config.segmenter == "pyramid":  # it learns from the last round's masks
        net = pyramid_segmenter(run, config, sure_labels(run, config, rounds.last.masks))
        curves.append(net.stage)
    return outcome_of(run, config, target, masks, rounds.progression, net, curves)


def single_target(run: Run, config: Config) -> Target:
    """Each photo's one class, and DeepLab-v2 to learn them (III-D).

    Raises:
        TagError: no photo has exactly one tag.
    """

    def deeplab_v2(view_scale: float) -> AsppNet:
        backbone = run.setup.build_backbone(config)
        n_labels = len(run.photos.classes) + 1
        return AsppNet(backbone, n_labels, width=config.segmenter_width, view_scale=view_scale)

    return Target(_single_labels(run), run.photos.classes, deeplab_v2, "deeplab")


def _single_labels(run: Run) -> npt.NDArray[np.intp]:
    """Label (N,) of each training photo's one class; 0 for photos of none or several."""
    photos = run.photos
    single = photos.dataset.known & (photos.tags.sum(1) == 1)
    if not single.any():
        raise TagError(
            "no photo has exactly one tag", do="tag photos with one class each for this recipe"
        )
    if not single.all():
        run.progress.say(
            f"note: {np.count_nonzero(~single)} of {len(photos)} training photos do not have "
            "exactly one tag; they are not learned from"
        )
    return np.where(single, label_of_tag(photos.tags.argmax(1)), 0)


RECIPE = Recipe(
    "coarse_to_fine",
    "Jing, Chen, Tian: Coarse-to-fine Semantic Segmentation from Image-level Labels, "
    "IEEE Transactions on Image Processing",
    Config,
    run,
    takes=("saliency", "saliency_model", "boxes", "coarse_masks"),
    demo=Demo(one_tag=True),
    paper_preset=PRESET,
)
