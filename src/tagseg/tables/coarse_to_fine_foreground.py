"""Table IV of Jing et al. (section IV-F), and the Feature Pyramid Network beside DeepLab-v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tagseg.recipes.coarse_to_fine import foreground as coarse_to_fine_foreground
from tagseg.recipes.coarse_to_fine.foreground import Config
from tagseg.session.scoring import score_foreground
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Printed, Row, Study, Table, percent

__all__ = ["TABLES"]

_ALL: dict[str, Any] = {"converged": 2.0}  # no stage depends on the rule


ROWS = (
    Row("fpn", "Feature Pyramid Network", {**_ALL, "network": "fpn"}, None),
    Row("deeplab", "DeepLab-v2", {**_ALL, "network": "deeplab"}, None),
)


_PAPER = {  # class: subset of 100 photos, full set
    "airplane": (Printed("64.92"), Printed("65.88")),
    "car": (77.6, Printed("77.07")),
    "horse": (Printed("60.36"), Printed("65.82")),
}


_PAPER_AVERAGE = 67.6, 69.9


_UNSUPERVISED = {
    "airplane": Printed("61.37"),
    "car": Printed("70.52"),
    "horse": Printed("55.09"),
}  # Croitoru et al., subset


_UNSUPERVISED_AVERAGE = Printed("62.32")


def table_4(context: Context[Config]) -> Table:
    """IoU of the foreground, mean over the photos of each class."""
    measured = [entry for row in ROWS for entry in _measured(context, row)]
    counted = enumerate(zip(context.data.photos.classes, measured[0][3], strict=True))
    shown = [(i, c, n) for i, (c, n) in counted if n or c.casefold() in _PAPER]
    classes = tuple(name for _, name, _ in shown)
    subset, full = ({c: values[i] for c, values in _PAPER.items()} for i in (0, 1))
    rows: list[tuple[str | float | None, ...]] = [
        _papers(classes, "paper, MIT subset", subset, _PAPER_AVERAGE[0]),
        _papers(classes, "paper, MIT full", full, _PAPER_AVERAGE[1]),
        _papers(
            classes, "UnsupervisedSeg [20], paper, MIT subset", _UNSUPERVISED, _UNSUPERVISED_AVERAGE
        ),
    ]
    rows += [
        (label, *(percent(iou[i]) for i, _, _ in shown), percent(mean))
        for label, iou, mean, _ in measured
    ]
    return Table(
        "4",
        "Table IV: IoU of the foreground on val, by class of photo",
        ("", *(f"{name} ({count})" for _, name, count in shown), "average"),
        tuple(rows),
        (
            "the mean over photos; those without an object in their ground truth are left out",
            "in brackets: photos that count",
            "with the CRF, as the run has it; round 1 learns from enhanced masks",
        ),
    )


TABLES: Mapping[str, Study] = {"4": Study(table_4, "val")}


Measured = tuple[str, list[float | None], float | None, list[int]]


def _measured(context: Context[Config], row: Row) -> list[Measured]:
    """(label, IoU of each class, their mean, photos of each) after the first and the last round."""
    with context.variant(row) as (run, config):
        progression = coarse_to_fine_foreground.run(run, config).progression
        rounds = progression.rounds if progression is not None else ()
        predictions = {
            f"{row.label}, round {entry.number}": _on_val(entry.predictions)
            for entry in (rounds[0], rounds[-1])
        }

        def compute() -> list[Measured]:
            found = []
            for label, prediction in predictions.items():
                scored = score_foreground(run, prediction, context.truth)
                if scored is not None:
                    iou = [None if np.isnan(value) else float(value) for value in scored.iou()]
                    average = None if np.isnan(scored.average()) else scored.average()
                    found.append((label, iou, average, scored.counts().tolist()))
            return found

        return [tuple(entry) for entry in context.measure(run, "foreground", predictions, compute)]


def _on_val(predictions: tuple[Prediction, ...]) -> Prediction:
    return next(prediction for prediction in predictions if prediction.split == "val")


def _papers(
    classes: tuple[str, ...], label: str, known: Mapping[str, float], average: float
) -> tuple[str | float | None, ...]:
    return (label, *(known.get(name.casefold()) for name in classes), average)
