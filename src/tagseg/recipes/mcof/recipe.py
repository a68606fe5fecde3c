"""MCOF (Wang et al., CVPR 2018): mining common object features, round by round.

Class activation maps give a few sure regions. RegionNet learns from the sure regions of all photos
what those of a class have in common, and finds more of them; saliency adds what it misses, once;
PixelNet learns from these regions with a view of the whole photo; its masks are the next round's
seeds.
"""

from __future__ import annotations

from tagseg.iterate import iterate
from tagseg.recipes.mcof.config import Config
from tagseg.recipes.mcof.regions import Mined, RegionMiner, initial_seeds, supplemented
from tagseg.stages.context import Run
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Outcome, Product, Progression, RoundProducts
from tagseg.stages.products import segmenter_products, show_map
from tagseg.stages.rounds import agreement_of, validation_products, working_masks
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.seeder import SeederMaps

__all__ = ["PAPER", "run"]

PAPER = (
    "Wang, You, Li, Ma: Weakly-Supervised Semantic Segmentation by Iteratively Mining Common "
    "Object Features, CVPR 2018"
)


def run(run: Run, config: Config) -> Outcome:
    """Algorithm 1: seeds, then rounds of RegionNet and PixelNet."""
    # Files and weights that do not fit must show before long work.
    saliency = PhotoSaliency(run, config) if config.supplement else None
    miner = RegionMiner(run, config)
    saliency_of = saliency.maps() if saliency is not None else None
    seeding = SeederMaps(run, config, config.seeder, config.background_threshold)
    seeds = initial_seeds(run, config, seeding.scores_of, seeding.stage, miner)  # S, 4.1

    def round_of(number: int, before: Mined | None) -> Mined:
        start = before if config.start == "warm" else None
        labels = seeds if before is None else before.masks
        regions = None
        if config.mining or before is None:
            part, own = config.part_of(number), start.regions if start is not None else None
            regions = miner.mine(number, labels, seeding, part=part, start=own)
            labels = regions.labels  # O, 4.2
        if before is None and regions is not None and saliency_of is not None:
            labels = supplemented(run, config, regions, *saliency_of, miner)  # O^R, 4.3
        pixel_net = large_fov_segmenter(  # 5, Eq. 3
            run,
            config,
            labels,
            [labels.stage],
            name=f"pixelnet-{number}",
            title=f"PixelNet, round {number}",
            part=config.part_of(number),
            start=start.pixel_net if start is not None else None,
        )
        masks = working_masks(run, config, *pixel_net, name=f"masks-{number}")  # M
        return Mined(regions, labels, pixel_net, masks)

    def agreed(number: int, before: Mined, after: Mined) -> float:
        return agreement_of(run, number, before.masks, after.masks)

    curves = [seeding.curve, *(saliency.curves if saliency is not None else ())]
    rounds = []
    for entry in iterate(round_of, agreed, config.stop_rule()):
        mined = entry.result
        rounds.append(
            RoundProducts(entry.number, entry.agreement, _products(run, entry.number, mined))
        )
        curves += mined.trainings()
    segmenter, stage = mined.pixel_net
    shown = [("saliency", show_map(run.photos, saliency_of[0]))] if saliency_of is not None else []
    return Outcome(
        segmenter,
        (
            Product("seeds", "train", seeds, (seeds.stage,)),
            *(product for of_round in rounds for product in of_round.products),
            *segmenter_products(run, config, segmenter, stage, name="PixelNet"),
        ),
        views=(seeding.view, *shown),
        tag_scores=seeding.tag_scores,
        curves=tuple(curves),
        seeds=seeding.seeds,
        progression=Progression(tuple(rounds), entry.ending),
    )


def _products(run: Run, number: int, mined: Mined) -> tuple[Product, ...]:
    """RegionNet's regions, the supplement, PixelNet's masks, and its answer to photos unseen."""
    found = []
    if mined.regions is not None:
        objects = mined.regions.labels
        found.append(Product(f"RegionNet, round {number}", "train", objects, (objects.stage,)))
        if mined.labels is not objects:
            refined = mined.labels
            title = f"saliency supplement, round {number}"
            found.append(Product(title, "train", refined, (refined.stage,)))
    title = f"PixelNet, round {number}"
    found.append(Product(title, "train", mined.masks, (mined.masks.stage,)))
    return (*found, *validation_products(run, *mined.pixel_net, number, "PixelNet"))
