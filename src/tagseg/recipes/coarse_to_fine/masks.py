"""The masks that Jing et al. begin with (III-B, III-C), and the numbers of their method.

Coarse masks of whatever source, what GrabCut makes of them, and boxes around that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.fuse.one_label import one_label
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.nets.aspp import AsppNet
from tagseg.nets.fpn import FpnNet
from tagseg.priors.saliency.salient_regions import salient_mask
from tagseg.recipes.coarse_to_fine.config import RecursionConfig
from tagseg.refine.box_masks import boxed
from tagseg.refine.grabcut import enhanced_mask
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run
from tagseg.stages.labels import LabelMaps, training_labels
from tagseg.stages.outcome import Product
from tagseg.stages.saliency import SaliencyMaps

__all__ = ["FirstMasks", "Target", "first_masks"]

Mask = npt.NDArray[np.bool_]  # (H, W)


class Target(NamedTuple):
    """What is learned, in which the two recipes differ.

    Attributes:
        labels: (N,), of each training photo's foreground; 0 for photos that take no part.
        classes: that the labels stand for.
        network: a fresh network, for photos of this size relative to the paper's.
        form: its name.
        by_class: False if the one label tells foreground from background.
    """

    labels: npt.NDArray[np.intp]
    classes: tuple[str, ...]
    network: Callable[[float], AsppNet | FpnNet]
    form: str
    by_class: bool = True

    def pseudo_label(self, index: int, foreground: Mask) -> Labels:
        """Training labels of photo ``index``, 255 if it takes no part."""
        if self.labels[index] == BACKGROUND:
            return np.full(foreground.shape, IGNORE, np.uint8)
        return one_label(foreground, int(self.labels[index]))


class FirstMasks(NamedTuple):
    """The masks before any network was trained; None where they are not asked for.

    ``soft_of`` a training photo is what all of them are made from.
    """

    soft_of: SaliencyMaps
    coarse: LabelMaps
    enhanced: LabelMaps | None
    boxes: LabelMaps | None

    def chosen(self, config: RecursionConfig) -> LabelMaps:
        """Those that the first round learns from."""
        found: LabelMaps = getattr(self, config.initial)
        return found

    def products(self, target: Target) -> list[Product]:
        """Those that there are, to be scored and shown."""
        titles = {"coarse": "coarse masks", "enhanced": "enhanced masks", "boxes": "boxes of these"}
        masks: dict[str, LabelMaps | None] = {name: getattr(self, name) for name in titles}
        return [
            Product(titles[name], "train", labels, (labels.stage,), target.by_class)
            for name, labels in masks.items()
            if labels is not None
        ]


def first_masks(
    run: Run, config: RecursionConfig, target: Target, coarse_of: SaliencyMaps, after: Stage
) -> FirstMasks:
    """Coarse masks (III-B), GrabCut on them (III-C), and boxes around those (Table I)."""
    photos, settings = run.photos, config.grabcut()
    labels = {"labels": target.labels.tolist()}

    def coarse(index: int) -> Labels:
        return target.pseudo_label(
            index, salient_mask(coarse_of(index), fraction=config.coarse_part)
        )

    def enhanced(index: int) -> Labels:
        if target.labels[index] == BACKGROUND:
            return target.pseudo_label(index, np.zeros(photos.image(index).shape[:2], bool))
        mask = enhanced_mask(photos.image(index), coarse_of(index), settings)
        return target.pseudo_label(index, mask)

    cut = {**labels, "part": config.coarse_part}
    masks = training_labels(run, "coarse-masks", coarse, cut, [after])
    if config.initial == "coarse":
        return FirstMasks(coarse_of, masks, None, None)
    made_from = {**labels, "grabcut": asdict(settings)}
    better = training_labels(run, "enhanced-masks", enhanced, made_from, [after])
    if config.initial == "enhanced":
        return FirstMasks(coarse_of, masks, better, None)

    def box(index: int) -> Labels:
        found = better(index)
        return target.pseudo_label(index, boxed((found > BACKGROUND) & (found < IGNORE)))

    boxes = training_labels(run, "box-masks", box, {}, [better.stage])
    return FirstMasks(coarse_of, masks, better, boxes)
