"""The fields of recipe ``gradient_baseline``, with sections of Oh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.refine.dense_crf import CrfParameters
from tagseg.stages.guide_classifier import GuideClassifierSettings
from tagseg.stages.settings import (
    BILATERAL,
    KERNELS,
    SMOOTHNESS,
    MaskSettings,
    PyramidSettings,
    Settings,
    check_blocks,
    number,
)

__all__ = ["Config", "GradientSettings", "ThresholdSettings"]

_SMOOTHED = {"seed_crf": (True,)}


@dataclass(frozen=True)
class GradientSettings(Settings):
    """The kind of back-propagation and its smoothing."""

    method: Literal["guided", "plain", "excitation"] = number(
        "guided", "4.2", "back-propagation: guided, plain, excitation"
    )
    blocks: tuple[int, ...] = number(
        (0,), "4.2", "0: gradients at the photo's colours; 1 to 5: at feature maps of these blocks"
    )
    seed_sigma: float = number(
        10.0, "authors' code, for G2", "of the Gaussian, pixels of a photo of 500", at_least=0
    )
    seed_crf: bool = number(True, "4.2", "smooth the seeds with a dense CRF too")
    seed_contrast: float = number(
        3.0,
        "Shimoda & Yanai, 3.3",
        "alpha of tanh(alpha M / max M) before that CRF",
        above=0,
        only_with=_SMOOTHED,
    )
    seed_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0),
        "C",
        "of that CRF: weight, sigma in pixels, sigma in colour levels",
        **BILATERAL,
        only_with=_SMOOTHED,
    )
    seed_smoothness: tuple[float, float] = number(
        (3.0, 3.0),
        "C",
        "weight, sigma in pixels",
        **SMOOTHNESS,
        only_with=_SMOOTHED,
    )
    seed_filter: Literal["fine", "lattice"] = number(
        "lattice",
        "assumed",
        "of that CRF; fine is slow with so narrow a kernel on small photos",
        only_with=_SMOOTHED,
    )

    def check(self) -> None:
        """Only blocks that there are."""
        check_blocks(self.blocks)


@dataclass(frozen=True)
class ThresholdSettings(Settings):
    """What of a map is a seed."""

    seed_threshold: float = number(
        0.2,
        "authors' code",
        "argmax class where its score is over this fraction of its maximum",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class Config(
    MaskSettings, PyramidSettings, ThresholdSettings, GradientSettings, GuideClassifierSettings
):
    """The shared numbers, the kind of back-propagation and its smoothing."""

    def refiners_own(self) -> tuple[str, ...]:
        """The seeds' CRF has kernels of its own, and shares the rest."""
        return (*super().refiners_own(), *KERNELS)

    def crf(self) -> CrfParameters:
        """The CRF on the seeds."""
        return CrfParameters(
            bilateral=self.seed_bilateral,
            smoothness=self.seed_smoothness,
            iterations=self.crf_iterations,
            reference_side=self.crf_reference_side,
            filter=self.seed_filter,
        )
