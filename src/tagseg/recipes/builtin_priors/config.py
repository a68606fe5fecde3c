"""The fields of recipe ``builtin_priors``, with sections of Saleh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.errors import ConfigError
from tagseg.losses.lse import MAX_SHARPNESS
from tagseg.nets.deeplab import FieldOfView
from tagseg.stages.config import TrainingConfig, number

__all__ = ["Config"]

Masks = Literal["none", "foreground", "localization", "both"]


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Numbers of Saleh et al.; ``masks`` selects the rows of their Table 6."""

    masks: Masks = number(  # noqa: RUF009 - immutable
        "both", "Table 6", "none, foreground, localization or both"
    )
    alpha: float = number(0.5, "Eq. 3, 5", "weight of the foreground prior")
    prior_saturate: float = number(
        0.02, "assumed", "share of P_f's pixels at either end that become 0 and 1; paper: 0"
    )
    cam_threshold: float = number(0.2, "3.1.2", "B_c: fraction of the CAM's maximum")
    elsewhere: Literal["mean", "max"] = number(
        "mean", "Eq. 4", "M_0 is 1 minus the mean of the present classes' maps, or their maximum"
    )
    sharpness: float = number(5.0, "Eq. 11", "r of the log-sum-exp")
    mask_crf: bool = number(True, "3.1.3", "smooth the masks with the dense CRF")
    mask_regions: Literal["crisp", "none"] = number(
        "crisp", "3.1.3", "regions of that CRF's higher-order terms: crisp, or none without them"
    )
    field_of_view: Literal["auto", "large", "small"] = number(
        "auto", "4.2.1", "auto: large with multi-class masks, small otherwise"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cam_threshold < 1:
            raise ConfigError(f"cam_threshold is {self.cam_threshold}", do="use 0 to 1")
        if not 0 <= self.prior_saturate < 0.5:
            raise ConfigError(f"prior_saturate is {self.prior_saturate}", do="use 0 to below 0.5")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}", do="use 0 to 1")
        if not 0 < self.sharpness <= MAX_SHARPNESS:
            raise ConfigError(
                f"sharpness is {self.sharpness}", do=f"use a value over 0, up to {MAX_SHARPNESS:g}"
            )


def field_of_view(config: Config) -> FieldOfView:
    """Small with foreground masks or none, large with multi-class masks (4.2.1)."""
    if config.field_of_view != "auto":
        return config.field_of_view
    return "large" if config.masks in ("localization", "both") else "small"
