"""The fields that both recipes of Jing et al. share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tagseg.errors import ConfigError
from tagseg.fuse.one_label import ForegroundLimits, check_limits
from tagseg.refine.grabcut import GrabCutSettings
from tagseg.stages.config import InRounds, SaliencyConfig, SaliencySource, number

__all__ = ["RecursionConfig"]


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
    coarse_fraction: float = number(
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
    converged: float = number(
        2.0, "IV-B", "agreement with the masks before that ends the rounds; over 1: never"
    )
    start: Literal["warm", "cold"] = number(
        "warm", "III-D", "later rounds' networks go on from the one before, or begin anew"
    )
    later_fraction: float = number(
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
        if not 0 < self.coarse_fraction <= 1:
            raise ConfigError(
                f"coarse_fraction is {self.coarse_fraction}", do="use over 0, up to 1"
            )
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
