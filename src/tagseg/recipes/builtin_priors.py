"""Built-in priors (Saleh et al., TPAMI 2017): masks from the activations of a pre-trained network.

A tag classifier says where each class is (CAM); the activations of the network's last two blocks
say where any object is; together they give a mask per tag, smoothed by a dense CRF whose
higher-order terms follow crisp regions; a segmenter is trained on the tags with a loss that looks
for each class in its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tagseg.errors import ConfigError
from tagseg.losses.lse import MAX_SHARPNESS, class_mask_loss, foreground_loss, tag_loss
from tagseg.maps import IGNORE
from tagseg.nets.deeplab import FieldOfView
from tagseg.recipes.base import Outcome, Run, TrainingConfig, number
from tagseg.recipes.builtin_masks import OBJECT, Evidence, training_masks
from tagseg.recipes.products import segmenter_products
from tagseg.recipes.stages import LabelMaps, trained_segmenter
from tagseg.run.workspace import Stage
from tagseg.segment.fit import Objective
from tagseg.segment.predict import Segmenter

__all__ = ["PAPER", "Config", "run", "segmenter_from"]

PAPER = (
    "Saleh, Aliakbarian, Salzmann, Petersson, Alvarez, Gould: Incorporating Network Built-in "
    "Priors in Weakly-supervised Semantic Segmentation, TPAMI 2017"
)

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


def run(run: Run, config: Config) -> Outcome:
    """Photos and tags in, trained segmenter out: classifier, priors, masks, segmenter."""
    evidence = Evidence(run, config)  # P_f of 3.1.1 and the localization network of 3.1.2
    masks, mask_products = training_masks(run, config, evidence)  # 3.1.2 and 3.1.3
    segmenter, stage = segmenter_from(run, config, masks)  # 3.2 and 4.2.1
    return Outcome(
        segmenter,
        (*mask_products, *segmenter_products(run, config, segmenter, stage)),
        views=evidence.views(run.photos),
        tag_scores=evidence.tag_scores,
        curves=(*evidence.curves, stage),
        seeds=evidence.seed_maps,
    )


def segmenter_from(run: Run, config: Config, masks: LabelMaps) -> tuple[Segmenter, Stage]:
    """The segmenter, trained on the tags and the masks in use."""
    return trained_segmenter(
        run,
        config,
        masks,
        objective(config),
        [masks.stage],
        objective_name=f"{config.masks}, r = {config.sharpness}",
        field_of_view=field_of_view(config),
    )


def field_of_view(config: Config) -> FieldOfView:
    """Small with foreground masks or none, large with multi-class masks (4.2.1)."""
    if config.field_of_view != "auto":
        return config.field_of_view
    return "large" if config.masks in ("localization", "both") else "small"


def objective(config: Config) -> Objective:
    """The loss for the masks in use: Eq. 10, Eq. 12 or Eq. 15."""
    r = config.sharpness

    def loss(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        valid = labels != IGNORE
        if config.masks == "none":
            return tag_loss(scores, tags, valid=valid, r=r)
        if config.masks == "foreground":
            return foreground_loss(scores, tags, labels == OBJECT, valid=valid, r=r)
        return class_mask_loss(scores, tags, labels, r=r)

    return loss
