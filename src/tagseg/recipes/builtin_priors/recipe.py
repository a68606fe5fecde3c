"""Built-in priors (Saleh et al., TPAMI 2017): masks from the activations of a pre-trained network.

A tag classifier says where each class is (CAM); the activations of the network's last two blocks
say where any object is; together they give a mask per tag, smoothed by a dense CRF whose
higher-order terms follow crisp regions; a segmenter is trained on the tags with a loss that looks
for each class in its mask.
"""

from __future__ import annotations

from torch import Tensor

from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss
from tagseg.maps import IGNORE
from tagseg.recipes.builtin_priors.config import Config, field_of_view
from tagseg.recipes.builtin_priors.masks import OBJECT, Evidence, training_masks
from tagseg.run.workspace import Stage
from tagseg.segment.fit import Objective
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.labels import LabelMaps
from tagseg.stages.outcome import Outcome
from tagseg.stages.products import segmenter_products
from tagseg.stages.segmenter import trained_segmenter

__all__ = ["PAPER", "run", "segmenter_from"]

PAPER = (
    "Saleh, Aliakbarian, Salzmann, Petersson, Alvarez, Gould: Incorporating Network Built-in "
    "Priors in Weakly-supervised Semantic Segmentation, TPAMI 2017"
)


def run(run: Run, config: Config) -> Outcome:
    """Photos and tags in, trained segmenter out: classifier, priors, masks, segmenter."""
    evidence = Evidence(run, config)  # P_f of 3.1.1 and the localization network of 3.1.2
    masks, mask_products = training_masks(run, config, evidence)  # 3.1.2 and 3.1.3
    segmenter, stage = segmenter_from(run, config, masks)  # 3.2 and 4.2.1
    return Outcome(
        segmenter,
        (*mask_products, *segmenter_products(run, config, segmenter, stage)),
        views=evidence.views(run.photos),
        tag_scores=evidence.tag_scores,
        curves=(*evidence.curves, stage),
        seeds=evidence.seed_maps,
    )


def segmenter_from(run: Run, config: Config, masks: LabelMaps) -> tuple[Segmenter, Stage]:
    """The segmenter, trained on the tags and the masks in use."""
    return trained_segmenter(
        run,
        config,
        masks,
        objective(config),
        [masks.stage],
        objective_name=f"{config.masks}, r = {config.sharpness}",
        field_of_view=field_of_view(config),
    )


def objective(config: Config) -> Objective:
    """The loss for the masks in use: Eq. 10, Eq. 12 or Eq. 15."""
    r = config.sharpness

    def loss(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        valid = labels != IGNORE
        if config.masks == "none":
            return tag_loss(scores, tags, valid=valid, r=r)
        if config.masks == "foreground":
            return foreground_loss(scores, tags, labels == OBJECT, valid=valid, r=r)
        return class_mask_loss(scores, tags, labels, r=r)

    return loss
