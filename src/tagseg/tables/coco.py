"""Table 8 of Saleh et al. 2017: IoU of each class, on COCO in the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Row, Table, mean_of

__all__ = ["METHODS", "TABLE_8", "table_8"]

METHODS = ("paper, COCO val: SEC [18]", "paper, COCO val: Ours")

TABLE_8: Mapping[str, tuple[float | None, float | None]] = {
    "background": (74.3, 68.8),
    "person": (43.6, 27.5),
    "bicycle": (24.2, 18.2),
    "car": (15.9, 7.2),
    "motorcycle": (52.1, 40.5),
    "airplane": (36.6, 32.0),
    "bus": (37.7, 39.2),
    "train": (30.1, 26.5),
    "truck": (24.1, 17.5),
    "boat": (17.3, 16.5),
    "traffic light": (16.7, 3.9),
    "fire hydrant": (55.9, 33.1),
    "stop sign": (48.4, 28.4),
    "parking meter": (25.2, 25.5),
    "bench": (16.4, 12.4),
    "bird": (34.7, 31.1),
    "cat": (57.2, 52.8),
    "dog": (45.2, 44.1),
    "horse": (34.4, 34.2),
    "sheep": (40.3, 38.0),
    "cow": (41.4, 42.1),
    "elephant": (62.9, 65.2),
    "bear": (59.1, 57.0),
    "zebra": (59.8, 65.0),
    "giraffe": (48.8, 55.6),
    "backpack": (0.3, 3.2),
    "umbrella": (26.0, 28.1),
    "handbag": (0.5, 1.1),
    "tie": (6.5, 5.5),
    "suitcase": (16.7, 21.3),
    "frisbee": (12.3, 5.6),
    "skis": (1.6, 1.0),
    "snowboard": (5.3, 2.8),
    "sports ball": (7.9, 1.9),
    "kite": (9.1, 10.3),
    "baseball bat": (1.0, 1.7),
    "baseball glove": (0.6, 0.5),
    "skateboard": (7.1, 6.6),
    "surfboard": (7.7, 3.3),
    "tennis racket": (9.1, 5.5),
    "bottle": (13.2, 9.6),
    "wine glass": (22.3, 17.5),
    "cup": (17.9, None),
    "fork": (1.8, 0.5),
    "knife": (1.4, 1.0),
    "spoon": (0.6, 0.6),
    "bowl": (12.5, 13.3),
    "banana": (43.6, None),
    "apple": (23.6, 18.9),
    "sandwich": (22.8, 21.4),
    "orange": (44.3, 35.0),
    "broccoli": (36.8, 27.0),
    "carrot": (6.7, 16.0),
    "hot dog": (31.2, 22.5),
    "pizza": (50.9, 57.8),
    "donut": (32.8, 36.2),
    "cake": (12.0, 17.0),
    "chair": (7.8, 8.2),
    "couch": (5.6, 13.9),
    "potted plant": (6.2, 7.4),
    "bed": (23.4, 29.8),
    "dining table": (0.0, 2.0),
    "toilet": (38.5, 30.1),
    "tv": (19.2, 14.8),
    "laptop": (20.1, 19.9),
    "mouse": (3.5, 0.4),
    "remote": (17.5, 9.9),
    "keyboard": (12.5, 19.9),
    "cell phone": (32.1, 26.1),
    "microwave": (8.2, 9.8),
    "oven": (13.7, 16.4),
    "toaster": (0.0, 0.0),
    "sink": (10.8, 9.5),
    "refrigerator": (4.0, 13.2),
    "book": (0.4, 7.5),
    "clock": (17.8, 16.5),
    "vase": (18.4, 13.4),
    "scissors": (16.5, 12.2),
    "teddy bear": (47.0, 41.0),
    "hair dryer": (0.0, 0.0),
    "toothbrush": (2.8, 2.0),
}
"""Per cent, by the paper's names; None where the text that we have of it lacks the figure."""

MEAN = (22.4, 20.4)
_CALLED = {"hair drier": "hair dryer"}  # in COCO's files
_NONE = (None, None)


def table_8(
    context: Context[Any],
    row: Row,
    segmented: Callable[[Run, Any], Mapping[str, Prediction]],
) -> Table:
    """IoU of each class of the data, and of the background, on the validation photos.

    Args:
        row: what is run, and how it is called.
        segmented: the validation photos' labels, "raw" and "smooth".
    """
    with context.variant(row) as (run, config):
        found = segmented(run, config)
        plain, smooth = (context.class_iou(run, found[name]) for name in ("raw", "smooth"))
        photos = sum(map(context.truth.has, run.split("val").photos.names))
    names = ("background", *context.data.photos.classes)
    papers = [TABLE_8.get(_CALLED.get(name, name), _NONE) for name in names]
    rows = zip(names, papers, plain, smooth, strict=True)
    shared = sum(paper != _NONE for paper in papers[1:])
    return Table(
        "8",
        "Table 8: IoU of each class on validation photos",
        ("Class", *METHODS, f"{row.label}, without CRF", row.label),
        (
            *((name, *paper, *ours) for name, paper, *ours in rows),
            ("mean IoU", *MEAN, mean_of(plain), mean_of(smooth)),
        ),
        (
            f"paper: COCO 2014, 80k training and 40k validation photos; its mean is of 80 classes "
            f"and the background, {shared} of which are among yours; its figures of Ours for cup "
            "and banana are missing in the text that we have of it",
            f"ours: YOUR DATA, {len(context.data.photos)} training photos and {photos} validation "
            f"photos with ground truth, {len(names) - 1} classes; no tags of validation photos",
            "of COCO's objects that share a pixel the smallest counts, as in the paper; crowds do "
            "not count",
        ),
    )
