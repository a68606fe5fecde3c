"""The fields of recipe ``builtin_priors``, with sections of Saleh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

__all__ = ["Config", "EvidenceSettings"]

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


@dataclass(frozen=True)
class Config(
    MaskSettings, PyramidSettings, EvidenceSettings, MaskCrfSettings, GapSettings, CamSettings
):
    """Numbers of Saleh et al.; ``masks`` selects the rows of their Table 6."""

    sharpness: float = number(5.0, "Eq. 11", "r of the log-sum-exp", above=0, at_most=MAX_SHARPNESS)
    field_of_view: Literal["auto", "large", "small"] = number(
        "auto", "4.2.1", "auto: large with multi-class masks, small otherwise"
    )

    def check(self) -> None:
        """The pyramid learns from masks with classes."""
        if self.segmenter == "pyramid" and self.masks in ("none", "foreground"):
            raise ConfigError(
                f"segmenter=pyramid learns no classes from masks={self.masks}",
                do="use masks=both or localization, or segmenter=published",
            )

    def view(self) -> FieldOfView:
        """Small with foreground masks or none, large with multi-class masks (4.2.1)."""
        if self.field_of_view != "auto":
            return self.field_of_view
        return "large" if self.masks in ("localization", "both") else "small"
