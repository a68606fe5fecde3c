"""The fields of recipe ``builtin_priors``, with sections of Saleh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tagseg.errors import ConfigError
from tagseg.losses.lse import MAX_SHARPNESS
from tagseg.nets.deeplab import FieldOfView
from tagseg.stages.settings import (
    CamSettings,
    CrfSettings,
    CrispSettings,
    GapSettings,
    MaskSettings,
    PyramidSettings,
    Settings,
    number,
)

__all__ = ["CandidateSettings", "Config", "EvidenceSettings"]

_BY_CLASS = {"masks": ("localization", "both")}
Masks = Literal["none", "foreground", "localization", "both"]


@dataclass(frozen=True)
class EvidenceSettings(Settings):
    """How class activation maps and the foreground prior become a mask (3.1)."""

    masks: Masks = number(  # noqa: RUF009 - immutable
        "both", "Table 6", "none, foreground, localization or both"
    )
    alpha: float = number(
        0.5,
        "Eq. 3, 5",
        "weight of the foreground prior",
        at_least=0,
        at_most=1,
        only_with={"masks": ("both",)},
    )
    prior_saturate: float = number(
        0.02,
        "assumed",
        "fraction of P_f's pixels at either end that become 0 and 1; paper: 0",
        at_least=0,
        below=0.5,
        only_with={"masks": ("foreground", "both")},
    )
    cam_threshold: float = number(
        0.2,
        "3.1.2",
        "B_c: fraction of the CAM's maximum",
        above=0,
        below=1,
        only_with=_BY_CLASS,
    )
    elsewhere: Literal["mean", "max"] = number(
        "mean",
        "Eq. 4",
        "M_0 is 1 minus the mean of the present classes' maps, or their maximum",
        only_with=_BY_CLASS,
    )


@dataclass(frozen=True)
class MaskCrfSettings(CrfSettings, CrispSettings):
    """How the masks are smoothed (3.1.3)."""

    mask_crf: bool = number(True, "3.1.3", "smooth the masks with the dense CRF")
    mask_regions: Literal["crisp", "none"] = number(
        "crisp",
        "3.1.3",
        "regions of that CRF's higher-order terms: crisp, or none without them",
        only_with={"mask_crf": (True,)},
    )


_ASKED: dict[str, tuple[Any, ...]] = {"candidates": (True,)}


@dataclass(frozen=True)
class CandidateSettings(EvidenceSettings):
    """Masks of a photo from which a person picks the best: CheckMask (4.3).

    Each differs from the training mask in one thing (docs/builtin_priors.md, SAL-10).
    """

    candidates: bool = number(
        False, "4.3", "make several masks of each photo, of which a person can pick one"
    )
    candidate_alphas: tuple[float, ...] = number(
        (0.25, 0.75),
        "assumed",
        "alpha of candidates, one each",
        at_least=0,
        at_most=1,
        only_with={**_ASKED, "masks": ("both",)},
    )
    candidate_blocks: Literal["each", "both"] = number(
        "each",
        "assumed",
        "each: candidates with P_f of block 4 and of block 5 alone, too",
        only_with={**_ASKED, "masks": ("foreground", "both")},
    )
    candidate_backgrounds: tuple[float, ...] = number(
        (0.75, 1.5),
        "assumed",
        "factors on the background's map of candidates, one each: over 1 for smaller objects",
        above=0,
        only_with=_ASKED,
    )
    candidate_crfs: tuple[float, ...] = number(
        (0.0,),
        "assumed",
        "factors on the weights of the CRF of candidates, one each; 0: without",
        at_least=0,
        only_with=_ASKED,
    )

    def check(self) -> None:
        """Without masks there is nothing to pick from."""
        if self.candidates and self.masks == "none":
            raise ConfigError(
                "candidates=true needs masks to make them from",
                do="use masks=both, localization or foreground",
            )


@dataclass(frozen=True)
class Config(
    MaskSettings, PyramidSettings, CandidateSettings, MaskCrfSettings, GapSettings, CamSettings
):
    """Numbers of Saleh et al.; ``masks`` selects the rows of their Table 6."""

    sharpness: float = number(5.0, "Eq. 11", "r of the log-sum-exp", above=0, at_most=MAX_SHARPNESS)
    field_of_view: Literal["auto", "large", "small"] = number(
        "auto", "4.2.1", "auto: large with multi-class masks, small otherwise"
    )

    whole_photos: bool = number(
        False,
        "assumed",
        "the segmenter learns from whole photos, not from crops, as masks=none and foreground "
        "always do",
        only_with={**_BY_CLASS, "segmenter": ("published",)},
    )

    def sees_whole(self) -> bool:
        """Whether the segmenter is trained on whole photos.

        Eq. 10 and 12 ask for every tagged class in what the network sees, with no mask that would
        say whether a crop shows it.
        """
        return self.whole_photos or not self.by_class()

    def idle(self) -> dict[str, str]:
        """Whole photos have no crop."""
        found = super().idle()
        if self.sees_whole() and self.segmenter == "published":
            found["segmenter_crop"] = "whole_photos=false and masks=both or localization"
        return found

    def check(self) -> None:
        """The pyramid learns from masks with classes."""
        if self.segmenter == "pyramid" and self.masks in ("none", "foreground"):
            raise ConfigError(
                f"segmenter=pyramid learns no classes from masks={self.masks}",
                do="use masks=both or localization, or segmenter=published",
            )

    def by_class(self) -> bool:
        """Whether masks tell classes."""
        return self.masks in ("localization", "both")

    def view(self) -> FieldOfView:
        """Small with foreground masks or none, large with multi-class masks (4.2.1)."""
        if self.field_of_view != "auto":
            return self.field_of_view
        return "large" if self.by_class() else "small"
