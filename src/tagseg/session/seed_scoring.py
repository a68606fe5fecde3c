"""Precision and recall of a recipe's score maps against ground truth (Oh et al. 2017, 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.errors import ConfigError
from tagseg.evaluate.seeds import CentreMeanShape, SeedCurves
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE, Labels, ScoreMap
from tagseg.report.page import Curve, SeedScore
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Seeds

__all__ = ["SeedMaps", "find_seed_maps", "score_seeds", "seed_scores_from", "truth_at_work"]

BASELINE = "centre mean shape"


@dataclass(frozen=True)
class SeedMaps:
    """Score maps of one method for the photos of one split."""

    id: str
    method: str
    threshold: float | None
    split: Split
    scores_of: Callable[[int], ScoreMap]
    stage: Stage


def find_seed_maps(run: Run, seeds: Sequence[Seeds], truth: GroundTruth | None) -> list[SeedMaps]:
    """The score maps to compare: of validation photos where there are any, else of training photos.

    Seeds are made from known tags; without ground truth, or with a tag unknown, there are none.
    """
    if truth is None:
        return []
    split: Split = "val" if run.val is not None else "train"
    photos = run.split(split).photos
    if not photos.dataset.known.all() or not any(map(truth.has, photos.names)):
        return []
    found = [(seed, seed.maps_of(split)) for seed in seeds]
    return [SeedMaps(s.id, s.method, s.threshold, split, maps, maps.stage) for s, maps in found]


def score_seeds(
    run: Run, maps: Sequence[SeedMaps], truth: GroundTruth | None, indices: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each method and for the centre mean shape, as JSON data.

    Args:
        indices: of the photos to score; those without ground truth are passed over.
    """
    if not maps or truth is None:
        return []
    photos = run.split(maps[0].split).photos
    chosen = [i for i in indices if truth.has(photos.names[i])]
    truths = {i: truth_at_work(photos, truth, i) for i in chosen}
    if not any((labels != IGNORE).any() for labels in truths.values()):
        return []
    rows = []
    for found in (*maps, _mean_shape(photos, truths, maps[0])):
        curves = SeedCurves(len(photos.classes))
        for index, labels in truths.items():
            curves.update(found.scores_of(index), labels)
        rows.append(_row(found, curves, len(truths)))
    return rows


def seed_scores_from(rows: Sequence[dict[str, Any]]) -> list[SeedScore]:
    """The rows of :func:`score_seeds` for the report."""
    return [
        SeedScore(
            **{
                **row,
                "foreground": Curve(**row["foreground"]),
                "background": Curve(**row["background"]),
            }
        )
        for row in rows
    ]


def truth_at_work(photos: WorkingPhotos, truth: GroundTruth, index: int) -> Labels:
    """Ground truth of a photo at the size that the networks work at."""
    full = truth.labels(photos.names[index], photos.full_shape(index))
    height, width = photos.image(index).shape[:2]
    return labels_at(full, (height, width))


def _mean_shape(photos: WorkingPhotos, truths: dict[int, Labels], like: SeedMaps) -> SeedMaps:
    shape = CentreMeanShape()
    for labels in truths.values():
        shape.update(labels)

    def scores_of(index: int) -> ScoreMap:
        height, width = photos.image(index).shape[:2]
        return shape.score_map(photos.tags[index], (height, width))

    return SeedMaps("centre", BASELINE, None, like.split, scores_of, like.stage)


def _row(found: SeedMaps, curves: SeedCurves, count: int) -> dict[str, Any]:
    summary = curves.summary()
    miou = None if found.threshold is None else _miou(curves, found.threshold)
    lines = {
        side: Curve(summary[f"{side}_recall"], summary[f"{side}_precision"])
        for side in ("foreground", "background")
    }
    score = SeedScore(
        found.method,
        found.split,
        count,
        summary["mean_precision"],
        summary["foreground_precision_at_20_recall"],
        summary["background_precision_at_80_recall"],
        miou,
        found.threshold,
    )
    return asdict(score) | {side: curve._asdict() for side, curve in lines.items()}


def _miou(curves: SeedCurves, threshold: float) -> float | None:
    """At a threshold that the curves have: not all that a recipe may be given are among them."""
    try:
        return curves.miou(threshold)
    except ConfigError:
        return None
