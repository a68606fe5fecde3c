"""What every recipe gives back: an :class:`Outcome`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagseg.maps import Image, Labels, ScoreMap
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Split

__all__ = ["Outcome", "Product", "Progression", "RoundProducts", "Seeds", "TagScores", "View"]

View = Callable[[int], Image]


TagScores = Callable[[], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Product:
    """Labels that a stage made for a set of photos, to be scored and shown.

    Attributes:
        title: of the stage, as the report prints it.
        split: "train" or "val".
        labels: of photo i, at working or full size.
        stages: what the labels depend on.
        by_class: False for masks that only tell foreground (1) from background.
    """

    title: str
    split: Split
    labels: Callable[[int], Labels]
    stages: tuple[Stage, ...]
    by_class: bool = True


@dataclass(frozen=True)
class Seeds:
    """Score maps of known tags, to be scored by precision and recall.

    Attributes:
        method: as the report prints it.
        threshold: over which a pixel is foreground; None where the method has none.
        maps_of: score map (C, h, w) of a split's photo i at working size, and what they depend on.
    """

    method: str
    threshold: float | None
    maps_of: Callable[[Split], tuple[Callable[[int], ScoreMap], Stage]]


@dataclass(frozen=True)
class RoundProducts:
    """What one round of an iterative recipe gave.

    Attributes:
        agreement: of its masks with those of the round before, 0 to 1; None for the first.
        products: of the round, those of the outcome; their titles end in ", round NUMBER".
    """

    number: int
    agreement: float | None
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Progression:
    """The rounds of a recipe in order, and why there are no more."""

    rounds: tuple[RoundProducts, ...]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a recipe gives back.

    Attributes:
        segmenter: trained, with its refinement.
        products: every stage's labels, in the order of the pipeline.
        views: pictures of the intermediate maps of training photo i, by title, for the gallery.
        tag_scores: computes those of the validation photos (N, C), if there is a tag classifier.
        curves: stages that logged a training.
        seeds: score maps to be compared.
        progression: of a recipe that works in rounds.
    """

    segmenter: Segmenter
    products: tuple[Product, ...]
    views: tuple[tuple[str, View], ...] = ()
    tag_scores: TagScores | None = None
    curves: tuple[Stage, ...] = ()
    seeds: tuple[Seeds, ...] = ()
    progression: Progression | None = None
