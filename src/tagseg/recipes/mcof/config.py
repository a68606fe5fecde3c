"""The fields of recipe ``mcof``, with sections of Wang et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.errors import ConfigError
from tagseg.fuse.region_seeds import Unseeded
from tagseg.nets.gap import SeederName
from tagseg.priors.superpixels import SuperpixelSettings
from tagseg.stages.seeder import SeedingSettings
from tagseg.stages.settings import (
    DeepLabSettings,
    MaskSettings,
    PyramidSettings,
    RoundSettings,
    SaliencySettings,
    SaliencySource,
    Settings,
    number,
)

__all__ = ["BayesSettings", "Config", "RegionNetForm", "SeedSettings", "UnseededSettings"]


@dataclass(frozen=True)
class SeedSettings(Settings):
    """Which regions are seeds (4.1)."""

    seed_threshold: float = number(
        0.7,
        "assumed",
        "fraction of a map's maximum from which on a region is a seed",
        above=0,
        at_most=1,
    )
    background_threshold: float = number(
        0.2,
        "assumed",
        "below it for all tags, a region is a background seed",
        above=0,
        at_most=1,
    )

    def check(self) -> None:
        """No region is a seed of a class and of the background."""
        if self.background_threshold > self.seed_threshold:
            raise ConfigError(
                f"background_threshold is {self.background_threshold}, seed_threshold "
                f"{self.seed_threshold}",
                do="use over 0, up to 1, the background's not over the other",
            )


@dataclass(frozen=True)
class UnseededSettings(Settings):
    """What RegionNet is told of regions that are no seed (4.2)."""

    unseeded: Unseeded = number(  # noqa: RUF009
        "ignore",
        "4.2: background",
        "regions that are neither seed nor cold in round 1: ignore, or background",
    )


@dataclass(frozen=True)
class RegionNetForm(Settings):
    """RegionNet, and which regions it learns from (4.2)."""

    seed_fraction: float = number(
        0.5,
        "assumed",
        "fraction of a region's pixels that a mask must label alike to be its seed",
        above=0,
        at_most=1,
    )
    regionnet_start: Literal["classifier", "imagenet"] = number(
        "classifier",
        "assumed",
        "its backbone's weights: the seeder's, if that has the same, or not",
    )
    regionnet_width: int | None = number(
        None,
        "VGG-16: 4096",
        "channels of fc6 and fc7; none: 4096 for vgg16, 256 for others",
        above=0,
    )
    regionnet_side: int | None = number(
        None,
        "Fast R-CNN: 800",
        "longer side of its photos; none: 800, less with small networks",
        above=0,
    )
    regionnet_regions: int = number(
        64, "Fast R-CNN", "regions a photo and update, as many of each label", above=0
    )


@dataclass(frozen=True)
class BayesSettings(Settings):
    """What saliency adds to the regions (4.3)."""

    bayes_feature: Literal["colour", "regionnet"] = number(
        "colour", "4.3: v", "of a region: its histogram of Lab colours, or RegionNet's fc7"
    )
    bayes_bandwidth: float = number(
        0.15, "assumed", "of the densities in Eq. 2: chi-square or cosine distance, 0 to 1", above=0
    )


@dataclass(frozen=True)
class Config(
    MaskSettings,
    DeepLabSettings,
    PyramidSettings,
    SeedSettings,
    UnseededSettings,
    RegionNetForm,
    BayesSettings,
    RoundSettings,
    SeedingSettings,
    SaliencySettings,
):
    """Numbers of Wang et al., who leave most of them open: docs/mcof.md says what was chosen."""

    regionnet_backbone: str | None = number(
        None, "Fast R-CNN: vgg16", "of RegionNet; none: the run's"
    )
    regionnet_weights: str = number(
        "imagenet", "assumed", "of that backbone, where it is not the run's"
    )
    superpixel_scale: float = number(100.0, "assumed", "k of graph-based superpixels", above=0)
    superpixel_sigma: float = number(
        0.8, "assumed", "of the Gaussian before, pixels", at_least=0, at_most=100
    )
    superpixel_min: int = number(100, "assumed", "least pixels of one, in photos of 500", above=0)
    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "4.3: DRFI",
        "of maps: boxes, folder, network, activations, barrier, drfi; auto: what is given, or drfi",
    )
    seeder: SeederName = number(  # noqa: RUF009
        "highres", "assumed", "network of the class activation maps: lowres, highres, roi, deeplab"
    )
    supplement: bool = number(True, "4.3", "add saliency in the first round; false: Table 4")
    mining: bool = number(
        True, "6.3.2", "false: later rounds train on the masks directly, without RegionNet"
    )
    rounds: int = number(5, "5, Table 3", "at most", at_least=1)
    regionnet_iterations: int | None = number(
        None, "Fast R-CNN: 40,000", "none: by the schedule", above=0
    )
    regionnet_batch_size: int | None = number(
        None, "Fast R-CNN: 2", "none: by the schedule, 2 or 4", above=0
    )
    regionnet_learning_rate: float | None = number(
        None, "Fast R-CNN: 0.001", "none: by the schedule", above=0
    )
    regionnet_epochs: float = number(
        6.0, "assumed", "passes over the photos, short schedule", above=0
    )

    @classmethod
    def papers_saliency(cls) -> str:
        """DRFI (4.3)."""
        return "drfi"

    def check(self) -> None:
        """Files of saliency must be there, where it is used."""
        if self.supplement:
            self.check_saliency()

    def superpixel_settings(self) -> SuperpixelSettings:
        """The numbers of the regions (4.1)."""
        return SuperpixelSettings(self.superpixel_scale, self.superpixel_sigma, self.superpixel_min)
