"""Figure 9: averages of what the rows of Tables 4 and 5 hold, as figures and as a picture."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from small_runs import N_TRAIN
from tagseg.data.masks import decode_mask
from tagseg.evaluate.location import AverageMaps, overlap
from tagseg.run.workspace import Workspace
from tagseg.tables.making import make_tables


@pytest.fixture
def figure(tabulated):
    return next(table for table in tabulated.made.tables if table.name == "fig9")


def columns_of(figure, *titles: str) -> list[list[object]]:
    return [[row[figure.columns.index(title)] for row in figure.rows] for title in titles]


def test_masks_of_table_4_by_hand(figure, tabulated, photos):
    """Averaged anew from the variant's own files and the ground truth."""
    work = Workspace.read(tabulated.run / "tables" / "table-4")
    masks = work.finished("training-masks").maps("labels")
    classes = len(photos.dataset.classes)
    true, covered = AverageMaps(classes), AverageMaps(classes)
    for i, name in enumerate(photos.dataset.names[:N_TRAIN]):
        tags = photos.dataset.tags[i]
        if not tags.any():
            continue
        labels = decode_mask(masks.get_bytes(name))
        covered.update(np.stack([labels == 1] * tags.sum()), tags)
        if name in photos.labels:
            truth = photos.labels[name]
            planes = np.stack([truth == tag + 1 for tag in np.flatnonzero(tags)])
            true.update(planes, tags, truth != 255)
    counts, found = columns_of(figure, "photos", "fusion, masks (Table 4)")
    assert counts == [str(n) for n in covered.photos]
    expected = [100 * overlap(a, b) for a, b in zip(true.mean(), covered.mean(), strict=True)]
    known = [None if np.isnan(value) else pytest.approx(value, abs=1e-3) for value in expected]
    assert found == known
    assert any(value is not None for value in found)


def test_the_picture_has_a_column_for_each_kind(figure, tabulated):
    with Image.open(tabulated.run / "tables" / "fig9.png") as picture:
        shown = np.asarray(picture)
    np.testing.assert_array_equal(shown, figure.picture)
    assert shown.shape[1] > 6 * 96, "ground truth and five kinds"
    assert shown.shape[0] > len(figure.rows) * 96


def test_without_ground_truth_of_training_photos_it_is_that_of_val(tabulated, photos, tmp_path):
    only_val = {n: labels for n, labels in photos.labels.items() if n in photos.val}
    made = make_tables(
        "builtin_priors",
        photos.dataset,
        shutil.copytree(tabulated.run, tmp_path / "run"),
        val=photos.val,
        ground_truth=replace(photos, labels=only_val).truth(),
        only=["fig9"],
        threads=1,
    )
    (table,) = made.tables
    assert any("ground truth: of the validation photos" in note for note in table.notes)
    true = AverageMaps(len(photos.dataset.classes))
    for name, labels in only_val.items():
        tags = photos.dataset.tags[photos.dataset.names.index(name)]
        planes = np.stack([labels == tag + 1 for tag in np.flatnonzero(tags)] or [labels == 0])
        if tags.any():
            true.update(planes, tags, labels != 255)
    (values,) = columns_of(table, "fusion, masks (Table 4)")
    has = [bool(average.any()) for average in true.mean()]
    assert all(there or value is None for value, there in zip(values, has, strict=True))
    assert any(value is not None for value in values)
