"""Score maps of all photos by an algorithm that sees one photo at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tagseg.maps import Image, ScoreMap, Tags
from tagseg.stages.context import Run, Split
from tagseg.stages.stage import Declared, Input, ScoreMaps, per_photo

__all__ = ["Seeder", "photo_score_maps"]

Seeder = Callable[[Image, Tags | None], ScoreMap]


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
    photos = run.part(split).photos

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
    )

    def read(index: int) -> ScoreMap:
        arrays = stage.maps("score-maps").get(photos.names[index])
        scores = np.zeros((len(photos.classes), *photos.image(index).shape[:2]), np.float32)
        scores[arrays["present"]] = arrays["scores"]
        return scores

    return ScoreMaps(stage, read)
