"""Score maps of all photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tagseg.maps import Image, ScoreMap, Tags
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Split

__all__ = ["ScoreMaps", "photo_score_maps"]

ScoreMaps = Callable[[int], ScoreMap]


Seeder = Callable[[Image, Tags | None], ScoreMap]


def photo_score_maps(
    run: Run,
    name: str,
    seeder: Seeder,
    made_from: dict[str, Any],
    after: Stage,
    *,
    split: Split = "train",
) -> tuple[ScoreMaps, Stage]:
    """Score maps (C, h, w) of every photo at working size, of its tags where they are known."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", made_from, [key, after]) as stage:
        if stage.pending:
            store = stage.maps("score-maps")
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)
            with run.task(name.replace("-", " "), len(photos)) as ticks:
                ticks.skip(len(photos) - len(todo))
                for photo in todo:
                    index = index_of[photo]
                    tags = photos.tags[index] if photos.dataset.known[index] else None
                    scores = seeder(photos.image(index), tags)
                    present = np.asarray(scores.any((1, 2)))
                    store.put(photo, present=present, scores=scores[present].astype(np.float16))
                    ticks.advance(1)

    def read(index: int) -> ScoreMap:
        arrays = stage.maps("score-maps").get(photos.names[index])
        scores = np.zeros((len(photos.classes), *photos.image(index).shape[:2]), np.float32)
        scores[arrays["present"]] = arrays["scores"]
        return scores

    return read, stage
