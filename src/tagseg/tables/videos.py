"""Table 7 of Saleh et al. 2017: YouTube-Objects, of the recipes builtin_priors and sec."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from tagseg.data.dataset import Dataset
from tagseg.evaluate.shots import ShotScores
from tagseg.formats.folders.youtube_objects import shot_of_frame
from tagseg.session.scoring import LabelsByName
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Row, Table, mean_of, percent

__all__ = ["TABLE_7", "is_of_videos", "table_7"]

METHODS = (
    "Papazoglou et al. [51]",
    "Tang et al. [52]",
    "Ochs et al. [53]",
    "SEC [18]",
    "Ours (multi-class masks)",
)

TABLE_7: Mapping[str, tuple[float | None, ...]] = {
    "bg": (None, None, None, 84.4, 88.5),
    "aero": (67.4, 17.8, 13.7, 51.9, 72.7),
    "bird": (62.5, 19.8, 12.2, 59.3, 60.1),
    "boat": (37.8, 22.5, 10.8, 37.5, 44.2),
    "car": (67.0, 38.3, 23.7, 64.4, 53.5),
    "cat": (43.5, 23.6, 18.6, 30.5, 33.3),
    "cow": (32.7, 26.8, 16.3, 38.2, 42.4),
    "dog": (48.9, 23.7, 18.0, 50.1, 50.3),
    "horse": (31.3, 14.0, 11.5, 51.1, 49.6),
    "motorcycle": (33.1, 12.5, 10.6, 49.7, 56.6),
    "train": (43.4, 40.4, 19.6, 17.3, 16.6),
    "mIOU": (46.8, 23.9, 15.5, 48.6, 51.6),
}
"""Per cent, by the paper's names of the classes, in the order of :data:`METHODS`."""

_CALLED = {"aeroplane": "aero", "airplane": "aero", "motorbike": "motorcycle"}
_NONE = (None,) * len(METHODS)
_FOUND = Callable[[Run, Any], Mapping[str, Prediction]]


def is_of_videos(photos: Dataset, val: Collection[str]) -> str:
    """Why Table 7 cannot be made of these photos; "" if it can."""
    if val and all(shot_of_frame(name) for name in val):
        return ""
    return "is about frames in the layout of YouTube-Objects"


def table_7(context: Context[Any], row: Row, segmented: _FOUND) -> Table:
    """IoU of each class on the frames with masks, beside the paper's.

    Args:
        row: what is run, and how it is called.
        segmented: the validation photos' labels, "raw" and "smooth".
    """
    with context.variant(row) as (run, config):
        predictions = segmented(run, config)
        plain, smooth, by_shot = (
            context.class_iou(run, predictions["raw"]),
            context.class_iou(run, predictions["smooth"]),
            _by_shot(context, run, predictions["smooth"]),
        )
    names = ("bg", *(_CALLED.get(name, name) for name in context.data.photos.classes))
    ours = [
        (name, TABLE_7.get(name, _NONE), *values)
        for name, *values in zip(names, plain, smooth, (None, *by_shot["iou"]), strict=True)
    ]
    theirs = [(name, paper) for name, paper in TABLE_7.items() if name not in {*names, "mIOU"}]
    columns = (*METHODS, f"{row.label}, without CRF", row.label, f"{row.label}, by shots")
    means = (mean_of(plain), mean_of(smooth), mean_of(by_shot["iou"]))
    return Table(
        "7",
        "Table 7: YouTube-Objects, IoU of each class",
        ("class", *columns),
        (
            *((name, *paper, *values) for name, paper, *values in ours),
            *((name, *paper, None, None, None) for name, paper in theirs),
            ("mIOU", *TABLE_7["mIOU"], *means),
        ),
        (
            "columns of the paper: the ten classes of YouTube-Objects, on the frames with masks of "
            "126 videos; a dash stands beside classes that these frames do not have",
            f"ours: YOUR DATA, {by_shot['frames']} frames with masks of {by_shot['shots']} shots; "
            f"trained on {len(context.data.photos)} frames of other shots, with the class of their "
            "video alone",
            "IoU is of the pixels of all frames together, and mIOU has the background, as the "
            "paper's own rows and SEC's do; [51] to [53] have none",
            "by shots: IoU of the video's class in each frame, averaged over the frames of a shot, "
            "then over the shots of a class, as methods for videos are compared; mIOU without "
            "background. The paper does not say which of the two its rows are",
        ),
    )


def _by_shot(context: Context[Any], run: Run, prediction: Prediction) -> dict[str, Any]:
    """IoU of each class in per cent, and how many shots and frames it is of."""
    photos = run.split("val").photos
    indices = [i for i, name in enumerate(photos.names) if context.truth.has(name)]

    def compute() -> dict[str, Any]:
        scores = ShotScores(len(photos.classes))
        labels = LabelsByName(prediction, photos, indices)
        with run.task("IoU of shots", len(indices)) as ticks:
            for (name, found), index in zip(labels.items(), indices, strict=True):
                (tag,) = np.flatnonzero(photos.tags[index])
                truth = context.truth.labels(name, found.shape)
                scores.update(shot_of_frame(name), int(tag), found, truth)
                ticks.advance(1)
        iou = [percent(value) for value in scores.mean()]
        return {"iou": iou, "shots": sum(scores.counts()), "frames": len(indices)}

    return dict(context.measure(run, "iou-of-shots", {prediction.id: prediction}, compute))
