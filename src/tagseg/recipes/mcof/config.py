"""The fields of recipe ``mcof``, with sections of Wang et al."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from tagseg.errors import ConfigError
from tagseg.nets.gap import SeederName
from tagseg.priors.superpixels import (
    SuperpixelSettings,
)
from tagseg.stages.config import InRounds, SaliencyConfig, SaliencySource, number

__all__ = ["Config", "RegionConfig"]


@dataclass(frozen=True)
class RegionConfig(SaliencyConfig):
    """Numbers of regions, their seeds, RegionNet, and what saliency adds (4.1 to 4.3)."""

    superpixel_scale: float = number(100.0, "assumed", "k of graph-based superpixels")
    superpixel_sigma: float = number(0.8, "assumed", "of the Gaussian before, pixels")
    superpixel_min: int = number(100, "assumed", "least pixels of one, in photos of 500")
    seed_threshold: float = number(
        0.7, "assumed", "part of a map's maximum from which on a region is a seed"
    )
    background_threshold: float = number(
        0.2, "assumed", "below it for all tags, a region is a background seed"
    )
    seed_fraction: float = number(
        0.5, "assumed", "part of a region's pixels that a mask must label alike to be its seed"
    )
    regionnet_backbone: str | None = number(
        None, "Fast R-CNN: vgg16", "of RegionNet; none: the run's"
    )
    regionnet_weights: str = number(
        "imagenet", "assumed", "of that backbone, where it is not the run's"
    )
    regionnet_start: Literal["classifier", "imagenet"] = number(
        "classifier",
        "assumed",
        "its backbone's weights: the seeder's, if that has the same, or not",
    )
    regionnet_width: int | None = number(
        None, "VGG-16: 4096", "channels of fc6 and fc7; none: 4096 for vgg16, 256 for others"
    )
    regionnet_side: int | None = number(
        None, "Fast R-CNN: 800", "longer side of its photos; none: 800, less with small networks"
    )
    regionnet_regions: int = number(
        64, "Fast R-CNN", "regions a photo and update, as many of each label"
    )
    regionnet_iterations: int | None = number(None, "Fast R-CNN: 40,000", "none: by the schedule")
    regionnet_batch_size: int | None = number(
        None, "Fast R-CNN: 2", "none: by the schedule, 2 or 4"
    )
    regionnet_learning_rate: float | None = number(
        None, "Fast R-CNN: 0.001", "none: by the schedule"
    )
    regionnet_epochs: float = number(6.0, "assumed", "passes over the photos, short schedule")
    bayes_feature: Literal["colour", "regionnet"] = number(
        "colour", "4.3: v", "of a region: its histogram of Lab colours, or RegionNet's fc7"
    )
    bayes_bandwidth: float = number(
        0.15, "assumed", "of the densities in Eq. 2: chi-square or cosine distance, 0 to 1"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.superpixel_settings()
        if not 0 < self.background_threshold <= self.seed_threshold <= 1:
            raise ConfigError(
                f"background_threshold is {self.background_threshold}, seed_threshold "
                f"{self.seed_threshold}",
                do="use over 0, up to 1, the background's not over the other",
            )
        if not 0 < self.seed_fraction <= 1:
            raise ConfigError(f"seed_fraction is {self.seed_fraction}", do="use over 0, up to 1")
        for name in ("regionnet_side", "regionnet_regions", "regionnet_iterations"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use a value over 0")
        if not 0 < self.bayes_bandwidth < math.inf:
            raise ConfigError(f"bayes_bandwidth is {self.bayes_bandwidth}", do="use over 0")

    def superpixel_settings(self) -> SuperpixelSettings:
        """Of the regions."""
        return SuperpixelSettings(self.superpixel_scale, self.superpixel_sigma, self.superpixel_min)


@dataclass(frozen=True)
class Config(InRounds, RegionConfig):
    """Numbers of Wang et al., who leave most of them open: docs/mcof.md says what was chosen."""

    papers_saliency: ClassVar[Literal["boxes", "drfi"]] = "drfi"

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "4.3: DRFI",
        "of maps: boxes, folder, activations, barrier, drfi; auto: what is given, or drfi",
    )
    seeder: SeederName = number(  # noqa: RUF009
        "highres", "assumed", "network of the class activation maps: lowres, highres, roi, deeplab"
    )
    supplement: bool = number(True, "4.3", "add saliency in the first round; false: Table 4")
    rounds: int = number(5, "5, Table 3", "at most")
    converged: float = number(
        0.97, "assumed", "agreement with the masks before (mean IoU) that ends the rounds"
    )
    start: Literal["warm", "cold"] = number(
        "warm", "assumed", "later rounds' networks go on from those before, or begin anew"
    )
    later_fraction: float = number(
        0.5, "assumed", "iterations of a training in later rounds, as a part of the first round's"
    )
    mining: bool = number(
        True, "6.3.2", "false: later rounds train on the masks directly, without RegionNet"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rounds()
        if self.supplement:
            self.check_saliency()
