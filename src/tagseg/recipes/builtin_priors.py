"""Built-in priors (Saleh et al., TPAMI 2017): masks from the activations of a pre-trained network.

A tag classifier says where each class is (CAM); the activations of the network's last two blocks
say where any object is; together they give a mask per tag, smoothed by a dense CRF; a segmenter is
trained on the tags with a loss that looks for each class in its mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.fuse.builtin_masks import (
    PresentMaps,
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
)
from tagseg.fuse.seed_labels import cam_labels
from tagseg.losses.lse import MAX_SHARPNESS, class_mask_loss, foreground_loss, tag_loss
from tagseg.maps import BACKGROUND, IGNORE, Labels, SaliencyMap, ScoreMap
from tagseg.nets.deeplab import FieldOfView
from tagseg.recipes.base import Outcome, Product, Run, TrainingConfig, View, number
from tagseg.recipes.products import classifier_outcome, segmenter_products, show_map, show_maps
from tagseg.recipes.stages import (
    activation_prior,
    crf_parameters,
    location_maps,
    tag_classifier,
    trained_segmenter,
    training_labels,
)
from tagseg.refine.dense_crf import refine, softmax_unary
from tagseg.run.workspace import Stage
from tagseg.segment.fit import Objective

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "Saleh, Aliakbarian, Salzmann, Petersson, Alvarez, Gould: Incorporating Network Built-in "
    "Priors in Weakly-supervised Semantic Segmentation, TPAMI 2017"
)

OBJECT = 1  # the label of a foreground mask that tells no classes apart

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
        if not 0 <= self.prior_saturate < 0.5:
            raise ConfigError(f"prior_saturate is {self.prior_saturate}", do="use 0 to below 0.5")
        if self.elsewhere not in ("mean", "max"):
            raise ConfigError(f"elsewhere is {self.elsewhere!r}", do="use mean or max")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}", do="use 0 to 1")
        if not 0 < self.sharpness <= MAX_SHARPNESS:
            raise ConfigError(
                f"sharpness is {self.sharpness}", do=f"use a value over 0, up to {MAX_SHARPNESS:g}"
            )


def run(run: Run, config: Config) -> Outcome:
    """Photos and tags in, trained segmenter out: classifier, priors, masks, segmenter."""
    photos, evidence = run.photos, Evidence(run, config)
    before, after = mask_maker(evidence, crf=False), mask_maker(evidence, crf=config.mask_crf)
    made_from = {"masks": config.masks, **mask_numbers(config)}
    masks = training_labels(run, "training-masks", after, made_from, evidence.stages)
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
    if config.masks != "none":
        by_class = config.masks != "foreground"
        products = [
            *evidence.seeds(masks.stage),
            Product("masks before CRF", "train", before, (masks.stage,), by_class),
            Product("training masks", "train", masks, (masks.stage,), by_class),
        ]
    return Outcome(
        segmenter,
        (*products, *segmenter_products(run, config, segmenter, segmenter_stage)),
        views=evidence.views(photos),
        tag_scores=evidence.tag_scores,
        curves=(*evidence.curves, segmenter_stage),
    )


class Evidence:
    """What the masks in use are made from: class activation maps (3.1.2), P_f (3.1.1), or both."""

    def __init__(self, run: Run, config: Config) -> None:
        self.photos, self.config = run.photos, config
        self.stages: list[Stage] = []
        self.curves: list[Stage] = []
        self.scores_of: Callable[[int], ScoreMap] | None = None
        self.foreground_of: Callable[[int], SaliencyMap] | None = None
        self.tag_scores: Callable[[], npt.NDArray[np.float32]] | None = None
        if config.masks in ("localization", "both"):
            classifier, classifier_stage = tag_classifier(run, config)
            self.scores_of, stage = location_maps(run, config, classifier, classifier_stage)
            self.stages.append(stage)
            self.curves.append(classifier_stage)
            self.tag_scores = classifier_outcome(run, classifier)
        if config.masks in ("foreground", "both"):
            saturate = config.prior_saturate
            self.foreground_of, stage = activation_prior(run, config, saturate=saturate)
            self.stages.append(stage)

    def maps(self, index: int) -> PresentMaps:
        """Maps of the labels that photo ``index`` may hold: P_f, or P_0 and P_c of Eq. 2 to 5."""
        tags, config = self.photos.tags[index], self.config
        shape = self.photos.image(index).shape[:2]
        nothing = np.zeros(shape, np.float32)
        foreground = self.foreground_of(index) if self.foreground_of is not None else nothing
        if self.scores_of is not None:
            alpha = config.alpha if config.masks == "both" else 0.0
            return multiclass_maps(
                self.scores_of(index),
                foreground,
                tags,
                alpha=alpha,
                threshold=config.cam_threshold,
                elsewhere=config.elsewhere,
            )
        if config.masks == "none" or not tags.any():  # no mask, or a photo of background alone
            return PresentMaps(np.ones((1, *shape), np.float32), np.array([BACKGROUND]))
        return PresentMaps(foreground_maps(foreground), np.array([BACKGROUND, OBJECT]))

    def seeds(self, stage: Stage) -> tuple[Product, ...]:
        """Thresholded class activation maps, for comparison with the masks."""
        scores_of, tags = self.scores_of, self.photos.tags
        if scores_of is None:
            return ()
        threshold = self.config.cam_threshold

        def labels(index: int) -> Labels:
            return cam_labels(scores_of(index), tags[index], threshold=threshold)

        return (Product("CAM seeds", "train", labels, (stage,)),)

    def views(self, photos: WorkingPhotos) -> tuple[tuple[str, View], ...]:
        """Pictures of the evidence for the gallery."""
        found: list[tuple[str, View]] = []
        if self.scores_of is not None:
            found.append(("class activation maps", show_maps(photos, self.scores_of)))
        if self.foreground_of is not None:
            found.append(("foreground probability", show_map(photos, self.foreground_of)))
        return tuple(found)


def mask_maker(evidence: Evidence, *, crf: bool) -> Callable[[int], Labels]:
    """Mask of a photo by its index, with or without the CRF of 3.1.3 (Eq. 6, 7)."""
    parameters = crf_parameters(evidence.config)

    def make(index: int) -> Labels:
        maps, labels = evidence.maps(index)
        if crf and len(labels) > 1:
            maps = refine(evidence.photos.image(index), softmax_unary(maps), parameters)
        return labels_from_maps(maps, labels)

    return make


def mask_numbers(config: Config) -> dict[str, Any]:
    """The numbers that decide on the masks in use."""
    numbers: dict[str, Any] = {}
    if config.masks == "none":
        return numbers
    if config.masks != "foreground":
        numbers |= {"cam_threshold": config.cam_threshold, "elsewhere": config.elsewhere}
    if config.masks != "localization":
        numbers["saturate"] = config.prior_saturate
    if config.masks == "both":
        numbers["alpha"] = config.alpha
    return numbers | {"crf": asdict(crf_parameters(config)) if config.mask_crf else None}


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
