"""The maps of ``dcsm``: whose they are, what they depend on, and how they are shown."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from tagseg.maps import Labels, Probs, ScoreMap
from tagseg.recipes.dcsm.classifier import (
    fully_convolutional_classifier,
    seeder_settings,
    weights_of_layers,
)
from tagseg.recipes.dcsm.config import Config
from tagseg.stages.context import Run, Split
from tagseg.stages.distinct_segmenter import (
    DistinctRefiner,
    DistinctSegmenter,
    distinct_probabilities,
)
from tagseg.stages.outcome import Prediction, Seeds
from tagseg.stages.score_maps import photo_score_maps
from tagseg.stages.stage import Declared, LabelMaps, ScoreMaps, label_maps

__all__ = ["DistinctMaps"]

_MAPS = Declared("distinct-maps")
_MASKS = Declared("training-masks")
_BEATS_BACKGROUND = 0.5  # where a class's map is over Eq. 7's 1 - max


class DistinctMaps:
    """Distinct class saliency maps of the known tags, and of new photos (Shimoda & Yanai, 3).

    Attributes:
        classifier: that they are made with.
        of_training: score maps (C, h, w) of the training photos.
    """

    def __init__(self, run: Run, config: Config) -> None:
        self._run, self._config = run, config
        self.classifier = fully_convolutional_classifier(run, config)
        self._settings = seeder_settings(run, config)
        self._seeder = self._settings.seeder(self.classifier.model, run.setup.execution)
        self._crf = {**asdict(config.crf()), "regions": None}
        self._refiner = DistinctRefiner(self._crf)
        self.of_training = self.of("train")

    def of(self, split: Split) -> ScoreMaps:
        """Score maps of a split's photos: M^ of Eq. 5."""
        return photo_score_maps(
            self._run,
            _MAPS,
            lambda image, tags: self._seeder(image, tags).score_map,
            settings=[self._settings, *weights_of_layers(self.classifier.model, self._config)],
            inputs=[self.classifier],
            split=split,
        )

    def smoothed(self, split: Split) -> ScoreMaps:
        """Probabilities of the classes after the CRF of Eq. 6 to 8, likewise."""
        photos = self._run.split(split).photos

        def smooth(index: int, scores: ScoreMap) -> ScoreMap:
            return self._refiner.refine(photos.image(index), distinct_probabilities(scores))[1:]

        return self.of(split).map(smooth)

    def probabilities(self, index: int) -> Probs:
        """Maps of a training photo with the background of Eq. 7: (C + 1, h, w)."""
        return distinct_probabilities(self.of_training(index))

    def masks(self) -> LabelMaps:
        """Masks of the training photos after the CRF."""
        photos = self._run.photos

        def make(index: int) -> Labels:
            refined = self._refiner.refine(photos.image(index), self.probabilities(index))
            return refined.argmax(0).astype(np.uint8)

        decided_by = [self._config.crf()]
        return label_maps(self._run, _MASKS, make, settings=decided_by, inputs=[self.of_training])

    def predictions(self, masks: LabelMaps) -> list[Prediction]:
        """The training photos' masks before and after the CRF."""

        def before(index: int) -> Labels:
            return self.probabilities(index).argmax(0).astype(np.uint8)

        stage = self.of_training.stage
        return [
            Prediction("distinct-maps", "distinct maps", "train", before, stage),
            Prediction.of("training-masks", "distinct maps + CRF", "train", masks),
        ]

    def seeds(self) -> tuple[Seeds, ...]:
        """The maps before and after the CRF, to be scored."""
        title = "distinct class saliency"
        return (
            Seeds("distinct", title, _BEATS_BACKGROUND, self.of),
            Seeds("distinct-crf", f"{title} + CRF", _BEATS_BACKGROUND, self.smoothed),
        )

    def segmenter(self) -> DistinctSegmenter:
        """What segments new photos without a segmenter (3.1)."""
        return DistinctSegmenter(
            self.classifier.model,
            self._run.photos.classes,
            self._settings,
            side=self._run.photos.side,
            execution=self._run.setup.execution,
            refinement=self._crf if self._config.refiner != "none" else None,
        )
