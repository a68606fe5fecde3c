"""SEC (Kolesnikov & Lampert, ECCV 2016): seed, expand and constrain.

Class activation maps and gradients give sparse cues of where classes and background are; a
segmenter is trained on these cues, on how much of a photo a tag should cover, and on what a dense
CRF makes of its own output. Saleh et al. and Oh et al. compare with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from tagseg.errors import ConfigError
from tagseg.fuse.localization_cues import localization_cues
from tagseg.localize.background_cues import background_cues
from tagseg.losses.seed_expand_constrain import (
    decay_at,
    expand_loss,
    sec_probabilities,
    seed_loss,
)
from tagseg.maps import Labels
from tagseg.recipes.background_maps import background_maps, sure_pixels
from tagseg.recipes.base import Outcome, Product, Run, number
from tagseg.recipes.crf_loss import constrain_to_boundaries, grid_crf
from tagseg.recipes.gap_seeds import SeederMaps
from tagseg.recipes.large_fov import LargeFovConfig, large_fov_segmenter
from tagseg.recipes.products import segmenter_products
from tagseg.recipes.stages import training_labels
from tagseg.segment.fit import GridBatch, GridObjective

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "Kolesnikov, Lampert: Seed, Expand and Constrain: Three Principles for Weakly-Supervised Image "
    "Segmentation, ECCV 2016"
)


@dataclass(frozen=True)
class Config(LargeFovConfig):
    """Numbers of Kolesnikov & Lampert."""

    crf_bilateral: tuple[float, float, float] = number(
        (10.0, 80.0, 13.0), "authors' code", "weight, sigma in pixels, sigma in colour levels"
    )
    foreground_threshold: float = number(
        0.2, "4.1", "cues of a class are over this part of its map's maximum"
    )
    background_part: float = number(
        0.1, "4.1", "part of the grid's positions, the least salient, that are background cues"
    )
    background_window: int = number(3, "authors' code", "of the median filter before, positions")
    foreground_decay: float = number(
        0.996, "3.1", "of the rank-weighted mean of a present class, on 41 x 41 positions"
    )
    background_decay: float = number(0.999, "3.1", "likewise, of the background")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.foreground_threshold < 1:
            raise ConfigError(
                f"foreground_threshold is {self.foreground_threshold}", do="use 0 to below 1"
            )
        if not 0 <= self.background_part <= 1:
            raise ConfigError(f"background_part is {self.background_part}", do="use 0 to 1")
        if self.background_window < 1 or self.background_window % 2 == 0:
            raise ConfigError(
                f"background_window is {self.background_window}", do="use an odd number"
            )
        for name in ("foreground_decay", "background_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use over 0, up to 1")


def run(run: Run, config: Config) -> Outcome:
    """Seeder, cues of foreground and background, and a segmenter with three losses."""
    photos = run.photos
    seeding = SeederMaps(run, config, "highres", config.foreground_threshold)  # 4.1
    seeder, side = seeding.seeder, seeding.side
    background_of, background_stage = background_maps(run, seeder, seeding.curve, side=side)

    def cues_of(index: int) -> Labels:
        scores, tags = seeding.scores_of(index), photos.tags[index]
        sure = background_cues(
            background_of(index), part=config.background_part, window=config.background_window
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
