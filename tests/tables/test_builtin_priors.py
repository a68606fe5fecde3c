"""The tables hold what runs and their masks are found to have, and the paper's own figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from small_runs import N_TRAIN, OPTIONS, QUICK, UNKNOWN, finished_stages
from tagseg.data.dataset import Dataset
from tagseg.data.masks import decode_mask
from tagseg.data.working import labels_at
from tagseg.errors import ConfigError
from tagseg.evaluate.boundary import TrimapAccuracy
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.recipes.builtin_priors.config import Config
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result, train
from tagseg.tables.base import Table
from tagseg.tables.builtin_priors import FIGURE_10, TABLE_4, TABLE_5, TABLE_6, TABLES
from tagseg.tables.making import make_tables


def of_paper(rows: Any) -> list[float]:
    return [row.paper for row in rows]


def test_the_papers_figures():
    assert of_paper(TABLE_4) == [52.34, 50.20, 60.08]
    assert of_paper(TABLE_5) == [43.0, 46.6]
    assert of_paper(TABLE_6) == [31.0, 47.3, 48.0, 45.9, 46.6, 49.2, 49.3, 50.9]
    assert list(TABLES) == ["3", "4", "5", "6", "7", "8", "fig9", "fig10", "checkmask"]


def test_rows_change_what_their_labels_say():
    kinds = []
    for row in TABLE_6:
        config = replace(Config(), **row.changes)
        higher = config.mask_crf and config.mask_regions == "crisp"
        kinds.append((config.masks, higher, config.view()))
        assert higher == ("Higher Order" in row.label)
        assert config.refiner == "crf"
    assert kinds == [
        ("none", False, "small"),
        ("foreground", False, "small"),
        ("foreground", True, "small"),
        ("localization", False, "small"),
        ("localization", True, "small"),
        ("both", False, "small"),
        ("both", True, "small"),
        ("both", True, "large"),
    ]
    variants = [row.variant for row in (*TABLE_4, *TABLE_5, *TABLE_6) if row.variant]
    assert len(variants) == len(set(variants)) == 11
    assert set(FIGURE_10.values()) < set(variants)


def test_higher_order_is_in_the_crf_at_test_too():
    for config in (Config(), Config(segmenter_regions="crisp")):
        chosen = [replace(config, **row.changes).segmenter_regions for row in TABLE_6]
        assert [c == "crisp" for c in chosen] == ["Higher Order" in row.label for row in TABLE_6]


@pytest.fixture
def tables(tabulated) -> dict[str, Table]:
    return {table.name: table for table in tabulated.made.tables}


def found(of: Result, *stages: str) -> list[Any]:
    """What a run found of the named stages, in per cent."""
    scores = {score.stage: score.miou for score in of.scores}
    return [pytest.approx(100 * scores[stage]) for stage in stages]


def test_table_4_is_what_a_run_with_foreground_masks_finds(go, tables):
    other = go("builtin_priors", {"masks": "foreground"})
    *not_ours, ours = tables["4"].rows
    assert [row[2:] for row in not_ours] == [(None, None)] * 2
    assert list(ours[2:]) == found(other, "masks before CRF", "training masks")
    assert f"ours: of {N_TRAIN} training photos" in tables["4"].notes[1]


@pytest.mark.parametrize(
    ("row", "config"),
    [
        (0, {"masks": "none"}),
        (3, {"masks": "localization", "mask_regions": "none", "field_of_view": "small"}),
        (7, {"segmenter_regions": "crisp"}),
    ],
)
def test_table_6_is_what_runs_find(go, tables, row, config):
    other = go("builtin_priors", config)
    assert list(tables["6"].rows[row][2:]) == found(other, "segmenter", "segmenter + CRF")


def test_rows_of_higher_order_share_the_regions_of_validation_photos(tabulated):
    rooms = tabulated.run / "tables"
    higher = [row.variant for row in TABLE_6 if "Higher Order" in row.label]
    kept = [Workspace.read(rooms / name).finished("val-regions") for name in higher]
    assert len(higher) == 4
    assert len({stage.key for stage in kept}) == 1
    assert "val-regions" not in finished_stages(rooms / "tags")


def test_table_5_is_of_masks_made_as_for_training(photos, tmp_path):
    """Validation photos that are copies of the training photos have the training masks' scores."""
    some = photos.dataset.select(photos.train)
    twice = Dataset(
        some.classes,
        (*some.names, *(f"copy of {name}" for name in some.names)),
        np.concatenate([some.tags] * 2),
        np.concatenate([some.known] * 2),
        some.sources * 2,
    )
    known = [name for name in some.names if name != some.names[UNKNOWN]]
    labels = {p + n: photos.labels[n] for n in known for p in ("", "copy of ")}
    truth, val = GroundTruth(labels, some.classes), twice.names[len(some) :]
    shared: dict[str, Any] = {"val": val, "ground_truth": truth}
    out = tmp_path / "run"
    results = [
        train(twice, "builtin_priors", {**QUICK, "masks": m}, options=OPTIONS, out=o, **shared)
        for m, o in (("localization", tmp_path / "other"), ("both", out))
    ]
    (table,) = make_tables("builtin_priors", twice, out, only=["5"], threads=1, **shared).tables
    for row, result in zip(table.rows, results, strict=True):
        assert list(row[2:]) == found(result, "masks before CRF", "training masks")
    assert f"ours: of {N_TRAIN - 1} validation photos" in table.notes[0]


def test_table_5_needs_known_tags_and_the_others_do_not(go, photos, tmp_path):
    known = photos.dataset.known.copy()
    known[N_TRAIN:] = False
    tags = photos.dataset.tags & known[:, None]
    untold = replace(photos.dataset, tags=tags, known=known)
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth()}
    out = tmp_path / "run"
    train(untold, "builtin_priors", QUICK, options=OPTIONS, out=out, **shared)
    shared = {**shared, "threads": 1}
    with pytest.raises(ConfigError, match="no validation photo has known tags, which Table 5"):
        make_tables("builtin_priors", untold, out, only=["5"], **shared)
    assert make_tables("builtin_priors", untold, out, only=["fig10"], **shared).tables


def test_figure_10_is_the_trimap_of_the_smoothed_predictions(go, photos, tables):
    result = go("builtin_priors", {"segmenter_regions": "crisp"})
    predictions = Workspace.read(result.folder).finished("predictions").maps("smooth")
    figure = tables["fig10"]
    widths = [int(str(row[0])) for row in figure.rows]
    trimap = TrimapAccuracy(widths)
    for name in photos.val:
        truth = photos.labels[name]
        trimap.update(labels_at(decode_mask(predictions.get_bytes(name)), truth.shape), truth)
    assert [row[-1] for row in figure.rows] == pytest.approx(100 * trimap.accuracy())
    assert figure.columns == ("Width, pixels", *FIGURE_10)
    assert f"{len(photos.val)} validation photos" in figure.notes[1]


def test_training_sees_no_tags_of_validation_photos(go, photos, tables, tmp_path):
    """Other tags of theirs: Table 5 changes, and nothing else."""
    tags = photos.dataset.tags.copy()
    tags[N_TRAIN:] = np.roll(tags[N_TRAIN:], 1, axis=1)
    other = replace(photos.dataset, tags=tags)
    shared: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth()}
    out = tmp_path / "run"
    train(other, "builtin_priors", QUICK, options=OPTIONS, out=out, **shared)
    shared |= {"threads": 1, "only": ["4", "5"]}
    made = make_tables("builtin_priors", other, out, **shared).tables
    same = {table.name: table.rows == tables[table.name].rows for table in made}
    assert same == {"4": True, "5": False}
