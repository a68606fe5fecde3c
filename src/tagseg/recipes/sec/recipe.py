"""SEC (Kolesnikov & Lampert, ECCV 2016): seed, expand and constrain.

Class activation maps and gradients give sparse cues of where classes and background are; a
segmenter is trained on these cues, on how much of a photo a tag should cover, and on what a dense
CRF makes of its own output. Saleh et al. and Oh et al. compare with it.
"""

from __future__ import annotations

from dataclasses import asdict

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
from tagseg.recipes.sec.config import Config
from tagseg.segment.fit import GridBatch, GridObjective
from tagseg.stages.context import Run
from tagseg.stages.crf_loss import constrain_to_boundaries, grid_crf
from tagseg.stages.labels import training_labels
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Outcome, Product
from tagseg.stages.products import segmenter_products
from tagseg.stages.seeder import SeederMaps

__all__ = ["PAPER", "run"]

PAPER = (
    "Kolesnikov, Lampert: Seed, Expand and Constrain: Three Principles for Weakly-Supervised Image "
    "Segmentation, ECCV 2016"
)


def run(run: Run, config: Config) -> Outcome:
    """Seeder, cues of foreground and background, and a segmenter with three losses."""
    photos = run.photos
    seeding = SeederMaps(run, config, "highres", config.foreground_threshold)  # 4.1
    seeder, side = seeding.seeder, seeding.side
    background_of, background_stage = background_maps(run, seeder, seeding.curve, side=side)

    def cues_of(index: int) -> Labels:
        scores, tags = seeding.scores_of(index), photos.tags[index]
        sure = background_cues(
            background_of(index), fraction=config.background_part, window=config.background_window
        )
        shape = photos.image(index).shape[:2]
        background = sure_pixels(sure, shape, seeder.backbone.grid_stride, side=side)
        return localization_cues(scores, background, tags, threshold=config.foreground_threshold)

    numbers = {
        name: getattr(config, name)
        for name in ("foreground_threshold", "background_part", "background_window")
    }
    stages = [seeding.stage, background_stage]
    cues = training_labels(run, "cues", cues_of, numbers, stages)
    objective, name = seed_expand_constrain(config)  # 3.1
    segmenter, stage = large_fov_segmenter(
        run, config, cues, [cues.stage], objective=objective, objective_name=name, whole=True
    )
    return Outcome(
        segmenter,
        (
            Product("localization cues", "train", cues, (cues.stage,)),
            *segmenter_products(run, config, segmenter, stage),
        ),
        views=(seeding.view,),
        tag_scores=seeding.tag_scores,
        curves=(seeding.curve, stage),
        seeds=seeding.seeds,
    )


def seed_expand_constrain(config: Config) -> tuple[GridObjective, str]:
    """The sum of SEC's three losses, and its name; decays are for the grid at hand."""
    crf = grid_crf(config)

    def loss(scores: Tensor, on_grid: GridBatch) -> Tensor:
        probs = sec_probabilities(scores)
        positions = probs.shape[2] * probs.shape[3]
        seed = seed_loss(probs, on_grid.labels)
        expand = expand_loss(
            probs,
            on_grid.tags,
            foreground_decay=decay_at(config.foreground_decay, positions),
            background_decay=decay_at(config.background_decay, positions),
            valid=on_grid.inside,
        )
        return seed + expand + constrain_to_boundaries(scores, probs, on_grid, crf)

    decays = f"{config.foreground_decay:g}, {config.background_decay:g}"
    return loss, f"seed, expand ({decays}) and constrain, {asdict(crf)}"
