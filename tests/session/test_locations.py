"""Average locations of a run: which photos they are of, and how they are kept."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.locations import average_locations, read_averages, write_averages
from tagseg.stages.context import Run
from tagseg.stages.outcome import Locations

CLASSES = ("a", "b")
TAGS = np.array([[True, False], [True, True], [False, False], [False, True]])


@pytest.fixture
def run(tmp_path):
    pictures = [np.full((8, 16, 3), 9, np.uint8)] * len(TAGS)
    dataset = Dataset.from_arrays(pictures, TAGS, CLASSES)
    settings = {"options": {}, "setup": {}}
    work = Workspace.open(tmp_path / "run", recipe="toy", settings=settings, classes=CLASSES)
    with work:
        setup = SimpleNamespace(threads=2)
        yield Run(WorkingPhotos(dataset, 16), "photos", None, "none", setup, work, Progress())


def kind(run: Run) -> Locations:
    """In photo i each class has i / 10 everywhere, but a last one that has twice that."""

    def maps(index: int):
        values = np.arange(1, TAGS[index].sum() + 1) * index / 10
        return np.broadcast_to(values[:, None, None], (len(values), 4, 4))

    with run.stage("guessing", {}, []) as stage:
        return Locations("guess", maps, stage)


def test_each_photo_counts_for_each_of_its_tags(run):
    (found,) = average_locations(run, [kind(run)], None)
    assert list(found.photos) == [2, 2]
    assert found.maps[:, 0, 0] == pytest.approx([(0 + 0.1) / 2, (0.2 + 0.3) / 2])
    (some,) = average_locations(run, [kind(run)], None, [0, 2])
    assert list(some.photos) == [1, 0]


def test_ground_truth_is_of_annotated_photos(run):
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 8:] = 2
    mask[:4] = 255
    name = run.photos.names[1]
    true, guess = average_locations(run, [kind(run)], GroundTruth({name: mask}, CLASSES))
    assert (true.title, list(true.photos), list(guess.photos)) == ("ground truth", [1, 1], [2, 2])
    assert not true.maps[0].any()
    assert true.maps[1][40, [0, 63]].tolist() == [0, 1]
    assert not true.maps[1][:32].any(), "nothing is known there"
    none = average_locations(run, [kind(run)], GroundTruth({}, CLASSES))
    assert [found.title for found in none] == ["guess"]
    assert average_locations(run, [], None) == []


def test_what_is_kept_is_read_again(run):
    averages = average_locations(run, [kind(run)], None)
    with run.stage("found", {}, []) as stage:
        write_averages(stage, averages)
    (read,) = read_averages(stage)
    assert (read.title, read.photos) == (averages[0].title, averages[0].photos)
    np.testing.assert_array_equal(read.maps, averages[0].maps)
    with run.stage("nothing", {}, []) as empty:
        write_averages(empty, [])
    assert read_averages(empty) == []
