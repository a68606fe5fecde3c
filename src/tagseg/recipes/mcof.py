"""MCOF (Wang et al., CVPR 2018): mining common object features, round by round.

Class activation maps give a few sure regions. RegionNet learns from the sure regions of all photos
what those of a class have in common, and finds more of them; saliency adds what it misses, once;
PixelNet learns from these regions with a view of the whole photo; its masks are the next round's
seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tagseg.iterate import iterate
from tagseg.nets.gap import SeederName
from tagseg.recipes.base import Outcome, Product, Progression, RoundProducts, Run, number
from tagseg.recipes.gap_seeds import SeederMaps
from tagseg.recipes.large_fov import large_fov_segmenter
from tagseg.recipes.photo_saliency import PhotoSaliency, SaliencySource
from tagseg.recipes.products import segmenter_products, show_map
from tagseg.recipes.region_mining import (
    Mined,
    RegionConfig,
    RegionMiner,
    initial_seeds,
    supplemented,
)
from tagseg.recipes.rounds import InRounds, agreement_of, validation_products, working_masks

__all__ = ["PAPER", "Config", "run"]

PAPER = (
    "Wang, You, Li, Ma: Weakly-Supervised Semantic Segmentation by Iteratively Mining Common "
    "Object Features, CVPR 2018"
)


@dataclass(frozen=True)
class Config(InRounds, RegionConfig):
    """Numbers of Wang et al., who leave most of them open: docs/mcof.md says what was chosen."""

    papers_saliency: ClassVar[Literal["boxes", "drfi"]] = "drfi"

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "4.3: DRFI",
        "of maps: boxes, folder, activations, barrier, drfi; auto: what is given, or drfi",
    )
    seeder: SeederName = number(  # noqa: RUF009
        "highres", "assumed", "network of the class activation maps: lowres, highres, roi, deeplab"
    )
    supplement: bool = number(True, "4.3", "add saliency in the first round; false: Table 4")
    rounds: int = number(5, "5, Table 3", "at most")
    settled: float = number(
        0.97, "assumed", "agreement with the masks before (mean IoU) that ends the rounds"
    )
    start: Literal["warm", "cold"] = number(
        "warm", "assumed", "later rounds' networks go on from those before, or begin anew"
    )
    later_part: float = number(
        0.5, "assumed", "iterations of a training in later rounds, as a part of the first round's"
    )
    mining: bool = number(
        True, "6.3.2", "false: later rounds train on the masks directly, without RegionNet"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rounds()
        if self.supplement:
            self.check_saliency()


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
