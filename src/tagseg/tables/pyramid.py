"""The pyramid segmenter on a run's labels, beside the same one on ground truth: no paper's table.

A paper's own tables keep that paper's segmenter, so that their rows compare what the paper does.
"""

from __future__ import annotations

from typing import Any

from tagseg.recipes.catalog import find_recipe
from tagseg.stages.outcome import Prediction
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.segmenter import predicted
from tagseg.tables.base import Context, Row, Score, Study, Table

__all__ = ["PYRAMID"]

_OWN = Row("pyramid", "labels of the run", {}, None)
_FULL = Row("pyramid-full", "ground truth", {}, None)


def table(context: Context[Any]) -> Table:
    """Mean IoU on the validation photos, and in per cent of full supervision."""
    found = {row.label: make(context, row) for row, make in ((_OWN, _own), (_FULL, _full))}
    best = {label: _best(scores) for label, scores in found.items()}
    full = best[_FULL.label].miou
    rows = tuple(
        (label, scores[0].miou, best[label].miou, _part(best[label].miou, full))
        for label, scores in found.items()
    )
    return Table(
        "pyramid",
        "The pyramid segmenter: mean IoU on val, and in per cent of full supervision (FS%)",
        ("trained on", "ours without refiner", "ours", "FS%"),
        rows,
        (
            f"ours: {best[_OWN.label].photos} validation photos with ground truth; both rows have "
            "the refiner where held-out labels speak for it",
            "full supervision is left out unless all training photos have ground truth",
        ),
    )


PYRAMID = Study(table, "val")


def _own(context: Context[Any], row: Row) -> list[Score]:
    """Scores of the run's own segmenter, without and with its refiner."""
    with context.variant(row) as (run, config):
        outcome = find_recipe(context.recipe).run(run, config)
        last = [p for p in outcome.predictions if p.split == "val" and p.number is None]
        return list(context.scores(run, {p.id: p for p in last}).values())


def _full(context: Context[Any], row: Row) -> list[Score]:
    with context.variant(row) as (run, config):
        labels = context.true_labels(run)
        if labels is None:
            return [Score(None, 0)]
        segmenter = pyramid_segmenter(run, config, labels, drawn=True)
        answers = predicted(run, segmenter.model, segmenter)
        found = {"raw": answers.raw, "best": answers.best}
        compared = {name: Prediction.of(name, name, "val", of) for name, of in found.items()}
        return list(context.scores(run, compared).values())


def _best(scores: list[Score]) -> Score:
    """With the refiner, which is the last, where there is one."""
    return scores[-1]


def _part(value: float | None, whole: float | None) -> float | None:
    return 100 * value / whole if value is not None and whole else None
