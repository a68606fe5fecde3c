"""MCOF (Wang et al., CVPR 2018): mining common object features, round by round.

Class activation maps give a few sure regions. RegionNet learns from the sure regions of all photos
what those of a class have in common, and finds more of them; saliency adds what it misses, once;
PixelNet learns from these regions with a view of the whole photo; its masks are the next round's
seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tagseg.iterate import iterate
from tagseg.recipes.mcof.config import Config
from tagseg.recipes.mcof.preset import PRESET
from tagseg.recipes.mcof.regions import MinedRegions, RegionMiner, initial_seeds, supplemented
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Outcome, Prediction, Progression, RoundPredictions
from tagseg.stages.predictions import final_predictions, round_predictions, show_map
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.recipe import Recipe
from tagseg.stages.rounds import agreement_of, working_masks
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.seeder import SeederMaps
from tagseg.stages.stage import Declared, LabelMaps, Trained
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "Mined", "run"]

_PIXELNET = Declared("pixelnet", weights="segmenter")


@dataclass(frozen=True)
class Mined:
    """What a round gave: regions (None without mining), what PixelNet learned from, its masks."""

    regions: MinedRegions | None
    labels: LabelMaps
    pixel_net: Trained[Segmenter]
    masks: LabelMaps

    def trainings(self) -> list[Stage]:
        """The stages that logged a training."""
        first = [self.regions.net.stage] if self.regions is not None else []
        return [*first, self.pixel_net.stage]


def run(run: Run, config: Config) -> Outcome:
    """Algorithm 1: seeds, then rounds of RegionNet and PixelNet."""
    # Files and weights that do not fit must show before long work.
    saliency = PhotoSaliency(run, config) if config.supplement else None
    miner = RegionMiner(run, config)
    salient = saliency.maps() if saliency is not None else None
    seeding = SeederMaps(run, config, config.seeder, config.background_threshold)
    seeds = initial_seeds(run, config, seeding.maps, miner.superpixels)  # S, 4.1

    def round_of(number: int, before: Mined | None) -> Mined:
        start = before if config.start == "warm" else None
        labels, regions = sure_labels(run, config, before.masks if before else seeds), None
        fraction = config.fraction_of(number)
        if config.mining or before is None:
            own = start.regions if start is not None else None
            regions = miner.mine(number, labels, seeding.seeder, fraction=fraction, start=own)
            labels = regions.labels  # O, 4.2
        if before is None and regions is not None and salient is not None:
            labels = supplemented(run, config, regions, salient, miner)  # O^R, 4.3
        pixel_net = large_fov_segmenter(  # 5, Eq. 3
            run,
            config,
            sure_labels(run, config, labels),
            declared=_PIXELNET.round(number),
            title=f"PixelNet, round {number}",
            fraction=fraction,
            start=start.pixel_net if start is not None else None,
        )
        return Mined(regions, labels, pixel_net, working_masks(run, config, pixel_net, number))  # M

    def agreed(number: int, before: Mined, after: Mined) -> float:
        return agreement_of(run, number, before.masks, after.masks)

    curves = [seeding.seeder.stage, *(saliency.curves if saliency is not None else ())]
    rounds = []
    for entry in iterate(round_of, agreed, config.stop_rule()):
        mined, number = entry.result, entry.number
        rounds.append(RoundPredictions(number, entry.agreement, shown(run, number, mined)))
        curves += mined.trainings()
    net, title = mined.pixel_net, "PixelNet"
    if config.segmenter == "pyramid":  # it learns from the last round's masks
        net = pyramid_segmenter(run, config, sure_labels(run, config, mined.masks))
        title = "pyramid"
        curves.append(net.stage)
    return Outcome(
        net.model,
        (
            Prediction.of("seeds", "seeds", "train", seeds),
            *(prediction for of_round in rounds for prediction in of_round.predictions),
            *final_predictions(run, config, net.model, net, title=title),
        ),
        views=(seeding.view, *([("saliency", show_map(salient))] if salient is not None else [])),
        tag_scores=seeding.tag_scores,
        curves=tuple(curves),
        seeds=seeding.seeds,
        progression=Progression(tuple(rounds), entry.ending),
    )


def shown(run: Run, number: int, mined: Mined) -> tuple[Prediction, ...]:
    """RegionNet's regions, the supplement, PixelNet's masks, and its answer to photos unseen."""
    found = list[tuple[str, str, LabelMaps]]()
    if mined.regions is not None:
        found.append(("regions", "RegionNet", mined.regions.labels))
        if mined.labels is not mined.regions.labels:
            found.append(("supplement", "saliency supplement", mined.labels))
    found.append(("round-masks", "PixelNet", mined.masks))
    return (
        *(
            Prediction.of(id, f"{title}, round {number}", "train", labels, number=number)
            for id, title, labels in found
        ),
        *round_predictions(run, mined.pixel_net, number, "PixelNet"),
    )


RECIPE = Recipe(
    "mcof",
    "Wang, You, Li, Ma: Weakly-Supervised Semantic Segmentation by Iteratively Mining Common "
    "Object Features, CVPR 2018",
    Config,
    run,
    takes=("saliency", "saliency_model", "boxes"),
    paper_preset=PRESET,
)
