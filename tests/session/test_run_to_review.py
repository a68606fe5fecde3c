"""A run as it is opened for reviewing."""

from __future__ import annotations

import numpy as np
import pytest

from review_runs import CLASSES, COMMAND, TAGS, make_run, opened, write_tags
from tagseg.errors import DataError, WorkspaceError
from tagseg.session.run_to_review import regions_of


def test_training_photos_with_their_tags(tmp_path):
    run = opened(make_run(tmp_path))
    assert run.photos.names == ("a", "b", "c", "d", "e")
    assert run.classes == CLASSES
    assert run.photos.tags.tolist() == [[n in TAGS[p] for n in CLASSES] for p in "abcde"]
    assert run.notes == ("left out: 1 photos for validation, as no run is trained on them",)


def test_photos_that_came_since_are_left_out_and_told(tmp_path):
    made = make_run(tmp_path)
    (made.photos / "new.png").write_bytes((made.photos / "a.png").read_bytes())
    write_tags(made.photos, {**TAGS, "new": ("cat",)})
    run = opened(made)
    assert "new" not in run.photos.names
    assert "left out: 1 photos of which it made no mask" in run.notes


def test_other_classes_are_brought_to_those_of_the_run(tmp_path):
    made = make_run(tmp_path)
    (made.photos / "classes.txt").write_text("dog\nbird\ncat\n")
    run = opened(made)
    assert run.classes == CLASSES
    assert run.photos.tags[:3].tolist() == [[True, False], [False, True], [True, True]]
    (made.photos / "classes.txt").write_text("bird\n")
    (made.photos / "tags.csv").write_text("image,tags\na.png,bird\nf.png,bird\n")
    with pytest.raises(DataError, match=r"other classes \(bird\) than the run \(cat, dog\)"):
        opened(made)


def test_other_photos_are_told(tmp_path):
    made = make_run(tmp_path)
    other = make_run(tmp_path / "other", {"x": ("cat",), "y": ("dog",), "z": ("cat",)})
    (made.run / "stages").rename(tmp_path / "kept")
    (other.run / "stages").rename(made.run / "stages")
    with pytest.raises(DataError, match="a mask of none of these photos"):
        opened(made)


def test_a_folder_that_is_no_run_is_told(tmp_path):
    made = make_run(tmp_path)
    with pytest.raises(WorkspaceError, match=r"no workspace\.json"):
        opened(made._replace(run=made.photos))


def test_masks_of_objects_have_one_class(tmp_path):
    made = make_run(tmp_path, {"a": ("cat",), "b": ("cat",), "c": ("cat",)})
    write_tags(made.photos, {"a": ("dog",), "b": ("dog",), "c": ("dog",)})
    run = opened(made)
    assert not run.by_class
    assert run.classes == ("foreground",)
    assert run.photos.tags.all()


def test_the_judge_of_a_run_that_learned_from_a_review_is_understood(tmp_path):
    learned = {**TAGS, "b": ("cat", "dog")}  # with the cat that the review adds
    made = make_run(tmp_path, learned, command=f"{COMMAND} --review run/review.jsonl")
    write_tags(made.photos, TAGS)
    assert opened(made).measure.known is None
    (made.run / "review.jsonl").write_text(
        '{"tagseg_review": 1, "run": "run", "classes": ["cat", "dog"]}\n'
        '{"photo": "b", "at": "2026-11-30T10:00:00Z", "act": "tags", "add": ["cat"]}\n'
    )
    run = opened(made)
    assert run.measure.known is not None
    assert run.photos.tags[1].tolist() == [False, True]  # to which a review is relative


def test_regions_are_finer_to_coarser():
    image = np.zeros((60, 90, 3), np.uint8)
    image[10:50, 20:40] = (200, 30, 30)
    image[10:50, 60:80] = (30, 30, 200)
    fine, medium, coarse = regions_of(image)
    assert fine.dtype == np.int32
    assert fine.shape == (60, 90)
    assert fine.max() >= medium.max() >= coarse.max()
    assert fine[30, 30] != fine[5, 5]
