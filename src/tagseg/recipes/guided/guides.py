"""The guide labels of guided segmentation: from which evidence, and by which labeller.

The recipe tells the story; what each choice of its configuration needs, depends on and has to show
stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from tagseg.fuse.guide_labels import (
    Mask,
    component_guide,
    oracle_guide,
    random_guide,
    salient_components,
    seed_guide,
)
from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.component_scores import score_changes
from tagseg.maps import BACKGROUND, Labels
from tagseg.priors.saliency.salient_regions import salient_mask
from tagseg.recipes.guided.config import Config
from tagseg.refine.box_masks import OBJECT
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import tag_classifier
from tagseg.stages.context import Run
from tagseg.stages.crf import Smoothing
from tagseg.stages.labels import LabelMaps, training_labels
from tagseg.stages.outcome import Product, Seeds, TagScores, View
from tagseg.stages.products import classifier_outcome, show_map
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.schedules import guide_classifier_schedule
from tagseg.stages.seeder import SeederMaps

__all__ = ["Guides", "Saliency", "Seeding", "guide_labels", "oracle_labels"]

Make = Callable[[int], Labels]


@dataclass(frozen=True)
class Guides:
    """Guide labels of the training photos, and what the report shows of how they came about."""

    labels: LabelMaps
    products: tuple[Product, ...]
    views: tuple[tuple[str, View], ...]
    curves: tuple[Stage, ...]
    seeds: tuple[Seeds, ...]
    tag_scores: TagScores | None


class Seeding(SeederMaps):
    """Seeds of the training photos (4, 6.1)."""

    def __init__(self, run: Run, config: Config) -> None:
        super().__init__(run, config, config.seeder, config.seed_threshold)
        self.config: Config = config

    def labels(self, index: int) -> Labels:
        """Argmax class where its map is high enough, after a CRF where configured (C)."""
        photos, config = self.run.photos, self.config
        seeds = cam_labels(
            self.scores_of(index), photos.tags[index], threshold=config.seed_threshold
        )
        if not config.crf_seed:
            return seeds
        return Smoothing.of(config).labels(photos.image(index), seeds)

    def made_from(self) -> dict[str, Any]:
        """What decides on the labels, beside the maps."""
        crf = asdict(Smoothing.of(self.config).parameters) if self.config.crf_seed else None
        return {"seed_threshold": self.config.seed_threshold, "crf": crf}


class Saliency:
    """Saliency maps of the training photos, and where they are salient (5.1, 6.1)."""

    def __init__(self, run: Run, config: Config) -> None:
        self.part, maps = config.saliency_threshold, PhotoSaliency(run, config)
        self.map_of, self.stage = maps.maps()
        self.curves = tuple(maps.curves)

    def mask(self, index: int) -> Mask:
        """Where the map is over the threshold."""
        return salient_mask(self.map_of(index), fraction=self.part)

    def labels(self, index: int) -> Labels:
        """The mask as labels, to be scored."""
        return self.mask(index) * np.uint8(OBJECT)


def guide_labels(run: Run, config: Config) -> Guides:
    """Guide labels as configured: seeds alone, G0, G1 or G2 (5.1, E)."""
    labellers = {"seeds": _seeds, "g0": _random, "g1": _per_component, "g2": _spread}
    return labellers[config.guide](run, config)


def oracle_labels(run: Run, config: Config, truth_of: Make, truth_key: str) -> LabelMaps:
    """Guide labels of G2 with ground truth for saliency, the upper row of Table 2.

    Args:
        truth_of: ground truth (h, w) of a training photo at working size.
        truth_key: of that ground truth.
    """
    seeding = Seeding(run, config)

    def make(index: int) -> Labels:
        return oracle_guide(
            seeding.labels(index), truth_of(index), **_spreading(run, config, index)
        )

    made_from = {"guide": "oracle", **seeding.made_from(), **_spreading_numbers(config)}
    return training_labels(run, "guide-labels", make, made_from, [seeding.stage, truth_key])


def _seeds(run: Run, config: Config) -> Guides:
    """The seeds as they are."""
    seeding = Seeding(run, config)
    return _guides(run, config, seeding.labels, seeding.made_from(), seeding=seeding)


def _random(run: Run, config: Config) -> Guides:
    """G0."""
    saliency, tags = Saliency(run, config), run.photos.tags
    seed = run.setup.execution.seed

    def make(index: int) -> Labels:
        rng = np.random.default_rng([seed, index])
        return random_guide(saliency.mask(index), tags[index], rng)

    return _guides(run, config, make, {"seed": seed}, saliency=saliency)


def _per_component(run: Run, config: Config) -> Guides:
    """G1, with a classifier of its own (6.1, F)."""
    photos, setup = run.photos, run.setup
    saliency = Saliency(run, config)
    schedule = guide_classifier_schedule(config, setup, len(photos))
    classifier, stage = tag_classifier(run, config, schedule=schedule)
    classifier.to(setup.execution.device)
    fill = classifier.backbone.preprocessing.mean_colour

    def make(index: int) -> Labels:
        image, tags = photos.image(index), photos.tags[index]
        parts = salient_components(saliency.mask(index), least_share=config.least_component)
        if not tags.any():
            return np.full(parts.shape, BACKGROUND, np.uint8)
        changes = score_changes(classifier, image, parts, fill=fill, execution=setup.execution)
        return component_guide(parts, changes, tags, without_rise=config.without_rise)

    numbers = {"without_rise": config.without_rise, "least_component": config.least_component}
    return _guides(run, config, make, numbers, saliency=saliency, classifier=stage, net=classifier)


def _spread(run: Run, config: Config) -> Guides:
    """G2. Nothing of a photo that is known to hold no class is in doubt, so nothing is ignored."""
    # Before the seeder: files that do not fit must show before long work.
    saliency = Saliency(run, config)
    seeding = Seeding(run, config)
    photos = run.photos

    def make(index: int) -> Labels:
        salient = saliency.mask(index)
        if photos.dataset.known[index] and not photos.tags[index].any():
            return np.full(salient.shape, BACKGROUND, np.uint8)
        return seed_guide(seeding.labels(index), salient, **_spreading(run, config, index))

    numbers = {**seeding.made_from(), **_spreading_numbers(config), "without_tags": "background"}
    return _guides(run, config, make, numbers, seeding=seeding, saliency=saliency)


def _guides(
    run: Run,
    config: Config,
    make: Make,
    numbers: dict[str, Any],
    *,
    seeding: Seeding | None = None,
    saliency: Saliency | None = None,
    classifier: Stage | None = None,
    net: nn.Module | None = None,
) -> Guides:
    """The labels that ``make`` gives, and the evidence that they come from."""
    made_from = {"guide": config.guide, **numbers}
    stages, curves = [], []
    if seeding is not None:
        stages.append(seeding.stage)
        curves.append(seeding.curve)
    if saliency is not None:
        made_from["saliency_threshold"] = config.saliency_threshold
        stages.append(saliency.stage)
        curves += saliency.curves
    if classifier is not None:
        stages.append(classifier)
        curves.append(classifier)
    labels = training_labels(run, "guide-labels", make, made_from, stages)
    tag_scores = seeding.tag_scores if seeding is not None else None
    return Guides(
        labels,
        _products(config, labels, seeding, saliency),
        _views(run, seeding, saliency),
        tuple(curves),
        seeding.seeds if seeding is not None else (),
        tag_scores if net is None else classifier_outcome(run, net),
    )


def _products(
    config: Config, labels: LabelMaps, seeding: Seeding | None, saliency: Saliency | None
) -> tuple[Product, ...]:
    found = []
    if seeding is not None:
        found.append(Product("seeds", "train", seeding.labels, (labels.stage,)))
    if saliency is not None:
        title, on = "salient regions", (labels.stage,)
        found.append(Product(title, "train", saliency.labels, on, by_class=False))
    if config.guide != "seeds":
        title = f"guide labels ({config.guide.upper()})"
        found.append(Product(title, "train", labels, (labels.stage,)))
    return tuple(found)


def _views(
    run: Run, seeding: Seeding | None, saliency: Saliency | None
) -> tuple[tuple[str, View], ...]:
    found = []
    if seeding is not None:
        found.append(seeding.view)
    if saliency is not None:
        found.append(("saliency", show_map(run.photos, saliency.map_of)))
    return tuple(found)


def _spreading(run: Run, config: Config, index: int) -> dict[str, Any]:
    """Arguments of G2 for a photo; the least seed is the same part of small photos."""
    image = run.photos.image(index)
    reference = config.crf_reference_side
    factor = (max(image.shape[:2]) / reference) ** 2 if reference is not None else 1.0
    return {
        "share": partial(config.component_crf(), image),
        "least_seed_pixels": round(config.least_seed * factor),
        "least_share": config.least_component,
    }


def _spreading_numbers(config: Config) -> dict[str, Any]:
    return {
        "share": asdict(config.component_crf()),
        "least_seed": config.least_seed,
        "least_component": config.least_component,
    }
