"""Many settings of distinct class saliency maps on the same photos, with the gradients shared.

What is slow, the forward and backward passes, is done once a photo, size and way of
back-propagation, for all settings together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagseg.data.working import argmax_at
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.localize.backprop import ClassSaliency, Method, Record
from tagseg.localize.dcsm import CandidateClasses, candidate_classes
from tagseg.localize.seeds import (
    LayerSet,
    Square,
    distinct_score_map,
    feature_layers,
    probabilities,
)
from tagseg.maps import Labels, Tags
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.recipes.dcsm.classifier import seeder_settings, weights_of_layers
from tagseg.recipes.dcsm.config import Config
from tagseg.run.workspace import Stage
from tagseg.session.scoring import key_of_truth
from tagseg.stages.context import Run
from tagseg.stages.distinct_segmenter import DistinctRefiner, distinct_probabilities
from tagseg.tables.base import Context, Row

__all__ = ["PLAIN", "SMOOTH", "TAGGED", "Counts", "sweep"]

PLAIN, SMOOTH, TAGGED = "plain", "smooth", "tagged"


Blocks = tuple[int, ...]


View = tuple[Method, Blocks, float]  # a way back, to layers, from a size


Pixels = Mapping[str, npt.NDArray[np.int64]]


class Counts(NamedTuple):
    """Pixels of all photos of a setting, by kind of mask, and how many photos."""

    by_kind: Mapping[str, ConfusionMatrix]
    photos: int

    def get(self, kind: str) -> ConfusionMatrix | None:
        """The counts of one kind, if there are any."""
        return self.by_kind.get(kind)


def sweep(
    context: Context[Config],
    run: Run,
    classifier: FullyConvolutionalClassifier,
    after: Stage,
    rows: Sequence[Row],
) -> dict[str, Counts]:
    """Confusion of every row's masks of the validation photos with ground truth.

    Each row is a stage, so that rows are added and interrupted at will.
    """
    photos, key, _ = run.split("val")
    indices = [i for i, name in enumerate(photos.names) if context.truth.has(name)]
    network = _Network(run, classifier.to(run.setup.execution.device), context.config)
    with ExitStack() as open_stages:
        inputs: list[str | Stage] = [after, key, key_of_truth(context.truth)]
        stages = {}
        for row in rows:
            config = replace(context.config, **row.changes)
            made_from = {**asdict(seeder_settings(run, config)), "crf": asdict(config.crf())}
            for weights in weights_of_layers(classifier, config):
                made_from |= asdict(weights)
            stage = run.stage(f"row-{row.variant.replace('.', '_')}", made_from, inputs)
            stages[row.variant] = open_stages.enter_context(stage)
        todo = [row for row in rows if stages[row.variant].pending]
        with run.task(f"{len(todo)} settings", len(indices)) as ticks:
            for index in indices if todo else ():
                views = _Views(network, run, index)
                for row in todo:
                    store = stages[row.variant].maps("counts")
                    if store.missing([photos.names[index]]):
                        config = replace(context.config, **row.changes)
                        store.put(photos.names[index], **_compare(context, views, config))
                ticks.advance(1)
    names = [photos.names[i] for i in indices]
    return {variant: _total(stage, names) for variant, stage in stages.items()}


class _Network:
    """The classifier, ready for each way of back-propagation."""

    def __init__(self, run: Run, net: FullyConvolutionalClassifier, config: Config) -> None:
        self.net, self.side = net, seeder_settings(run, config).side
        self.execution = run.setup.execution
        self._made: dict[tuple[Method, Blocks], ClassSaliency] = {}

    def saliency(self, method: Method, blocks: Blocks) -> ClassSaliency:
        """Gradients at the layers of ``blocks``."""
        if (method, blocks) not in self._made:
            names = self.layers(blocks).names
            self._made[method, blocks] = ClassSaliency(
                self.net, method, names, precision=self.execution.precision
            )
        return self._made[method, blocks]

    def layers(self, blocks: Sequence[int]) -> LayerSet:
        """The layers of some blocks."""
        return feature_layers(self.net.backbone, blocks)


class _Views:
    """One photo at all sizes, each looked at once."""

    def __init__(self, network: _Network, run: Run, index: int) -> None:
        photos = run.split("val").photos
        self.image, self.full_shape = photos.image(index), photos.full_shape(index)
        self.name = photos.names[index]
        self.tags: Tags | None = photos.tags[index] if photos.dataset.known[index] else None
        self.square = Square.of(self.image, network.side, network.net.backbone)
        self._network = network
        self._records: dict[View, Record] = {}
        self._kept: dict[View, dict[int, dict[str, Tensor]]] = {}

    def _record(self, view: View) -> Record:
        if view not in self._records:
            saliency = self._network.saliency(view[0], view[1])
            device = self._network.execution.device
            self._records[view] = self.square.record(saliency, view[2], device)
        return self._records[view]

    def labels(self, config: Config, tags: Tags | None) -> tuple[Labels, Labels]:
        """Masks without and with the CRF."""
        settings = config.equations()
        views = [_view(config, scale) for scale in settings.scales]
        records = [self._record(view) for view in views]
        classes = candidate_classes(probabilities(records), settings, tags)

        def saliency_at(j: int) -> dict[str, Tensor]:
            return self._saliency_of(views[j], layers, classes)

        layers = self._network.layers(config.blocks)
        probs = distinct_probabilities(
            distinct_score_map(self.square, saliency_at, layers, classes, settings)
        )
        refiner = DistinctRefiner({**asdict(config.crf()), "regions": None})
        smooth = refiner.refine(self.image, probs)
        return argmax_at(probs, self.full_shape), argmax_at(smooth, self.full_shape)

    def _saliency_of(
        self, view: View, layers: LayerSet, classes: CandidateClasses
    ) -> dict[str, Tensor]:
        """Layer maps of the classes; those of a class are computed once for all settings."""
        kept = self._kept.setdefault(view, {})
        new = [int(c) for c in classes.classes if int(c) not in kept]
        if new:
            found = self._record(view).saliency(new)
            for place, c in enumerate(new):
                kept[c] = {name: maps[0, place] for name, maps in found.items()}
        return {
            name: torch.stack([kept[int(c)][name] for c in classes.classes])
            for name in layers.names
        }


def _view(config: Config, scale: float) -> View:
    """All feature maps are looked at together; the photo itself, which is slow, only if asked."""
    maps = () if config.blocks == (0,) else (1, 2, 3, 4, 5)
    return config.method, (0,) * (0 in config.blocks) + maps, scale


def _compare(context: Context[Config], views: _Views, config: Config) -> Pixels:
    plain, smooth = views.labels(config, None)
    masks = {PLAIN: plain, SMOOTH: smooth}
    if views.tags is not None:
        masks[TAGGED] = views.labels(config, views.tags)[1]
    truth = context.truth.labels(views.name, views.full_shape)
    counts = {}
    for kind, labels in masks.items():
        confusion = ConfusionMatrix(len(context.data.photos.classes) + 1)
        confusion.update(labels, truth)
        counts[kind] = confusion.counts
    return counts


def _total(stage: Stage, names: Sequence[str]) -> Counts:
    """The sum over photos; tags count only if all are known."""
    store, totals = stage.maps("counts"), dict[str, list[npt.NDArray[np.int64]]]()
    for name in names:
        for kind, counts in store.get(name).items():
            totals.setdefault(kind, []).append(counts)
    by_kind = {}
    for kind, found in totals.items():
        if len(found) == len(names):
            by_kind[kind] = ConfusionMatrix(len(found[0]))
            by_kind[kind].counts = np.sum(found, axis=0)
    return Counts(by_kind, len(names))
