"""Tables 1 to 5 and Figure 3 of Oh et al.: each row is a run of `guided` with its settings."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import OPTIONS, QUICK, Photos, contents
from tagseg.data.masks import decode_mask
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.fuse.guide_labels import oracle_mask
from tagseg.maps import IGNORE
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result, train
from tagseg.stages import classifier, large_fov, seeder
from tagseg.tables import guided
from tagseg.tables.guided import CRF_ROWS, GUIDES, TABLES
from tagseg.tables.making import Tables, make_tables


@dataclass(frozen=True)
class Made:
    run: Path
    tables: Tables
    worked: Counter[str]

    def rows(self, name: str) -> dict[str, tuple[Any, ...]]:
        table = next(t for t in self.tables.tables if t.name == name)
        return {str(row[0]): row[1:] for row in table.rows}

    def stage(self, variant: str, name: str) -> Any:
        return Workspace.read(self.run / "tables" / variant).finished(name)


def known_photos(photos: Photos) -> Any:
    """The photos with known tags: precision and recall of seeds need them."""
    return photos.dataset.subset(np.flatnonzero(photos.dataset.known))


def tabulate(photos: Photos, run: Path, *only: str, truth: GroundTruth | None = None) -> Tables:
    return make_tables(
        "guided",
        known_photos(photos),
        run,
        val=photos.val,
        ground_truth=truth or photos.truth(),
        only=only,
        threads=1,
    )


@pytest.fixture(scope="module")
def result(photos, tmp_path_factory) -> Result:
    return train(
        known_photos(photos),
        "guided",
        {**QUICK, "seeder_side": 64},
        val=photos.val,
        ground_truth=photos.truth(),
        out=tmp_path_factory.mktemp("runs") / "run",
        options=OPTIONS,
    )


@pytest.fixture(scope="module")
def made(result, photos, tmp_path_factory) -> Made:
    """A run with all its tables, and the trainings that they took."""
    run = Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("tables") / "run"))
    count: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (large_fov, "fit_on_grid"),
            (classifier, "train_tag_classifier"),
            (seeder, "train_tag_classifier"),
        ):
            function = getattr(module, name)

            def counted(*args: Any, name: str = name, function: Any = function, **named: Any):
                count[name] += 1
                return function(*args, **named)

            patch.setattr(module, name, counted)
        return Made(run, tabulate(photos, run), count)


def test_the_papers_figures():
    assert list(TABLES) == ["1", "fig3", "2", "3", "4", "5"]
    assert [guide.row.paper for guide in GUIDES.values()] == [38.7, 45.8, 46.2, 51.2, 56.9]
    assert [guide.precision_recall for guide in GUIDES.values()] == [
        (69, 37, 81, 95),
        (65, 52, 65, 52),
        (75, 51, 75, 51),
        (73, 59, 87, 95),
        (89, 91, 100, 99),
    ]
    assert [guide.with_crf for guide in GUIDES.values()] == [39.8, 48.8, None, 55.7, None]
    assert [row.paper for row in CRF_ROWS] == [37.5, 50.4, 46.4, 45.5, 45.2, 33.0, 37.6, 45.0, 44.2]
    assert [row.paper for row in CRF_ROWS if row.in_table_4] == [37.5, 50.4, 45.2, 37.6, 45.0]


def test_every_row_is_there_and_measured(made):
    assert {t.name: len(t.rows) for t in made.tables.tables} == {
        "1": 5,
        "fig3": 9,
        "2": 5,
        "3": 6,
        "4": 7,
        "5": 11,
    }
    for name in ("2", "3", "4", "5"):
        for label, row in made.rows(name).items():
            assert isinstance(row[-1], float), (name, label)
            assert row[-1] >= 0 or name == "3"


def test_figure_3_has_back_propagation_and_the_mean_shape(made):
    (table,) = [t for t in made.tables.tables if t.name == "fig3"]
    methods = ["GAP-LowRes", "GAP-HighRes", "GAP-ROI", "GAP-DeepLab"]
    methods += ["Vanilla backprop", "Guided backprop", "Excitation backprop", "centre mean shape"]
    sides = ("foreground", "background")
    assert table.columns == ("recall", *(f"{m} {side}" for m in methods for side in sides))
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    shape = columns["centre mean shape background"]
    assert all(isinstance(value, float) and 0 <= value <= 100 for value in shape[:5])
    of_gradients = [columns[f"{m} background"] for m in methods[4:7]]
    assert len(set(of_gradients)) == 3, "three methods, three curves"


def test_equal_work_is_done_once(made):
    """Three more seeders and G1's classifier; the run's own seeder and segmenter are taken over."""
    assert made.worked["train_tag_classifier"] == 4
    # Seeds, G0, G1, oracle, full; then with losses v1, v2 and CRF seeds; then four with ROI.
    assert made.worked["fit_on_grid"] == 5 + 3 + 4


def test_rows_that_stand_in_several_tables_are_the_same(made):
    four, five = made.rows("4"), made.rows("5")
    assert all(five[label] == row for label, row in four.items())
    assert four["GAP-HighRes: saliency, G2"][-1] == made.rows("3")["G2"][-2]
    assert four["GAP-HighRes: no CRF"][-1] == made.rows("2")["Seeds only"][-1]


def test_table_3_is_in_per_cent_of_the_last_row(made):
    rows = made.rows("3")
    full = rows["DeepLabv1, ground truth"]
    assert full[0] == 67.6
    assert full[3] == pytest.approx(100)
    for row in rows.values():
        assert row[3] == pytest.approx(100 * row[2] / full[2])
        assert row[1] is None or row[1] == pytest.approx(100 * row[0] / 67.6)


def test_precision_and_recall_of_guide_labels(made, photos):
    """Against a count of pixels, class by class."""
    dataset = known_photos(photos)
    names = [name for name in dataset.names if name not in photos.val]
    classes = len(dataset.classes)
    right, found, there = (np.zeros(classes + 1) for _ in range(3))
    labels = made.stage("g2", "guide-labels").maps("labels")
    for name in names:
        truth = photos.labels[name]
        guide = labels_at(decode_mask(labels.get_bytes(name)), truth.shape)
        for label in range(classes + 1):
            counted = truth != IGNORE
            right[label] += ((guide == label) & (truth == label) & counted).sum()
            found[label] += ((guide == label) & counted).sum()
            there[label] += (truth == label).sum()
    with np.errstate(invalid="ignore"):
        precision, recall = right / found, right / there
    expected = [np.nanmean(precision[1:]), np.nanmean(recall[1:]), precision[0], recall[0]]
    assert made.rows("2")["G2"][5:9] == pytest.approx(tuple(100 * np.array(expected)))


def test_the_oracle_is_salient_where_the_ground_truth_is(made, photos):
    """No class outside of the ground truth's foreground but what seeds that touch none leave."""
    dataset = known_photos(photos)
    working = WorkingPhotos(dataset, 64)
    labels = made.stage("oracle", "guide-labels").maps("labels")
    right = total = 0
    for name in (name for name in dataset.names if name not in photos.val):
        shape = working.image(dataset.names.index(name)).shape[:2]
        truth = labels_at(photos.labels[name], shape)
        guide = decode_mask(labels.get_bytes(name))
        assert not (guide[truth == IGNORE] != IGNORE).any()
        known = oracle_mask(truth) & (guide != IGNORE)
        right, total = right + (guide[known] > 0).sum(), total + known.sum()
    assert total > 0
    assert right > 0.8 * total  # components under 1 % are not salient


def test_full_supervision_learns_from_ground_truth(made, photos):
    labels = made.stage("full", "ground-truth").maps("labels")
    dataset = known_photos(photos)
    working = WorkingPhotos(dataset, 64)
    for name in (name for name in dataset.names if name not in photos.val):
        shape = working.image(dataset.names.index(name)).shape[:2]
        expected = labels_at(photos.labels[name], shape)
        assert np.array_equal(decode_mask(labels.get_bytes(name)), expected)


def test_without_ground_truth_of_training_photos_there_are_no_upper_rows(result, photos, tmp_path):
    run = Path(shutil.copytree(result.folder, tmp_path / "run"))
    truth = GroundTruth({n: photos.labels[n] for n in photos.val}, photos.dataset.classes)
    made = tabulate(photos, run, "2", truth=truth)
    rows = {row[0]: row[6:] for row in made.tables[0].rows}
    assert rows["Saliency oracle"] == (None,) * 5
    assert rows["G2"][:4] == (None,) * 4
    assert isinstance(rows["G2"][4], float)


def test_the_same_call_again_changes_nothing(made, photos):
    before = contents(made.run)
    again = tabulate(photos, made.run)
    assert again.tables == made.tables.tables
    changed = {name for name, content in contents(made.run).items() if content != before.get(name)}
    assert all(Path(name).name in (".lock", "workspace.json") for name in changed)
    assert json.loads(made.tables.json.read_text())["recipe"] == "guided"


@pytest.mark.parametrize("seed", range(3))
def test_mean_precision_and_recall_against_loops(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (4, 5))
    counts[2, :] = 0  # a class that is nowhere in the ground truth
    counts[:, 3] = 0  # a class that is found nowhere
    precision, recall = [], []
    for label in range(4):
        found = sum(int(counts[row, label]) for row in range(4))
        there = sum(int(counts[label, column]) for column in range(5))
        precision.append(counts[label, label] / found if found else None)
        recall.append(counts[label, label] / there if there else None)

    def mean(values: list[Any]) -> float:
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    expected = [mean(precision[1:]), mean(recall[1:]), precision[0], recall[0]]
    assert guided._precision_recall(counts) == pytest.approx(expected)


def test_precision_at_a_recall_is_linear_between_thresholds():
    recall, precision = np.array([0.55, 0.35, 0.15]), np.array([0.4, 0.6, 1.0])
    found = guided._precision_at(recall, precision)
    assert found[:5] == pytest.approx([100, 90, 70, 55, 45])
    assert found[5:] == [None] * 4
