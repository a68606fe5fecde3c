"""SEC in the tables of Saleh et al. 2017, who ran it on YouTube-Objects and COCO (4.5)."""

from __future__ import annotations

from collections.abc import Mapping

from tagseg.recipes.sec import recipe as sec
from tagseg.recipes.sec.config import Config
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Row, Study, Table
from tagseg.tables.coco import table_8
from tagseg.tables.videos import is_of_videos, table_7

__all__ = ["TABLES"]

_SEC = Row("sec", "ours: SEC", {"refiner": "crf"}, None)


def segmentation(run: Run, config: Config) -> dict[str, Prediction]:
    """The validation photos as the segmenter has them, and after its CRF."""
    made = sec.run(run, config).predictions
    of_val = {prediction.id: prediction for prediction in made if prediction.split == "val"}
    return {"raw": of_val["segmenter"], "smooth": of_val["refined"]}


def sec_on_videos(context: Context[Config]) -> Table:
    """SEC's column of Table 7."""
    return table_7(context, _SEC, segmentation)


def sec_by_class(context: Context[Config]) -> Table:
    """SEC's column of Table 8."""
    return table_8(context, _SEC, segmentation)


TABLES: Mapping[str, Study] = {
    "7": Study(sec_on_videos, "val", is_of_videos),
    "8": Study(sec_by_class, "val"),
}
