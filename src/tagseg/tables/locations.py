"""Figure 9 of Saleh et al. 2017: where each class lies on average, and where the priors put it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tagseg.evaluate.location import overlap
from tagseg.recipes.builtin_priors.config import Config, EvidenceSettings
from tagseg.recipes.builtin_priors.masks import Evidence, training_masks
from tagseg.report.figures import average_sheet
from tagseg.report.page import AverageLocation
from tagseg.run.workspace import Stage
from tagseg.session.locations import (
    average_locations,
    read_averages,
    true_average,
    write_averages,
)
from tagseg.session.scoring import key_of_truth
from tagseg.stages.context import Run
from tagseg.tables.base import Context, Row, Table, percent

__all__ = ["Kind", "figure_9"]

_TRUTH, _TRUTH_OF_VAL = "ground truth", "ground truth (val)"


class Kind(NamedTuple):
    """A column: the row that makes its maps, which of its locations, and its heading."""

    row: Row
    title: str
    heading: str


def figure_9(context: Context[Config], kinds: Sequence[Kind]) -> Table:
    """The average maps as a picture; as figures, how far they lie where the ground truth does."""
    truth, columns = _averages(context, kinds)
    classes = context.data.photos.classes
    rows = tuple(
        (name, str(columns[0].photos[i]), *(_agreement(truth, column, i) for column in columns))
        for i, name in enumerate(classes)
    )
    shown = ([truth] if truth is not None else []) + columns
    return Table(
        "fig9",
        "Figure 9: average locations, overlap with those of ground truth",
        ("class", "photos", *(column.title for column in columns)),
        rows,
        _notes(truth),
        average_sheet([(kind.title, np.asarray(kind.maps)) for kind in shown], classes),
    )


def _notes(truth: AverageLocation | None) -> tuple[str, ...]:
    of_truth = "no photo has ground truth, so that there is nothing to compare with"
    if truth is not None:
        least, most = min(truth.photos), max(truth.photos)
        split = "validation" if truth.title == _TRUTH_OF_VAL else "training"
        number = f"{least} to {most}" if least < most else f"{most}"
        of_truth = f"ground truth: of the {split} photos that have any, {number} a class"
    return (
        "the paper shows pictures of two classes and no figures: localization finds the monitor, "
        "which is mostly in the middle, and fails for the potted plant, which is anywhere",
        "each average is of all training photos with the tag, brought to 64 x 64 by area",
        "overlap: both averages are divided by their sums; the smaller of the two, summed",
        of_truth,
        "each picture is as bright as its own maximum; maps are before the CRF, masks after it",
    )


def _agreement(truth: AverageLocation | None, column: AverageLocation, index: int) -> float | None:
    if truth is None:
        return None
    maps = (np.asarray(kind.maps[index], np.float64) for kind in (truth, column))
    found = overlap(*maps)
    return None if math.isnan(found) else percent(found)


def _averages(
    context: Context[Config], kinds: Sequence[Kind]
) -> tuple[AverageLocation | None, list[AverageLocation]]:
    """That of ground truth, if a photo has any, and those of ``kinds``.

    Where no training photo has any, as in YouTube-Objects, it is that of the validation photos.
    """
    found: dict[tuple[str, str], AverageLocation] = {}
    truth: AverageLocation | None = None
    for row in {kind.row.variant: kind.row for kind in kinds}.values():
        with context.variant(row) as (run, config):
            for average in _of_variant(context, run, config):
                found[row.variant, average.title] = average
                if average.title.startswith(_TRUTH):
                    truth = average
    columns = [found[k.row.variant, k.title]._replace(title=k.heading) for k in kinds]
    return truth, columns


def _of_variant(context: Context[Config], run: Run, config: Config) -> list[AverageLocation]:
    """Averages of a variant's maps, kept in a stage of its own."""
    evidence = Evidence(run, config)
    masks, _ = training_masks(run, config, evidence)
    kinds = evidence.locations(masks)
    made_from = {"kinds": [kind.title for kind in kinds], **config.only(EvidenceSettings).acting()}
    inputs: list[str | Stage] = [*(kind.stage for kind in kinds), key_of_truth(context.truth)]
    inputs.append(run.val_key)
    with run.stage("average-locations", made_from, inputs) as stage:
        if stage.pending:
            averages = average_locations(run, kinds, context.truth)
            if averages[0].title != _TRUTH:
                averages = [*_of_val(context, run), *averages]
            write_averages(stage, averages)
    return read_averages(stage)


def _of_val(context: Context[Config], run: Run) -> list[AverageLocation]:
    """Where the classes lie in the validation photos whose tags and ground truth are known."""
    if run.val is None:
        return []
    tagged = np.flatnonzero(run.val.tags.any(1)).tolist()
    found = true_average(run, context.truth, tagged, "val")
    return [average._replace(title=_TRUTH_OF_VAL) for average in found]
