"""Folders as people have them, loaded: splits, wrappers, places of photos, their tag files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from photo_trees import masks, photos
from tagseg.data.dataset import Dataset
from tagseg.errors import DataError, TagError
from tagseg.formats.loading import Reading, load_dataset, load_target, open_photos


def tags_of(data: Dataset) -> dict[str, str]:
    return {
        name: " ".join(data.classes[i] for i in np.flatnonzero(row))
        for name, row in zip(data.names, data.tags, strict=True)
    }


@pytest.fixture
def splits(tmp_path) -> Path:
    return photos(
        tmp_path,
        *(f"train/{c}/{i}.jpg" for c in ("cat", "dog") for i in "012"),
        *(f"valid/{c}/3.jpg" for c in ("cat", "dog")),
        "test/cat/4.jpg",
    )


class TestSplits:
    def test_classes_are_the_inner_folders(self, splits):
        data = load_dataset(splits)
        assert data.classes == ("cat", "dog")
        assert len(data) == 9
        assert tags_of(data)["valid/dog/3"] == "dog"
        assert data.notes == (
            "read as split_folders: 9 photos, the folder in that of the split is the class",
            "test has no photos of dog",
        )

    @pytest.mark.parametrize(
        ("split", "names"),
        [
            ("valid", ("valid/cat/3", "valid/dog/3")),
            ("val", ("valid/cat/3", "valid/dog/3")),
            (["test", "valid"], ("test/cat/4", "valid/cat/3", "valid/dog/3")),
        ],
    )
    def test_they_are_lists(self, splits, split, names):
        assert load_dataset(splits, split=split).names == names

    def test_a_list_file_comes_first(self, splits):
        (splits / "valid.txt").write_text("train/cat/0\n")
        assert load_dataset(splits, split="valid").names == ("train/cat/0",)

    def test_all_of_them(self, splits):
        assert len(load_dataset(splits, split="all")) == 9

    def test_another_name(self, splits):
        with pytest.raises(
            TagError,
            match=r"no list 'vla'; give a list file, or one of the folders test, train, valid",
        ):
            load_dataset(splits, split="vla")

    def test_numbers(self, splits):
        assert open_photos(splits).splits() == {"test": 1, "train": 6, "valid": 2}

    def test_the_user_may_want_them_as_classes(self, splits):
        data = load_dataset(splits, layout="folders")
        assert data.classes == ("test", "train", "valid")
        assert not open_photos(splits, layout="folders").splits()

    def test_in_a_wrapper(self, tmp_path):
        photos(tmp_path, *(f"dataset-master/{s}/cat/{s}.jpg" for s in ("train", "valid")))
        photos(tmp_path, "__MACOSX/x.jpg")
        (tmp_path / "dataset-master" / "README.md").write_text("")
        data = load_dataset(tmp_path, split="valid")
        assert data.names == ("valid/cat/valid",)
        assert data.notes[0].startswith("read as split_folders: 2 photos in dataset-master, ")

    def test_with_one_tag_file_for_all(self, splits):
        rows = [f"{s}/{c}/{i}.jpg,x" for s, c, i in [("train", "cat", 0), ("valid", "dog", 3)]]
        (splits / "tags.csv").write_text("\n".join(["image,tags", *rows]))
        assert load_dataset(splits, split="val").names == ("valid/dog/3",)

    def test_two_readings(self, tmp_path):
        photos(tmp_path, "train/aachen/a.jpg", "val/ulm/b.jpg")
        with pytest.raises(DataError, match=r"may be classes, or splits .*--layout folders"):
            load_dataset(tmp_path)
        assert load_dataset(tmp_path, layout="split_folders").classes == ("aachen", "ulm")
        assert load_dataset(tmp_path, layout="inner_folders").classes == ("aachen", "ulm")
        assert load_dataset(tmp_path, layout="folders").classes == ("train", "val")
        (tmp_path / "tags.csv").write_text("image,tags\ntrain/aachen/a,cat\nval/ulm/b,cat\n")
        assert open_photos(tmp_path).splits() == {"train": 1, "val": 1}

    def test_as_target(self, splits):
        (splits / "classes.txt").write_text("dog\ncat\n")
        data = load_target(splits, split="val")
        assert (len(data), data.classes, data.known.any()) == (2, ("dog", "cat"), False)

    def test_classes_that_some_lack(self, tmp_path):
        photos(tmp_path, "train/cat/a.jpg", "train/dog/a.jpg", "val/cat/a.jpg", "test/bird/a.jpg")
        data = load_dataset(tmp_path)
        assert data.classes == ("bird", "cat", "dog")
        assert data.notes[1:] == (
            "test has no photos of cat, dog",
            "train has no photos of bird",
            "val has no photos of bird, dog",
        )


class TestTagFilesOfSplits:
    def test_they_are_joined(self, tmp_path):
        for split, tags in {"train": "cat", "test": "dog"}.items():
            photos(tmp_path / split, "a.jpg", "b.jpg", "left-out.jpg")
            text = f"image,tags\na.jpg,{tags}\nb.jpg,{tags};fish\n"
            (tmp_path / split / "tags.csv").write_text(text)
        data = load_dataset(tmp_path)
        assert data.classes == ("cat", "dog", "fish")
        assert tags_of(data) == {
            "test/a": "dog",
            "test/b": "dog fish",
            "train/a": "cat",
            "train/b": "cat fish",
        }
        assert data.unlisted == 2
        assert data.notes == (
            "read as csv: 6 photos, tags from test/tags.csv, train/tags.csv",
            "test/tags.csv has no photo of cat",
            "train/tags.csv has no photo of dog",
        )
        assert load_dataset(tmp_path, split="train").names == ("train/a", "train/b")

    def test_jsonl_in_images_and_rows_from_the_top(self, tmp_path):
        for split in ("train", "validation"):
            photos(tmp_path / "data" / split, "a.jpg", "b.jpg")
            rows = [{"file_name": n, "tags": ["cat"]} for n in ("a.jpg", f"{split}/b.jpg")]
            file = tmp_path / "data" / split / "metadata.jsonl"
            file.write_text("\n".join(map(json.dumps, rows)))
        data = load_dataset(tmp_path)
        assert data.names == ("train/a", "train/b", "validation/a", "validation/b")

    def test_a_test_without_tags(self, tmp_path):
        photos(tmp_path, "train/a.jpg", "test/a.jpg")
        (tmp_path / "train" / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        data = load_dataset(tmp_path)
        assert (data.names, data.unlisted) == (("train/a",), 1)

    def test_of_other_parts(self, tmp_path):
        for part in ("monday", "tuesday"):
            photos(tmp_path / part, "a.jpg")
            (tmp_path / part / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        assert load_dataset(tmp_path).names == ("monday/a", "tuesday/a")

    def test_lines_of_errors_are_those_of_the_file(self, tmp_path):
        for split in ("train", "test"):
            photos(tmp_path / split, "a.jpg")
            (tmp_path / split / "tags.csv").write_text("image,tags\n,cat\n")
        with pytest.raises(TagError, match=r"test/tags\.csv, line 2: no image is named"):
            load_dataset(tmp_path)


class TestPlacesOfPhotos:
    def test_images_and_masks_are_no_classes(self, tmp_path):
        photos(tmp_path, "images/a.jpg", "images/b.jpg")
        masks(tmp_path, "masks/a.png", "masks/b.png")
        with pytest.raises(TagError) as caught:
            load_dataset(tmp_path)
        assert "no tags: neither tags.csv nor" in str(caught.value)
        assert "2 pictures are masks, from which no tags are read" in str(caught.value)
        assert "images holds all photos and is no class (--layout folders" in str(caught.value)
        assert load_dataset(tmp_path, untagged="unknown").names == ("a", "b")

    @pytest.mark.parametrize("place", ["images", "Images", "img", "data/images", "PNGImages"])
    def test_tags_name_photos_with_their_folder_or_without(self, tmp_path, place):
        photos(tmp_path / place, "a.png", "b.png", "x/c.png")
        rows = f"a.png,cat\n{place}/b,cat\n{place.split('/')[-1]}/x/c.png,cat\n"
        (tmp_path / "tags.csv").write_text("image,tags\n" + rows)
        data = load_dataset(tmp_path)
        assert data.names == ("a", "b", "x/c")
        assert data.notes[0] == f"read as csv: 3 photos in {place}, tags from tags.csv"

    def test_tags_beside_the_photos(self, tmp_path):
        photos(tmp_path / "images", "a.jpg")
        (tmp_path / "images" / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        assert load_dataset(tmp_path).names == ("a",)

    def test_classes_in_images(self, tmp_path):
        photos(tmp_path / "images", "cat/a.jpg", "dog/b.jpg")
        masks(tmp_path / "masks", "cat/a.png", "dog/b.png")
        data = load_dataset(tmp_path)
        assert (data.classes, data.names) == (("cat", "dog"), ("cat/a", "dog/b"))
        assert data.left_out == (("masks", 2),)

    def test_images_may_be_a_class(self, tmp_path):
        photos(tmp_path, "images/a.jpg", "sounds/b.jpg")
        assert load_dataset(tmp_path).classes == ("images", "sounds")
        photos(tmp_path / "alone", "images/a.jpg")
        assert load_dataset(tmp_path / "alone", layout="folders").classes == ("images",)

    def test_splits_of_images_and_labels(self, tmp_path):
        photos(tmp_path, "images/train/a.jpg", "images/val/b.jpg")
        (tmp_path / "labels" / "train").mkdir(parents=True)
        (tmp_path / "labels" / "train" / "a.txt").write_text("0 .5 .5 1 1\n")
        with pytest.raises(TagError, match="folders train, val are no classes"):
            load_dataset(tmp_path)
        assert load_dataset(tmp_path, untagged="unknown", split="val").names == ("val/b",)

    def test_a_wrapper_around_tags(self, tmp_path):
        photos(tmp_path / "export-3" / "pictures", "a.jpg")
        (tmp_path / "export-3" / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        (tmp_path / "export-3" / "train.txt").write_text("a.jpg\n")
        data = load_dataset(tmp_path, split="train")
        assert (data.names, data.classes) == (("a",), ("cat",))

    def test_a_wrapper_around_class_folders(self, tmp_path):
        photos(tmp_path / "flowers", "rose/a.jpg", "tulip/b.jpg")
        data = load_dataset(tmp_path)
        assert (data.names, data.classes) == (("rose/a", "tulip/b"), ("rose", "tulip"))
        assert data.notes[0].startswith("read as folders: 2 photos in flowers")

    @pytest.mark.parametrize("file", ["labels.csv", "data.JSON"])
    def test_a_file_that_may_tell_tags_stays_in_sight(self, tmp_path, file):
        photos(tmp_path / "flowers", "rose/a.jpg", "tulip/b.jpg")
        (tmp_path / file).touch()
        data = load_dataset(tmp_path)
        assert (data.names, data.classes) == (
            ("flowers/rose/a", "flowers/tulip/b"),
            ("rose", "tulip"),
        )
        (tmp_path / file).rename(tmp_path / "flowers" / file)
        assert load_dataset(tmp_path).names == ("rose/a", "tulip/b")

    def test_one_class_with_a_folder_stays(self, tmp_path):
        photos(tmp_path, "cat/monday/a.jpg")
        data = load_dataset(tmp_path)
        assert data.classes == ("cat",)
        assert "not those inside (monday)" in data.notes[1]

    def test_voc_in_its_wrappers(self, tmp_path):
        home = tmp_path / "VOCdevkit" / "VOC2012"
        photos(home / "JPEGImages", "a.jpg")
        (home / "Annotations").mkdir()
        (home / "Annotations" / "a.xml").write_text(
            "<annotation><object><name>cat</name></object></annotation>"
        )
        assert tags_of(load_dataset(tmp_path)) == {"a": "cat"}

    def test_the_class_train(self, tmp_path):
        photos(tmp_path, "train/a.jpg", "bus/a.jpg")
        data = load_dataset(tmp_path)
        assert data.classes == ("bus", "train")
        assert not open_photos(tmp_path).splits()


class TestMasksBeside:
    def test_a_tag_file_decides_what_is_unclear(self, tmp_path):
        photos(tmp_path, "a.jpg", "b.jpg")
        masks(tmp_path, "a_mask.png", kind="soft")
        with pytest.raises(DataError, match="may be masks or photos"):
            load_dataset(tmp_path, untagged="unknown")
        (tmp_path / "tags.csv").write_text("image,tags\na,cat\nb,cat\n")
        data = load_dataset(tmp_path)
        assert (data.names, data.unlisted) == (("a", "b"), 1)

    def test_excluded(self, tmp_path):
        photos(tmp_path, "cat/a.jpg", "cat/b.jpg", "old/a.jpg")
        data = load_dataset(tmp_path, how=Reading(exclude="old"))
        assert (data.classes, data.left_out) == (("cat",), (("excluded by a flag", 1),))
        photos(tmp_path / "JPEGImages", "cat/a.jpg", "cat/b.jpg")
        data = load_dataset(
            tmp_path, how=Reading(exclude=["JPEGImages/cat/b.jpg"]), layout="folders"
        )
        assert data.names == ("cat/a",)

    def test_imagenet(self, tmp_path):
        photos(tmp_path, "n00000001/a.jpg", "n00000001/b.jpg")
        (tmp_path / "list").write_text("n00000001 cat\n")
        data = load_dataset(tmp_path, synsets=tmp_path / "list", how=Reading(exclude="b.jpg"))
        assert data.names == ("n00000001/a",)
