"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from tagseg.errors import ShapeError
from tagseg.maps import Image, check_image
from tagseg.report.charts import Comparison, Line, compare, training_charts
from tagseg.report.figures import Palette, average_picture, data_uri, legend, shrink

__all__ = [
    "FOREGROUND_COLOUR",
    "AverageLocation",
    "ConfigRow",
    "Curve",
    "ForegroundIou",
    "GalleryItem",
    "Measure",
    "Rank",
    "RoundRow",
    "RunReport",
    "SeedScore",
    "StageScore",
    "TagScore",
    "TrimapScore",
    "TrustRow",
    "WrongTagRow",
    "WrongTags",
    "render",
]

Rank = Literal["best", "median", "worst", "sample"]
Measure = Literal["mIoU", "foreground IoU"]

FOREGROUND_COLOUR = (255, 60, 170)  # of objects of any class: none of VOC's is near it

_PICTURE_SIDE = 240  # pixels of the longer side in the gallery
_ONE_ROW = 9  # pictures of a photo that still stand in one row of a wide window
_ROWS_OF = {"wide": 8, "middling": 5}  # pictures in a row at most, where one row does not do
_SECTIONS: Mapping[Rank, str] = {
    "best": "Best photos",
    "median": "Median photos",
    "worst": "Worst photos",
    "sample": "Sample photos",
}


class ConfigRow(NamedTuple):
    """One number of the recipe and where the paper gives it."""

    field: str
    value: object
    where: str = ""


class ForegroundIou(NamedTuple):
    """Mean IoU of the foreground over the photos of one class; None or NaN without photos."""

    name: str
    iou: float | None
    photos: int


@dataclass(frozen=True)
class StageScore:
    """Quality of one stage's masks on one split; ``iou`` per label, background first; all in 0..1.

    Scores that were not measured are None; NaN is an IoU that is not defined.

    Attributes:
        iou: None for masks that only tell foreground from background; ``miou`` is of these two.
        foreground: of such masks, the foreground's IoU by class of photo, in label order.
        foreground_average: the mean of these over the classes.
        id: of the prediction, by which it is found; its title ``stage`` is for people.
        number: of the round, for a recipe that works in rounds.
    """

    stage: str
    split: str
    miou: float | None
    iou: Sequence[float | None] | None
    photos: int
    note: str = ""
    foreground: Sequence[ForegroundIou] = ()
    foreground_average: float | None = None
    id: str = ""
    number: int | None = None


@dataclass(frozen=True)
class TagScore:
    """Quality of the tag classifier on one split: mAP and the average precision of each class."""

    split: str
    mean: float
    average_precision: Sequence[float | None]
    photos: int


class Curve(NamedTuple):
    """Precision over recall, both in 0..1, in the order of the thresholds; None where undefined."""

    recall: Sequence[float | None] = ()
    precision: Sequence[float | None] = ()


@dataclass(frozen=True)
class SeedScore:
    """How well one method's score maps find the classes on one split; all in 0..1.

    Scores that are not defined are None or NaN.

    Attributes:
        mean_precision: mP, the mean of the next two.
        foreground_precision: at 20 % recall.
        background_precision: at 80 % recall.
        miou: of the seeds at ``threshold``, the one in use.
        foreground: mean precision and recall over the classes.
    """

    method: str
    split: str
    photos: int
    mean_precision: float | None
    foreground_precision: float | None
    background_precision: float | None
    miou: float | None = None
    threshold: float | None = None
    foreground: Curve = field(default_factory=Curve)
    background: Curve = field(default_factory=Curve)


@dataclass(frozen=True)
class TrimapScore:
    """Accuracy in 0..1 of one method's masks within each width, in pixels, of a true boundary."""

    method: str
    split: str
    photos: int
    widths: Sequence[int]
    accuracy: Sequence[float | None]


class RoundRow(NamedTuple):
    """One round of a recipe that trains in rounds; scores in 0..1.

    Attributes:
        round: its number; the first is 1.
        agreement: mean IoU of its masks with those of the round before; None for the first.
        scores: (stage, split, mIoU) of what the round made; None without ground truth.
    """

    round: int
    agreement: float | None
    scores: tuple[tuple[str, str, float | None], ...] = ()


class TrustRow(NamedTuple):
    """How far a class's masks can be trusted; IoU in 0..1, None where that is not known.

    Attributes:
        photos: training photos with its tag.
        expected: IoU as estimated from tags alone, between ``low`` and ``high``.
        reasons: why not to trust them; none if they can be.
    """

    name: str
    photos: int
    expected: float | None
    low: float | None
    high: float | None
    reasons: tuple[str, ...] = ()


class WrongTagRow(NamedTuple):
    """A tag that is probably "missing" or "wrong", and how sure that is, 0..1."""

    image: str
    tag: str
    probably: str
    confidence: float


class WrongTags(NamedTuple):
    """Tags that are probably missing or wrong.

    Attributes:
        line: how many, in words.
        rows: the surest first; some of them, where there are many.
        file: that holds all of them, beside the report.
    """

    line: str
    rows: tuple[WrongTagRow, ...]
    file: str


class AverageLocation(NamedTuple):
    """Where one kind of maps puts each class on average.

    Attributes:
        title: of the maps.
        maps: (C, h, w) in [0, 1].
        photos: how many each class's mean is of.
    """

    title: str
    maps: npt.NDArray[np.floating]
    photos: Sequence[int]


@dataclass(frozen=True)
class GalleryItem:
    """One photo of the gallery and its pictures, (title, uint8 (H, W, 3)), in reading order.

    Attributes:
        measure: what ``score`` is.
        foreground: some pictures show objects of any class, in :data:`FOREGROUND_COLOUR`.
    """

    name: str
    split: str
    rank: Rank
    score: float | None
    photo: Image
    panels: tuple[tuple[str, Image], ...]
    measure: Measure = "mIoU"
    foreground: bool = False


@dataclass(frozen=True)
class RunReport:
    """What a report tells. Only what is filled in gets a section.

    Attributes:
        classes: the C foreground classes in label order.
        supervision: what results owe to more than photos and tags; shown with the scores.
        review: how many acts of a person results owe to, in sentences; shown with the scores.
        config: the recipe's fields, their values and where the paper gives them.
        data: lines of the data audit.
        stages: (name, seconds) of what was run.
        scores: in the order of the stages; the last measured one is the headline.
        full_supervision_miou: of the same network trained on ground truth, 0..1, if known.
        full_supervision_split: the split it was measured on; others get no percentage.
        confusion: counts (C+1, C+1), rows ground truth, or (C+1, C+2) with unlabelled pixels last.
        confusion_of: which masks and split the counts are of.
        curves: metric records by network.
        seeds: methods to compare, and drawn in this order.
        trimap: methods to compare at the boundaries of objects.
        locations: kinds of maps to compare by their means.
        rounds: in the order they were run.
        rounds_note: a sentence that says why there were no more rounds.
        trust: of each class, in label order.
        wrong_tags: if tags were not taken as complete.
        palette: uint8 (256, 3) of the gallery's labels, VOC's if not given.
    """

    title: str
    recipe: str
    classes: Sequence[str]
    paper: str = ""
    supervision: str = ""
    review: str = ""
    command: str = ""
    created: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    config: Sequence[ConfigRow] = ()
    data: Sequence[str] = ()
    stages: Sequence[tuple[str, float]] = ()
    scores: Sequence[StageScore] = ()
    full_supervision_miou: float | None = None
    full_supervision_split: str = "val"
    confusion: npt.NDArray[np.int64] | None = None
    confusion_of: str = ""
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    classifier_map: TagScore | None = None
    seeds: Sequence[SeedScore] = ()
    trimap: Sequence[TrimapScore] = ()
    locations: Sequence[AverageLocation] = ()
    rounds: Sequence[RoundRow] = ()
    rounds_note: str = ""
    gallery: Sequence[GalleryItem] = ()
    palette: Palette | None = None
    notes: Sequence[str] = ()
    trust: Sequence[TrustRow] = ()
    wrong_tags: WrongTags | None = None


def render(report: RunReport) -> str:
    """The whole page as a string; every text of ``report`` is escaped.

    Raises:
        ShapeError: scores or counts do not fit the classes, or a picture is no uint8 (H, W, 3).
    """
    _check(report)
    labels = ("background", *report.classes)
    charts = {name: training_charts(records) for name, records in report.curves.items()}
    round_scores = _round_scores(report.rounds)
    return (
        _environment()
        .get_template("template.html")
        .render(
            report=report,
            headline=_headline(report),
            scores=[(score, _share(report, score)) for score in report.scores],
            total_seconds=sum(seconds for _, seconds in report.stages),
            foreground=_foreground(report.scores),
            class_columns=[score for score in report.scores if score.iou is not None],
            class_rows=_class_rows(report, labels),
            undefined=_undefined(report),
            confusion=_confusion_rows(report, labels),
            labels=labels,
            seed_charts=_seed_charts(report.seeds),
            trimap_chart=_trimap_chart(report.trimap),
            locations=_locations(report),
            round_scores=round_scores,
            rounds_chart=_rounds_chart(report.rounds, round_scores),
            charts={name: drawn for name, drawn in charts.items() if drawn},
            gallery=_gallery(report.gallery),
            legend=_legend(report, labels),
            measured=_measured(report),
        )
    )


@cache
def _environment() -> Environment:
    """With the page's templates, which are compiled once in a process."""
    environment = Environment(
        loader=PackageLoader("tagseg.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, duration=_duration)
    environment.tests["known"] = _is_known
    return environment


def _check(report: RunReport) -> None:
    n_labels = len(report.classes) + 1
    for score in report.scores:
        if score.iou is not None and len(score.iou) != n_labels:
            raise ShapeError(
                f"{score.stage} has {len(score.iou)} IoU for {n_labels} labels",
                do="give one per class and one for the background, first",
            )
        found = [name for name, _, _ in score.foreground]
        if found and found != list(report.classes):
            raise ShapeError(
                f"{score.stage} has foreground IoU of {', '.join(found)}",
                do="give one per class, in label order",
            )
    for kind in report.locations:
        if len(kind.maps) != n_labels - 1 or len(kind.photos) != n_labels - 1:
            raise ShapeError(
                f"{kind.title} has {len(kind.maps)} average maps for {n_labels - 1} classes"
            )
    names = [row.name for row in report.trust]
    if names and names != list(report.classes):
        raise ShapeError(
            f"trust is told of {', '.join(names)}", do="give one row per class, in label order"
        )
    tags = report.classifier_map
    if tags is not None and len(tags.average_precision) != n_labels - 1:
        raise ShapeError(
            f"the classifier has {len(tags.average_precision)} average precisions for "
            f"{n_labels - 1} classes"
        )
    curves = [(s.method, c) for s in report.seeds for c in (s.foreground, s.background)]
    curves += [(score.method, Curve(score.widths, score.accuracy)) for score in report.trimap]
    for method, curve in curves:
        if len(curve.recall) != len(curve.precision):
            raise ShapeError(
                f"{method} has a line of {len(curve.recall)} by {len(curve.precision)} values",
                do="give one of each per point",
            )
    _check_rounds(report.rounds)
    counts = report.confusion
    if counts is not None and counts.shape not in {(n_labels, n_labels), (n_labels, n_labels + 1)}:
        raise ShapeError(
            f"confusion has shape {counts.shape} for {n_labels} labels",
            do=f"give ({n_labels}, {n_labels}), or one more column for unlabelled pixels",
        )


def _check_rounds(rounds: Sequence[RoundRow]) -> None:
    for before, row in pairwise(rounds):
        if row.round <= before.round:
            raise ShapeError(
                f"round {row.round} comes after round {before.round}",
                do="give the rounds in the order they were run",
            )
    for row in rounds:
        if len({(stage, split) for stage, split, _ in row.scores}) < len(row.scores):
            raise ShapeError(
                f"round {row.round} has two scores of the same stage and split",
                do="give one of each",
            )


def _headline(report: RunReport) -> list[tuple[str, str, str]]:
    """The few figures at the top: (value, what, detail)."""
    tiles = []
    measured = [score for score in report.scores if _is_known(score.miou)]
    if measured:
        last = measured[-1]
        of = f"{last.stage}, {last.split}, {last.photos:,} photos"
        what = "mIoU" if last.iou is not None else "mIoU of foreground and background"
        tiles.append((f"{_percent(last.miou)} %", what, of))
        if _is_known(last.foreground_average):
            of = f"{last.stage}, {last.split}, mean of the classes"
            tiles.append((f"{_percent(last.foreground_average)} %", "foreground IoU", of))
        share = _share(report, last)
        if share is not None:
            full = _percent(report.full_supervision_miou)
            tiles.append((f"{_percent(share)} %", "of full supervision", f"which reaches {full} %"))
    if report.classifier_map is not None and _is_known(report.classifier_map.mean):
        tags = report.classifier_map
        tiles.append(
            (f"{_percent(tags.mean)} %", "tag mAP", f"{tags.split}, {tags.photos:,} photos")
        )
    if report.stages:
        total = sum(seconds for _, seconds in report.stages)
        tiles.append((_duration(total), "run time", f"{len(report.stages)} stages"))
    return tiles


def _share(report: RunReport, score: StageScore) -> float | None:
    """Part of the full supervision's mIoU that ``score`` reaches, of classes on the same split."""
    full = report.full_supervision_miou
    if not _is_known(full) or not full or not _is_known(score.miou) or score.iou is None:
        return None
    return score.miou / full if score.split == report.full_supervision_split else None  # type: ignore[operator]


def _measured(report: RunReport) -> list[float | None]:
    """True IoU per class of the training photos' masks, of the last round; empty if unknown."""
    found: list[float | None] = []
    for score in report.scores:
        if (score.id, score.split) == ("masks", "train") and score.iou is not None:
            found = list(score.iou[1:])
    return found


def _foreground(
    scores: Sequence[StageScore],
) -> list[tuple[str, tuple[int, ...], list[StageScore]]]:
    """The stages with foreground IoU: (split, photos per class, stages of just these photos)."""
    groups: dict[tuple[str, tuple[int, ...]], list[StageScore]] = {}
    for score in scores:
        if _is_known(score.foreground_average):
            photos = tuple(found.photos for found in score.foreground)
            groups.setdefault((score.split, photos), []).append(score)
    return [(split, photos, found) for (split, photos), found in groups.items()]


def _legend(report: RunReport, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Names and colours of what the gallery's pictures show."""
    entries = legend(labels, report.palette)
    if any(item.foreground for item in report.gallery):
        entries.append(("foreground of any class", f"#{bytes(FOREGROUND_COLOUR).hex()}"))
    return entries


def _class_rows(
    report: RunReport, labels: Sequence[str]
) -> list[tuple[str, str, float | None, list[float | None]]]:
    """Per label: name, colour, average precision of its tag, IoU of each stage that has one."""
    columns = [score.iou for score in report.scores if score.iou is not None]
    tags = report.classifier_map
    precision = [None, *(tags.average_precision if tags else [None] * len(report.classes))]
    colours = [colour for _, colour in legend(labels, report.palette)]
    return [
        (name, colours[i], precision[i], [column[i] for column in columns])
        for i, name in enumerate(labels)
    ]


def _undefined(report: RunReport) -> list[str]:
    """Why the table of classes has dashes, one reason for each kind that it has."""
    tags, iou = (
        report.classifier_map,
        [score.iou for score in report.scores if score.iou is not None],
    )
    reasons = []
    if any(not _is_known(value) for column in iou for value in column):
        reasons.append("the class is in neither the ground truth nor the masks of these photos")
    if tags is not None and any(not _is_known(value) for value in tags.average_precision):
        reasons.append("for tag AP, no photo of the split has the tag")
    return reasons


def _confusion_rows(report: RunReport, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the confusion table: share of the true label's pixels in each column."""
    if report.confusion is None:
        return []
    counts = np.asarray(report.confusion, np.int64)
    rows = []
    for index, (name, row) in enumerate(zip(labels, counts, strict=True)):
        total = int(row.sum())
        shares = row / total if total else np.full(row.shape, np.nan)
        cells = [
            {"count": int(count), "share": float(share), "right": column == index}
            for column, (count, share) in enumerate(zip(row, shares, strict=True))
        ]
        rows.append({"name": name, "total": total, "cells": cells})
    return rows


def _seed_charts(scores: Sequence[SeedScore]) -> list[Comparison]:
    """Precision over recall of foreground and background, those of them that have lines."""
    names = _line_names(scores)
    foreground = _seed_chart(
        "Foreground, mean of the classes",
        0.2,
        names,
        [score.foreground for score in scores],
        [score.foreground_precision for score in scores],
    )
    background = _seed_chart(
        "Background",
        0.8,
        names,
        [score.background for score in scores],
        [score.background_precision for score in scores],
    )
    return [chart for chart in (foreground, background) if chart is not None]


def _seed_chart(
    title: str,
    recall: float,
    names: Sequence[str],
    curves: Sequence[Curve],
    marked: Sequence[float | None],
) -> Comparison | None:
    values = [f"{name} {_percent(value)}" for name, value in zip(names, marked, strict=True)]
    return compare(
        f"{title}: precision (%) over recall",
        [
            Line(name, _percents(curve.recall), _percents(curve.precision))
            for name, curve in zip(names, curves, strict=True)
        ],
        x_label="recall (%)",
        summary=f"{title}: precision in percent at {recall:.0%} recall: {', '.join(values)}",
        x_range=(0, 100),
        guide=100 * recall,
    )


def _trimap_chart(scores: Sequence[TrimapScore]) -> Comparison | None:
    """Accuracy over the width of the band."""
    names = _line_names(scores)
    ends = [
        f"{name} {_percent(score.accuracy[0])} within {score.widths[0]} pixels and "
        f"{_percent(score.accuracy[-1])} within {score.widths[-1]}"
        for name, score in zip(names, scores, strict=True)
        if len(score.widths)
    ]
    return compare(
        "Accuracy (%) over the width of the band",
        [
            Line(name, score.widths, _percents(score.accuracy))
            for name, score in zip(names, scores, strict=True)
        ],
        x_label="width (pixels)",
        summary=f"Accuracy in percent near true boundaries: {'; '.join(ends)}",
    )


def _locations(report: RunReport) -> list[dict[str, Any]]:
    """A row of pictures for each class that has photos."""
    rows = []
    for index, name in enumerate(report.classes):
        pictures = [
            {
                "title": kind.title,
                "uri": data_uri(average_picture(kind.maps[index])),
                "peak": float(kind.maps[index].max()),
                "photos": kind.photos[index],
            }
            for kind in report.locations
        ]
        if any(picture["photos"] for picture in pictures):
            rows.append({"name": name, "pictures": pictures})
    return rows


def _round_scores(rounds: Sequence[RoundRow]) -> dict[tuple[str, str], list[float | None]]:
    """mIoU in each round by (stage, split), in order of first appearance, where any is known."""
    by_round = [{(stage, split): miou for stage, split, miou in row.scores} for row in rounds]
    columns = dict.fromkeys(column for found in by_round for column in found)
    scores = {column: [found.get(column) for found in by_round] for column in columns}
    return {column: values for column, values in scores.items() if any(map(_is_known, values))}


def _rounds_chart(
    rounds: Sequence[RoundRow], scores: Mapping[tuple[str, str], Sequence[float | None]]
) -> Comparison | None:
    """mIoU by stage and split, and agreement last, over the rounds."""
    if len(rounds) < 2:
        return None
    numbers = [row.round for row in rounds]
    lines = [("agreement", [row.agreement for row in rounds])]
    lines = [(", ".join(column), list(values)) for column, values in scores.items()] + lines
    ends = [
        f"{name} {_percent(known[0][1])} in round {known[0][0]} and {_percent(known[-1][1])} in "
        f"round {known[-1][0]}"
        for name, values in lines
        if (known := [pair for pair in zip(numbers, values, strict=True) if _is_known(pair[1])])
    ]
    title = f"{'mIoU and agreement' if scores else 'Agreement'} (%) by round"
    return compare(
        title,
        [Line(name, numbers, _percents(values)) for name, values in lines],
        x_label="round",
        summary=f"{title}: {'; '.join(ends)}",
        x_range=(numbers[0], numbers[-1]),
        steps=True,
    )


def _line_names(scores: Sequence[SeedScore] | Sequence[TrimapScore]) -> list[str]:
    """The methods' names, with their splits if there are several."""
    several = len({score.split for score in scores}) > 1
    return [f"{s.method}, {s.split}" if several else s.method for s in scores]


def _percents(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _gallery(items: Sequence[GalleryItem]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Sections of the gallery that have photos: (heading, photos with encoded pictures)."""
    sections = []
    for rank, heading in _SECTIONS.items():
        photos = [_photo(item) for item in items if item.rank == rank]
        if photos:
            sections.append((heading, photos))
    return sections


def _photo(item: GalleryItem) -> dict[str, Any]:
    pictures = []
    for title, image in (("photo", item.photo), *item.panels):
        small = shrink(check_image(image, f"{title} of {item.name}"), _PICTURE_SIDE)
        height, width = small.shape[:2]
        pictures.append({"title": title, "uri": data_uri(small), "width": width, "height": height})
    return {"item": item, "pictures": pictures, "rows_of": _rows_of(len(pictures))}


def _rows_of(pictures: int) -> dict[str, int]:
    """Pictures in a row by kind of window, so that rows are even; none where one row will do."""
    if pictures <= _ONE_ROW:
        return {}
    return {
        window: math.ceil(pictures / math.ceil(pictures / most))
        for window, most in _ROWS_OF.items()
    }


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _percent(value: float | None) -> str:
    """A share in 0..1 as a percentage with one decimal; an en dash where there is none."""
    return f"{100 * value:.1f}" if value is not None and math.isfinite(value) else "–"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")
