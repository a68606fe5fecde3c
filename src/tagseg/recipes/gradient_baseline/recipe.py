"""Gradient seeds (Oh et al., CVPR 2017, 4.2): back-propagated class scores, thresholded.

The paper's comparison of class activation maps with three kinds of back-propagation, here as a
recipe: a classifier of its own (F), gradients in place of its maps, "seeds only".
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.seeds import GradientSeeder
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Image, Labels, ScoreMap, Tags
from tagseg.recipes.gradient_baseline.config import Config, GradientSettings, ThresholdSettings
from tagseg.recipes.gradient_baseline.preset import PRESET
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import smoothed_scores
from tagseg.stages.guide_classifier import GuideClassifier, guide_classifier
from tagseg.stages.outcome import Outcome, Prediction, Seeds
from tagseg.stages.predictions import classifier_outcome, final_predictions, show_maps
from tagseg.stages.recipe import Recipe
from tagseg.stages.score_maps import layer_weights, photo_score_maps
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.settings import CrfIterations
from tagseg.stages.stage import Declared, Once, ScoreMaps, label_maps
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "run", "seed_maps"]

_GRADIENTS = Declared("gradient-seeds")
_SEEDS = Declared("seeds")


def run(run: Run, config: Config) -> Outcome:
    """Classifier, gradients, Gaussian, CRF, threshold, cross-entropy."""
    photos, threshold = run.photos, config.seed_threshold
    classifier = guide_classifier(run, config)
    maps_of = partial(seed_maps, run, config, classifier)
    maps = maps_of("train")

    def seeds_of(index: int) -> Labels:
        return cam_labels(maps(index), photos.tags[index], threshold=threshold)

    decided_by = [config.only(ThresholdSettings)]
    seeds = label_maps(run, _SEEDS, seeds_of, settings=decided_by, inputs=[maps])
    segmenter = trained_segmenter(run, config, sure_labels(run, config, seeds), cross_entropy)
    title = f"{config.method} back-propagation"
    return Outcome(
        segmenter.model,
        (
            Prediction.of("seeds", f"{title} seeds", "train", seeds),
            *final_predictions(run, config, segmenter.model, segmenter),
        ),
        views=((title, show_maps(maps)),),
        tag_scores=classifier_outcome(run, classifier.model),
        curves=(classifier.stage, segmenter.stage),
        seeds=(Seeds("gradients", title, threshold, maps_of),),
    )


def seed_maps(run: Run, config: Config, classifier: GuideClassifier, split: Split) -> ScoreMaps:
    """Score maps of the known tags, smoothed as configured."""
    execution, settings = run.setup.execution, config.only(GradientSettings)
    crf = config.crf() if settings.seed_crf else None
    no_tags = np.zeros(len(run.photos.classes), bool)

    @Once
    def seeder() -> GradientSeeder:  # not for stages that are finished
        return GradientSeeder(
            classifier.model.to(execution.device),
            settings.method,
            blocks=settings.blocks,
            sigma=settings.seed_sigma,
            precision=execution.precision,
        )

    def make(image: Image, tags: Tags | None) -> ScoreMap:
        scores = seeder()(image, tags if tags is not None else no_tags)
        if crf is None:
            return scores
        return smoothed_scores(image, scores, crf, contrast=settings.seed_contrast)

    decided_by: list[object] = [
        settings,
        *layer_weights(classifier.model.backbone, settings.blocks),
        *([config.only(CrfIterations)] if settings.seed_crf else []),
    ]
    return photo_score_maps(
        run, _GRADIENTS, make, settings=decided_by, inputs=[classifier], split=split
    )


RECIPE = Recipe(
    "gradient_baseline",
    "reference: the back-propagation seeders of Oh, Benenson, Khoreva, Akata, Fritz, Schiele: "
    "Exploiting Saliency for Object Segmentation from Image Level Labels, CVPR 2017",
    Config,
    run,
    paper_preset=PRESET,
)
