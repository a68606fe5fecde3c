"""The fields that both recipes of Jing et al. share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.errors import ConfigError
from tagseg.fuse.one_label import ForegroundLimits, check_limits
from tagseg.refine.grabcut import GrabCutSettings
from tagseg.stages.settings import (
    CRF_FIELDS,
    DeepLabSettings,
    RoundSettings,
    SaliencySettings,
    SaliencySource,
    Settings,
    number,
)

__all__ = ["BetweenSettings", "CoarseSettings", "RecursionConfig", "TakingPart"]


@dataclass(frozen=True)
class CoarseSettings(Settings):
    """What of a soft coarse mask is foreground."""

    coarse_fraction: float = number(
        0.5,
        "assumed",
        "fraction of a coarse mask's maximum that is foreground, where GrabCut is not",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class BetweenSettings(Settings):
    """What becomes of masks between rounds."""

    between: Literal["grabcut", "rules", "nothing"] = number(
        "grabcut",
        "IV-D.2, Fig. 5",
        "done to masks between rounds: rules a, b and GrabCut; the two rules; nothing at all",
    )


@dataclass(frozen=True)
class TakingPart(Settings):
    """Which photos a round learns from."""

    foreground_limits: ForegroundLimits = number(  # noqa: RUF009
        (0.01, 0.8), "IV-D.2, rule a", "shares of foreground between which a photo takes part"
    )

    def check(self) -> None:
        """Two fractions, the lesser first."""
        check_limits(self.foreground_limits)


@dataclass(frozen=True)
class RecursionConfig(
    DeepLabSettings, CoarseSettings, BetweenSettings, TakingPart, RoundSettings, SaliencySettings
):
    """Numbers of Jing et al.; docs/coarse_to_fine.md says what the paper leaves open."""

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "III-B: student",
        "of the coarse masks: student, folder, network, activations, barrier, drfi, boxes; auto: "
        "what is given, or student",
    )
    filter_first: bool = number(
        True, "IV-D.2: false", "rule a before the first round too, not only between rounds"
    )
    initial: Literal["enhanced", "coarse", "boxes"] = number(
        "enhanced", "III-C, Table I", "masks of the first round: by GrabCut, as they are, or boxes"
    )
    grabcut_side: int = number(
        GrabCutSettings().side, "assumed", "longer side of photos in GrabCut, pixels", at_least=1
    )
    grabcut_iterations: int | None = number(
        GrabCutSettings().iterations,
        "III-C: none",
        "of it there; none: until one changes no pixel, at that size alone",
        at_least=1,
    )
    grabcut_start_side: int = number(
        GrabCutSettings().start_side,
        "assumed",
        "longer side at which it learns colours first",
        at_least=1,
    )
    grabcut_start_iterations: int = number(
        GrabCutSettings().start_iterations, "assumed", "of it there", at_least=1
    )
    resize: int = number(
        321, "IV-B", "side to which training photos are brought, pixels", at_least=16
    )
    segmenter_crop: int = number(256, "IV-B", "side of random crops of those, pixels", at_least=16)
    resize_range: tuple[float, float] = number(
        (1.0, 1.0), "IV-B", "range of a random factor on resized photos", above=0
    )
    rounds: int = number(5, "IV-B", "at most", at_least=1)
    converged: float = number(
        2.0, "IV-B", "agreement with the masks before that ends the rounds; over 1: never", above=0
    )
    start: Literal["warm", "cold"] = number(
        "warm", "III-D", "later rounds' networks go on from the one before, or begin anew"
    )

    def refiners_own(self) -> tuple[str, ...]:
        """There is no other CRF."""
        return (*super().refiners_own(), *CRF_FIELDS)

    def idle(self) -> dict[str, str]:
        """GrabCut that goes on until it converges has no start on a smaller photo."""
        found = super().idle()
        if self.grabcut_iterations is None:
            start = ("grabcut_start_side", "grabcut_start_iterations")
            found |= dict.fromkeys(start, "grabcut_iterations=1 or more")
        return found

    @classmethod
    def papers_saliency(cls) -> str:
        """The student (III-B)."""
        return "student"

    def check(self) -> None:
        """Files of saliency must be there, and crops no larger than photos."""
        self.check_saliency()
        if self.resize_range[0] > self.resize_range[1]:
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
        """GrabCut, on coarse masks and between rounds."""
        idle = self.idle()
        names = ("side", "iterations", "start_side", "start_iterations")
        acting = [name for name in names if f"grabcut_{name}" not in idle]
        return GrabCutSettings(**{name: getattr(self, f"grabcut_{name}") for name in acting})
