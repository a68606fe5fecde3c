"""Which of a run's stores hold label maps of the training photos, whatever they are called."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from review_runs import CLASSES, SHAPE, labels_for, make_run, opened
from tagseg.data.dataset import Dataset
from tagseg.errors import WorkspaceError
from tagseg.run.workspace import Workspace
from tagseg.session.label_maps import find_label_maps, stored_regions, tell_classes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("maps"), regions=True)


@pytest.fixture(scope="module")
def photos(made):
    return opened(made).photos


def test_final_masks_come_first_then_labels_of_stages_the_latest_first(made, photos):
    found = find_label_maps(Workspace.read(made.run), photos)
    assert [maps.id for maps in found] == ["masks/masks", "again/labels", "first-labels/labels"]
    assert [maps.title for maps in found] == ["final masks", "again", "first labels"]
    assert found[0].read("c").tolist() == labels_for(("cat", "dog")).tolist()
    half = (SHAPE[0] // 2, SHAPE[1] // 2)
    assert found[2].read("b").tolist() == labels_for(("dog",), half, 3).tolist()


def test_saliency_objects_validation_and_copies_are_none(made, photos):
    found = {maps.id for maps in find_label_maps(Workspace.read(made.run), photos)}
    assert not found & {"saliency/labels", "objects/labels", "predictions/raw", "answers/answers"}


def test_planes_of_a_row_are_label_maps_too(tmp_path):
    tags = {"x": ("cat",), "y": ("dog",), "z": ("cat",)}
    made = make_run(tmp_path, tags, candidates=False)
    with Workspace.open(made.run, recipe="union", settings={}, classes=CLASSES) as work:
        work.stage("masks", config={}, inputs=["photos"])
        with work.stage("check-mask", config={}, inputs=["photos"]) as stage:
            for photo in ("x", "y"):
                planes = np.stack([labels_for(tags[photo], first=i) for i in (1, 2)])
                scores = np.zeros((2, *SHAPE), np.float32)
                stage.maps("candidates").put(photo, masks=planes, scores=scores)
        work.stage("predictions", config={}, inputs=["val"])
        work.stage("expected-quality", config={}, inputs=["masks"])
    found = find_label_maps(Workspace.read(made.run), opened(made, made.photos).photos)
    ids = ["check-mask/candidates/masks 1", "check-mask/candidates/masks 2"]
    assert [maps.id for maps in found[1:]] == ids
    assert found[2].read("y").tolist() == labels_for(("dog",), first=2).tolist()
    with pytest.raises(KeyError):
        found[2].read("z")


def test_maps_are_not_there_any_more_when_their_stage_runs_again(tmp_path):
    made = make_run(tmp_path)
    found = find_label_maps(Workspace.read(made.run), opened(made).photos)
    assert all(maps.are_there() for maps in found)
    with Workspace.open(made.run, recipe="union", settings={}, classes=CLASSES) as work:
        work.stage("masks", config={"other": 1}, inputs=["photos"])
        assert [maps.are_there() for maps in found] == [False, True, True]


def test_crisp_regions_are_found_where_the_run_keeps_them(made, tmp_path):
    regions = stored_regions(Workspace.read(made.run))
    assert regions is not None
    assert regions("a").max() == 1
    assert stored_regions(Workspace.read(make_run(tmp_path).run)) is None


def test_masks_of_objects_tell_no_classes(made, photos):
    work = Workspace.read(made.run)
    assert tell_classes(work, photos)
    swapped = np.zeros_like(photos.tags)
    swapped[:, 1] = True  # as if the cats' 1 were any object
    only_cats = [i for i, name in enumerate(photos.names) if name in ("a", "e")]
    objects = Dataset(
        photos.classes,
        tuple(photos.names[i] for i in only_cats),
        swapped[only_cats],
        photos.known[only_cats],
        [photos.sources[i] for i in only_cats],
    )
    assert not tell_classes(work, objects)


def test_a_damaged_store_is_left_out_with_a_word(tmp_path, caplog):
    made = make_run(tmp_path)
    photos = opened(made).photos
    store = next(made.run.glob("stages/*-again/labels.sqlite"))
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE maps SET content = zeroblob(length(content))")
    connection.close()
    found = find_label_maps(Workspace.read(made.run), photos)
    assert "again/labels" not in {maps.id for maps in found}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "labels.sqlite is damaged" in said
    assert said.endswith("its masks are not offered; training again makes them anew")


def test_a_run_without_masks_is_told(tmp_path):
    with Workspace.open(tmp_path / "run", recipe="union", settings={}, classes=CLASSES) as work:
        work.stage("masks", config={}, inputs=["photos"])
    with pytest.raises(WorkspaceError, match="stage masks is not finished"):
        tell_classes(Workspace.read(tmp_path / "run"), None)
