"""The masks that Jing et al. begin with (III-B, III-C), and the numbers of their method.

Coarse masks of whatever source, what GrabCut makes of them, and boxes around that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError
from tagseg.fuse.one_label import ForegroundLimits, check_limits, one_label
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.nets.aspp import AsppNet
from tagseg.nets.fpn import FpnNet
from tagseg.priors.saliency.salient_regions import salient_mask
from tagseg.recipes.base import Product, Run, number
from tagseg.recipes.photo_saliency import SaliencyConfig, SaliencyMaps, SaliencySource
from tagseg.recipes.rounds import InRounds
from tagseg.recipes.stages import LabelMaps, training_labels
from tagseg.refine.box_masks import boxed
from tagseg.refine.grabcut import GrabCutSettings, enhanced_mask
from tagseg.run.workspace import Stage

__all__ = ["FirstMasks", "RecursionConfig", "Target", "first_masks"]

Mask = npt.NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class RecursionConfig(InRounds, SaliencyConfig):
    """Numbers of Jing et al.; docs/coarse_to_fine.md says what the paper leaves open."""

    papers_saliency: ClassVar[Literal["boxes", "drfi", "student"]] = "student"

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "III-B: student",
        "of the coarse masks: student, folder, activations, barrier, drfi, boxes; auto: what is "
        "given, or student",
    )
    coarse_part: float = number(
        0.5, "assumed", "part of a coarse mask's maximum that is foreground, where GrabCut is not"
    )
    initial: Literal["enhanced", "coarse", "boxes"] = number(
        "enhanced", "III-C, Table I", "masks of the first round: by GrabCut, as they are, or boxes"
    )
    between: Literal["grabcut", "rules", "nothing"] = number(
        "grabcut",
        "IV-D.2, Fig. 5",
        "done to masks between rounds: rules a, b and GrabCut; the two rules; nothing at all",
    )
    foreground_limits: ForegroundLimits = number(  # noqa: RUF009
        (0.01, 0.8), "IV-D.2, rule a", "shares of foreground between which a photo takes part"
    )
    grabcut_side: int = number(
        GrabCutSettings().side, "assumed", "longer side of photos in GrabCut, pixels"
    )
    grabcut_iterations: int = number(GrabCutSettings().iterations, "assumed", "of it there")
    grabcut_start_side: int = number(
        GrabCutSettings().start_side, "assumed", "longer side at which it learns colours first"
    )
    grabcut_start_iterations: int = number(
        GrabCutSettings().start_iterations, "assumed", "of it there"
    )
    resize: int = number(321, "IV-B", "side to which training photos are brought, pixels")
    segmenter_crop: int = number(256, "IV-B", "side of random crops of those, pixels")
    resize_range: tuple[float, float] = number(
        (1.0, 1.0), "IV-B", "range of a random factor on resized photos"
    )
    rounds: int = number(5, "IV-B", "at most")
    settled: float = number(
        2.0, "IV-B", "agreement with the masks before that ends the rounds; over 1: never"
    )
    start: Literal["warm", "cold"] = number(
        "warm", "III-D", "later rounds' networks go on from the one before, or begin anew"
    )
    later_part: float = number(
        0.5, "assumed", "iterations of later rounds, as a part of the first round's"
    )
    masks_by_tags: bool = number(
        False, "III-D", "final masks hold known tags only; a photo may show more than its one label"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_saliency()
        self.check_rounds()
        check_limits(self.foreground_limits)
        if not 0 < self.coarse_part <= 1:
            raise ConfigError(f"coarse_part is {self.coarse_part}", do="use over 0, up to 1")
        self.grabcut()
        if not 0 < self.resize_range[0] <= self.resize_range[1]:
            raise ConfigError(
                f"resize_range is {self.resize_range[0]:g},{self.resize_range[1]:g}",
                do="use two factors over 0, the lesser first",
            )
        if self.resize < self.segmenter_crop:
            raise ConfigError(
                f"resize is {self.resize}, segmenter_crop {self.segmenter_crop}",
                do="use crops no larger than the resized photo",
            )

    def grabcut(self) -> GrabCutSettings:
        """Of GrabCut, on coarse masks and between rounds."""
        names = ("side", "iterations", "start_side", "start_iterations")
        for name in names:
            if getattr(self, f"grabcut_{name}") < 1:
                raise ConfigError(
                    f"grabcut_{name} is {getattr(self, f'grabcut_{name}')}", do="use 1 or more"
                )
        return GrabCutSettings(**{name: getattr(self, f"grabcut_{name}") for name in names})


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
        return target.pseudo_label(index, salient_mask(coarse_of(index), part=config.coarse_part))

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
