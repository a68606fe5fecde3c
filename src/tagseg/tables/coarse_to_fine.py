"""Tables I and III and Figures 5 and 6 of Jing et al. (section IV-D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagseg.evaluate.masks import evaluate_masks
from tagseg.maps import tags_of_labels
from tagseg.recipes.coarse_to_fine.recipe import Config, single_target
from tagseg.recipes.coarse_to_fine.recipe import run as run_recipe
from tagseg.recipes.coarse_to_fine.rounds import refined_segmenter
from tagseg.session.scoring import LabelsByName, score_prediction
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome, Prediction
from tagseg.tables.base import Context, Row, Study, Table, percent

__all__ = ["TABLES"]

# Every row runs all its rounds, whether or not masks have converged. No stage depends on the rule.
_ALL: dict[str, Any] = {"converged": 2.0}


_OWN = Row("own", "as the run has it", _ALL, None)


# Rule a would leave other photos out of each row: a box of 86 % where its disc has 69 %.
_ALL_PHOTOS: dict[str, Any] = {**_ALL, "foreground_limits": (0.0, 1.0)}


_FROM_SCRATCH = {"start": "cold", "later_fraction": 1.0}


TABLE_I = (
    Row("coarse", "coarse masks", {**_ALL_PHOTOS, "initial": "coarse", "rounds": 1}, 32.5),
    Row("boxes", "bounding boxes", {**_ALL_PHOTOS, "initial": "boxes", "rounds": 1}, 35.2),
    Row("enhanced", "enhanced masks", {**_ALL_PHOTOS, "initial": "enhanced", "rounds": 1}, 47.7),
    Row(
        "refined",
        "refined masks",
        {**_ALL_PHOTOS, **_FROM_SCRATCH, "initial": "enhanced", "between": "grabcut", "rounds": 2},
        50.4,
    ),
)


FIGURE_5 = (
    Row("nothing", "last round output", {**_ALL, "between": "nothing"}, None),
    Row("rules", "rules a and b", {**_ALL, "between": "rules"}, None),
    Row("grabcut", "last round output + GrabCut", {**_ALL, "between": "grabcut"}, None),
)


_PER_CLASS = {  # Table III, val
    "background": None,
    "aeroplane": 77.1,
    "bicycle": 25.9,
    "bird": 75.3,
    "boat": 59.8,
    "bottle": 62.3,
    "bus": 80.2,
    "car": 73.9,
    "cat": 79.7,
    "chair": 16.9,
    "cow": 70.7,
    "diningtable": 32.5,
    "dog": 73.1,
    "horse": 72.2,
    "motorbike": 67.8,
    "person": 69.2,
    "pottedplant": 45.0,
    "sheep": 72.6,
    "sofa": 42.6,
    "train": 72.3,
    "tvmonitor": 41.9,
}


_PAPER_MIOU = 61.9


def table_1(context: Context[Config]) -> Table:
    """Four kinds of training masks, each learned by a fresh network for as long."""
    rows: list[tuple[str | float | None, ...]] = []
    for row in TABLE_I:
        with context.variant(row) as (run, config):
            outcome = run_recipe(run, config)
            masks = _masks_of(outcome, row.variant)
            predictions = {"val": _last_on_val(outcome), "train": masks}
            found = context.scores(run, predictions)
            rows.append((row.label, row.paper, found["val"].miou, found["train"].miou))
    return Table(
        "1",
        "Table I: networks trained with four kinds of masks, mean IoU",
        ("training masks", "paper, VOC val", "our val", "the masks themselves"),
        tuple(rows),
        (
            "refined: what the network of the enhanced masks predicts, after rule b and GrabCut",
            "all rows learn from the same photos: rule a leaves none out",
            "the masks themselves: of training photos with ground truth (500 at most)",
            "val: no tags are used; with the CRF, as the run has it",
        ),
    )


def figure_5(context: Context[Config]) -> Table:
    """Round by round, with and without GrabCut between them, and full supervision."""
    found = {row.label: _by_round(context, row) for row in FIGURE_5}
    rows: list[tuple[str | float | None, ...]] = [
        (str(number), *(values[number - 1] for values in found.values()))
        for number in range(1, context.config.rounds + 1)
    ]
    notes = [
        "the paper gives curves and no figures",
        "last round output: without rule a, too, in all rounds",
    ]
    last = found[FIGURE_5[-1].label][-1]
    for label, fraction in (("round 1", 1.0), ("all rounds", context.config.fraction_of_all())):
        full = _full_supervision(context, fraction)
        if full and last is not None:
            notes.append(
                f"the same network on ground truth for as long as {label}: {full:.1f}, of which "
                f"the last round has {100 * last / full:.1f} %"
            )
    return Table(
        "fig5",
        "Figure 5: with and without GrabCut between rounds, mean IoU on val",
        ("round", *found),
        tuple(rows),
        tuple(notes),
    )


def table_3(context: Context[Config]) -> Table:
    """IoU of every class on validation photos."""
    iou, _ = _final(context)
    labels = ("background", *context.data.photos.classes)
    rows = [
        (label, _PER_CLASS.get(label), percent(value))
        for label, value in zip(labels, iou, strict=True)
    ]
    known = [value for value in iou if value is not None]
    mean = percent(float(np.mean(known))) if known else None
    return Table(
        "3",
        "Table III: IoU per class on val",
        ("class", "paper, VOC val", "ours"),
        (*rows, ("mean", _PAPER_MIOU, mean)),
        ("no tags are used; with the CRF, as the run has it",),
    )


def figure_6(context: Context[Config]) -> Table:
    """Where the pixels of each class go: pixel accuracy on the diagonal."""
    _, counts = _final(context)
    labels = ("background", *context.data.photos.classes)
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = sum(row)
        shares = [percent(value / total) if total else None for value in row[: len(labels)]]
        rows.append((label, *shares))
    return Table(
        "fig6",
        "Figure 6: confusion matrix on val, per cent of a class's pixels",
        ("ground truth", *labels),
        tuple(rows),
        ("the paper gives a picture and no figures",),
    )


def by_number_of_classes(context: Context[Config]) -> Table:
    """Photos that show one, two and three classes, though each training photo has one label."""
    with context.variant(_OWN) as (run, config):
        prediction = _last_on_val(run_recipe(run, config))
        found = context.measure(
            run,
            "by-number",
            {"val": prediction},
            lambda: _scores_by_number(context, run, prediction),
        )
    rows = tuple((f"{count}, {photos} photos", percent(miou)) for count, miou, photos in found)
    return Table(
        "classes",
        "Photos by the number of their classes, mean IoU on val",
        ("classes in the photo", "ours"),
        rows,
        (
            "IV-E shows pictures of this and no figures",
            "classes by ground truth; of each class the pixels of all photos of a row together",
        ),
    )


TABLES: Mapping[str, Study] = {
    "1": Study(table_1, "val"),
    "3": Study(table_3, "val"),
    "fig5": Study(figure_5, "val"),
    "fig6": Study(figure_6, "val"),
    "classes": Study(by_number_of_classes, "val"),
}


def _masks_of(outcome: Outcome, variant: str) -> Prediction:
    """What the last network of a row of Table I has learned from."""
    id, number = ("round-masks", 1) if variant == "refined" else (variant, None)
    return next(p for p in outcome.predictions if (p.id, p.number) == (id, number))


def _last_on_val(outcome: Outcome) -> Prediction:
    """The final predictions, with the CRF where the run has one."""
    return [prediction for prediction in outcome.predictions if prediction.split == "val"][-1]


def _by_round(context: Context[Config], row: Row) -> list[float | None]:
    """mIoU of each round's network on validation photos, per cent."""
    with context.variant(row) as (run, config):
        progression = run_recipe(run, config).progression
        rounds = progression.rounds if progression is not None else ()
        predictions = {
            str(entry.number): next(p for p in entry.predictions if p.split == "val")
            for entry in rounds
        }
        return [score.miou for score in context.scores(run, predictions).values()]


def _final(context: Context[Config]) -> tuple[list[float | None], list[list[int]]]:
    """IoU per label and confusion counts of the final predictions."""
    with context.variant(_OWN) as (run, config):
        prediction = _last_on_val(run_recipe(run, config))

        def compute() -> dict[str, Any]:
            scored = score_prediction(run, prediction, context.truth)
            if scored is None:
                return {"iou": [], "counts": []}
            iou = [None if np.isnan(value) else float(value) for value in scored.confusion.iou()]
            return {"iou": iou, "counts": scored.confusion.counts.tolist()}

        found = context.measure(run, "final", {"val": prediction}, compute)
    return found["iou"], found["counts"]


def _scores_by_number(
    context: Context[Config], run: Run, prediction: Prediction
) -> list[tuple[str, float | None, int]]:
    """(classes in the photo, mIoU, photos), in the order of the first."""
    photos = run.split("val").photos
    groups: dict[int, list[str]] = {}
    for index, name in enumerate(photos.names):
        if context.truth.has(name):
            truth = context.truth.labels(name, photos.full_shape(index))
            count = int(tags_of_labels(truth, len(photos.classes)).sum())
            groups.setdefault(count, []).append(name)
    labels = LabelsByName(prediction, photos, range(len(photos)))
    return [
        (_worded(count), _mean_iou(context, labels, names), len(names))
        for count, names in sorted(groups.items())
    ]


def _worded(count: int) -> str:
    return str(count) if count else "none"


def _mean_iou(context: Context[Config], labels: LabelsByName, names: Sequence[str]) -> float | None:
    scored = evaluate_masks(labels, context.truth, context.data.photos.classes, names=list(names))
    return None if np.isnan(scored.miou) else float(scored.miou)


def _full_supervision(context: Context[Config], fraction: float) -> float | None:
    """The network trained on ground truth, per cent; None if not all photos have it."""
    row = Row(
        f"full-{fraction:g}", "DeepLab-v2 on ground truth", {**_ALL, "between": "nothing"}, None
    )
    with context.variant(row) as (run, config):
        labels = context.true_labels(run)
        if labels is None:
            return None
        target = single_target(run, config)
        segmenter = refined_segmenter(run, config, target, labels, fraction=fraction)
        return context.score_on_val(run, segmenter)
