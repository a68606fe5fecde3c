"""What is in doubt of a run's tags, and what that does to labels and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import OPTIONS, QUICK
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.maps import IGNORE
from tagseg.recipes.cam_baseline import Config
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_config, make_setup
from tagseg.stages.context import Run
from tagseg.stages.settings import PhotoSettings, Settings
from tagseg.stages.stage import Declared, LabelMaps, label_maps
from tagseg.stages.tag_doubts import allowed_tags, completed, sure_labels, tag_doubts

N = 96
RED, BLUE = 0, 1
MISSING, UNSURE = 0, 8  # photos: red although not tagged, and red of which nobody knows


def squares() -> Dataset:
    """Photos of red squares, blue ones, or both; one lacks its tag, of one nobody knows."""
    rng = np.random.default_rng(2)
    images, tags = [], np.zeros((N, 2), bool)
    for i in range(N):
        image = rng.integers(100, 120, (48, 64, 3), np.uint8)
        tags[i] = (i % 4 == 0, i % 4 == 1) if i % 8 else (True, True)
        if tags[i, RED]:
            image[8:40, 4:28] = (230, 20, 20)
        if tags[i, BLUE]:
            image[8:40, 36:60] = (20, 20, 230)
        images.append(image)
    unsure = np.zeros_like(tags)
    tags[MISSING, RED] = tags[UNSURE, RED] = False
    unsure[UNSURE, RED] = True
    found = Dataset.from_arrays(images, tags, ("red", "blue"))
    return replace(found, unsure=unsure)


DATASET = squares()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    photos = WorkingPhotos(DATASET, 64)
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        yield Run(photos, "photos", None, "val", make_setup(OPTIONS), work, Progress())


def config(**values: Any) -> Config:
    return make_config(Config, {**QUICK, **values})


def given_labels(run: Run) -> LabelMaps:
    def make(index: int) -> np.ndarray:
        labels = np.zeros((48, 64), np.uint8)
        labels[8:40, 36:60] = 2 if run.photos.tags[index, BLUE] else 0
        return labels

    return label_maps(run, Declared("given"), make)


def without_marks(run: Run) -> Run:
    return replace(run, photos=WorkingPhotos(replace(DATASET, unsure=None), 64))


def test_complete_tags_have_no_doubts_and_no_stage(run: Run) -> None:
    run, labels = without_marks(run), given_labels(run)
    assert tag_doubts(run, config()) is None
    assert sure_labels(run, config(), labels) is labels
    tags, decided_by = allowed_tags(run, config())
    assert tags is run.photos.tags
    assert decided_by == []
    assert run.worked == ["given"]


@pytest.mark.parametrize("settings", [PhotoSettings(), Settings()])
def test_recipes_without_tags_have_none(run: Run, settings: Settings) -> None:
    assert tag_doubts(run, settings) is None


def test_a_missing_tag_is_found_and_so_is_what_nobody_knows(run: Run) -> None:
    doubts = tag_doubts(run, config(tags_are="incomplete"))
    assert doubts is not None
    missing = doubts.missing(0.5)
    assert missing[MISSING, RED]
    assert missing[UNSURE, RED]
    assert int(missing.sum()) == 2
    assert not doubts.confidence[UNSURE, RED]  # nothing was said of it that could be wrong
    assert not doubts.wrong(0.5).any()


def test_a_mark_alone_is_asked_about_with_complete_tags(run: Run) -> None:
    doubts = tag_doubts(run, config())
    assert doubts is not None
    assert np.argwhere(doubts.missing(0.5)).tolist() == [[UNSURE, RED]]


def test_what_is_surely_absent_is_not_in_doubt_and_decides_on_the_key(
    run: Run, tmp_path: Path
) -> None:
    absent = np.zeros_like(DATASET.tags)
    absent[MISSING, RED] = True
    before = tag_doubts(run, config(tags_are="incomplete"))
    photos = WorkingPhotos(replace(DATASET, absent=absent), 64)
    with Workspace.open(tmp_path / "other", recipe="toy", settings={}) as work:
        said = replace(run, photos=photos, workspace=work)
        after = tag_doubts(said, config(tags_are="incomplete"))
    assert before is not None
    assert after is not None
    assert not after.confidence[MISSING].any()
    assert before.stage.key != after.stage.key


def test_background_of_a_missing_class_is_ignored(run: Run) -> None:
    labels = given_labels(run)
    sure = sure_labels(run, config(tags_are="incomplete"), labels)
    assert sure.stage.name == "sure-given"
    ignored = sure(MISSING) == IGNORE
    assert ignored[8:40, 4:28].mean() > 0.4 > ignored[:8].mean()  # most where it is red
    assert (sure(MISSING)[8:40, 36:60] == 2).mean() > 0.7  # which is tagged, and seen there
    for index in set(range(N)) - {MISSING, UNSURE}:
        np.testing.assert_array_equal(sure(index), labels(index))
    assert sure_labels(run, config(tags_are="incomplete"), sure) is sure


def test_labels_of_wrong_tags_are_ignored(run: Run) -> None:
    tags = DATASET.tags.copy()
    tags[2, BLUE] = True  # a photo of nothing
    noisy = replace(run, photos=WorkingPhotos(replace(DATASET, tags=tags), 64))
    sure = sure_labels(noisy, config(tags_are="noisy"), given_labels(noisy))
    assert (sure(2)[8:40, 36:60] == IGNORE).all()
    assert (sure(1)[8:40, 36:60] == 2).all()


def test_masks_may_hold_what_is_probably_missing(run: Run) -> None:
    tags, decided_by = allowed_tags(run, config(tags_are="incomplete"))
    assert np.argwhere(tags & ~run.photos.tags).tolist() == [[MISSING, RED], [UNSURE, RED]]
    assert len(decided_by) == 1


def test_the_same_again_is_not_worked_on(run: Run) -> None:
    sure_labels(run, config(tags_are="incomplete"), given_labels(run))
    run.worked.clear()
    sure_labels(run, config(tags_are="incomplete"), given_labels(run))
    assert run.worked == []


def test_features_that_know_nothing_tell_nothing(run: Run) -> None:
    setup = make_setup(replace(OPTIONS, weights="none"))
    doubts = tag_doubts(replace(run, setup=setup), config(tags_are="incomplete"))
    assert doubts is not None
    assert not doubts.confidence.any()
    assert not doubts.unsure.any()


def test_a_planned_run_has_keys_alone(run: Run) -> None:
    plan = Plan()
    planned = replace(run, workspace=plan)
    labels = LabelMaps(given_labels(planned).stage, "labels", DATASET.names)
    sure_labels(planned, config(tags_are="incomplete"), labels)
    names = ["given", "tag-features", "tag-doubts", "likely-missing", "sure-given"]
    assert list(plan.records) == names


def test_surely_missing_tags_are_taken_as_given(run: Run) -> None:
    settings = config(tags_are="incomplete", completed_confidence=0.6)
    doubts = tag_doubts(run, settings)
    full = completed(run, settings)
    assert doubts is not None
    assert doubts.confidence[MISSING, RED] >= 0.6
    assert np.argwhere(full.photos.tags & ~run.photos.tags).tolist() == [[MISSING, RED]]
    assert full.photos_key != run.photos_key
    assert full.given is run
    left = tag_doubts(full, settings)
    assert left is not None
    assert left.stage.key == doubts.stage.key
    assert np.argwhere(left.missing(0.5)).tolist() == [[UNSURE, RED]]  # the other is not in doubt
    assert not left.wrong(0.5).any()
    assert sure_labels(full, settings, given_labels(full))(MISSING)[8:40, 36:60].all()


@pytest.mark.parametrize(
    "values",
    [
        {"tags_are": "complete"},
        {"tags_are": "noisy"},
        {"tags_are": "incomplete", "completed_confidence": None},
    ],
    ids=["complete", "noisy", "never"],
)
def test_tags_stay_as_given(run: Run, values: dict[str, Any]) -> None:
    assert completed(run, config(**values)) is run


def test_without_doubts_no_tag_is_added(run: Run) -> None:
    full = completed(run, config(tags_are="incomplete", completed_confidence=1.0))
    np.testing.assert_array_equal(full.photos.tags, run.photos.tags)


def test_a_planned_run_has_the_same_key_of_completed_photos(run: Run) -> None:
    settings = config(tags_are="incomplete")
    planned = completed(replace(run, workspace=Plan()), settings)
    assert planned.photos_key == completed(run, settings).photos_key
    others = completed(run, config(tags_are="incomplete", completed_confidence=0.7))
    assert others.photos_key != planned.photos_key
