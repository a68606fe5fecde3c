"""What is said of each class: companions, reasons, and that every class has its line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from guided_runs import few_photos, open_run
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.evaluate.judge import shipped_judge
from tagseg.evaluate.trust import ClassTrust
from tagseg.maps import Image, Labels
from tagseg.recipes.union.diagnosis import companions_of, diagnosed, told_apart
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.stages.context import Run, Setup
from tagseg.stages.outcome import Prediction
from tagseg.training import Execution
from union_runs import eye_of

CLASSES = ("dog", "leash", "cat", "unicorn", "sky")


def tags_of(*photos: str) -> np.ndarray:
    """A row a photo, of the first letters of its classes."""
    return np.array([[name[0] in photo for name in CLASSES] for photo in photos], bool)


@pytest.mark.parametrize(
    ("photos", "tag", "companions"),
    [
        (["dl", "dl", "c"], 0, {1: 1.0}),
        (["dl", "dl", "c"], 1, {0: 1.0}),
        (["dl", "dl", "c"], 2, {}),
        (["dl", "d", "d", "d"], 0, {1: 0.25}),
        # A class that has more photos without than with it can be told from those.
        (["dl", "l", "l"], 0, {}),
        (["dl", "l", "l"], 1, {0: 1 / 3}),
        (["dl", "l"], 0, {}),  # a half is not most
        (["dl", "dl", "l"], 0, {1: 1.0}),
        (["dls", "dls", "s"], 0, {1: 1.0, 4: 1.0}),
        (["dls", "dls", "s"], 4, {0: 2 / 3, 1: 2 / 3}),
        (["d", "c"], 3, {}),
        ([], 0, {}),
    ],
)
def test_companions(photos, tag, companions):
    tags = tags_of(*photos).reshape(-1, len(CLASSES))
    assert companions_of(tags, tag) == pytest.approx(companions)


class Bench:
    """A court to which every mask is worth the same."""

    spread = shipped_judge().spread

    def __init__(
        self, run: Run, quality: float | None = 0.8, area: float = 0.3, inside: float = 0.9
    ) -> None:
        self.run, self.row = run, [quality, area, inside, 0.3]
        self.candidates: Callable[[int], Sequence[Labels]] | None = None
        self.inputs: list[Any] = []

    def expected(self, candidates: Any, inputs: Any) -> list[list[list[float | None]]]:
        self.candidates, self.inputs = candidates, list(inputs)
        photos = self.run.photos
        counts = (photos.tags & photos.dataset.known[:, None]).sum(0)
        return [[self.row] * int(count) for count in counts]


def run_of(*photos: str, known: Sequence[bool] | None = None) -> Run:
    images = [np.zeros((20, 30, 3), np.uint8)] * len(photos)
    found = Dataset.from_arrays(images, tags_of(*photos), CLASSES)
    if known is not None:
        found = replace(found, known=np.array(known))
    setup = Setup("tiny", None, Execution())
    return Run(WorkingPhotos(found, 15), "", None, "", setup, Plan(), Progress())


def diagnosis(run: Run, bench: Bench | None = None, told: Any = None) -> dict[str, ClassTrust]:
    bench = bench or Bench(run)
    stage: Any = SimpleNamespace(name="masks")
    masks = Prediction("masks", "", "train", lambda index: np.zeros((20, 30), np.uint8), stage)
    found = diagnosed(run, bench, masks, [], told)  # type: ignore[arg-type]
    assert tuple(trust.name for trust in found) == CLASSES
    return {trust.name: trust for trust in found}


def test_every_class_has_its_line_in_label_order():
    found = diagnosis(run_of(*["d"] * 6, *["l"] * 6, *["c"] * 6))
    assert [found[name].photos for name in CLASSES] == [6, 6, 6, 0, 0]
    assert found["dog"].trusted
    assert found["dog"].expected == pytest.approx(0.8)
    for name in ("unicorn", "sky"):
        assert found[name].expected is None
        assert found[name].reasons == ("no training photo has its tag, so it has no masks",)


def test_a_class_that_is_in_every_photo():
    found = diagnosis(run_of(*["ds"] * 6, *["ls"] * 6))
    assert found["sky"].photos == 12
    assert found["sky"].reasons[0].startswith("it is in every photo: ")
    assert found["sky"].low == 0
    assert found["dog"].trusted, "the sky is elsewhere too"


def test_photos_of_unknown_tags_say_nothing():
    """Neither that a class is missing in them nor that it is there."""
    known = [True] * 12 + [False] * 3
    found = diagnosis(run_of(*["ds"] * 6, *["ls"] * 6, "", "d", "l", known=known))
    assert found["sky"].reasons[0].startswith("it is in every photo: ")
    assert [found[name].photos for name in ("dog", "leash", "sky")] == [6, 6, 12]
    known = [True] * 12 + [False] * 7
    found = diagnosis(run_of(*["dl"] * 6, *["c"] * 6, *["l"] * 7, known=known))
    assert found["dog"].reasons[0].startswith("dog always comes with leash")


def test_classes_that_always_come_together():
    found = diagnosis(run_of(*["dl"] * 6, *["c"] * 6))
    for name, other in (("dog", "leash"), ("leash", "dog")):
        (reason,) = found[name].reasons
        assert reason.startswith(f"{name} always comes with {other}: the tags cannot tell them ap")
        assert not found[name].trusted
    assert found["cat"].trusted


def test_one_that_comes_with_what_is_mostly_elsewhere():
    """What a leash looks like is learned from its other photos, so the dog is what is left."""
    found = diagnosis(run_of(*["dl"] * 6, *["l"] * 7, *["c"] * 6))
    assert found["dog"].trusted
    assert found["leash"].trusted


def test_a_class_of_three_photos():
    found = diagnosis(run_of(*["d"] * 3, *["c"] * 6))
    assert found["dog"].reasons == ("only 3 photos",)
    assert found["cat"].trusted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((0.8, 0.95), "its masks cover 95 % of each photo"),
        ((0.0, 0.0), "its masks are empty in 100 % of its photos"),
        ((0.2, 0.3), "its masks are not what makes the classifier see it"),
        ((None, 0.01), "its masks are smaller than any that the judge knows"),
        ((0.8, 0.3, 0.1), "the classifier sees it around its masks rather than in them"),
    ],
)
def test_what_masks_tell(row, reason):
    run = run_of(*["d"] * 6, *["c"] * 6)
    found = diagnosis(run, Bench(run, *row))["dog"]
    assert found.reasons[0].startswith(reason)
    assert found.expected == (None if row[0] is None else pytest.approx(row[0]))


@pytest.mark.parametrize("told", [[0.99, 0.3, None, None, None], None])
def test_a_class_that_the_classifier_does_not_find_again(told):
    found = diagnosis(run_of(*["d"] * 6, *["l"] * 6), told=told)
    assert found["dog"].trusted
    assert found["leash"].trusted == (told is None)
    if told is not None:
        (reason,) = found["leash"].reasons
        assert "with an average precision of 0.30 only" in reason


def test_the_range_is_wider_than_that_of_scenes():
    """By twice, as photos are not the scenes that the judge was fitted to."""
    found = diagnosis(run_of(*["d"] * 400, *["c"] * 6))["dog"]
    assert found.expected is not None
    assert found.low is not None
    assert found.expected - found.low == pytest.approx(2 * shipped_judge().spread, abs=0.002)


# Tags that are wrong, by photos whose colours say what they show


def coloured(*photos: str) -> list[Image]:
    """Photos (24, 24, 3) in the colour of the first class that they show."""
    found = []
    for photo in photos:
        image = np.full((24, 24, 3), 40, np.uint8)
        image[..., [name[0] for name in CLASSES].index(photo[0]) % 3] = 220
        found.append(image)
    return found


@contextmanager
def run_on(images: list[Image], tags: np.ndarray, folder: Path) -> Iterator[Run]:
    dataset = Dataset.from_arrays(images, tags, CLASSES)
    with open_run(dataset, folder, side=24, recipe="union") as run:
        yield run


@pytest.mark.parametrize("swapped", [0.0, 0.2])
def test_tags_that_are_swapped_in_a_fifth_of_the_photos(tmp_path, swapped):
    """The classifier goes by what is shown, so it does not find wrong tags again."""
    shown = ["d"] * 20 + ["l"] * 20
    tags = tags_of(*shown)
    for index in range(0, len(shown), 5) if swapped else ():
        tags[index, :2] = tags[index, 1::-1]
    with run_on(coloured(*shown), tags, tmp_path / "run") as run:
        told = told_apart(run, eye_of(run), 24)
        found = diagnosis(run, told=told)
    for name, share in zip(("dog", "leash"), told, strict=False):
        if not swapped:
            assert share == 1
            assert found[name].trusted
        else:
            assert share is not None
            assert share < 0.85
            assert "check the tags" in found[name].reasons[0]


def test_how_well_classes_are_told(photos, tmp_path):
    """Among photos of known tags; not of those that no photo has, and measured once."""
    few = few_photos(photos)
    found = []
    for times in (1, 2):
        with open_run(few, tmp_path / "run", recipe="union") as run:
            eye = eye_of(run)
            found.append(told_apart(run, eye, 64))
            assert eye.model.pictures == (len(few) if times == 1 else 0)
    first, again = found
    assert first == again
    assert [value is None for value in first] == (~few.tags[few.known].any(0)).tolist()
    assert all(0 < value <= 1 for value in first if value is not None)


def test_masks_are_judged_at_working_size_beside_the_labels_of_each_round():
    run = run_of(*["d"] * 2)
    bench, stages = Bench(run), [SimpleNamespace(name=name) for name in ("masks", "one", "two")]
    rounds: list[Any] = []
    for value in (1, 2):
        rounds.append(lambda index, value=value: np.full((10, 15), value, np.uint8))
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :10] = 1
    masks = Prediction("masks", "", "train", lambda index: mask, stages[0])  # type: ignore[arg-type]
    diagnosed(run, bench, masks, rounds)  # type: ignore[arg-type]
    assert bench.inputs == [stages[0], *rounds]
    assert bench.candidates is not None
    found = bench.candidates(0)
    assert [labels.shape for labels in found] == [(10, 15)] * 3
    assert found[0].mean() == pytest.approx(1 / 3)
    assert [labels.max() for labels in found[1:]] == [1, 2]
