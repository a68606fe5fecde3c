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
from tagseg.recipes.dcsm.preset import PRESET
from tagseg.segment.model_file import pack_segmenter
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.distinct_segmenter import pack_distinct
from tagseg.stages.outcome import Outcome
from tagseg.stages.predictions import classifier_outcome, final_predictions, show_maps
from tagseg.stages.recipe import Recipe
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "run"]


def run(run: Run, config: Config) -> Outcome:
    """Classifier, distinct maps of the known tags, CRF; then the maps or a network as segmenter."""
    maps = DistinctMaps(run, config)  # 3.2 and 3.3
    masks = maps.masks()  # 3.4
    curves, pack = [maps.classifier.stage], pack_distinct
    segmenter: Segmenter = maps.segmenter()  # 3.1
    if config.segmenter != "none":
        network = trained_segmenter(run, config, sure_labels(run, config, masks), cross_entropy)
        pack = pack_segmenter
        segmenter, final = network.model, final_predictions(run, config, network.model, network)
        curves.append(network.stage)
    else:
        known = maps.probabilities if config.masks_by_tags else None  # those are of the tags
        title, after = "distinct maps, tags unknown", maps.of_training
        final = final_predictions(run, config, segmenter, after, known, title=title)
    return Outcome(
        segmenter,
        (*maps.predictions(masks), *final),
        views=(("distinct class saliency", show_maps(maps.of_training)),),
        tag_scores=classifier_outcome(run, maps.classifier.model),
        curves=tuple(curves),
        seeds=maps.seeds(),
        pack=pack,
    )


RECIPE = Recipe(
    "dcsm",
    "Shimoda, Yanai: Distinct Class-Specific Saliency Maps for Weakly Supervised Semantic "
    "Segmentation, ECCV 2016",
    Config,
    run,
    paper_preset=PRESET,
)
