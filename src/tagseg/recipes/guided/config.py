"""The fields of recipe ``guided``, with sections of Oh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.nets.gap import SeederName
from tagseg.refine.component_crf import ComponentCrf
from tagseg.refine.dense_crf import CrfParameters
from tagseg.stages.guide_classifier import GuideClassifierSettings
from tagseg.stages.seeder import SeedingSettings
from tagseg.stages.settings import (
    BILATERAL,
    SMOOTHNESS,
    DeepLabSettings,
    MaskSettings,
    PyramidSettings,
    SaliencySettings,
    Settings,
    number,
)

__all__ = ["ComponentSettings", "Config", "SalientSettings", "SeedSettings", "SpreadSettings"]

Guide = Literal["seeds", "g0", "g1", "g2"]


@dataclass(frozen=True)
class SeedSettings(Settings):
    """What of a map is a seed (6.1, C)."""

    seed_threshold: float = number(
        0.2,
        "6.1",
        "argmax class where its map is over this fraction of its maximum",
        above=0,
        at_most=1,
    )
    crf_seed: bool = number(False, "5, C", "smooth the seeds with the CRF of crf_bilateral")


@dataclass(frozen=True)
class SalientSettings(Settings):
    """What of a saliency map is salient (6.1)."""

    saliency_threshold: float = number(
        0.5, "6.1", "of a saliency map's maximum", above=0, at_most=1
    )


@dataclass(frozen=True)
class ComponentSettings(Settings):
    """Which salient components count (E)."""

    min_component: float = number(
        0.01, "E", "fraction of the photo that a salient component covers", at_least=0, below=1
    )


@dataclass(frozen=True)
class SpreadSettings(ComponentSettings):
    """Which seeds spread over salient components (E)."""

    min_seed: int = number(
        25,
        "authors' code",
        "pixels of a seed, in photos of 500 x 375; smaller seeds do not count",
        at_least=0,
    )


@dataclass(frozen=True)
class Config(
    MaskSettings,
    DeepLabSettings,
    PyramidSettings,
    SpreadSettings,
    SeedSettings,
    SalientSettings,
    SeedingSettings,
    GuideClassifierSettings,
    SaliencySettings,
):
    """Numbers of Oh et al.; ``guide`` and ``seeder`` select the rows of their Tables 1 and 2."""

    guide: Guide = number("g2", "5.1", "guide labels: seeds, g0, g1 or g2")  # noqa: RUF009
    seeder: SeederName = number(  # noqa: RUF009
        "highres", "4.1, 6.1", "GAP network: lowres, highres, roi or deeplab"
    )
    share_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0),
        "C.1",
        "of the CRF in components with seeds of several classes",
        **BILATERAL,
    )
    share_smoothness: tuple[float, float] = number(
        (3.0, 3.0), "C.1", "weight, sigma in pixels", **SMOOTHNESS
    )
    share_sigma: float = number(
        10.0,
        "authors' code",
        "of the Gaussian on the seeds before that CRF, pixels of 500",
        above=0,
    )
    without_rise: Literal["best", "ignore"] = number(
        "best", "assumed", "G1's label for components where no tag's score rises"
    )
    crf_loss: bool = number(False, "5, C", "add SEC's constrain-to-boundary loss, with that CRF")

    def check(self) -> None:
        """Files of saliency must be there, where it is used."""
        if self.guide != "seeds":
            self.check_saliency()

    def component_crf(self) -> ComponentCrf:
        """The CRF that shares a component out among classes (E)."""
        return ComponentCrf(
            CrfParameters(
                bilateral=self.share_bilateral,
                smoothness=self.share_smoothness,
                iterations=self.crf_iterations,
                reference_side=self.crf_reference_side,
                filter=self.crf_filter,
            ),
            sigma=self.share_sigma,
        )
