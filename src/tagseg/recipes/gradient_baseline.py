"""Gradient seeds (Oh et al., CVPR 2017, 4.2): back-propagated class scores, thresholded.

The paper's comparison of class activation maps with three kinds of back-propagation, here as a
recipe: the classifier of ``cam_baseline``, gradients in place of its maps, "seeds only".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from tagseg.errors import ConfigError
from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.seeds import GradientSeeder
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Image, Labels, ScoreMap, Tags
from tagseg.refine.dense_crf import CrfParameters
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import tag_classifier
from tagseg.stages.config import TrainingConfig, number
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import smoothed_scores
from tagseg.stages.labels import training_labels
from tagseg.stages.outcome import Outcome, Product, Seeds
from tagseg.stages.products import classifier_outcome, segmenter_products, show_maps
from tagseg.stages.score_maps import ScoreMaps, photo_score_maps
from tagseg.stages.segmenter import trained_segmenter

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "reference: the back-propagation seeders of Oh, Benenson, Khoreva, Akata, Fritz, Schiele: "
    "Exploiting Saliency for Object Segmentation from Image Level Labels, CVPR 2017"
)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The shared numbers, the kind of back-propagation and its smoothing."""

    method: Literal["guided", "plain", "excitation"] = number(
        "guided", "4.2", "back-propagation: guided, plain, excitation"
    )
    blocks: tuple[int, ...] = number(
        (0,), "4.2", "0: gradients at the photo's colours; 1 to 5: at feature maps of these blocks"
    )
    seed_sigma: float = number(
        10.0, "authors' code, for G2", "of the Gaussian, pixels of a photo of 500"
    )
    seed_crf: bool = number(True, "4.2", "smooth the seeds with a dense CRF too")
    seed_contrast: float = number(
        3.0, "Shimoda & Yanai, 3.3", "alpha of tanh(alpha M / max M) before that CRF"
    )
    seed_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0), "C", "of that CRF: weight, sigma in pixels, sigma in colour levels"
    )
    seed_smoothness: tuple[float, float] = number((3.0, 3.0), "C", "weight, sigma in pixels")
    seed_filter: Literal["fine", "lattice"] = number(
        "lattice", "assumed", "of that CRF; fine is slow with so narrow a kernel on small photos"
    )
    seed_threshold: float = number(
        0.2, "authors' code", "argmax class where its score is over this part of its maximum"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.crf()
        if not self.blocks or not set(self.blocks) <= set(range(6)):
            raise ConfigError(f"blocks is {self.blocks}", do="use some of 0, 1, 2, 3, 4, 5")
        if not self.seed_contrast > 0:
            raise ConfigError(f"seed_contrast is {self.seed_contrast}", do="use a value over 0")
        if not self.seed_sigma >= 0:
            raise ConfigError(f"seed_sigma is {self.seed_sigma}", do="use 0 or more")
        if not 0 < self.seed_threshold <= 1:
            raise ConfigError(f"seed_threshold is {self.seed_threshold}", do="use 0 to 1")

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
    photos = run.photos
    classifier, classifier_stage = tag_classifier(run, config)
    seeder = GradientSeeder(
        classifier.to(run.setup.execution.device),
        config.method,
        blocks=config.blocks,
        sigma=config.seed_sigma,
        precision=run.setup.execution.precision,
    )

    def maps_of(split: Split) -> tuple[ScoreMaps, Stage]:
        return seed_maps(run, config, seeder, classifier_stage, split)

    scores_of, stage = maps_of("train")

    def seeds_of(index: int) -> Labels:
        return cam_labels(scores_of(index), photos.tags[index], threshold=config.seed_threshold)

    seeds = training_labels(run, "seeds", seeds_of, {"threshold": config.seed_threshold}, [stage])
    segmenter, segmenter_stage = trained_segmenter(
        run, config, seeds, cross_entropy, [seeds.stage], objective_name="cross-entropy"
    )
    title = f"{config.method} back-propagation"
    products = [Product(f"{title} seeds", "train", seeds, (seeds.stage,))]
    products += segmenter_products(run, config, segmenter, segmenter_stage)
    return Outcome(
        segmenter,
        tuple(products),
        views=((title, show_maps(photos, scores_of)),),
        tag_scores=classifier_outcome(run, classifier),
        curves=(classifier_stage, segmenter_stage),
        seeds=(Seeds(title, config.seed_threshold, maps_of),),
    )


def seed_maps(
    run: Run, config: Config, seeder: GradientSeeder, after: Stage, split: Split
) -> tuple[ScoreMaps, Stage]:
    """Score maps of the known tags, smoothed as configured."""
    crf = config.crf() if config.seed_crf else None

    def make(image: Image, tags: Tags | None) -> ScoreMap:
        scores = seeder(image, tags if tags is not None else no_tags)
        return (
            scores
            if crf is None
            else smoothed_scores(image, scores, crf, contrast=config.seed_contrast)
        )

    no_tags = np.zeros(len(run.photos.classes), bool)
    made_from = {
        "method": config.method,
        "blocks": list(config.blocks),
        "sigma": config.seed_sigma,
        "crf": None if crf is None else {**asdict(crf), "contrast": config.seed_contrast},
    }
    return photo_score_maps(run, "gradient-seeds", make, made_from, after, split=split)
