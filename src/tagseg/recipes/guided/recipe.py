"""Guided segmentation (Oh et al., CVPR 2017): seeds say where, saliency says how far.

A classifier with global average pooling gives seeds, small and sure; a saliency map says where any
object is; the guide labeller spreads the seeds over the salient components that they touch; a
segmenter is trained on these guide labels.
"""

from __future__ import annotations

from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.guides import guide_labels
from tagseg.recipes.guided.preset import PRESET
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.crf_loss import guide_objective
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Outcome
from tagseg.stages.predictions import final_predictions
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.recipe import Demo, Recipe
from tagseg.stages.stage import LabelMaps, Trained
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "run", "segmenter_from"]


def run(run: Run, config: Config) -> Outcome:
    """Seeds and saliency, guide labels from both, segmenter."""
    guides = guide_labels(run, config)  # seeds of 4.1, saliency of 5.1; G0, G1 or G2 of 5.1 and E
    segmenter = segmenter_from(run, config, guides.labels)  # 6.1
    return Outcome(
        segmenter.model,
        (*guides.predictions, *final_predictions(run, config, segmenter.model, segmenter)),
        views=guides.views,
        tag_scores=guides.tag_scores,
        curves=(*guides.curves, segmenter.stage),
        seeds=guides.seeds,
    )


def segmenter_from(run: Run, config: Config, guides: LabelMaps) -> Trained[Segmenter]:
    """DeepLab-LargeFOV on guide labels, with the loss in use (6.1; C); or the pyramid."""
    guides = sure_labels(run, config, guides)
    if config.segmenter == "pyramid":
        return pyramid_segmenter(run, config, guides)
    objective = guide_objective(config, constrained=config.crf_loss)
    return large_fov_segmenter(run, config, guides, objective=objective)


RECIPE = Recipe(
    "guided",
    "Oh, Benenson, Khoreva, Akata, Fritz, Schiele: Exploiting Saliency for Object Segmentation "
    "from Image Level Labels, CVPR 2017",
    Config,
    run,
    takes=("saliency", "saliency_model", "boxes"),
    demo=Demo(boxes=True),
    paper_preset=PRESET,
)
