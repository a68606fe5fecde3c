"""Table 8: class by class, what the segmenter is found to have, beside the paper's figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from small_runs import CLASSES
from tagseg.data.masks import decode_mask
from tagseg.data.working import labels_at
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.run.workspace import Workspace
from tagseg.tables.base import Table
from tagseg.tables.coco import MEAN, METHODS, TABLE_8
from tagseg.tables.making import make_tables


def test_the_papers_means_are_of_its_classes():
    """Those of Ours lack two figures, which come to what is left of the mean."""
    assert len(TABLE_8) == 81
    sec, ours = ([row[method] for row in TABLE_8.values()] for method in range(len(METHODS)))
    assert np.mean(sec) == pytest.approx(MEAN[0], abs=0.05)
    known = [value for value in ours if value is not None]
    assert [name for name, row in TABLE_8.items() if row[1] is None] == ["cup", "banana"]
    assert 81 * MEAN[1] - sum(known) == pytest.approx(53.5, abs=0.1)


@pytest.fixture
def table(tabulated) -> Table:
    return next(table for table in tabulated.made.tables if table.name == "8")


def rows_of(table: Table) -> dict[str, tuple[Any, ...]]:
    return {str(row[0]): row[1:] for row in table.rows}


def test_figures_are_those_of_the_kept_labels(table, tabulated, photos):
    work = Workspace.read(tabulated.run / "tables" / "fusion-higher-large")
    rows = rows_of(table)
    assert list(rows) == ["background", *CLASSES, "mean IoU"]
    for column, kept in ((-2, "raw"), (-1, "smooth")):
        maps = work.finished("predictions").maps(kept)
        confusion = ConfusionMatrix(len(CLASSES) + 1)
        for name in photos.val:
            truth = photos.labels[name]
            confusion.update(labels_at(decode_mask(maps.get_bytes(name)), truth.shape), truth)
        iou = [None if np.isnan(value) else pytest.approx(100 * value) for value in confusion.iou()]
        assert [row[column] for row in rows.values()][:-1] == iou
        assert rows["mean IoU"][column] == pytest.approx(100 * confusion.mean_iou())


def test_the_papers_figures_stand_beside_classes_of_its_names(table, tabulated):
    rows = rows_of(table)
    assert rows["cat"][:2] == (57.2, 52.8)
    assert rows["unicorn"][:2] == rows["aeroplane"][:2] == (None, None)
    assert rows["mean IoU"][:2] == MEAN
    assert "6 of which are among yours" in table.notes[0]
    six = next(t for t in tabulated.made.tables if t.name == "6")
    assert six.rows[-1][2:] == pytest.approx(rows["mean IoU"][2:])  # the same segmenter


def test_the_table_alone_trains_nothing_that_the_run_has(run, photos, worked):
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth(), "threads": 1}
    make_tables("builtin_priors", photos.dataset, run, only=["8"], **shared)
    assert not worked["segmenter"]


def test_sec_has_the_same_table_of_its_own_runs(go, photos, tmp_path):
    result = go("sec", out=tmp_path / "run")
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth(), "threads": 1}
    (table,) = make_tables("sec", photos.dataset, result.folder, **shared).tables
    assert table.name == "8"  # 7 is about videos
    assert table.columns[1:] == (*METHODS, "ours: SEC, without CRF", "ours: SEC")
    scores = {score.stage: score.miou for score in result.scores}
    assert rows_of(table)["mean IoU"][-1] == pytest.approx(100 * scores["segmenter + CRF"])
