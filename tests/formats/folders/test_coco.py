"""COCO's layout: files that are splits, photos in folders of splits or in one, tags by class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.errors import DataError, TagError
from tagseg.formats.folders.coco import folder_of_photos, instance_files
from tagseg.formats.loading import Reading, load_dataset, open_photos
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.session.inputs import Source, load_photos

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}, {"id": 90, "name": "brush"}]
BOX = [[1, 1, 3, 1, 3, 3]]


def lists(names: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Photos by name with the ids of their objects' classes."""
    ids = {name: 10 * place for place, name in enumerate(names, start=1)}
    return {
        "images": [
            {"id": i, "file_name": name, "height": 4, "width": 6} for name, i in ids.items()
        ],
        "annotations": [
            {"image_id": ids[name], "category_id": c, "segmentation": BOX, "iscrowd": 0}
            for name, classes in names.items()
            for c in classes
        ],
        "categories": CATEGORIES,
    }


TRAIN = {"1.jpg": (17,), "2.jpg": (3, 17, 3), "3.jpg": ()}
VAL = {"1.jpg": (3,), "8.jpg": (90,)}  # the same name again


def write(path: Path, names: dict[str, tuple[int, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lists(names)))


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.new("RGB", (6, 4), (len(path.name), 9, 9)).save(path)


@pytest.fixture(params=["", "images/"])
def folder(request, tmp_path) -> Path:
    for split, names in (("train2014", TRAIN), ("val2014", VAL)):
        write(tmp_path / "annotations" / f"instances_{split}.json", names)
        for name in names:
            photo(tmp_path / request.param / split / name)
    return tmp_path


@pytest.fixture
def flat(tmp_path) -> Path:
    write(tmp_path / "instances_train2017.json", TRAIN)
    write(tmp_path / "instances_val2017.json", {"8.jpg": (90,)})
    for name in ("1.jpg", "2.jpg", "3.jpg", "8.jpg", "spare.jpg"):
        photo(tmp_path / name)
    return tmp_path


def test_photos_in_the_folders_of_their_splits(folder):
    data = load_dataset(folder)
    assert data.classes == ("car", "cat", "brush")
    assert data.names == (
        "train2014/1", "train2014/2", "train2014/3", "val2014/1", "val2014/8"
    )  # fmt: skip
    assert [np.flatnonzero(row).tolist() for row in data.tags] == [[1], [0, 1], [], [0], [2]]
    assert data.known.all()  # a photo without annotations is known to hold nothing
    assert data.notes[0].startswith("read as coco: 5 photos")
    assert not any("file names alone" in note for note in data.notes)
    assert load_dataset(folder, split="val").names == ("val2014/1", "val2014/8")
    assert load_dataset(folder, layout="coco", split="train2014").names[0] == "train2014/1"


def test_training_and_validation_by_file(folder):
    loaded = load_photos(Source(folder))
    assert loaded.val == ("val2014/1", "val2014/8")
    assert len(loaded.photos) == 5


def test_training_and_validation_in_one_folder(flat):
    loaded = load_photos(Source(flat))
    assert loaded.val == ("8",)
    assert len(loaded.photos) == 4


def test_photos_in_one_folder(flat):
    data = load_dataset(flat)
    assert data.names == ("1", "2", "3", "8")
    assert data.unlisted == 1
    assert open_photos(flat).splits() == {"train2017": 3, "val2017": 1}
    assert load_dataset(flat, split="val2017").names == ("8",)


@pytest.mark.parametrize("given", ["", "annotations", "annotations/instances_val2014.json"])
def test_ground_truth_is_found_by_folder_or_file(folder, given):
    data = load_dataset(folder)
    truth = GroundTruth(folder / given, data.classes)
    paths = dict(zip(data.names, data.sources, strict=True))
    truth = truth.for_photos(paths)  # type: ignore[arg-type]
    assert not any("in other folders" in note for note in truth.notes)
    assert truth.labels("val2014/1", (4, 6)).max() == 1
    assert truth.labels("val2014/8", (4, 6)).max() == 3
    assert truth.has("train2014/1") != given.endswith("json")


def test_a_file_whose_photos_are_not_here_is_left_out(folder):
    for split in ("train2014", "images/train2014"):
        shutil.rmtree(folder / split, ignore_errors=True)
    data = load_dataset(folder)
    assert data.names == ("val2014/1", "val2014/8")
    assert "instances_train2014.json is left out: none of its photos are here" in data.notes
    (folder / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(TagError, match="names none of the photos that are here"):
        load_dataset(folder, layout="coco")


def test_photos_that_are_missing(folder):
    for place in folder.rglob("2.jpg"):
        place.unlink()
    with pytest.raises(DataError, match="1 of 5 tagged photos are not here: train2014/2"):
        load_dataset(folder)
    with pytest.raises(DataError, match="1 of 5 tagged photos are not here: train2014/2; check"):
        load_photos(Source(folder))
    loaded = load_photos(Source(folder, how=Reading(allow_missing=0.2)))
    assert "1 of 5 tagged photos are not here, and left out: train2014/2" in loaded.photos.notes


def test_categories_of_one_name_are_one_class_and_told(flat):
    path = flat / "instances_val2017.json"
    said = json.loads(path.read_text())
    said["categories"].append({"id": 91, "name": "car"})
    said["annotations"][0]["category_id"] = 91
    path.write_text(json.dumps(said))
    data = load_dataset(flat)
    assert data.classes == ("car", "cat", "brush")
    assert data.tags[data.names.index("8")].tolist() == [True, False, False]
    note = "instances_val2017.json: several categories are called car: one class each"
    assert note in data.notes


def test_names_that_lead_out_of_the_folder(tmp_path):
    photo(tmp_path / "data" / "1.jpg")
    photo(tmp_path / "secret.jpg")
    write(tmp_path / "data" / "instances_train.json", {"1.jpg": (3,), "../secret.jpg": (3,)})
    with pytest.raises(DataError, match=r"'\.\./secret' cannot be a photo's name"):
        load_dataset(tmp_path / "data")


def test_tags_csv_comes_first_unless_the_layout_is_named(flat):
    (flat / "tags.csv").write_text("image,tags\n1.jpg,mine\n")
    assert load_dataset(flat).classes == ("mine",)
    assert load_dataset(flat, layout="coco").classes == ("car", "cat", "brush")
    assert load_dataset(flat, layout="coco", tags=flat / "instances_val2017.json").names == ("8",)


def test_what_is_no_such_layout(tmp_path):
    photo(tmp_path / "1.jpg")
    with pytest.raises(TagError, match=r"has no instances_\*\.json, nor has its annotations"):
        load_dataset(tmp_path, layout="coco")
    (tmp_path / "instances_train.json").write_text('{"shapes": []}')
    with pytest.raises(TagError, match="is no COCO file"):
        load_dataset(tmp_path, layout="coco")
    write(tmp_path / "instances_train.json", {"1.jpg": ()})
    with pytest.raises(TagError, match="there are no annotations"):
        load_dataset(tmp_path, layout="coco")


def test_where_the_files_and_their_photos_are(tmp_path):
    file = tmp_path / "annotations" / "instances_train2017.json"
    write(file, TRAIN)
    assert instance_files(tmp_path) == instance_files(file.parent) == instance_files(file)
    assert instance_files(tmp_path / "absent") == ()
    assert folder_of_photos(file) == ""
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert folder_of_photos(file) == "train"
    (tmp_path / "training").mkdir()
    assert folder_of_photos(file) == ""  # two of that kind
    (tmp_path / "train2017").mkdir()
    assert folder_of_photos(file) == "train2017"
