"""Tables 1 to 5 of Shimoda & Yanai: each row is what the segmenter finds with its settings."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import DISTINCT, QUICK, Photos, contents
from tagseg.data.working import WorkingPhotos, argmax_at
from tagseg.errors import ConfigError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.localize.backprop import ClassSaliency
from tagseg.maps import IGNORE, Labels
from tagseg.recipes.dcsm import classifier as saliency_stages
from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.recipe import RECIPE
from tagseg.session.train import Result, make_config
from tagseg.stages.crf import from_json
from tagseg.stages.distinct_segmenter import (
    DistinctSegmenter,
    SeederSettings,
    distinct_probabilities,
)
from tagseg.tables import distinct_sweep
from tagseg.tables.base import Row
from tagseg.tables.dcsm import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLES
from tagseg.tables.making import Tables, make_tables
from tagseg.training import Execution

ROWS = {"1": TABLE_1, "2": TABLE_2, "3": TABLE_3, "4": TABLE_4, "5": TABLE_5}
SIDE = 64
COMPARED = (0, 3)  # validation photos with ground truth


def truth_of(photos: Photos) -> GroundTruth:
    names = [photos.val[i] for i in COMPARED]
    return GroundTruth({name: photos.labels[name] for name in names}, photos.dataset.classes)


def tabulate(photos: Photos, run: Path, *only: str, **changed: Any) -> Tables:
    usual: dict[str, Any] = {"val": photos.val, "ground_truth": truth_of(photos), "threads": 1}
    dataset = changed.pop("dataset", photos.dataset)
    return make_tables("dcsm", dataset, run, only=only, **{**usual, **changed})


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Trainings, forward passes by way of back-propagation, and settings of a photo."""
    count: Counter[str] = Counter()
    forward, compare = ClassSaliency.forward, distinct_sweep._compare
    train = saliency_stages.train_tag_classifier

    def counted_forward(self: ClassSaliency, images: Any) -> Any:
        count[f"{self.method} of {images.shape[-1]}"] += 1
        return forward(self, images)

    def counted_compare(*args: Any) -> Any:
        count["settings"] += 1
        return compare(*args)

    def counted_train(*args: Any, **named: Any) -> Any:
        count["trainings"] += 1
        return train(*args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassSaliency, "forward", counted_forward)
        patch.setattr(distinct_sweep, "_compare", counted_compare)
        patch.setattr(saliency_stages, "train_tag_classifier", counted_train)
        yield count


@dataclass(frozen=True)
class Made:
    run: Path
    tables: Tables
    worked: Counter[str]

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        return next(list(t.rows) for t in self.tables.tables if t.name == name)


@pytest.fixture(scope="module")
def result(go, tmp_path_factory) -> Result:
    return go("dcsm", DISTINCT, out=tmp_path_factory.mktemp("runs") / "run", ground_truth=None)


@pytest.fixture(scope="module")
def made(result, photos, tmp_path_factory) -> Made:
    """A run with all its tables."""
    run = Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("tables") / "run"))
    with counting() as count:
        return Made(run, tabulate(photos, run), count)


@pytest.fixture
def run(result, tmp_path) -> Path:
    """A copy of the finished run, without tables."""
    return Path(shutil.copytree(result.folder, tmp_path / "run"))


# The paper's


def test_the_papers_figures():
    assert list(TABLES) == list(ROWS)
    of_paper = {name: [row.paper for row in rows] for name, rows in ROWS.items()}
    simonyan = [10.0, 20.6, 28.3, 32.7, 33.4, 33.8, 33.8, 33.3, 28.7]
    assert of_paper["1"] == [*simonyan, 40.0, 44.0, 44.1, 40.6, 36.4]
    assert of_paper["2"] == [5.5, 21.5, 32.5, 40.3, 26.3, 41.3, 42.2, 42.8, 42.5, 37.97]
    single, several = [34.5, 41.0, 42.4, 41.8, 40.0, 34.5], [41.1, 42.9, 43.5, 42.9, 42.5, 42.8]
    assert of_paper["3"] == [*single, *several]
    assert of_paper["4"] == [38.2, 42.2, 43.5, 44.1, 44.2, 44.0, 43.7, 43.3]
    assert of_paper["5"] == [41.2, 44.1]


def configs(name: str) -> list[Config]:
    return [replace(Config(), **row.changes) for row in ROWS[name]]


def test_rows_change_what_their_labels_say():
    simonyan, ours = configs("1")[:9], configs("1")[9:]
    assert [c.alpha for c in simonyan] == [3, 4, 5, 6, 7, 8, 9, 10, 15]
    for config in simonyan:
        assert (config.blocks, config.method) == ((0,), "plain")
        assert (config.min_candidates, config.scales) == (0, (1.0,))
    assert [c.alpha for c in ours] == [2, 2.5, 3, 4, 5]
    assert [replace(c, alpha=3.0) for c in ours] == [Config()] * 5
    for row, config in zip(TABLE_2, configs("2"), strict=True):
        digits = row.label.removeprefix("average").replace("block", "").strip()
        assert config.blocks == tuple(map(int, digits.split(",")))
    sizes = {f"({i})": 0.6 + 0.2 * (i - 1) for i in range(1, 7)}
    for row, config in zip(TABLE_3, configs("3"), strict=True):
        expected = [scale for key, scale in sizes.items() if key in row.label]
        assert config.scales == pytest.approx(expected)
    assert [c.min_candidates for c in configs("4")] == [0, 1, 2, 3, 4, 5, 10, 15]
    assert [c.method for c in configs("5")] == ["plain", "guided"]
    variants = [row.variant for rows in ROWS.values() for row in rows]
    assert len(variants) == len(set(variants)) == 46


# Ours


def by_itself(result: Result, row: Row) -> tuple[DistinctSegmenter, Config]:
    """The run's classifier with a row's settings, as tagseg predict would have it."""
    config = replace(make_config(Config, {**QUICK, **DISTINCT}), **row.changes)
    own = result.segmenter
    settings = SeederSettings(config.equations(), config.blocks, config.method, SIDE)
    segmenter = DistinctSegmenter(
        own.net,
        own.classes,
        settings,
        side=SIDE,
        execution=Execution(),
        refinement={**from_json(own.refinement), "regions": None},
    )
    return segmenter, config


def mean_iou(pairs: list[tuple[Labels, Labels]], n_labels: int) -> float:
    """Over the labels that are predicted or true anywhere, in per cent."""
    predicted = np.concatenate([labels.ravel() for labels, _ in pairs])
    true = np.concatenate([labels.ravel() for _, labels in pairs])
    predicted, true = predicted[true != IGNORE], true[true != IGNORE]
    scores = []
    for label in range(n_labels):
        union = ((predicted == label) | (true == label)).sum()
        if union:
            scores.append(((predicted == label) & (true == label)).sum() / union)
    return 100 * float(np.mean(scores))


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_what_the_segmenter_finds_with_their_settings(made, result, photos, name):
    part = WorkingPhotos(photos.dataset.select(photos.val), SIDE)
    truths = [photos.labels[photos.val[i]] for i in COMPARED]
    rows = made.rows(name)
    assert [(label, paper) for label, paper, *_ in rows] == [(r.label, r.paper) for r in ROWS[name]]
    for row, (_, _, *ours) in zip(ROWS[name], rows, strict=True):
        segmenter, _ = by_itself(result, row)
        pairs: list[list[Any]] = [[], [], []]
        for index, truth in zip(COMPARED, truths, strict=True):
            image, small = photos.dataset.image(len(photos.train) + index), part.image(index)
            tagged = distinct_probabilities(segmenter.seeder(small, part.tags[index]).score_map)
            masks = (
                segmenter.predict(image, refine=False),
                segmenter.predict(image),
                argmax_at(segmenter.refiner.refine(small, tagged), truth.shape),
            )
            for kind, mask in enumerate(masks):
                pairs[kind].append((mask, truth))
        expected = [mean_iou(kind, len(photos.dataset.classes) + 1) for kind in pairs]
        assert ours == pytest.approx(expected, abs=0.05), row.label


def test_settings_differ(made):
    """Or else all of this would hold for tables that ignore their rows."""
    for name, least in (("1", 6), ("2", 6), ("3", 6), ("4", 3), ("5", 2)):
        assert len({row[4] for row in made.rows(name)}) >= least, name
    assert len({row[2:] for name in TABLES for row in made.rows(name)}) > 25


def test_what_is_said_of_them(made):
    for table in made.tables.tables:
        assert table.columns[1:] == (
            "paper, VOC 2012 val",
            "ours without CRF",
            "ours",
            "ours, tags known",
        )
        assert f"ours: {len(COMPARED)} validation photos" in table.notes[0]
    text = made.tables.markdown.read_text()
    assert text.count("\n## Table ") == 5
    assert "| DCSM, alpha 2.5 " in text
    about = json.loads(made.tables.json.read_text())
    assert (about["recipe"], about["paper"]) == ("dcsm", RECIPE.paper)
    assert RECIPE.paper.endswith("ECCV 2016")


# Shared work


def test_gradients_are_shared_and_the_classifier_is_the_runs(made):
    """A pass of a photo by size and way back, for all rows of a table and three kinds of masks."""
    worked = dict(made.worked)
    assert worked.pop("settings") == 46 * len(COMPARED)
    sizes = [round(SIDE * scale) for scale in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6)]
    guided = {f"guided of {size}" for size in sizes}
    plain = {f"plain of {round(SIDE * scale)}" for scale in (0.8, 1.0, 1.2)}
    assert set(worked) == guided | plain
    of_the_run = {f"guided of {round(SIDE * scale)}" for scale in DISTINCT["scales"]}
    for view, passes in worked.items():
        tables = len(TABLES) if view in of_the_run else 1  # all tables see the run's own sizes
        assert len(COMPARED) <= passes <= tables * len(COMPARED), view


def test_a_second_call_makes_nothing(made, photos):
    before = contents(made.run)
    with counting() as count:
        again = tabulate(photos, made.run)
    assert count == {}
    assert again.tables == made.tables.tables
    assert contents(made.run) == before


def test_the_run_itself_stays_as_it_is(made, result):
    run = {name: it for name, it in contents(made.run).items() if not name.startswith("tables/")}
    assert run == contents(result.folder)


def test_some_tables_first_and_the_others_later(made, run, photos):
    with counting() as count:
        some = tabulate(photos, run, "4", "5")
    assert [table.name for table in some.tables] == ["4", "5"]
    assert [table.rows for table in some.tables] == [tuple(made.rows(n)) for n in ("4", "5")]
    assert count["settings"] == 10 * len(COMPARED)
    with counting() as count:
        more = tabulate(photos, run, "2", "4", "5")
    assert count["settings"] == 10 * len(COMPARED)
    assert count["trainings"] == 0
    assert [table.rows for table in more.tables] == [tuple(made.rows(n)) for n in ("2", "4", "5")]


def test_an_interrupted_call_goes_on(made, run, photos, monkeypatch):
    compare, calls = distinct_sweep._compare, iter(range(1000))

    def interrupted(*args: Any) -> Any:
        if next(calls) == 13:  # in the second of two photos
            raise KeyboardInterrupt
        return compare(*args)

    with monkeypatch.context() as patch:
        patch.setattr(distinct_sweep, "_compare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tabulate(photos, run, "4", "5")
    assert not (run / "tables/dcsm.md").exists()
    with counting() as count:
        again = tabulate(photos, run, "4", "5")
    assert count["settings"] == 10 * len(COMPARED) - 13
    assert [table.rows for table in again.tables] == [tuple(made.rows(n)) for n in ("4", "5")]


def test_other_ground_truth_is_counted_anew(made, run, photos):
    names = [photos.val[i] for i in (4, 5)]
    other = GroundTruth({n: photos.labels[n] for n in names}, photos.dataset.classes)
    (first,) = tabulate(photos, run, "5").tables
    (second,) = tabulate(photos, run, "5", ground_truth=other).tables
    assert first.rows == tuple(made.rows("5"))
    assert second.rows != first.rows
    assert "ours: 2 validation photos" in second.notes[0]


def test_unknown_tags_leave_the_last_column_empty(made, go, photos, tmp_path):
    known = photos.dataset.known.copy()
    known[len(photos.train) + COMPARED[1]] = False
    tags = photos.dataset.tags & known[:, None]
    untold = replace(photos.dataset, tags=tags, known=known)
    run = Path(shutil.copytree(made.run, tmp_path / "run"))
    shutil.rmtree(run / "tables")
    (table,) = tabulate(photos, run, "5", dataset=untold).tables
    for row, before in zip(table.rows, made.rows("5"), strict=True):
        assert row[:4] == before[:4]
        assert row[4] is None


def test_they_need_validation_photos_and_their_ground_truth(run, photos):
    before = contents(run)
    with pytest.raises(ConfigError, match="table 1 needs validation photos; give --val"):
        tabulate(photos, run, val=())
    with pytest.raises(ConfigError, match="dcsm has no table '6'; choose of 1, 2, 3, 4, 5"):
        tabulate(photos, run, "6")
    assert contents(run) == before
