"""The masks of ``builtin_priors``: from which evidence, and how smoothed (Saleh et al., 3.1).

The recipe tells the story; what each choice of its configuration needs, depends on and has to show
stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.data.working import WorkingPhotos
from tagseg.fuse.builtin_masks import (
    PresentMaps,
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
)
from tagseg.fuse.seed_labels import cam_labels
from tagseg.maps import BACKGROUND, Labels, SaliencyMap, ScoreMap
from tagseg.recipes.builtin_priors.config import Config
from tagseg.refine.dense_crf import softmax_unary
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import location_maps, tag_classifier
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import Smoothing
from tagseg.stages.labels import LabelMaps, training_labels
from tagseg.stages.outcome import Product, Seeds, View
from tagseg.stages.priors import PhotoRegions, activation_prior, photo_regions
from tagseg.stages.products import cam_seeds, classifier_outcome, show_map, show_maps

__all__ = ["OBJECT", "Evidence", "training_masks"]

OBJECT = 1  # the label of a foreground mask that tells no classes apart


class Evidence:
    """What the masks in use are made from: class activation maps (3.1.2), P_f (3.1.1), or both.

    Of the training photos, or of the validation photos with their tags, which no training sees.
    """

    def __init__(self, run: Run, config: Config, *, split: Split = "train") -> None:
        self.photos, self.config, self.split = run.part(split).photos, config, split
        self.stages: list[Stage] = []
        self.curves: list[Stage] = []
        self.scores_of: Callable[[int], ScoreMap] | None = None
        self.foreground_of: Callable[[int], SaliencyMap] | None = None
        self.tag_scores: Callable[[], npt.NDArray[np.float32]] | None = None
        self.seed_maps: tuple[Seeds, ...] = ()
        if config.masks in ("localization", "both"):
            classifier, classifier_stage = tag_classifier(run, config)
            self.scores_of, stage = location_maps(
                run, config, classifier, classifier_stage, split=split
            )
            self.stages.append(stage)
            self.curves.append(classifier_stage)
            self.tag_scores = classifier_outcome(run, classifier)
            self.seed_maps = (
                cam_seeds(run, config, classifier, classifier_stage, config.cam_threshold),
            )
        if config.masks in ("foreground", "both"):
            saturate = config.prior_saturate
            self.foreground_of, stage = activation_prior(
                run, config, saturate=saturate, split=split
            )
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

        return (Product("CAM seeds", self.split, labels, (stage,)),)

    def views(self, photos: WorkingPhotos) -> tuple[tuple[str, View], ...]:
        """Pictures of the evidence for the gallery."""
        found: list[tuple[str, View]] = []
        if self.scores_of is not None:
            found.append(("class activation maps", show_maps(photos, self.scores_of)))
        if self.foreground_of is not None:
            found.append(("foreground probability", show_map(photos, self.foreground_of)))
        return tuple(found)


def training_masks(
    run: Run, config: Config, evidence: Evidence
) -> tuple[LabelMaps, tuple[Product, ...]]:
    """Masks of the evidence's photos (3.1.3), and what the report shows of how they came about."""
    split = evidence.split
    with_crf = config.masks != "none" and config.mask_crf
    stages = list(evidence.stages)
    regions_of: PhotoRegions | None = None
    if with_crf and config.mask_regions == "crisp":
        regions_of, found = photo_regions(run, config, split=split)
        stages.append(found)
    raw, pairwise = mask_maker(evidence, None), mask_maker(evidence, Smoothing.of(config))
    smoothed = mask_maker(evidence, Smoothing.of(config), regions_of)
    numbers = mask_numbers(config, with_regions=regions_of is not None)
    name, final = "training-masks" if split == "train" else "masks", smoothed if with_crf else raw
    masks = training_labels(run, name, final, numbers, stages, split=split)
    if config.masks == "none":
        return masks, ()
    steps: list[tuple[str, Callable[[int], Labels]]] = [("masks before CRF", raw)]
    if regions_of is not None:
        steps.append(("masks after pairwise CRF", pairwise))
    steps.append(("training masks", masks))
    by_class = config.masks != "foreground"
    products = [Product(title, split, of, (masks.stage,), by_class) for title, of in steps]
    return masks, (*evidence.seeds(masks.stage), *products)


def mask_maker(
    evidence: Evidence, smoothing: Smoothing | None, regions_of: PhotoRegions | None = None
) -> Callable[[int], Labels]:
    """Mask of a photo by its index: without the CRF of 3.1.3, with it, with higher-order terms."""

    def make(index: int) -> Labels:
        maps, labels = evidence.maps(index)
        if smoothing is not None and len(labels) > 1:
            regions = regions_of(index) if regions_of is not None else None
            image = evidence.photos.image(index)
            maps = smoothing(image, softmax_unary(maps), maps, regions)
        return labels_from_maps(maps, labels)

    return make


def mask_numbers(config: Config, *, with_regions: bool) -> dict[str, Any]:
    """The numbers that decide on the masks in use."""
    numbers: dict[str, Any] = {"masks": config.masks}
    if config.masks == "none":
        return numbers
    if config.masks != "foreground":
        numbers |= {"cam_threshold": config.cam_threshold, "elsewhere": config.elsewhere}
    if config.masks != "localization":
        numbers["saturate"] = config.prior_saturate
    if config.masks == "both":
        numbers["alpha"] = config.alpha
    smoothing = Smoothing.of(config)
    numbers["crf"] = asdict(smoothing.parameters) if config.mask_crf else None
    numbers["region_strengths"] = asdict(smoothing.strengths) if with_regions else None
    return numbers
