"""The lower reference: a segmenter trained on thresholded class activation maps, "seeds only"."""

from __future__ import annotations

from dataclasses import dataclass

from tagseg.errors import ConfigError
from tagseg.fuse.seed_labels import cam_labels
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Labels
from tagseg.stages.classifier import location_maps, tag_classifier
from tagseg.stages.config import TrainingConfig, number
from tagseg.stages.context import Run
from tagseg.stages.labels import training_labels
from tagseg.stages.outcome import Outcome, Product
from tagseg.stages.products import cam_seeds, classifier_outcome, segmenter_products, show_maps
from tagseg.stages.segmenter import trained_segmenter

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "reference: Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for "
    "Discriminative Localization, CVPR 2016; thresholded as seeds"
)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The shared numbers and the threshold."""

    cam_threshold: float = number(
        0.2, "Oh et al., code", "argmax class where its map is over this part of its maximum"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cam_threshold <= 1:
            raise ConfigError(f"cam_threshold is {self.cam_threshold}", do="use 0 to 1")


def run(run: Run, config: Config) -> Outcome:
    """Classifier, class activation maps, threshold, cross-entropy."""
    photos = run.photos
    classifier, classifier_stage = tag_classifier(run, config)
    scores_of, location_stage = location_maps(run, config, classifier, classifier_stage)

    def seeds_of(index: int) -> Labels:
        return cam_labels(scores_of(index), photos.tags[index], threshold=config.cam_threshold)

    made_from = {"cam_threshold": config.cam_threshold}
    seeds = training_labels(run, "seeds", seeds_of, made_from, [location_stage])
    segmenter, segmenter_stage = trained_segmenter(
        run,
        config,
        seeds,
        cross_entropy,
        [seeds.stage],
        objective_name="cross-entropy",
    )
    products = [Product("CAM seeds", "train", seeds, (seeds.stage,))]
    products += segmenter_products(run, config, segmenter, segmenter_stage)
    return Outcome(
        segmenter,
        tuple(products),
        views=(("class activation maps", show_maps(photos, scores_of)),),
        tag_scores=classifier_outcome(run, classifier),
        curves=(classifier_stage, segmenter_stage),
        seeds=(cam_seeds(run, config, classifier, classifier_stage, config.cam_threshold),),
    )
