"""The masks that Jing et al. begin with (III-B, III-C), and the numbers of their method.

Coarse masks of whatever source, what GrabCut makes of them, and boxes around that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.fuse.one_label import one_label
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.nets.aspp import AsppNet
from tagseg.nets.fpn import FpnNet
from tagseg.priors.saliency.salient_regions import salient_mask
from tagseg.recipes.coarse_to_fine.config import CoarseSettings, RecursionConfig
from tagseg.refine.box_masks import boxed
from tagseg.refine.grabcut import enhanced_mask
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.stage import Declared, LabelMaps, Plain, SaliencyMaps, label_maps

__all__ = ["FirstMasks", "Shown", "Target", "first_masks"]

_COARSE = Declared("coarse-masks")
_ENHANCED = Declared("enhanced-masks")
_BOXES = Declared("box-masks")

Mask = npt.NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Shown(Plain):
    """Whether labels tell classes, by the photos' tags, or foreground alone."""

    by_class: bool


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

    @property
    def shown(self) -> Shown:
        """What decides on the labels, beside the photos' tags."""
        return Shown(self.by_class)

    def pseudo_label(self, index: int, foreground: Mask) -> Labels:
        """Training labels of photo ``index``, 255 if it takes no part."""
        if self.labels[index] == BACKGROUND:
            return np.full(foreground.shape, IGNORE, np.uint8)
        return one_label(foreground, int(self.labels[index]))


class FirstMasks(NamedTuple):
    """The masks before any network was trained; None where they are not asked for.

    ``soft`` maps of the training photos are what all of them are made from.
    """

    soft: SaliencyMaps
    coarse: LabelMaps
    enhanced: LabelMaps | None
    boxes: LabelMaps | None

    def chosen(self, config: RecursionConfig) -> LabelMaps:
        """Those that the first round learns from."""
        found: LabelMaps = getattr(self, config.initial)
        return found

    def predictions(self, target: Target) -> list[Prediction]:
        """Those that there are, to be scored and shown."""
        titles = {"coarse": "coarse masks", "enhanced": "enhanced masks", "boxes": "boxes of these"}
        masks: dict[str, LabelMaps | None] = {name: getattr(self, name) for name in titles}
        return [
            Prediction.of(name, titles[name], "train", labels, by_class=target.by_class)
            for name, labels in masks.items()
            if labels is not None
        ]


def first_masks(
    run: Run, config: RecursionConfig, target: Target, soft: SaliencyMaps
) -> FirstMasks:
    """Coarse masks (III-B), GrabCut on them (III-C), and boxes around those (Table I)."""
    photos, grabcut = run.photos, config.grabcut()
    settings = config.only(CoarseSettings)

    def coarse(index: int) -> Labels:
        foreground = salient_mask(soft(index), fraction=settings.coarse_fraction)
        return target.pseudo_label(index, foreground)

    def enhanced(index: int) -> Labels:
        if target.labels[index] == BACKGROUND:
            return target.pseudo_label(index, np.zeros(photos.image(index).shape[:2], bool))
        return target.pseudo_label(index, enhanced_mask(photos.image(index), soft(index), grabcut))

    masks = label_maps(run, _COARSE, coarse, settings=[target.shown, settings], inputs=[soft])
    if config.initial == "coarse":
        return FirstMasks(soft, masks, None, None)
    better = label_maps(run, _ENHANCED, enhanced, settings=[target.shown, grabcut], inputs=[soft])
    if config.initial == "enhanced":
        return FirstMasks(soft, masks, better, None)

    def box(index: int) -> Labels:
        found = better(index)
        return target.pseudo_label(index, boxed((found > BACKGROUND) & (found < IGNORE)))

    return FirstMasks(soft, masks, better, label_maps(run, _BOXES, box, inputs=[better]))
