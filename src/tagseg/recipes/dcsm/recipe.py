"""Distinct class saliency maps (Shimoda & Yanai, ECCV 2016): segmentation by a classifier alone.

A fully convolutional tag classifier with global max pooling finds the classes of a photo; guided
back-propagation to its middle layers, less that of the other candidate classes, says where each is;
a dense CRF makes masks of it. New photos are segmented so without tags and without a segmenter. As
an option, the masks of the training photos, whose tags are known, train a segmenter.
"""

from __future__ import annotations

from tagseg.losses.pixel import cross_entropy
from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.maps import DistinctMaps
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.products import classifier_outcome, segmenter_products, show_maps
from tagseg.stages.segmenter import trained_segmenter

__all__ = ["PAPER", "run"]

PAPER = (
    "Shimoda, Yanai: Distinct Class-Specific Saliency Maps for Weakly Supervised Semantic "
    "Segmentation, ECCV 2016"
)


def run(run: Run, config: Config) -> Outcome:
    """Classifier, distinct maps of the known tags, CRF; then the maps or a network as segmenter."""
    maps = DistinctMaps(run, config)  # 3.2 and 3.3
    masks = maps.masks()  # 3.4
    products, curves = maps.products(masks), [maps.classifier_stage]
    if config.segmenter == "trained":
        segmenter, stage = trained_segmenter(
            run, config, masks, cross_entropy, [masks.stage], objective_name="cross-entropy"
        )
        products += segmenter_products(run, config, segmenter, stage)
        curves.append(stage)
    else:  # 3.1
        segmenter = maps.segmenter()
        known = maps.probabilities if config.masks_by_tags else None  # those are of the tags
        products += segmenter_products(
            run, config, segmenter, maps.stage, known, name="distinct maps, tags unknown"
        )
    return Outcome(
        segmenter,
        tuple(products),
        views=(("distinct class saliency", show_maps(run.photos, maps.of_training)),),
        tag_scores=classifier_outcome(run, maps.classifier),
        curves=tuple(curves),
        seeds=maps.seeds(),
    )
