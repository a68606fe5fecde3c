"""The masks of ``builtin_priors``: from which evidence, and how smoothed (Saleh et al., 3.1).

The recipe tells the story; what each choice of its configuration needs, depends on and has to show
stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.fuse.builtin_masks import (
    PresentMaps,
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
)
from tagseg.fuse.seed_labels import cam_labels
from tagseg.maps import BACKGROUND, Labels, Tags, labels_of_tags
from tagseg.recipes.builtin_priors.config import Config, EvidenceSettings
from tagseg.refine.dense_crf import softmax_unary
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import location_maps, tag_classifier
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import Smoothing
from tagseg.stages.outcome import Locations, Prediction, Seeds, TagScores, View
from tagseg.stages.predictions import cam_seeds, classifier_outcome, show_map, show_maps
from tagseg.stages.priors import PhotoRegions, activation_prior, photo_regions
from tagseg.stages.settings import CrfSettings, CrispStrengths
from tagseg.stages.stage import Declared, Input, LabelMaps, SaliencyMaps, ScoreMaps, label_maps

__all__ = ["OBJECT", "Evidence", "training_masks"]

OBJECT = 1  # the label of a foreground mask that tells no classes apart

_TRAINING_MASKS = Declared("training-masks")
_VAL_MASKS = Declared("masks")


class Evidence:
    """What the masks in use are made from: class activation maps (3.1.2), P_f (3.1.1), or both.

    Of the training photos, or of the validation photos with their tags, which no training sees.
    """

    def __init__(self, run: Run, config: Config, *, split: Split = "train") -> None:
        self.photos, self.config, self.split = run.split(split).photos, config, split
        self.curves: list[Stage] = []
        self.scores_of: ScoreMaps | None = None
        self.foreground_of: SaliencyMaps | None = None
        self.tag_scores: TagScores | None = None
        self.seed_maps: tuple[Seeds, ...] = ()
        if config.masks in ("localization", "both"):
            classifier = tag_classifier(run, config)
            self.scores_of = location_maps(run, config, classifier, split=split)
            self.curves.append(classifier.stage)
            self.tag_scores = classifier_outcome(run, classifier.model)
            self.seed_maps = (cam_seeds(run, config, classifier, config.cam_threshold),)
        if config.masks in ("foreground", "both"):
            saturate = config.prior_saturate
            self.foreground_of = activation_prior(run, config, saturate=saturate, split=split)

    def changed(
        self, *, alpha: float | None = None, foreground_of: SaliencyMaps | None = None
    ) -> Evidence:
        """The same with another weight of the foreground prior, or another prior."""
        other = copy(self)
        if alpha is not None:
            other.config = replace(self.config, alpha=alpha)
        if foreground_of is not None:
            other.foreground_of = foreground_of
        return other

    @property
    def inputs(self) -> list[Input]:
        """The maps that there are."""
        return [maps for maps in (self.scores_of, self.foreground_of) if maps is not None]

    def maps(self, index: int) -> PresentMaps:
        """Maps of the labels that photo ``index`` may hold: P_f, or P_0 and P_c of Eq. 2 to 5."""
        tags, config = self.photos.tags[index], self.config
        shape = self.photos.image(index).shape[:2]
        nothing = np.zeros(shape, np.float32)
        foreground = self.foreground_of(index) if self.foreground_of is not None else nothing
        if self.scores_of is not None:
            return multiclass_maps(
                self.scores_of(index),
                foreground,
                tags,
                alpha=config.alpha if config.masks == "both" else 0.0,
                threshold=config.cam_threshold,
                elsewhere=config.elsewhere,
            )
        if config.masks == "none" or not tags.any():  # no mask, or a photo of background alone
            return PresentMaps(np.ones((1, *shape), np.float32), np.array([BACKGROUND]))
        return PresentMaps(foreground_maps(foreground), np.array([BACKGROUND, OBJECT]))

    def seeds(self, index: int) -> Labels:
        """Thresholded class activation maps, for comparison with the masks."""
        assert self.scores_of is not None
        threshold = self.config.cam_threshold
        return cam_labels(self.scores_of(index), self.photos.tags[index], threshold=threshold)

    def locations(self, masks: LabelMaps | None = None) -> tuple[Locations, ...]:
        """Where each kind of evidence, and the masks, put the photos' classes (Figure 9)."""
        found: list[Locations] = []
        tags, scores, foreground = self.photos.tags, self.scores_of, self.foreground_of
        if scores is not None:
            found.append(Locations("localization", lambda i: scores(i)[tags[i]], scores.stage))
        if foreground is not None:
            found.append(
                Locations("fusion", lambda i: _each(foreground(i), tags[i]), foreground.stage)
            )
        if scores is not None and foreground is not None:
            both = "localization+fusion"
            found.append(Locations(both, lambda i: self.maps(i).maps[1:], scores.stage))
        if masks is not None:
            found.append(Locations("masks", lambda i: self._covered(masks(i), i), masks.stage))
        return tuple(found)

    def _covered(self, labels: Labels, index: int) -> npt.NDArray[np.bool_]:
        """Which pixels of a mask are of each of photo ``index``'s classes, bool (K, h, w)."""
        tags = self.photos.tags[index]
        if self.config.masks == "foreground":
            return _each(labels == OBJECT, tags)
        return labels == labels_of_tags(tags)[1:, None, None]

    def views(self) -> tuple[tuple[str, View], ...]:
        """Pictures of the evidence for the gallery."""
        found: list[tuple[str, View]] = []
        if self.scores_of is not None:
            found.append(("class activation maps", show_maps(self.scores_of)))
        if self.foreground_of is not None:
            found.append(("foreground probability", show_map(self.foreground_of)))
        return tuple(found)


def _each(plane: npt.NDArray[Any], tags: Tags) -> npt.NDArray[Any]:
    """A map (h, w) that knows no classes, once for each tag: (K, h, w)."""
    return np.broadcast_to(plane, (int(tags.sum()), *plane.shape))


def training_masks(
    run: Run, config: Config, evidence: Evidence
) -> tuple[LabelMaps, tuple[Prediction, ...]]:
    """Masks of the evidence's photos (3.1.3), and what the report shows of how they came about."""
    split, inputs = evidence.split, evidence.inputs
    smoothing = Smoothing.of(config) if config.masks != "none" and config.mask_crf else None
    regions_of: PhotoRegions | None = None
    decided_by: list[Any] = [config.only(EvidenceSettings)]
    if smoothing is not None:
        decided_by.append(config.only(CrfSettings))
        if config.mask_regions == "crisp":
            regions_of = photo_regions(run, config, split=split)
            inputs.append(regions_of)
            decided_by.append(config.only(CrispStrengths))
    masks = label_maps(
        run,
        _TRAINING_MASKS if split == "train" else _VAL_MASKS,
        mask_maker(evidence, smoothing, regions_of),
        settings=decided_by,
        inputs=inputs,
        split=split,
    )
    if config.masks == "none":
        return masks, ()
    steps: list[tuple[str, str, Callable[[int], Labels], bool]] = []
    by_class = config.masks != "foreground"
    if evidence.scores_of is not None:
        steps.append(("seeds", "CAM seeds", evidence.seeds, True))
    raw, pairwise = mask_maker(evidence, None), mask_maker(evidence, Smoothing.of(config))
    steps.append(("raw-masks", "masks before CRF", raw, by_class))
    if regions_of is not None:
        steps.append(("pairwise-masks", "masks after pairwise CRF", pairwise, by_class))
    steps.append(("training-masks", "training masks", masks, by_class))
    return masks, tuple(
        Prediction(id, title, split, of, masks.stage, of_class) for id, title, of, of_class in steps
    )


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
