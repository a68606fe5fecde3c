"""Table 7 on a generated copy of YouTube-Objects' layout, by both recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import OPTIONS, quick
from tagseg.data.masks import decode_mask
from tagseg.data.working import labels_at
from tagseg.errors import ConfigError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.formats.loading import Reading
from tagseg.run.workspace import Workspace
from tagseg.session.inputs import Source, ground_truth_of, load_photos
from tagseg.session.train import train
from tagseg.tables.making import make_tables
from tagseg.tables.videos import METHODS, TABLE_7
from tool_modules import load_tool

CLASSES = ("boat", "bus")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool = load_tool("youtube_copy")
    folder = tmp_path_factory.mktemp("videos") / "copy"
    plan = tool.Plan(videos=2, masked=1, shots=1, frames=6, every=3, height=48, width=64)
    tool.write_copy(folder, CLASSES, plan)
    return folder


@pytest.fixture(scope="module")
def loaded(copy):
    masks = copy / "youtube_masks"
    found = load_photos(Source(copy, masks=masks, how=Reading(frames_per_class=4)))
    return found, ground_truth_of(found, masks)


def test_the_papers_means_are_of_its_classes():
    """The first three have no background; the table's last row is the mean of the others."""
    assert list(TABLE_7) == ["bg", "aero", "bird", "boat", "car", "cat", "cow", "dog", "horse",
                             "motorcycle", "train", "mIOU"]  # fmt: skip
    for method in range(len(METHODS)):
        values = [row[method] for name, row in TABLE_7.items() if name != "mIOU"]
        known = [value for value in values if value is not None]
        assert np.mean(known) == pytest.approx(TABLE_7["mIOU"][method], abs=0.06)


@pytest.mark.parametrize("recipe", ["builtin_priors", "sec"])
def test_figures_are_those_of_the_kept_labels(loaded, recipe, tmp_path):
    photos, truth = loaded
    assert (len(photos.photos), len(photos.val)) == (8 + 4, 4)
    run = tmp_path / "run"
    settings: dict[str, Any] = {**quick(recipe), "photo_side": 64}
    if recipe == "builtin_priors":
        settings["mask_regions"] = "none"
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": truth}
    train(photos.photos, recipe, settings, options=OPTIONS, out=run, **shared)
    (table,) = make_tables(recipe, photos.photos, run, only=["7"], threads=1, **shared).tables
    variant = "sec" if recipe == "sec" else "fusion-higher-large"
    kept = Workspace.read(run / "tables" / variant).finished("predictions").maps("smooth")
    confusion = ConfusionMatrix(3)
    for name in photos.val:
        mask = truth.labels(name, (48, 64))
        confusion.update(labels_at(decode_mask(kept.get_bytes(name)), mask.shape), mask)
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows)[:3] == ["bg", "boat", "bus"]
    ours = [100 * value for value in confusion.iou()]
    assert [rows[name][-2] for name in ("bg", *CLASSES)] == pytest.approx(ours, nan_ok=True)
    assert rows["mIOU"][-2] == pytest.approx(100 * confusion.mean_iou())
    assert rows["boat"][:5] == TABLE_7["boat"]
    assert rows["bus"][:5] == (None,) * 5
    assert rows["cat"] == (*TABLE_7["cat"], None, None, None)
    assert any("YOUR DATA, 4 frames with masks of 2 shots" in note for note in table.notes)


def test_other_photos_have_no_table_7(result, photos):
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth(), "threads": 1}
    with pytest.raises(ConfigError, match="table 7 is about frames in the layout of YouTube"):
        make_tables("builtin_priors", photos.dataset, result.folder, only=["7"], **shared)
    with pytest.raises(ConfigError, match="table 7 is about frames"):
        make_tables("sec", photos.dataset, result.folder, only=["7"], **shared)
