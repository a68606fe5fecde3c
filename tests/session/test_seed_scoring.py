"""Precision and recall of score maps in a run: which photos, which rows, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from small_runs import N_VAL, OPTIONS, QUICK
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.evaluate.seeds import CentreMeanShape, SeedCurves
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.report.page import SeedScore
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session import scoring
from tagseg.session.scoring import Findings, examine
from tagseg.session.seed_scoring import find_seed_maps, score_seeds, seed_scores_from
from tagseg.session.train import train
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Outcome, Seeds
from tagseg.stages.stage import ScoreMaps

CLASSES = ("a", "b")
SHAPE, SMALL = (20, 24), (10, 12)


def dataset(count: int, known: Any = None, prefix: str = "val") -> Dataset:
    pictures = [np.full((*SHAPE, 3), 10 * i, np.uint8) for i in range(count)]
    tags = np.array([[i % 2 == 0, i % 3 != 1] for i in range(count)])
    made = Dataset.from_arrays(pictures, tags, CLASSES)
    made = replace(made, names=tuple(f"{prefix} {i}" for i in range(count)))
    return made if known is None else replace(made, tags=tags & known[:, None], known=known)


@pytest.fixture
def run(tmp_path):
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        train, val = dataset(7, prefix="train"), dataset(4)
        yield Run(
            WorkingPhotos(train, 12),
            "photos",
            WorkingPhotos(val, 12),
            "val",
            SimpleNamespace(),
            work,
            Progress(),
        )


def without_val(run: Run) -> Run:
    return replace(run, val=None, val_key="none")


def truth_of(*photos: WorkingPhotos) -> GroundTruth:
    """Random labels, some of 255; none of one photo of each set."""
    rng = np.random.default_rng(7)
    labels = {}
    for part in photos:
        for name in part.names[:-1]:
            coarse = rng.choice(np.array([0, 0, 1, 2, 255], np.uint8), (5, 6))
            labels[name] = np.kron(coarse, np.ones((4, 4), np.uint8))
    return GroundTruth(labels, CLASSES)


def toy_scores(split: Split, index: int) -> np.ndarray:
    rng = np.random.default_rng([len(split), index])
    scores = rng.integers(0, 11, (2, *SMALL)).astype(np.float32) / 10
    return scores * (rng.random(SMALL) < 0.7)


def outcome_of(run: Run, *seeds: tuple[str, float | None]) -> Outcome:
    def maps(name: str) -> Any:
        def maps_of(split: Split) -> Any:
            with run.stage(f"{run.split(split).prefix}maps-{name}", {}, []) as stage:
                pass
            return ScoreMaps(stage, lambda index: toy_scores(split, index))

        return maps_of

    of_all = tuple(Seeds(name, f"maps {name}", limit, maps(name)) for name, limit in seeds)
    return Outcome(None, (), seeds=of_all)  # type: ignore[arg-type]


def by_hand(run: Run, truth: GroundTruth, split: Split) -> tuple[SeedCurves, SeedCurves]:
    photos = run.split(split).photos
    ours, baseline, shape = SeedCurves(2), SeedCurves(2), CentreMeanShape()
    indices = [i for i, name in enumerate(photos.names) if truth.has(name)]
    labels = {i: labels_at(truth.labels(photos.names[i], SHAPE), SMALL) for i in indices}
    for i in indices:
        shape.update(labels[i])
    for i in indices:
        ours.update(toy_scores(split, i), labels[i])
        baseline.update(shape.score_map(photos.tags[i], SMALL), labels[i])
    return ours, baseline


def assert_is(score: SeedScore, curves: SeedCurves) -> None:
    assert score.mean_precision == pytest.approx(curves.mean_precision())
    assert score.foreground_precision == pytest.approx(curves.foreground_precision())
    assert score.background_precision == pytest.approx(curves.background_precision())
    for found, side in ((score.foreground, "foreground"), (score.background, "background")):
        for axis in ("precision", "recall"):
            values = np.array(getattr(found, axis), float)  # None is NaN
            np.testing.assert_allclose(values, getattr(getattr(curves, side)(), axis), atol=1e-6)


@pytest.mark.parametrize("split", ["val", "train"])
def test_rows_are_the_curves_by_hand(run, split):
    """Of the validation photos where there are any, else of the training photos."""
    run = run if split == "val" else without_val(run)
    truth = truth_of(*(part for part in (run.photos, run.val) if part is not None))
    found = examine(run, outcome_of(run, ("x", 0.5), ("y", None)), truth, "t").seeds()
    assert [score.method for score in found] == ["maps x", "maps y", "centre mean shape"]
    ours, baseline = by_hand(run, truth, split)
    assert ours.mean_precision() > 0
    for score in found:
        assert score.split == split
        assert score.photos == len(run.split(split).photos) - 1
        assert_is(score, baseline if score.method == "centre mean shape" else ours)
    assert [score.threshold for score in found] == [0.5, None, None]
    assert [score.miou for score in found] == [pytest.approx(ours.miou(0.5)), None, None]


def test_a_threshold_that_the_curves_do_not_have(run):
    """Recipes take any; the run must not fail at its end because of it."""
    found = examine(run, outcome_of(run, ("x", 0.12345)), truth_of(run.photos, run.val), "t")
    assert found.seeds()[0].miou is None
    assert found.seeds()[0].threshold == 0.12345


def test_nothing_to_compare(run):
    outcome, truth = outcome_of(run, ("x", 0.5)), truth_of(run.photos, run.val)
    of_train = GroundTruth({n: truth.labels(n, SHAPE) for n in run.photos.names[:1]}, CLASSES)
    val = WorkingPhotos(dataset(4, np.array([True, True, False, True])), 12)
    untold = replace(run, val=val)
    assert len(find_seed_maps(run, outcome.seeds, truth)) == 1
    assert find_seed_maps(run, outcome.seeds, None) == []
    assert find_seed_maps(run, outcome_of(run).seeds, truth) == []
    assert find_seed_maps(untold, outcome.seeds, truth) == []
    assert find_seed_maps(run, outcome.seeds, of_train) == []
    assert score_seeds(run, [], truth, [0]) == []
    assert seed_scores_from([]) == []


def test_ground_truth_of_nothing_but_255(run):
    nothing = np.full(SHAPE, 255, np.uint8)
    truth = GroundTruth(dict.fromkeys(run.val.names, nothing), CLASSES)
    assert examine(run, outcome_of(run, ("x", 0.5)), truth, "t").seeds() == []


def test_a_sample_of_many_training_photos(run, monkeypatch):
    monkeypatch.setattr(scoring, "_MOST_TRAINING_PHOTOS", 3)
    run = without_val(run)
    found = examine(run, outcome_of(run, ("x", 0.5)), truth_of(run.photos), "t").seeds()
    assert found[0].photos == 2  # of the photos 0, 3 and 6, the last of which has no ground truth


def test_findings_of_version_0_1_have_none(run):
    with run.stage("findings", {}, []) as stage:
        stage.save_json("scores", [])
    assert Findings(stage).seeds() == []


def test_a_run_and_its_report(go, photos, tmp_path):
    result = go("cam_baseline", out=tmp_path / "run")
    stage = Workspace.read(result.folder).finished("findings")
    rows = json.loads(stage.path("seeds.json").read_text())
    assert [row["method"] for row in rows] == ["class activation maps", "centre mean shape"]
    assert {row["photos"] for row in rows} == {N_VAL}
    assert list(result.seeds) == Findings(stage).seeds()
    page = result.report.read_text()
    for text in ("class activation maps", "centre mean shape", "mP"):
        assert text in page
    assert f"{100 * rows[0]['mean_precision']:.1f}" in page


def test_unknown_tags_of_validation_photos(photos, tmp_path):
    """Seeds are of known tags: with one unknown there are none, and the rest is as it was."""
    known = photos.dataset.known.copy()
    known[-1] = False
    dataset = replace(photos.dataset, tags=photos.dataset.tags & known[:, None], known=known)
    result = train(
        dataset,
        "cam_baseline",
        QUICK,
        val=photos.val,
        ground_truth=photos.truth(),
        options=OPTIONS,
    )
    assert result.seeds == ()
    assert {score.split for score in result.scores} == {"train", "val"}
    assert "centre mean shape" not in result.report.read_text()
