"""The guide labels of guided segmentation: from which evidence, and by which labeller.

The recipe tells the story; what each choice of its configuration needs, depends on and has to show
stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

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
from tagseg.recipes.guided.config import (
    ComponentSettings,
    Config,
    Guide,
    SalientSettings,
    SeedSettings,
    SpreadSettings,
)
from tagseg.refine.box_masks import OBJECT
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run
from tagseg.stages.crf import Smoothing
from tagseg.stages.guide_classifier import GuideClassifier, guide_classifier
from tagseg.stages.outcome import Prediction, Seeds, TagScores, View
from tagseg.stages.predictions import classifier_outcome, show_map
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.seeder import SeederMaps
from tagseg.stages.settings import CrfSettings
from tagseg.stages.stage import Declared, Drawn, Input, LabelMaps, Plain, label_maps

__all__ = ["Guides", "Saliency", "Seeding", "guide_labels", "oracle_labels"]

Make = Callable[[int], Labels]

_GUIDES = Declared("guide-labels")


@dataclass(frozen=True)
class Guides:
    """Guide labels of the training photos, and what the report shows of how they came about."""

    labels: LabelMaps
    predictions: tuple[Prediction, ...]
    views: tuple[tuple[str, View], ...]
    curves: tuple[Stage, ...]
    seeds: tuple[Seeds, ...]
    tag_scores: TagScores | None


class Seeding(SeederMaps):
    """Seeds of the training photos (4, 6.1)."""

    def __init__(self, run: Run, config: Config) -> None:
        super().__init__(run, config, config.seeder, config.seed_threshold)
        self.config = config
        self.smoothing = Smoothing.of(config)

    def labels(self, index: int) -> Labels:
        """Argmax class where its map is high enough, after a CRF where configured (C)."""
        photos, threshold = self.run.photos, self.config.seed_threshold
        seeds = cam_labels(self.maps(index), photos.tags[index], threshold=threshold)
        if not self.config.crf_seed:
            return seeds
        return self.smoothing.labels(photos.image(index), seeds)

    def decided_by(self) -> list[object]:
        """What decides on the labels, beside the maps."""
        crf = [self.config.only(CrfSettings)] if self.config.crf_seed else []
        return [self.config.only(SeedSettings), *crf]


class Saliency:
    """Saliency maps of the training photos, and where they are salient (5.1, 6.1)."""

    def __init__(self, run: Run, config: Config) -> None:
        self.settings, maps = config.only(SalientSettings), PhotoSaliency(run, config)
        self.maps = maps.maps()
        self.curves = tuple(maps.curves)

    def mask(self, index: int) -> Mask:
        """Where the map is over the threshold."""
        return salient_mask(self.maps(index), fraction=self.settings.saliency_threshold)

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
        seeds = seeding.labels(index)
        return oracle_guide(seeds, truth_of(index), **_spreading(run, config, index))

    decided_by = [_Labeller("oracle"), *seeding.decided_by(), *_spread_by(config)]
    inputs: list[Input] = [seeding.maps, truth_key]
    return label_maps(run, _GUIDES, make, settings=decided_by, inputs=inputs)


def _seeds(run: Run, config: Config) -> Guides:
    """The seeds as they are."""
    seeding = Seeding(run, config)
    return _Evidence(run, config.guide, seeding=seeding).guides(
        seeding.labels, seeding.decided_by()
    )


def _random(run: Run, config: Config) -> Guides:
    """G0: each component gets one of the photo's tags by lot."""
    saliency, tags = Saliency(run, config), run.photos.tags
    lot = Drawn(run.setup.execution.seed)

    def make(index: int) -> Labels:
        rng = np.random.default_rng([lot.seed, index])
        return random_guide(saliency.mask(index), tags[index], rng)

    return _Evidence(run, config.guide, saliency=saliency).guides(make, [lot])


def _per_component(run: Run, config: Config) -> Guides:
    """G1: each component gets the tag whose score it raises in a classifier (6.1, F)."""
    photos, setup = run.photos, run.setup
    saliency = Saliency(run, config)
    classifier = guide_classifier(run, config)
    net = classifier.model.to(setup.execution.device)
    fill, rise = net.backbone.preprocessing.mean_colour, _Rise(config.without_rise)

    def make(index: int) -> Labels:
        image, tags = photos.image(index), photos.tags[index]
        parts = salient_components(saliency.mask(index), min_fraction=config.min_component)
        if not tags.any():
            return np.full(parts.shape, BACKGROUND, np.uint8)
        changes = score_changes(net, image, parts, fill=fill, execution=setup.execution)
        return component_guide(parts, changes, tags, without_rise=rise.without_rise)

    evidence = _Evidence(run, config.guide, saliency=saliency, classifier=classifier)
    return evidence.guides(make, [rise, config.only(ComponentSettings)])


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

    evidence = _Evidence(run, config.guide, seeding=seeding, saliency=saliency)
    return evidence.guides(make, [*seeding.decided_by(), *_spread_by(config)])


@dataclass(frozen=True)
class _Labeller(Plain):
    """Which guide labels."""

    guide: Guide | str


@dataclass(frozen=True)
class _Rise(Plain):
    """What becomes of components that raise no tag's score."""

    without_rise: Any


@dataclass(frozen=True)
class _Evidence:
    """What guide labels come from, and what the report shows of it."""

    run: Run
    guide: Guide
    seeding: Seeding | None = None
    saliency: Saliency | None = None
    classifier: GuideClassifier | None = None
    curves: list[Stage] = field(default_factory=list)

    def guides(self, make: Make, settings: Iterable[object]) -> Guides:
        """The labels that ``make`` gives, and what decides on them."""
        decided_by: list[object] = [_Labeller(self.guide), *settings]
        inputs: list[Input] = []
        if self.seeding is not None:
            inputs.append(self.seeding.maps)
            self.curves.append(self.seeding.seeder.stage)
        if self.saliency is not None:
            decided_by.append(self.saliency.settings)
            inputs.append(self.saliency.maps)
            self.curves.extend(self.saliency.curves)
        if self.classifier is not None:
            inputs.append(self.classifier)
            self.curves.append(self.classifier.stage)
        labels = label_maps(self.run, _GUIDES, make, settings=decided_by, inputs=inputs)
        return Guides(
            labels,
            self._predictions(labels),
            self._views(),
            tuple(self.curves),
            self.seeding.seeds if self.seeding is not None else (),
            self._tag_scores(),
        )

    def _tag_scores(self) -> TagScores | None:
        if self.classifier is not None:
            return classifier_outcome(self.run, self.classifier.model)
        return self.seeding.tag_scores if self.seeding is not None else None

    def _predictions(self, labels: LabelMaps) -> tuple[Prediction, ...]:
        found, stage = list[Prediction](), labels.stage
        if self.seeding is not None:
            found.append(Prediction("seeds", "seeds", "train", self.seeding.labels, stage))
        if self.saliency is not None:
            salient, title = self.saliency.labels, "salient regions"
            found.append(Prediction("salient", title, "train", salient, stage, by_class=False))
        if self.guide != "seeds":
            title = f"guide labels ({self.guide.upper()})"
            found.append(Prediction.of("guide-labels", title, "train", labels))
        return tuple(found)

    def _views(self) -> tuple[tuple[str, View], ...]:
        found = list[tuple[str, View]]()
        if self.seeding is not None:
            found.append(self.seeding.view)
        if self.saliency is not None:
            found.append(("saliency", show_map(self.saliency.maps)))
        return tuple(found)


def _spreading(run: Run, config: Config, index: int) -> dict[str, Any]:
    """Arguments of G2 for a photo; the smallest seed is the same fraction of small photos."""
    image = run.photos.image(index)
    reference = config.crf_reference_side
    factor = (max(image.shape[:2]) / reference) ** 2 if reference is not None else 1.0
    return {
        "share": partial(config.component_crf(), image),
        "min_seed_pixels": round(config.min_seed * factor),
        "min_fraction": config.min_component,
    }


def _spread_by(config: Config) -> list[object]:
    """What decides on G2, beside its seeds and saliency."""
    return [config.component_crf(), config.only(SpreadSettings)]
