"""How labels come to follow a photo's edges: the dense CRF, regions that vote, or GrabCut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tagseg.fuse.union import region_votes
from tagseg.maps import Image, Probs
from tagseg.priors.superpixels import SuperpixelSettings
from tagseg.recipes.union.config import Config
from tagseg.refine.dense_crf import refine
from tagseg.refine.grabcut import GrabCutSettings, enhanced_mask
from tagseg.stages.context import Run
from tagseg.stages.crf import Smoothing
from tagseg.stages.priors import (
    PhotoRegions,
    PhotoSuperpixels,
    photo_regions,
    photo_superpixels,
)
from tagseg.stages.settings import ReferenceSide
from tagseg.stages.stage import Input

__all__ = ["Edges", "cut_out", "edges_of"]

_LEAST = 1e-3  # of a probability; certainty would leave the CRF nothing to say


@dataclass(frozen=True)
class Edges:
    """One kind of edges.

    Attributes:
        follow: probabilities (L, h, w) along the edges, of a photo's index, the photo (h, w, 3) and
            its probabilities (L, h, w), background first.
        decided_by: settings that decide on them.
        inputs: stages that they are read from.
    """

    follow: Callable[[int, Image, Probs], Probs]
    decided_by: tuple[object, ...] = ()
    inputs: tuple[Input, ...] = ()


def edges_of(run: Run, config: Config) -> dict[str, Edges]:
    """The kinds that are configured, by name; regions of photos are found here."""
    make = {"crf": _crf, "superpixels": _superpixels, "crisp": _crisp, "grabcut": _grabcut}
    return {name: make[name](run, config) for name in config.edges()}


def _crf(run: Run, config: Config) -> Edges:
    parameters = Smoothing.of(config).parameters
    return Edges(
        lambda index, image, probs: refine(image, -np.log(probs.clip(_LEAST, 1)), parameters),
        (parameters,),
    )


def _superpixels(run: Run, config: Config) -> Edges:
    return _voting(photo_superpixels(run, SuperpixelSettings(), config.only(ReferenceSide)))


def _crisp(run: Run, config: Config) -> Edges:
    return _voting(photo_regions(run, config))


def _voting(regions: PhotoRegions | PhotoSuperpixels) -> Edges:
    return Edges(lambda index, image, probs: region_votes(probs, regions(index)), inputs=(regions,))


def _grabcut(run: Run, config: Config) -> Edges:
    settings = GrabCutSettings()
    return Edges(lambda index, image, probs: cut_out(image, probs, settings), (settings,))


def cut_out(image: Image, probs: Probs, settings: GrabCutSettings) -> Probs:
    """Probabilities (L, h, w) with all classes cut out of the background by GrabCut.

    What is cut out is of no background, all else of nothing but it. Classes share what is cut out
    as they did; where none was, they have equal shares.

    Args:
        image: RGB photo (h, w, 3), uint8.
        probs: (L, h, w), background first.
    """
    inside = enhanced_mask(image, 1 - probs[0], settings)
    classes = probs[1:].clip(np.finfo(np.float32).tiny)
    shares = classes / classes.sum(0) * inside
    return np.concatenate((~inside[None], shares)).astype(np.float32)
