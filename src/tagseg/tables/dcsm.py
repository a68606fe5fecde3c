"""Tables 1 to 5 of Shimoda & Yanai 2016 (section 4): photos segmented by the maps alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.recipes.dcsm.classifier import fully_convolutional_classifier
from tagseg.recipes.dcsm.config import Config
from tagseg.tables.base import Context, Printed, Row, Study, Table, percent
from tagseg.tables.distinct_sweep import PLAIN, SMOOTH, TAGGED, sweep

__all__ = ["TABLES"]

_VOC = "paper, VOC 2012 val"


# Gradients at the photo itself, nothing subtracted, one size: the method that the paper improves.
_SIMONYAN = {"blocks": (0,), "method": "plain", "min_candidates": 0, "scales": (1.0,)}


def _alphas(
    name: str, label: str, changes: Mapping[str, Any], paper: Mapping[float, float | None]
) -> tuple[Row, ...]:
    return tuple(
        Row(f"1-{name}-{alpha:g}", f"{label}, alpha {alpha:g}", {**changes, "alpha": alpha}, value)
        for alpha, value in paper.items()
    )


def _sizes(*sizes: int) -> dict[str, Any]:
    """Figures for squares of 500 pixels; smaller squares are scaled alike."""
    return {"scales": tuple(size / 500 for size in sizes)}


TABLE_1 = (
    *_alphas(
        "simonyan",
        "Simonyan et al.",
        _SIMONYAN,
        {3.0: 10.0, 4.0: 20.6, 5.0: 28.3, 6.0: 32.7, 7.0: 33.4}
        | {8.0: 33.8, 9.0: 33.8, 10.0: 33.3, 15.0: 28.7},
    ),
    *_alphas("dcsm", "DCSM", {}, {2.0: 40.0, 2.5: 44.0, 3.0: 44.1, 4.0: 40.6, 5.0: 36.4}),
)


TABLE_2 = (
    Row("2-block1", "block1", {"blocks": (1,)}, 5.5),
    Row("2-block2", "block2", {"blocks": (2,)}, 21.5),
    Row("2-block3", "block3", {"blocks": (3,)}, 32.5),
    Row("2-block4", "block4", {"blocks": (4,)}, 40.3),
    Row("2-block5", "block5", {"blocks": (5,)}, 26.3),
    Row("2-blocks12345", "average block 1,2,3,4,5", {"blocks": (1, 2, 3, 4, 5)}, 41.3),
    Row("2-blocks2345", "average block 2,3,4,5", {"blocks": (2, 3, 4, 5)}, 42.2),
    Row("2-blocks345", "average block 3,4,5", {"blocks": (3, 4, 5)}, 42.8),
    Row("2-blocks45", "average block 4,5", {"blocks": (4, 5)}, 42.5),
    Row("2-blocks34", "average block 3,4", {"blocks": (3, 4)}, Printed("37.97")),
)


TABLE_3 = (
    Row("3-300", "(1) 300 x 300", _sizes(300), 34.5),
    Row("3-400", "(2) 400 x 400", _sizes(400), 41.0),
    Row("3-500", "(3) 500 x 500", _sizes(500), 42.4),
    Row("3-600", "(4) 600 x 600", _sizes(600), 41.8),
    Row("3-700", "(5) 700 x 700", _sizes(700), 40.0),
    Row("3-800", "(6) 800 x 800", _sizes(800), 34.5),
    Row("3-123", "average (1),(2),(3)", _sizes(300, 400, 500), 41.1),
    Row("3-23", "average (2),(3)", _sizes(400, 500), 42.9),
    Row("3-234", "average (2),(3),(4)", _sizes(400, 500, 600), 43.5),
    Row("3-34", "average (3),(4)", _sizes(500, 600), 42.9),
    Row("3-345", "average (3),(4),(5)", _sizes(500, 600, 700), 42.5),
    Row("3-3456", "average (3),(4),(5),(6)", _sizes(500, 600, 700, 800), 42.8),
)


TABLE_4 = tuple(
    Row(f"4-{n}", str(n), {"min_candidates": n}, paper)
    for n, paper in {
        0: 38.2,
        1: 42.2,
        2: 43.5,
        3: 44.1,
        4: 44.2,
        5: 44.0,
        10: 43.7,
        15: 43.3,
    }.items()
)


TABLE_5 = (
    Row("5-plain", "BP", {"method": "plain"}, 41.2),
    Row("5-guided", "GBP", {"method": "guided"}, 44.1),
)


_TITLES = {
    "1": ("alpha, against Simonyan et al.", TABLE_1, "method, alpha"),
    "2": ("layers that gradients are taken at", TABLE_2, "layer"),
    "3": ("size of the photo", TABLE_3, "input image size"),
    "4": ("least number of candidate classes that are subtracted", TABLE_4, "class N"),
    "5": ("way of back-propagation", TABLE_5, "method"),
}


def _study(name: str) -> Study:
    return Study(lambda context: make_table(context, name), "val")


TABLES: Mapping[str, Study] = {name: _study(name) for name in _TITLES}


def make_table(context: Context[Config], name: str) -> Table:
    """One of the tables, on the validation photos."""
    title, rows, heading = _TITLES[name]
    found, photos = _scores(context, rows)
    lines = tuple((row.label, row.paper, *found[row.variant]) for row in rows)
    return Table(
        name,
        f"Table {name}: {title}, mean IoU",
        (heading, _VOC, "ours without CRF", "ours", "ours, tags known"),
        lines,
        (
            f"ours: {photos} validation photos with ground truth, segmented without a segmenter; "
            "the classes are the classifier's, and in the last column the photo's tags (with CRF)",
            "whatever a row does not say is as in the run"
            + ("; 500 stands for the side of the run's square" if name == "3" else ""),
            *(_NOTES.get(name, ())),
        ),
    )


_NOTES = {
    "1": (
        "Simonyan et al.: plain gradients at the photo, nothing subtracted, one size, then Eq. 5 "
        "to 8 as for DCSM",
    ),
    "2": ("blocks of other networks than VGG-16: feature maps by size, see docs/dcsm.md",),
}


def _scores(
    context: Context[Config], rows: Sequence[Row]
) -> tuple[dict[str, tuple[float | None, ...]], int]:
    """mIoU without CRF, with it, and with it and known tags, by row; photos compared."""
    # One room for all: the tables share the classifier, and rows the gradients.
    with context.variant(Row("dcsm", f"{len(rows)} settings of the maps", {}, None)) as (run, _):
        classifier = fully_convolutional_classifier(run, context.config)
        counts = sweep(context, run, classifier.model, classifier.stage, rows)
    scores = {}
    for variant, found in counts.items():
        scores[variant] = tuple(_miou(found.get(kind)) for kind in (PLAIN, SMOOTH, TAGGED))
    photos = max(found.photos for found in counts.values())
    return scores, photos


def _miou(counts: ConfusionMatrix | None) -> float | None:
    return None if counts is None else percent(counts.mean_iou())
