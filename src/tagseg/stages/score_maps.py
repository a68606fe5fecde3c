"""Score maps of all photos, by an algorithm that sees one at a time or by a network on its grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagseg.data.transforms import factor_to, resize_batch, resized_shape
from tagseg.localize.cam import normalised_maps
from tagseg.localize.seeds import feature_layers
from tagseg.maps import Image, ScoreMap, Tags
from tagseg.nets.backbone import Backbone
from tagseg.stages.context import Run, Split
from tagseg.stages.stage import (
    Declared,
    Images,
    Input,
    Plain,
    ScoreMaps,
    network_input,
    per_batch,
    per_photo,
)

__all__ = [
    "LayerWeights",
    "Seeder",
    "grid_score_maps",
    "layer_weights",
    "photo_score_maps",
]

Seeder = Callable[[Image, Tags | None], ScoreMap]


@dataclass(frozen=True)
class LayerWeights(Plain):
    """What decides on maps where blocks have different numbers of layers (Shimoda & Yanai 4.4)."""

    layer_weights: tuple[float, ...]


def layer_weights(backbone: Backbone, blocks: Sequence[int]) -> list[LayerWeights]:
    """The weights of the layers of ``blocks`` in a mean of blocks; none if they are equal."""
    weights = feature_layers(backbone, blocks).weights
    return [LayerWeights(weights)] if weights else []


def photo_score_maps(
    run: Run,
    declared: Declared,
    seeder: Seeder,
    *,
    settings: Iterable[object],
    inputs: Iterable[Input],
    split: Split = "train",
) -> ScoreMaps:
    """Score maps (C, h, w) of every photo at working size, of its tags where they are known.

    The seeder holds a network, so photos come one after the other.
    """
    photos = run.split(split).photos

    def make(index: int) -> dict[str, Any]:
        tags = photos.tags[index] if photos.dataset.known[index] else None
        scores = seeder(photos.image(index), tags)
        present = np.asarray(scores.any((1, 2)))
        kept = {"present": present, "scores": scores[present].astype(np.float16)}
        return {"score-maps": kept}

    stage = per_photo(
        run,
        declared,
        ["score-maps"],
        make,
        settings=settings,
        inputs=inputs,
        split=split,
        threads=1,
        network=True,
    )

    def read(index: int) -> ScoreMap:
        arrays = stage.maps("score-maps").get(photos.names[index])
        scores = np.zeros((len(photos.classes), *photos.image(index).shape[:2]), np.float32)
        scores[arrays["present"]] = arrays["scores"]
        return scores

    return ScoreMaps(stage, read)


def grid_score_maps(
    run: Run,
    declared: Declared,
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    settings: Iterable[object],
    inputs: Iterable[Input],
    split: Split = "train",
    stride: int | None = None,
    side: int | None = None,
) -> ScoreMaps:
    """Score maps of the photos' known tags, kept on their own grid, of present classes only.

    Read (C, h, w) at working size, each class divided by its maximum.

    Args:
        score: of photos (B, 3, H, W) in [0, 1] with tags (B, C): maps (B, C, h', w').
        stride: pixels a position of the grid; None spreads it from edge to edge.
        side: longer side at which photos are shown to ``score``; None for the working size.
    """
    photos = run.split(split).photos

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, Any]]:
        tags = torch.from_numpy(photos.tags[indices])
        with network_input(run.setup.execution, images) as x:
            x = resize_batch(x, factor_to(side, x.shape[2:]))
            maps = score(x, tags.to(x.device))
        for index, classes in zip(indices, maps.float().cpu().numpy(), strict=True):
            yield {"class-maps": {"present": classes[photos.tags[index]].astype(np.float16)}}

    stage = per_batch(
        run,
        declared,
        ["class-maps"],
        make,
        settings=settings,
        inputs=inputs,
        split=split,
    )

    def read(index: int) -> ScoreMap:
        present = stage.maps("class-maps").get(photos.names[index])["present"]
        tags = photos.tags[index]
        maps = np.zeros((len(tags), *present.shape[1:]), np.float32)
        maps[tags] = present
        shape = photos.image(index).shape[:2]
        seen = resized_shape(shape, factor_to(side, shape))
        return normalised_maps(maps, tags, shape, stride=stride, seen=seen)

    return ScoreMaps(stage, read)
