"""Tables 3 and 4 and Figure 8 of Wang et al.: each row is a run of `mcof` with its settings."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guided_runs import MINING, Made, counting
from small_runs import OPTIONS, QUICK, Photos, contents
from tagseg.data.masks import decode_mask
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE
from tagseg.recipes.mcof import regions as region_mining
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result, train
from tagseg.stages import large_fov, seeder
from tagseg.tables import mcof
from tagseg.tables.making import Tables, make_tables

WORK = {
    "seeder": (seeder, "train_tag_classifier"),
    "RegionNet": (region_mining, "fit_regions"),
    "PixelNet": (large_fov, "fit_on_grid"),
}
ROUNDS = 3
FULL = tuple(f"PixelNet on ground truth, as long as {time}" for time in ("iter1", "all rounds"))


def tabulate(photos: Photos, run: Path, *only: str, truth: GroundTruth | None = None) -> Tables:
    return make_tables(
        "mcof",
        photos.dataset,
        run,
        val=photos.val,
        ground_truth=truth or photos.truth(),
        only=only,
        threads=1,
    )


@pytest.fixture(scope="module")
def photos(photos: Photos) -> Photos:
    """Some of them: ten to train on, one of which is not known."""
    val = photos.val[:4]
    return replace(photos, dataset=photos.dataset.select((*photos.train[:10], *val)), val=val)


@pytest.fixture(scope="module")
def result(photos, tmp_path_factory) -> Result:
    """A run whose masks have converged after the second round: tables run all of them."""
    return train(
        photos.dataset,
        "mcof",
        {**QUICK, **MINING, "seeder_side": 64, "rounds": ROUNDS, "converged": 0.001},
        val=photos.val,
        ground_truth=photos.truth(),
        out=tmp_path_factory.mktemp("runs") / "run",
        options=OPTIONS,
    )


@pytest.fixture(scope="module")
def made(result, photos, tmp_path_factory) -> Made:
    """A run with all its tables, and the trainings that they took."""
    run = Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("tables") / "run"))
    with counting(WORK) as count:
        return Made(run, tabulate(photos, run), count)


def test_the_papers_figures():
    assert list(mcof.TABLES) == ["3", "4", "fig8"]
    assert {study.split for study in mcof.TABLES.values()} == {"val"}
    assert mcof._SEEDS == 14.27
    assert mcof._TRAIN == {
        1: (29.1, 34.8, 48.4),
        2: (53.8, None, 57.9),
        3: (58.2, None, 60.9),
        4: (61.1, None, 63.1),
        5: (62.5, None, 63.2),
    }
    assert mcof._VAL["mcof"] == (44.4, 51.6, 53.3, 55.5, 56.2)
    assert mcof._VAL["unaided"] == (41.8, 46.2, 47.7, 51.5, 52.1)


def test_table_3(made, result):
    """Every network of every round; what the run had is what the run said."""
    rows = made.by_label("3")
    assert list(rows) == [
        "initial object seeds",
        *("iter1 RegionNet", "iter1 saliency supplement", "iter1 PixelNet"),
        *("iter2 RegionNet", "iter2 PixelNet"),
        *("iter3 RegionNet", "iter3 PixelNet"),
        *FULL,
    ]
    assert rows["initial object seeds"][::2] == (14.27, None)
    assert [row[0] for row in rows.values()] == [
        *(14.27, 29.1, 34.8, 48.4, 53.8, 57.9, 58.2, 60.9, None, None)
    ]
    assert [row[2] for label, row in rows.items() if "PixelNet" in label] == [
        *(44.4, 51.6, 53.3, None, None)
    ]
    score = {(s.stage, s.split): pytest.approx(100 * s.miou) for s in result.scores}
    for number in (1, 2):
        assert rows[f"iter{number} RegionNet"][1] == score[f"RegionNet, round {number}", "train"]
        pixel_net = rows[f"iter{number} PixelNet"]
        assert pixel_net[1] == score[f"PixelNet, round {number}", "train"]
        assert pixel_net[3] == score[f"PixelNet + CRF, round {number}", "val"]
    refined = score["saliency supplement, round 1", "train"]
    assert rows["iter1 saliency supplement"][1] == refined
    assert all(isinstance(rows["iter3 PixelNet"][i], float) for i in (1, 3))
    for label in FULL:
        assert rows[label][:3] == (None, None, None)
        assert isinstance(rows[label][3], float)
    part = 100 * rows["iter3 PixelNet"][3] / rows[FULL[1]][3]
    assert made.notes("3")[-1].startswith(f"the last PixelNet reaches {part:.1f} % of")


def test_regions_that_are_no_seed_count_as_background_in_table_3(made, photos):
    """Wang et al., 4.2; in the report of the run they are not known, and count as wrong."""
    seeds = Workspace.read(made.run).finished("seeds").maps("labels")
    confusion = ConfusionMatrix(len(photos.dataset.classes) + 1)
    for name in photos.train:
        found = decode_mask(seeds.get_bytes(name))
        truth = photos.labels[name]
        confusion.update(labels_at(np.where(found == IGNORE, 0, found), truth.shape), truth)
    ours = made.by_label("3")["initial object seeds"][1]
    assert ours == pytest.approx(100 * confusion.mean_iou())


def test_table_4(made):
    rows = made.by_label("4")
    assert list(rows) == [
        *("w/o saliency refinement, paper", "w/o saliency refinement, ours"),
        *("w/ saliency refinement, paper", "w/ saliency refinement, ours"),
    ]
    assert rows["w/o saliency refinement, paper"] == (41.8, 46.2, 47.7)
    assert rows["w/ saliency refinement, paper"] == (44.4, 51.6, 53.3)
    ours, table_3 = rows["w/ saliency refinement, ours"], made.by_label("3")
    assert ours == tuple(table_3[f"iter{number} PixelNet"][3] for number in (1, 2, 3))
    without = rows["w/o saliency refinement, ours"]
    assert all(isinstance(value, float) for value in without)
    assert without != ours


def test_figure_8(made):
    rows = made.rows("fig8")
    assert [row[0] for row in rows] == ["1", "2", "3"]
    columns = next(t.columns for t in made.tables.tables if t.name == "fig8")
    assert columns == ("iterations", "MCOF", "direct iterative training")
    ours = made.by_label("4")["w/ saliency refinement, ours"]
    assert tuple(row[1] for row in rows) == ours
    assert rows[0][1] == rows[0][2], "both share the first round"
    assert [row[2] for row in rows[1:]] != [row[1] for row in rows[1:]]


def test_equal_work_is_done_once(made):
    """The run has two rounds; without the supplement all but RegionNet 1 is new."""
    assert made.worked == {
        "RegionNet": 1 + (ROUNDS - 1),  # the run's third; unaided
        "PixelNet": 1 + ROUNDS + (ROUNDS - 1) + 2,  # likewise; direct; ground truth
    }


def test_each_row_has_the_stages_that_it_needs(made):
    def stages_of(variant: str) -> set[str]:
        return {stage.name for stage in Workspace.read(made.run / "tables" / variant).summary()}

    whole, unaided, direct = (stages_of(name) for name in ("mcof", "unaided", "direct"))
    assert whole - unaided == {"saliency", "supplement"}
    assert unaided <= whole
    assert whole - direct == {f"{n}-{i}" for n in ("regionnet", "object-regions") for i in (2, 3)}
    assert direct <= whole


@pytest.mark.parametrize(("part", "iterations"), [("1", 3), ("2", 6)])
def test_full_supervision_learns_from_ground_truth(made, photos, part, iterations):
    """As long as the first round's network, and as all rounds' together."""
    work = Workspace.read(made.run / "tables" / f"full-{part}")
    assert work.finished("segmenter").read_log()[-1]["iteration"] == iterations
    labels, working = (
        work.finished("ground-truth").maps("labels"),
        WorkingPhotos(photos.dataset, 64),
    )
    for name in photos.train:
        shape = working.image(photos.dataset.names.index(name)).shape[:2]
        expected = labels_at(photos.labels[name], shape)
        assert np.array_equal(decode_mask(labels.get_bytes(name)), expected)
    used = {stage.name for stage in work.summary()}
    assert used == {"ground-truth", "segmenter", "predictions", "scores"}


def test_without_ground_truth_of_all_training_photos(result, photos, tmp_path):
    """Full supervision is a dash, and nothing is trained on the rest; other figures stay."""
    for missing in (1, len(photos.train)):
        run = Path(shutil.copytree(result.folder, tmp_path / str(missing)))
        names = (*photos.train[missing:], *photos.val)
        truth = GroundTruth({name: photos.labels[name] for name in names}, photos.dataset.classes)
        with counting(WORK) as count:
            made = Made(run, tabulate(photos, run, "3", truth=truth), count)
        rows = made.by_label("3")
        assert [rows[label] for label in FULL] == [(None,) * 4] * 2
        assert not any("reaches" in note for note in made.notes("3"))
        assert made.worked == {"RegionNet": 1, "PixelNet": 1}
        assert isinstance(rows["iter2 PixelNet"][3], float)
        assert (rows["iter2 PixelNet"][1] is None) == (missing > 1)


def test_the_same_call_again_changes_nothing(made, photos):
    before = contents(made.run)
    with counting(WORK) as count:
        again = tabulate(photos, made.run)
    assert count == {}
    assert again.tables == made.tables.tables
    changed = {name for name, content in contents(made.run).items() if content != before.get(name)}
    assert all(Path(name).name in (".lock", "workspace.json") for name in changed)
    assert json.loads(made.tables.json.read_text())["recipe"] == "mcof"


@pytest.mark.parametrize("stop_at", [("RegionNet", 1), ("PixelNet", 2)], ids=str)
def test_an_interrupted_call_goes_on(made, result, photos, tmp_path, stop_at):
    run = Path(shutil.copytree(result.folder, tmp_path / "run"))
    with counting(WORK, stop_at) as count, pytest.raises(KeyboardInterrupt):
        tabulate(photos, run, "fig8")
    assert not (run / "tables" / "mcof.md").exists()
    with counting(WORK) as again:
        tables = tabulate(photos, run, "fig8")
    assert count + again == {"RegionNet": 1, "PixelNet": 3} | {
        stop_at[0]: {"RegionNet": 1, "PixelNet": 3}[stop_at[0]] + 1
    }
    assert list(tables.tables[0].rows) == made.rows("fig8")


def test_a_run_without_crf_and_with_one_round(photos, tmp_path):
    """Figures of PixelNet itself; the run's rounds are the tables'."""
    config = {**QUICK, **MINING, "seeder_side": 64, "rounds": 1, "refiner": "none"}
    config["supplement"] = False
    dataset = photos.dataset.select((*photos.train[:6], *photos.val[:2]))
    run = train(
        dataset,
        "mcof",
        config,
        val=photos.val[:2],
        ground_truth=photos.truth(),
        out=tmp_path / "run",
        options=OPTIONS,
    )
    tables = make_tables(
        "mcof",
        dataset,
        run.folder,
        val=photos.val[:2],
        ground_truth=photos.truth(),
        only=("4",),
        threads=1,
    )
    rows = {row[0]: row[1:] for row in tables.tables[0].rows}
    assert rows["w/o saliency refinement, paper"] == (41.8,)
    scores = {(score.stage, score.split): score.miou for score in run.scores}
    expected = 100 * scores["PixelNet, round 1", "val"]
    assert rows["w/o saliency refinement, ours"] == pytest.approx((expected,))
    assert isinstance(rows["w/ saliency refinement, ours"][0], float)
