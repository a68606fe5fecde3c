"""Gradient seeds (Oh et al., CVPR 2017, 4.2): back-propagated class scores, thresholded.

The paper's comparison of class activation maps with three kinds of back-propagation, here as a
recipe: a classifier of its own (F), gradients in place of its maps, "seeds only".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.seeds import GradientSeeder
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Image, Labels, ScoreMap, Tags
from tagseg.nets.gap import GapClassifier
from tagseg.refine.dense_crf import CrfParameters
from tagseg.stages.classifier import tag_classifier
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import smoothed_scores
from tagseg.stages.outcome import Outcome, Prediction, Seeds
from tagseg.stages.predictions import classifier_outcome, final_predictions, show_maps
from tagseg.stages.recipe import Recipe
from tagseg.stages.schedules import guide_classifier_schedule
from tagseg.stages.score_maps import photo_score_maps
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.settings import (
    BILATERAL,
    KERNELS,
    SMOOTHNESS,
    CrfIterations,
    GapSettings,
    MaskSettings,
    PyramidSettings,
    Settings,
    check_blocks,
    number,
)
from tagseg.stages.stage import Declared, Once, ScoreMaps, Trained, label_maps
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "Config", "GradientSettings", "gradient_classifier", "run", "seed_maps"]

_GRADIENTS = Declared("gradient-seeds")
_SEEDS = Declared("seeds")
_SMOOTHED = {"seed_crf": (True,)}


@dataclass(frozen=True)
class GradientSettings(Settings):
    """The kind of back-propagation and its smoothing."""

    method: Literal["guided", "plain", "excitation"] = number(
        "guided", "4.2", "back-propagation: guided, plain, excitation"
    )
    blocks: tuple[int, ...] = number(
        (0,), "4.2", "0: gradients at the photo's colours; 1 to 5: at feature maps of these blocks"
    )
    seed_sigma: float = number(
        10.0, "authors' code, for G2", "of the Gaussian, pixels of a photo of 500", at_least=0
    )
    seed_crf: bool = number(True, "4.2", "smooth the seeds with a dense CRF too")
    seed_contrast: float = number(
        3.0,
        "Shimoda & Yanai, 3.3",
        "alpha of tanh(alpha M / max M) before that CRF",
        above=0,
        only_with=_SMOOTHED,
    )
    seed_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0),
        "C",
        "of that CRF: weight, sigma in pixels, sigma in colour levels",
        **BILATERAL,
        only_with=_SMOOTHED,
    )
    seed_smoothness: tuple[float, float] = number(
        (3.0, 3.0),
        "C",
        "weight, sigma in pixels",
        **SMOOTHNESS,
        only_with=_SMOOTHED,
    )
    seed_filter: Literal["fine", "lattice"] = number(
        "lattice",
        "assumed",
        "of that CRF; fine is slow with so narrow a kernel on small photos",
        only_with=_SMOOTHED,
    )

    def check(self) -> None:
        """Only blocks that there are."""
        check_blocks(self.blocks)


@dataclass(frozen=True)
class ThresholdSettings(Settings):
    """What of a map is a seed."""

    seed_threshold: float = number(
        0.2,
        "authors' code",
        "argmax class where its score is over this fraction of its maximum",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class Config(MaskSettings, PyramidSettings, ThresholdSettings, GradientSettings, GapSettings):
    """The shared numbers, the kind of back-propagation and its smoothing."""

    def refiners_own(self) -> tuple[str, ...]:
        """The seeds' CRF has kernels of its own, and shares the rest."""
        return (*super().refiners_own(), *KERNELS)

    def crf(self) -> CrfParameters:
        """The CRF on the seeds."""
        return CrfParameters(
            bilateral=self.seed_bilateral,
            smoothness=self.seed_smoothness,
            iterations=self.crf_iterations,
            reference_side=self.crf_reference_side,
            filter=self.seed_filter,
        )


def run(run: Run, config: Config) -> Outcome:
    """Classifier, gradients, Gaussian, CRF, threshold, cross-entropy."""
    photos, threshold = run.photos, config.seed_threshold
    classifier = gradient_classifier(run, config)
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


def gradient_classifier(run: Run, config: Config) -> Trained[GapClassifier]:
    """The classifier that is asked for gradients, trained as all of Oh et al.'s are (F)."""
    schedule = guide_classifier_schedule(config, run.setup, len(run.photos))
    return tag_classifier(run, config, schedule=schedule)


def seed_maps(
    run: Run, config: Config, classifier: Trained[GapClassifier], split: Split
) -> ScoreMaps:
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

    decided_by = [settings, *([config.only(CrfIterations)] if settings.seed_crf else [])]
    return photo_score_maps(
        run, _GRADIENTS, make, settings=decided_by, inputs=[classifier], split=split
    )


RECIPE = Recipe(
    "gradient_baseline",
    "reference: the back-propagation seeders of Oh, Benenson, Khoreva, Akata, Fritz, Schiele: "
    "Exploiting Saliency for Object Segmentation from Image Level Labels, CVPR 2017",
    Config,
    run,
)
