"""The ablation of ``union``: every piece taken away in turn, and each source of objects alone."""

from __future__ import annotations

from collections.abc import Mapping

from tagseg.recipes import union
from tagseg.recipes.union.config import Config
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Row, Study, Table

__all__ = ["TABLES"]

ROWS = (
    Row("all", "union", {}, None),
    Row("tags-alone", "class maps alone, nothing that stands out", {"objects": "none"}, None),
    Row("barrier", "of what stands out, barrier alone", {"objects": "barrier"}, None),
    Row("drfi", "of what stands out, drfi alone", {"objects": "drfi"}, None),
    Row("activations", "of what stands out, activations alone", {"objects": "activations"}, None),
    Row(
        "nothing-hidden", "no regions hidden from the classifier", {"classifier_hidden": 0.0}, None
    ),
    Row("mean-alone", "scores by the mean over all positions", {"classifier_top": 1.0}, None),
    Row("one-size", "class maps at one size", {"cam_scales": (1.0,)}, None),
    Row("one-layer", "class maps of the last layer alone", {"fine_maps": False}, None),
    Row("one-way", "the first of the ways alone, no votes", {"fusion_tie": 0.0}, None),
    Row("all-votes", "pixels without agreement teach too", {"fusion_agreement": 0.0}, None),
    Row("one-round", "one round", {"rounds": 1}, None),
    Row("all-answers", "answers that are not sure teach too", {"answer_confidence": 0.0}, None),
)


def ablation(context: Context[Config]) -> Table:
    """Mean IoU of the first labels, of the photos' final masks, and on the validation photos."""
    rows = tuple((row.label, *_scores(context, row)) for row in ROWS)
    return Table(
        "ablation",
        "Union, with every piece taken away in turn: mean IoU",
        ("", "first labels", "masks of the photos", "val"),
        rows,
        ("first labels and masks are of training photos, of known tags; val is without tags",),
    )


TABLES: Mapping[str, Study] = {"ablation": Study(ablation, "val")}


def _scores(context: Context[Config], row: Row) -> tuple[float | None, ...]:
    with context.variant(row) as (run, config):
        made = union.run(run, config).predictions
        wanted = {
            "labels": _first(made, "labels"),
            "masks": _first(made, "masks"),
            "val": _first(made, "segmenter"),
        }
        found = context.scores(run, wanted)
        return tuple(found[name].miou for name in wanted)


def _first(predictions: tuple[Prediction, ...], id: str) -> Prediction:
    return next(prediction for prediction in predictions if prediction.id == id)
