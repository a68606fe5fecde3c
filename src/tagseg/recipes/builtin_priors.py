"""Built-in priors (Saleh et al., TPAMI 2017): masks from the activations of a pre-trained network.

A tag classifier says where each class is (CAM); the activations of the network's last two blocks
say where any object is; together they give a mask per tag, smoothed by a dense CRF; a segmenter is
trained on the tags with a loss that looks for each class in its mask.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from tagseg.errors import ConfigError
from tagseg.fuse.builtin_masks import (
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
    softmax_unary,
)
from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.nets.deeplab import FieldOfView
from tagseg.recipes.base import Outcome, Product, Run, TrainingConfig, number
from tagseg.recipes.products import classifier_outcome, segmenter_products, show_map, show_maps
from tagseg.recipes.stages import (
    activation_prior,
    crf_parameters,
    location_maps,
    tag_classifier,
    trained_segmenter,
    training_labels,
)
from tagseg.refine.dense_crf import refine
from tagseg.segment.fit import Objective

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "Saleh, Aliakbarian, Salzmann, Petersson, Alvarez, Gould: Incorporating Network Built-in "
    "Priors in Weakly-supervised Semantic Segmentation, TPAMI 2017"
)

Masks = Literal["none", "foreground", "localization", "both"]


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Numbers of Saleh et al.; ``masks`` selects the rows of their Table 6."""

    masks: Masks = number("both", "Table 6", "none, foreground, localization or both")
    alpha: float = number(0.5, "Eq. 3, 5", "weight of the foreground prior")
    cam_threshold: float = number(0.2, "3.1.2", "B_c: fraction of the CAM's maximum")
    sharpness: float = number(5.0, "Eq. 11", "r of the log-sum-exp")
    mask_crf: bool = number(True, "3.1.3", "smooth the masks with the dense CRF")
    field_of_view: Literal["auto", "large", "small"] = number(
        "auto", "4.2.1", "auto: large with multi-class masks, small otherwise"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masks not in ("none", "foreground", "localization", "both"):
            raise ConfigError(
                f"masks is {self.masks!r}", do="use none, foreground, localization or both"
            )
        if not 0 < self.cam_threshold < 1:
            raise ConfigError(f"cam_threshold is {self.cam_threshold}", do="use 0 to 1")


def run(run: Run, config: Config) -> Outcome:
    """Photos and tags in, trained segmenter out: classifier, priors, masks, segmenter."""
    photos = run.photos
    classifier, classifier_stage = tag_classifier(run, config)
    scores_of, location_stage = location_maps(run, classifier, classifier_stage)
    foreground_of, prior_stage = activation_prior(run, config)
    evidence = [location_stage, prior_stage]

    def raw_mask(index: int, crf: bool = False) -> Labels:
        """Mask of photo ``index`` from Eq. 2 to 5, with or without the CRF of 3.1.3."""
        foreground, tags = foreground_of(index), photos.tags[index]
        if config.masks == "foreground":
            maps, labels = foreground_maps(foreground), np.array([0, 1])
        else:
            maps, labels = multiclass_maps(
                scores_of(index),
                foreground,
                tags,
                alpha=config.alpha if config.masks == "both" else 0.0,
                threshold=config.cam_threshold,
            )
        if crf and len(labels) > 1:
            unary = softmax_unary(maps)  # Eq. 7
            maps = refine(photos.image(index), unary, crf_parameters(config))
        return labels_from_maps(maps, labels)

    if config.masks == "none":
        masks = training_labels(run, "no-masks", lambda i: blank(photos.image(i)), {}, [])
    else:
        made_from = {
            "masks": config.masks,
            "alpha": config.alpha,
            "cam_threshold": config.cam_threshold,
            "crf": asdict(crf_parameters(config)) if config.mask_crf else None,
        }
        make = partial(raw_mask, crf=config.mask_crf)
        masks = training_labels(run, "training-masks", make, made_from, evidence)
    segmenter, segmenter_stage = trained_segmenter(
        run,
        config,
        masks,
        objective(config),
        [masks.stage],
        objective_name=f"{config.masks}, r = {config.sharpness}",
        field_of_view=field_of_view(config),
    )
    products = []
    by_class = config.masks != "foreground"
    if config.masks != "none":
        products += [
            Product("masks before CRF", "train", raw_mask, tuple(evidence), by_class),
            Product("training masks", "train", masks, (masks.stage,), by_class),
        ]
    products += segmenter_products(run, config, segmenter, segmenter_stage)
    return Outcome(
        segmenter,
        tuple(products),
        views=(
            ("class activation maps", show_maps(photos, scores_of)),
            ("foreground probability", show_map(photos, foreground_of)),
        ),
        tag_scores=classifier_outcome(run, classifier),
        curves=(classifier_stage, segmenter_stage),
    )


def blank(image: np.ndarray) -> Labels:
    """No mask at all: every pixel of the photo counts, none is assigned."""
    return np.full(image.shape[:2], BACKGROUND, np.uint8)


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
            return foreground_loss(scores, tags, labels == 1, valid=valid, r=r)
        return class_mask_loss(scores, tags, labels, r=r)

    return loss
