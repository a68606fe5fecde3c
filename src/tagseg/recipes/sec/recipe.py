"""SEC (Kolesnikov & Lampert, ECCV 2016): seed, expand and constrain.

Class activation maps and gradients give sparse cues of where classes and background are; a
segmenter is trained on these cues, on how much of a photo a tag should cover, and on what a dense
CRF makes of its own output. Saleh et al. and Oh et al. compare with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tagseg.fuse.localization_cues import localization_cues
from tagseg.localize.background_cues import background_cues
from tagseg.losses.seed_expand_constrain import (
    decay_at,
    expand_loss,
    sec_probabilities,
    seed_loss,
)
from tagseg.maps import Labels
from tagseg.recipes.sec.background_maps import background_maps, sure_pixels
from tagseg.recipes.sec.config import Config, CueSettings
from tagseg.refine.dense_crf import CrfParameters
from tagseg.segment.fit import GridBatch
from tagseg.stages.context import Run
from tagseg.stages.crf_loss import constrain_to_boundaries, grid_crf
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Outcome, Prediction
from tagseg.stages.predictions import final_predictions
from tagseg.stages.recipe import Recipe
from tagseg.stages.seeder import SeederMaps
from tagseg.stages.stage import Declared, label_maps
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "SeedExpandConstrain", "run"]

_CUES = Declared("cues")


def run(run: Run, config: Config) -> Outcome:
    """Seeder, cues of foreground and background, and a segmenter with three losses."""
    photos, settings = run.photos, config.only(CueSettings)
    seeding = SeederMaps(run, config, "highres", settings.foreground_threshold)  # 4.1
    stride, side = seeding.seeder.model.backbone.grid_stride, seeding.side
    background = background_maps(run, seeding.seeder, side=side)

    def cues_of(index: int) -> Labels:
        sure = background_cues(
            background(index),
            fraction=settings.background_fraction,
            window=settings.background_window,
        )
        return localization_cues(
            seeding.maps(index),
            sure_pixels(sure, photos.image(index).shape[:2], stride, side=side),
            photos.tags[index],
            threshold=settings.foreground_threshold,
        )

    cues = label_maps(run, _CUES, cues_of, settings=[settings], inputs=[seeding.maps, background])
    loss = SeedExpandConstrain(  # 3.1
        config.foreground_decay, config.background_decay, grid_crf(config)
    )
    taught = sure_labels(run, config, cues)
    segmenter = large_fov_segmenter(run, config, taught, objective=loss, whole=True)
    return Outcome(
        segmenter.model,
        (
            Prediction.of("cues", "localization cues", "train", cues),
            *final_predictions(run, config, segmenter.model, segmenter),
        ),
        views=(seeding.view,),
        tag_scores=seeding.tag_scores,
        curves=(seeding.seeder.stage, segmenter.stage),
        seeds=seeding.seeds,
    )


@dataclass(frozen=True)
class SeedExpandConstrain:
    """The sum of SEC's three losses; decays are for the paper's grid."""

    foreground_decay: float
    background_decay: float
    crf: CrfParameters

    def __call__(self, scores: Tensor, on_grid: GridBatch) -> Tensor:
        """The loss of a batch."""
        probs = sec_probabilities(scores)
        positions = probs.shape[2] * probs.shape[3]
        seed = seed_loss(probs, on_grid.labels)
        expand = expand_loss(
            probs,
            on_grid.tags,
            foreground_decay=decay_at(self.foreground_decay, positions),
            background_decay=decay_at(self.background_decay, positions),
            valid=on_grid.inside,
        )
        return seed + expand + constrain_to_boundaries(scores, probs, on_grid, self.crf)


RECIPE = Recipe(
    "sec",
    "Kolesnikov, Lampert: Seed, Expand and Constrain: Three Principles for Weakly-Supervised Image "
    "Segmentation, ECCV 2016",
    Config,
    run,
)
