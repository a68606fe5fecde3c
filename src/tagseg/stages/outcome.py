"""What every recipe gives back: an :class:`Outcome`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tagseg.evaluate.trust import ClassTrust
from tagseg.maps import Image, Labels
from tagseg.run.workspace import Stage
from tagseg.segment.model_file import pack_segmenter
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Split
from tagseg.stages.stage import PhotoMaps, ScoreMaps

__all__ = [
    "Locations",
    "Outcome",
    "Prediction",
    "Progression",
    "RoundPredictions",
    "Seeds",
    "TagScores",
    "View",
]

View = Callable[[int], Image]


TagScores = Callable[[], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Prediction:
    """Labels that a stage made for a set of photos, to be scored and shown.

    Attributes:
        id: by which reports and tables find it; unique in an outcome, with its split and round.
        title: as the report prints it.
        split: "train" or "val".
        labels: of photo i, at working or full size.
        stage: what the labels depend on.
        by_class: False for masks that only tell foreground (1) from background.
        number: of the round, for a recipe that works in rounds.
    """

    id: str
    title: str
    split: Split
    labels: Callable[[int], Labels]
    stage: Stage
    by_class: bool = True
    number: int | None = None

    @classmethod
    def of(cls, id: str, title: str, split: Split, maps: PhotoMaps[Labels], **more: Any) -> Self:
        """Those that a stage keeps."""
        return cls(id, title, split, maps, maps.stage, **more)


@dataclass(frozen=True)
class Seeds:
    """Score maps of known tags, to be scored by precision and recall.

    Attributes:
        id: by which reports and tables find them.
        method: as the report prints it.
        threshold: over which a pixel is foreground; None where the method has none.
        maps_of: score maps (C, h, w) of a split's photos at working size.
    """

    id: str
    method: str
    threshold: float | None
    maps_of: Callable[[Split], ScoreMaps]


@dataclass(frozen=True)
class Locations:
    """Where some evidence puts the classes of training photos, to be averaged.

    Attributes:
        title: as reports and tables print it.
        maps: of photo i: floats or bool (K, h, w) in [0, 1], one for each of its K tags, in order.
        stage: what the maps depend on.
    """

    title: str
    maps: Callable[[int], npt.NDArray[Any]]
    stage: Stage


@dataclass(frozen=True)
class RoundPredictions:
    """What one round of an iterative recipe gave.

    Attributes:
        agreement: of its masks with those of the round before, 0 to 1; None for the first.
        predictions: of the round, those of the outcome.
    """

    number: int
    agreement: float | None
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Progression:
    """The rounds of a recipe in order, and why there are no more."""

    rounds: tuple[RoundPredictions, ...]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a recipe gives back.

    Attributes:
        segmenter: trained, with its refiner.
        predictions: every stage's labels, in the order of the pipeline.
        views: pictures of the intermediate maps of training photo i, by title, for the gallery.
        tag_scores: computes those of the validation photos (N, C), if there is a tag classifier.
        curves: what logged a training, in order; the last is the segmenter's.
        seeds: score maps to be compared.
        locations: maps of training photos, whose averages are shown by class.
        progression: of a recipe that works in rounds.
        pack: tensors and metadata of the segmenter, for its file.
        trust: what a recipe that judges its own masks says of each class, in label order.
    """

    segmenter: Segmenter
    predictions: tuple[Prediction, ...]
    views: tuple[tuple[str, View], ...] = ()
    tag_scores: TagScores | None = None
    curves: tuple[Stage, ...] = ()
    seeds: tuple[Seeds, ...] = ()
    locations: tuple[Locations, ...] = ()
    progression: Progression | None = None
    pack: Callable[[Any], tuple[dict[str, Tensor], dict[str, str]]] = pack_segmenter
    trust: tuple[ClassTrust, ...] = ()
