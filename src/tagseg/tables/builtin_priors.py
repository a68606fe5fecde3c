"""Tables 3 to 8 and Figures 9 and 10 of Saleh et al. 2017 (sections 4.3 to 4.5), and CheckMask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.evaluate.boundary import TrimapAccuracy
from tagseg.recipes.builtin_priors.config import Config
from tagseg.recipes.builtin_priors.masks import Evidence, training_masks
from tagseg.session.scoring import LabelsByName
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Printed, Row, Score, Study, Table, percent
from tagseg.tables.builtin_checkmask import segmentation, table_3, table_of_looks
from tagseg.tables.coco import table_8
from tagseg.tables.locations import Kind, figure_9
from tagseg.tables.videos import is_of_videos, table_7

__all__ = ["TABLES"]

_VOC = "paper, VOC 2012"


_WIDTHS = (2, 5, 10, 15, 20, 30, 40)  # pixels; the paper has a curve


# Each row of Table 6 differs from the one above it in one thing, if the view is small but in the
# last (docs/tables.md). Tables 4 and 5 have no segmenter.
_PAIRWISE = {
    "mask_crf": True,
    "mask_regions": "none",
    "refiner": "crf",
    "segmenter_regions": "none",
    "field_of_view": "small",
}


_HIGHER = {**_PAIRWISE, "mask_regions": "crisp", "segmenter_regions": "crisp"}


_TAGS, _FOREGROUND = {"masks": "none"}, {"masks": "foreground"}


_LOCALIZATION, _BOTH = {"masks": "localization"}, {"masks": "both"}


TABLE_4 = (
    Row("", "Masks obtained using [25]", {}, Printed("52.34")),
    Row("", "Masks obtained using [27]", {}, Printed("50.20")),
    Row("table-4", "Our masks", {**_FOREGROUND, **_HIGHER}, Printed("60.08")),
)


TABLE_5 = (
    Row(
        "table-5-localization",
        "multi-class masks using localization",
        {**_LOCALIZATION, **_HIGHER},
        43.0,
    ),
    Row(
        "table-5-fusion",
        "multi-class masks using localization+fusion",
        {**_BOTH, **_HIGHER},
        46.6,
    ),
)


TABLE_6 = (
    Row(
        "tags",
        "Tag-only Baseline (no mask)",
        {**_TAGS, **_PAIRWISE},
        31.0,
    ),
    Row(
        "foreground",
        "Foreground/Background Priors",
        {**_FOREGROUND, **_PAIRWISE},
        47.3,
    ),
    Row(
        "foreground-higher",
        "Foreground/Background Priors + Higher Order",
        {**_FOREGROUND, **_HIGHER},
        48.0,
    ),
    Row(
        "localization",
        "Localization Priors",
        {**_LOCALIZATION, **_PAIRWISE},
        45.9,
    ),
    Row(
        "localization-higher",
        "Localization Priors+Higher Order",
        {**_LOCALIZATION, **_HIGHER},
        46.6,
    ),
    Row(
        "fusion",
        "Localization+Fusion Priors",
        {**_BOTH, **_PAIRWISE},
        49.2,
    ),
    Row(
        "fusion-higher-small",
        "Localization+Fusion Priors+Higher Order (small FOV)",
        {**_BOTH, **_HIGHER},
        49.3,
    ),
    Row(
        "fusion-higher-large",
        "Localization+Fusion Priors+Higher Order (large FOV)",
        {**_BOTH, **_HIGHER, "field_of_view": "large"},
        50.9,
    ),
)


FIGURE_10 = {  # curve: row of Table 6
    "tags only": "tags",
    "localization": "localization-higher",
    "fusion": "foreground-higher",
    "fusion+localization": "fusion-higher-large",
}


FIGURE_9 = (
    Kind(TABLE_5[0], "localization", "localization"),
    Kind(TABLE_4[2], "fusion", "fusion"),
    Kind(TABLE_4[2], "masks", "fusion, masks (Table 4)"),
    Kind(TABLE_5[1], "localization+fusion", "localization+fusion"),
    Kind(TABLE_5[1], "masks", "localization+fusion, masks"),
)


def table_4(context: Context[Config]) -> Table:
    """Masks of foreground and background of training photos."""
    rows, photos = _mask_rows(context, TABLE_4, "train")
    return Table(
        "4",
        "Table 4: foreground/background masks, mean IoU",
        ("Masks", f"{_VOC} train", "ours before CRF", "ours"),
        rows,
        (
            "paper: of 10 % of VOC's training photos, after the CRF; [25] and [27] are objectness "
            "methods that tagseg does not have",
            f"ours: of {photos} training photos with ground truth, mean of foreground and "
            "background; the CRF has higher-order terms",
        ),
    )


def table_5(context: Context[Config]) -> Table:
    """Masks of photos whose tags are known, as their segmentation."""
    rows, photos = _mask_rows(context, TABLE_5, "val")
    return Table(
        "5",
        "Table 5: multi-class masks used directly as segmentation, tags known, mean IoU",
        ("Methods", f"{_VOC} val", "ours before CRF", "ours"),
        rows,
        (
            f"ours: of {photos} validation photos with known tags and ground truth; no network is "
            "trained on these masks; the CRF has higher-order terms",
        ),
    )


def table_6(context: Context[Config]) -> Table:
    """The segmenter, trained on each kind of masks."""
    rows, photos = [], 0
    for row in TABLE_6:
        with context.variant(row) as (run, config):
            plain, smooth = context.scores(run, segmentation(run, config)).values()
        rows.append((row.label, row.paper, plain.miou, smooth.miou))
        photos = smooth.photos
    return Table(
        "6",
        "Table 6: the segmenter on validation photos, mean IoU",
        ("Methods", f"{_VOC} val", "ours without CRF", "ours"),
        tuple(rows),
        (
            "paper: with its CRF, as the 48.0 and 50.9 of its Table 3 are",
            f"ours: of {photos} validation photos with ground truth; tags of theirs are not used",
            "Higher Order: crisp regions in the CRF of the masks and in the one after the "
            "segmenter (4.2.1); elsewhere both are pairwise",
            "field of view, where the row does not say: small, so that rows that stand together "
            "differ in one thing",
        ),
    )


def figure_10(context: Context[Config]) -> Table:
    """Accuracy near boundaries."""
    columns = []
    rows = {row.variant: row for row in TABLE_6}
    for variant in FIGURE_10.values():
        with context.variant(rows[variant]) as (run, config):
            found = _trimap(context, run, segmentation(run, config)["smooth"])
        columns.append([percent(accuracy) for accuracy in found["accuracy"]])
    return Table(
        "fig10",
        "Figure 10: accuracy of pixels near object boundaries (trimap)",
        ("Width, pixels", *FIGURE_10),
        tuple((str(w), *values) for w, *values in zip(_WIDTHS, *columns, strict=True)),
        (
            "the paper gives curves and no figures: all are above tags only, the two with fusion "
            "highest",
            f"ours: {found['photos']} validation photos with ground truth, "
            f"{found['pixels'][-1]:,} pixels within the greatest width; segmenters of Table 6 with "
            "their CRF",
        ),
    )


def on_videos(context: Context[Config]) -> Table:
    """The method's column of Table 7: the last row of Table 6, on videos."""
    return table_7(context, TABLE_6[-1]._replace(label="ours: multi-class masks"), segmentation)


def by_class(context: Context[Config]) -> Table:
    """The method's column of Table 8: the last row of Table 6, class by class."""
    return table_8(context, TABLE_6[-1]._replace(label="ours: multi-class masks"), segmentation)


TABLES: Mapping[str, Study] = {
    "3": Study(table_3, "val"),
    "4": Study(table_4, "train"),
    "5": Study(table_5, "val"),
    "6": Study(table_6, "val"),
    "7": Study(on_videos, "val", is_of_videos),
    "8": Study(by_class, "val"),
    "fig9": Study(partial(figure_9, kinds=FIGURE_9), None),
    "fig10": Study(figure_10, "val"),
    "checkmask": Study(table_of_looks, "val"),
}


def _mask_rows(
    context: Context[Config], rows: tuple[Row, ...], split: Split
) -> tuple[tuple[tuple[str | float | None, ...], ...], int]:
    """Label, the paper's figure and ours before and after the CRF; photos compared."""
    found: list[tuple[str | float | None, ...]] = []
    photos = 0
    for row in rows:
        before = after = Score(None, 0)
        if row.variant:
            with context.variant(row) as (run, config):
                run = _with_known_tags(run) if split == "val" else run
                _, predictions = training_masks(run, config, Evidence(run, config, split=split))
                by_id = {prediction.id: prediction for prediction in predictions}
                compared = {id: by_id[id] for id in ("raw-masks", "training-masks")}
                before, after = context.scores(run, compared).values()
                photos = after.photos
        found.append((row.label, row.paper, before.miou, after.miou))
    return tuple(found), photos


def _with_known_tags(run: Run) -> Run:
    """The same run without validation photos whose tags are unknown."""
    photos, key, _ = run.split("val")
    known = photos.dataset.known
    if known.all():
        return run
    if not known.any():
        raise ConfigError(
            "no validation photo has known tags, which Table 5 needs", do="leave it out with --only"
        )
    chosen = photos.dataset.subset(np.flatnonzero(known))
    return replace(run, val=WorkingPhotos(chosen, photos.side), val_key=f"{key}, known tags")


def _trimap(context: Context[Config], run: Run, prediction: Prediction) -> dict[str, Any]:
    """Accuracy and pixels per width, and the photos compared."""
    photos = run.split("val").photos
    indices = [i for i, name in enumerate(photos.names) if context.truth.has(name)]

    def compute() -> dict[str, Any]:
        trimap, labels = TrimapAccuracy(_WIDTHS), LabelsByName(prediction, photos, indices)
        with run.task("accuracy near boundaries", len(labels)) as ticks:
            for name, found in labels.items():
                trimap.update(found, context.truth.labels(name, found.shape))
                ticks.advance(1)
        return {**trimap.to_dict(), "photos": len(labels)}

    return context.measure(run, "trimap", {prediction.title: prediction}, compute, widths=_WIDTHS)
