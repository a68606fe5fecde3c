"""Built-in priors (Saleh et al., TPAMI 2017): masks from the activations of a pre-trained network.

A tag classifier says where each class is (CAM); the activations of the network's last two blocks
say where any object is; together they give a mask per tag, smoothed by a dense CRF whose
higher-order terms follow crisp regions; a segmenter is trained on the tags with a loss that looks
for each class in its mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss
from tagseg.maps import IGNORE
from tagseg.recipes.builtin_priors.candidates import candidate_masks
from tagseg.recipes.builtin_priors.config import Config, Masks
from tagseg.recipes.builtin_priors.masks import OBJECT, Evidence, training_masks
from tagseg.recipes.builtin_priors.preset import PRESET
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.predictions import final_predictions
from tagseg.stages.recipe import Demo, Recipe
from tagseg.stages.segmenter import Teaches, trained_segmenter
from tagseg.stages.stage import LabelMaps, Trained
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "Objective", "run", "segmenter_from"]

_TEACHES: Mapping[str, Teaches] = {"none": "nothing", "foreground": "foreground"}


def run(run: Run, config: Config) -> Outcome:
    """Photos and tags in, trained segmenter out: classifier, priors, masks, segmenter."""
    evidence = Evidence(run, config)  # P_f of 3.1.1 and the localization network of 3.1.2
    masks, steps = training_masks(run, config, evidence)  # 3.1.2 and 3.1.3
    offered = candidate_masks(run, config, evidence) if config.candidates else ()  # 4.3
    segmenter = segmenter_from(run, config, masks)  # 3.2 and 4.2.1
    return Outcome(
        segmenter.model,
        (*steps, *offered, *final_predictions(run, config, segmenter.model, segmenter)),
        views=evidence.views(),
        tag_scores=evidence.tag_scores,
        curves=(*evidence.curves, segmenter.stage),
        seeds=evidence.seed_maps,
        locations=evidence.locations(masks if config.masks != "none" else None),
    )


def segmenter_from(run: Run, config: Config, masks: LabelMaps) -> Trained[Segmenter]:
    """The segmenter, trained on the tags and the masks in use."""
    loss = Objective(config.masks, config.sharpness)
    view, teaches = config.view(), _TEACHES.get(config.masks, "classes")
    masks = sure_labels(run, config, masks) if config.by_class() else masks
    return trained_segmenter(
        run,
        config,
        masks,
        loss,
        field_of_view=view,
        teaches=teaches,
        whole=config.sees_whole(),
    )


@dataclass(frozen=True)
class Objective:
    """The loss for the masks in use: Eq. 10, Eq. 12 or Eq. 15."""

    masks: Masks
    sharpness: float

    def __call__(self, scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        r, valid = self.sharpness, labels != IGNORE
        if self.masks == "none":
            return tag_loss(scores, tags, valid=valid, r=r)
        if self.masks == "foreground":
            return foreground_loss(scores, tags, labels == OBJECT, valid=valid, r=r)
        return class_mask_loss(scores, tags, labels, r=r)


RECIPE = Recipe(
    "builtin_priors",
    "Saleh, Aliakbarian, Salzmann, Petersson, Alvarez, Gould: Incorporating Network Built-in "
    "Priors in Weakly-supervised Semantic Segmentation, TPAMI 2017",
    Config,
    run,
    demo=Demo(
        settings={"mask_regions": "none"},
        note="to be quick, mask_regions=none; --set mask_regions=crisp takes longer",
    ),
    paper_preset=PRESET,
)
