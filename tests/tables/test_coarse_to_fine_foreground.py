"""Table IV (Jing et al., IV-F): both networks after the first and the last round."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guided_runs import RECURSION, WITHOUT_CLASSIFIER
from small_runs import OPTIONS, Photos
from tagseg.data.masks import decode_mask
from tagseg.data.working import labels_at
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE, Labels
from tagseg.recipes.coarse_to_fine import rounds as recursion
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result, train
from tagseg.tables import coarse_to_fine_foreground as module
from tagseg.tables.base import Table
from tagseg.tables.making import make_tables

RECIPE = "coarse_to_fine_foreground"
ROUNDS = 3
SETTINGS: dict[str, Any] = {
    **WITHOUT_CLASSIFIER,
    **RECURSION,
    "rounds": ROUNDS,
    "foreground_limits": (0.0, 1.0),
}
RENAMED = {"aeroplane": "Airplane", "car": "CAR", "unicorn": "horse"}  # a unicorn is nowhere
PAPER_ROWS = ("paper, MIT subset", "paper, MIT full", "UnsupervisedSeg [20], paper, MIT subset")
FPN, DEEPLAB = "Feature Pyramid Network", "DeepLab-v2"
N_TRAIN = 10


@contextmanager
def trained_networks() -> Iterator[list[str]]:
    """The kinds of the networks that are trained, in order."""
    found: list[str] = []
    real = recursion.fit_on_grid

    def fit(net: Any, *args: Any, **named: Any) -> Any:
        found.append(type(net).__name__)
        return real(net, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recursion, "fit_on_grid", fit)
        yield found


@dataclass(frozen=True)
class Made:
    run: Path
    table: Table
    trained: list[str]

    @property
    def rows(self) -> dict[str, tuple[Any, ...]]:
        return {str(row[0]): row[1:] for row in self.table.rows}

    def measured(self) -> list[str]:
        return [str(row[0]) for row in self.table.rows[len(PAPER_ROWS) :]]


@pytest.fixture(scope="module")
def photos(photos: Photos) -> Photos:
    """Two of the classes are called as the paper's, but for case; so is one without photos."""
    dataset = photos.dataset.select((*photos.train[:N_TRAIN], *photos.val))
    classes = tuple(RENAMED.get(name, name) for name in dataset.classes)
    assert {*RENAMED.values()} < {*classes}
    return replace(photos, dataset=replace(dataset, classes=classes))


def run_of(photos: Photos, out: Path, **changed: Any) -> Result:
    return train(
        photos.dataset,
        RECIPE,
        {**SETTINGS, **changed},
        val=photos.val,
        ground_truth=photos.truth(),
        out=out,
        options=OPTIONS,
    )


def tabulate(photos: Photos, run: Path, truth: GroundTruth | None = None) -> Made:
    with trained_networks() as found:
        tables = make_tables(
            RECIPE,
            photos.dataset,
            run,
            val=photos.val,
            ground_truth=truth or photos.truth(),
            threads=1,
        ).tables
    assert len(tables) == 1
    return Made(run, tables[0], found)


@pytest.fixture(scope="module")
def result(photos, tmp_path_factory) -> Result:
    return run_of(photos, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def made(result, photos, tmp_path_factory) -> Made:
    """A run with its table, and the networks that this took."""
    run = Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("tables") / "run"))
    return tabulate(photos, run)


def predicted(folder: Path, photos: Photos, number: int, maps: str = "smooth") -> dict[str, Labels]:
    """What a round's network found in the validation photos, at their own size."""
    work = Workspace.read(folder)
    store = work.finished(f"predictions-{number}").maps(maps)
    found = {
        name: labels_at(decode_mask(store.get_bytes(name)), photos.labels[name].shape)
        for name in photos.val
    }
    work.close()
    return found


def expected_row(
    found: dict[str, Labels], photos: Photos, names: tuple[str, ...] | None = None
) -> tuple[list[int], list[Any]]:
    """Photos of each class, and the mean IoU of their foreground in per cent, and its average."""
    values: list[list[float]] = [[] for _ in photos.dataset.classes]
    for name in names if names is not None else photos.val:
        truth = photos.labels[name]
        known = truth != IGNORE
        ours, theirs = found[name][known] > 0, truth[known] > 0
        if not theirs.any():
            continue
        iou = 100 * np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs)
        tags = photos.dataset.tags[photos.dataset.names.index(name)]
        for k in np.flatnonzero(tags):
            values[k].append(iou)
    means = [float(np.mean(of_class)) if of_class else None for of_class in values]
    average = np.mean([mean for mean in means if mean is not None])
    row = [None if mean is None else pytest.approx(mean) for mean in means]
    return [len(of_class) for of_class in values], [*row, pytest.approx(float(average))]


def test_the_papers_figures():
    """The average is that of the three classes."""
    assert list(module.TABLES) == ["4"]
    assert module.TABLES["4"].split == "val"
    subset, full = zip(*module._PAPER.values(), strict=True)
    for values, average in (
        (subset, module._PAPER_AVERAGE[0]),
        (full, module._PAPER_AVERAGE[1]),
        (tuple(module._UNSUPERVISED.values()), module._UNSUPERVISED_AVERAGE),
    ):
        assert np.mean(values) == pytest.approx(average, abs=0.4)


def test_the_papers_figures_stand_in_the_columns_of_its_classes(made, photos):
    """Whatever the case of their names; those of others are empty."""
    classes = photos.dataset.classes
    assert tuple(made.rows)[:3] == PAPER_ROWS
    expected = (
        ({"Airplane": 64.92, "CAR": 77.6, "horse": 60.36}, 67.6),
        ({"Airplane": 65.88, "CAR": 77.07, "horse": 65.82}, 69.9),
        ({"Airplane": 61.37, "CAR": 70.52, "horse": 55.09}, 62.32),
    )
    for row, (figures, average) in zip(PAPER_ROWS, expected, strict=True):
        found = dict(zip((*classes, "average"), made.rows[row], strict=True))
        assert found == dict.fromkeys(classes) | figures | {"average": average}


def test_columns_tell_how_many_photos_count(made, photos):
    counts, _ = expected_row(predicted(made.run, photos, 1), photos)
    named = [f"{c} ({n})" for c, n in zip(photos.dataset.classes, counts, strict=True)]
    assert made.table.columns == ("", *named, "average")
    assert counts[-1] == 0
    assert max(counts) > 1
    assert sum(counts) > len(photos.val), "photos of several classes count for each"


@pytest.mark.parametrize(("label", "variant"), [(FPN, "fpn"), (DEEPLAB, "deeplab")])
def test_rows_after_the_first_and_the_last_round(made, photos, label, variant):
    rows = []
    for number in (1, ROUNDS):
        found = predicted(made.run / "tables" / variant, photos, number)
        _, expected = expected_row(found, photos)
        row = made.rows[f"{label}, round {number}"]
        assert list(row) == expected
        assert row[photos.dataset.classes.index("horse")] is None
        rows.append(row)
    assert rows[0] != rows[1]
    assert [name for name in made.measured() if name.startswith(label)] == [
        f"{label}, round {number}" for number in (1, ROUNDS)
    ]


def test_the_fpns_rows_are_the_runs_own_scores(made, result):
    scores = {score.stage: score for score in result.scores if score.split == "val"}
    for number in (1, ROUNDS):
        score = scores[f"segmenter + CRF, round {number}"]
        *row, average = made.rows[f"{FPN}, round {number}"]
        for value, found in zip(row, score.foreground, strict=True):
            assert value == (None if found.iou is None else pytest.approx(100 * found.iou))
        assert average == pytest.approx(100 * score.foreground_average)


def test_the_runs_own_network_is_not_trained_again(made, photos):
    assert made.trained == ["AsppNet"] * ROUNDS
    again = tabulate(photos, made.run)
    assert again.trained == []
    assert again.table == made.table


def test_a_run_with_deeplab_that_had_settled(photos, tmp_path):
    """Rows are the same; the rounds that the run left out are run."""
    run = run_of(photos, tmp_path / "run", network="deeplab", converged=0.001)
    assert not list(run.folder.glob("stages/*-deeplab-3"))
    found = tabulate(photos, run.folder)
    assert sorted(found.trained) == ["AsppNet"] + ["FpnNet"] * ROUNDS


def test_a_run_of_one_round_without_crf(photos, tmp_path):
    """First and last are the same: a row for each network, of what the network itself answers."""
    run = run_of(photos, tmp_path / "run", rounds=1, refiner="none")
    found = tabulate(photos, run.folder)
    assert found.measured() == [f"{FPN}, round 1", f"{DEEPLAB}, round 1"]
    assert found.trained == ["AsppNet"]
    _, expected = expected_row(predicted(run.folder, photos, 1, "raw"), photos)
    assert list(found.rows[f"{FPN}, round 1"]) == expected


def test_other_ground_truth_is_scored_anew(made, photos, tmp_path):
    """Of fewer photos: nothing is trained, and those count alone."""
    run = Path(shutil.copytree(made.run, tmp_path / "run"))
    names = photos.val[::2]
    truth = GroundTruth({name: photos.labels[name] for name in names}, photos.dataset.classes)
    found = tabulate(photos, run, truth)
    assert found.trained == []
    for label, variant in ((FPN, "fpn"), (DEEPLAB, "deeplab")):
        masks = predicted(made.run / "tables" / variant, photos, ROUNDS)
        counts, expected = expected_row(masks, photos, names)
        shown = [n > 0 or c == "horse" for c, n in zip(photos.dataset.classes, counts, strict=True)]
        assert not all(shown), "a class that no photo counts for, and that the paper has not"
        expected = [value for value, keep in zip(expected, [*shown, True], strict=True) if keep]
        assert list(found.rows[f"{label}, round {ROUNDS}"]) == expected
        kept = [n for n, keep in zip(counts, shown, strict=True) if keep]
        assert [f"({n})" for n in kept] == [c.split()[-1] for c in found.table.columns[1:-1]]
    assert found.table.columns != made.table.columns
