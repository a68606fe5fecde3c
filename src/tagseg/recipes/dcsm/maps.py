"""The maps of ``dcsm``: whose they are, what they depend on, and how they are shown."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from tagseg.maps import Labels, Probs, ScoreMap
from tagseg.recipes.dcsm.classifier import fully_convolutional_classifier, seeder_settings
from tagseg.recipes.dcsm.config import Config
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Split
from tagseg.stages.distinct_segmenter import (
    DistinctSegmenter,
    distinct_probabilities,
    distinct_refinement,
)
from tagseg.stages.labels import LabelMaps, training_labels
from tagseg.stages.outcome import Product, Seeds
from tagseg.stages.score_maps import ScoreMaps, photo_score_maps

__all__ = ["DistinctMaps"]

_BEATS_BACKGROUND = 0.5  # where a class's map is over Eq. 7's 1 - max


class DistinctMaps:
    """Distinct class saliency maps of the known tags, and of new photos (Shimoda & Yanai, 3).

    Attributes:
        classifier, classifier_stage: that they are made with.
        of_training, stage: score maps (C, h, w) of the training photos.
    """

    def __init__(self, run: Run, config: Config) -> None:
        self._run, self._config = run, config
        self.classifier, self.classifier_stage = fully_convolutional_classifier(run, config)
        self._settings = seeder_settings(run, config)
        self._seeder = self._settings.seeder(self.classifier, run.setup.execution)
        self._crf = {**asdict(config.crf()), "regions": None}
        self._refine = distinct_refinement(self._crf)
        self.of_training, self.stage = self.of("train")

    def of(self, split: Split) -> tuple[ScoreMaps, Stage]:
        """Score maps of a split's photos: M^ of Eq. 5."""
        return photo_score_maps(
            self._run,
            "distinct-maps",
            lambda image, tags: self._seeder(image, tags).score_map,
            asdict(self._settings),
            self.classifier_stage,
            split=split,
        )

    def smoothed(self, split: Split) -> tuple[ScoreMaps, Stage]:
        """Probabilities of the classes after the CRF of Eq. 6 to 8, likewise."""
        scores_of, stage = self.of(split)
        photos = self._run.part(split).photos

        def smooth(index: int) -> ScoreMap:
            return self._refine(photos.image(index), distinct_probabilities(scores_of(index)))[1:]

        return smooth, stage

    def probabilities(self, index: int) -> Probs:
        """Of a training photo, with the background of Eq. 7: (C + 1, h, w)."""
        return distinct_probabilities(self.of_training(index))

    def masks(self) -> LabelMaps:
        """Masks of the training photos after the CRF."""
        photos = self._run.photos

        def make(index: int) -> Labels:
            refined = self._refine(photos.image(index), self.probabilities(index))
            return refined.argmax(0).astype(np.uint8)

        return training_labels(self._run, "training-masks", make, {"crf": self._crf}, [self.stage])

    def products(self, masks: LabelMaps) -> list[Product]:
        """The training photos' masks before and after the CRF."""

        def before(index: int) -> Labels:
            return self.probabilities(index).argmax(0).astype(np.uint8)

        return [
            Product("distinct maps", "train", before, (self.stage,)),
            Product("distinct maps + CRF", "train", masks, (masks.stage,)),
        ]

    def seeds(self) -> tuple[Seeds, ...]:
        """The maps before and after the CRF, to be scored."""
        title = "distinct class saliency"
        return (
            Seeds(title, _BEATS_BACKGROUND, self.of),
            Seeds(f"{title} + CRF", _BEATS_BACKGROUND, self.smoothed),
        )

    def segmenter(self) -> DistinctSegmenter:
        """What segments new photos without a segmenter (3.1)."""
        return DistinctSegmenter(
            self.classifier,
            self._run.photos.classes,
            self._settings,
            side=self._config.photo_side,
            execution=self._run.setup.execution,
            refinement=self._crf if self._config.segmenter_crf else None,
        )
