"""Which files tell the tags of a folder, and how their names meet the photos'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset
from tagseg.errors import TagError
from tagseg.formats.loading import Reading, load_dataset


def folder_of(place: Path, files: dict[str, str], *photos: str) -> Path:
    for name in photos:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        PilImage.new("RGB", (4, 3)).save(place / name)
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    return place


def tags_of(data: Dataset) -> dict[str, list[str]]:
    return {
        name: [data.classes[i] for i in np.flatnonzero(row)]
        for name, row in zip(data.names, data.tags, strict=True)
    }


ROWS = "image,label\na.jpg,cat\nb.jpg,dog\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
LABELME = {n: json.dumps({"shapes": [{"label": t}]}) for n, t in (("a", "cat"), ("b", "dog"))}
VOC = {
    n: f"<annotation><object><name>{t}</name></object></annotation>"
    for n, t in (("a", "cat"), ("b", "dog"))
}
YOLO = {"a": "0 .5 .5 .1 .1\n", "b": "1 .5 .5 .1 .1\n"}
NAMES = {"data.yaml": "names: [cat, dog]\n"}


@pytest.mark.parametrize(
    "files",
    [
        {"_classes.csv": "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 0, 1\n"},
        {"labels.csv": ROWS},
        {"train.csv": ROWS, "test.csv": "image\nc.jpg\n"},
        {"metadata.csv": ROWS},
        {"_annotations.coco.json": json.dumps(COCO)},
        {"annotations/instances_train2017.json": json.dumps(COCO)},
        {"result.json": json.dumps([{"image": "/u/1/0a1b2c3d-a.jpg", "choice": "cat"},
                                    {"image": "/u/1/0a1b2c3d-b.jpg", "choice": "dog"}])},
        {f"{n}.json": text for n, text in LABELME.items()},
        {f"{n}.xml": text for n, text in VOC.items()},
        {f"{n}.txt": text for n, text in YOLO.items()} | NAMES,
    ],
)  # fmt: skip
@pytest.mark.parametrize("inner", ["", "images/"])
def test_the_only_file_that_names_the_photos(tmp_path, files, inner):
    if inner and not any("." in n and n[0] in "ab" and n[1] == "." for n in files):
        folder = folder_of(tmp_path, files, "images/a.jpg", "images/b.jpg")
    else:
        moved = {(inner if name[1] == "." else "") + name: text for name, text in files.items()}
        folder = folder_of(tmp_path, moved, f"{inner}a.jpg", f"{inner}b.jpg")
    data = load_dataset(folder)
    assert tags_of(data) == {"a": ["cat"], "b": ["dog"]}  # images holds all: no part of names
    assert any(note.startswith(("tags are taken from ", "read as coco: ")) for note in data.notes)


@pytest.mark.parametrize("form", [(VOC, ".xml"), (LABELME, ".json"), (YOLO, ".txt")])
@pytest.mark.parametrize(
    ("photos", "other"),
    [("images/{}.jpg", "labels/{}"), ("train/images/{}.jpg", "train/labels/{}"),
     ("images/train/{}.jpg", "labels/train/{}"), ("images/{}.jpg", "annotations/{}"),
     ("{}.jpg", "annotations/{}")],
)  # fmt: skip
def test_annotations_in_a_folder_of_their_own(tmp_path, form, photos, other):
    texts, suffix = form
    files = {other.format(n) + suffix: text for n, text in texts.items()} | NAMES
    folder = folder_of(tmp_path, files, photos.format("a"), photos.format("b"))
    assert [*tags_of(load_dataset(folder)).values()] == [["cat"], ["dog"]]


def test_a_folder_of_annotations_given(tmp_path):
    files = {f"mine/{n}.txt": text for n, text in YOLO.items()} | {"mine/classes.txt": "cat\ndog\n"}
    folder = folder_of(tmp_path, files, "a.jpg", "b.jpg")
    assert tags_of(load_dataset(folder, tags=folder / "mine")) == {"a": ["cat"], "b": ["dog"]}
    (folder / "mine" / "classes.txt").unlink()
    with pytest.raises(TagError, match="classes are numbers here, and nothing names them"):
        load_dataset(folder, tags=folder / "mine")
    (folder / "empty").mkdir()
    with pytest.raises(TagError, match="no file here is called as a photo"):
        load_dataset(folder, tags=folder / "empty")


def test_a_missing_annotation_is_not_an_empty_one(tmp_path):
    files = {"labels/a.txt": YOLO["a"], "labels/b.txt": "", **NAMES}
    folder = folder_of(tmp_path, files, *(f"images/{n}.jpg" for n in "abc"))
    with pytest.raises(TagError, match="1 of 3 photos have no tags"):
        load_dataset(folder)
    assert load_dataset(folder, untagged="unknown").known.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label\n{0}a.jpg,cat\n{0}b.jpg,dog\n"),
        ("metadata.jsonl", '{{"file_name": "{0}a.jpg", "label": "cat"}}\n'
                           '{{"file_name": "{0}b.jpg", "label": "dog"}}\n'),
        ("_classes.csv", "filename, cat, dog\n{0}a.jpg, 1, 0\n{0}b.jpg, 0, 1\n"),
    ],
)  # fmt: skip
def test_split_folders(tmp_path, name, text):
    files = {f"{split}/{name}": text.format(split) for split in ("train", "test")}
    photos = [f"{split}/{split}{n}.jpg" for split in ("train", "test") for n in "ab"]
    data = load_dataset(folder_of(tmp_path, files, *photos))
    assert tags_of(data)["train/traina"] == ["cat"]
    assert tags_of(data)["test/testb"] == ["dog"]


def test_several_sources_are_refused(tmp_path):
    folder = folder_of(tmp_path, {"labels.csv": ROWS, "train.csv": ROWS}, "a.jpg", "b.jpg")
    with pytest.raises(TagError, match=r"several files .*: labels.csv, train.csv; .*--tags FILE"):
        load_dataset(folder)
    (folder / "tags.csv").write_text("image,tags\na,x\nb,y\n")
    assert load_dataset(folder).classes == ("x", "y")


def test_class_folders_stay_what_they_were(tmp_path):
    photos = ("cat/a.jpg", "dog/b.jpg")
    folder = folder_of(tmp_path, {"labels.csv": "id,description\n1,foo\n"}, *photos)
    assert tags_of(load_dataset(folder)) == {"cat/a": ["cat"], "dog/b": ["dog"]}
    (folder / "labels.csv").write_text("path,label\ncat/a.jpg,cat\ndog/b.jpg,dog\n")
    data = load_dataset(folder)
    assert data.classes == ("cat", "dog")
    assert data.notes == ("read as folders: 2 photos, the first folder is the class",)
    (folder / "labels.csv").write_text("path,label\ncat/a.jpg,x\ndog/b.jpg,y\n")
    assert load_dataset(folder).classes == ("x", "y")


def test_a_list_of_pixel_values_is_no_tag_file(tmp_path):
    folder = folder_of(
        tmp_path, {"train/_classes.csv": "Pixel Value, Class\n0, x\n"}, "train/a.jpg"
    )
    with pytest.raises(TagError, match="says which pixel value is which class in masks"):
        load_dataset(folder)


class TestNames:
    @pytest.mark.parametrize(
        "written",
        [
            "a.jpg", "a", "./a.jpg", "x/y/a.jpg", "/content/data/a.jpg", "C:\\d\\a.jpg",
            "https://h.org/x/a.jpg?w=3", "s3://bucket/a.jpg", "/data/upload/3/0123abcd-a.jpg",
            "/data/local-files/?d=d%2Fa.jpg", "file:///x/a.jpg",
        ],
    )  # fmt: skip
    def test_what_tools_call_a_photo(self, tmp_path, written):
        text = f"image,tags\n{written},cat\n"
        data = load_dataset(folder_of(tmp_path, {"tags.csv": text}, "a.jpg"))
        assert tags_of(data) == {"a": ["cat"]}

    def test_a_file_name_that_two_photos_have(self, tmp_path):
        photos = ("x/a.jpg", "y/a.jpg", "x/b.jpg")
        folder = folder_of(tmp_path, {"labels.csv": ROWS}, *photos)
        with pytest.raises(TagError, match=r"line 2: 'a.jpg' may be photo x/a or y/a"):
            load_dataset(folder)

    def test_two_names_for_one_photo(self, tmp_path):
        text = "image,tags\nx/a.jpg,cat\ny/a.jpg,dog\nx/b.jpg,dog\n"
        folder = folder_of(tmp_path, {"tags.csv": text}, "a.jpg", "b.jpg")
        with pytest.raises(TagError, match=r"'y/a.jpg' and 'x/a.jpg' would both be photo 'a'"):
            load_dataset(folder)


class TestRows:
    def test_rows_of_a_photo_are_put_together(self, tmp_path):
        text = "image,tags\na.jpg,cat\na,dog\nb.jpg,cat\n"
        data = load_dataset(folder_of(tmp_path, {"tags.csv": text}, "a.jpg", "b.jpg"))
        assert tags_of(data) == {"a": ["cat", "dog"], "b": ["cat"]}
        assert "1 rows name a photo of another row" in data.notes[-1]

    def test_verified_absence(self, tmp_path):
        text = "ImageID,LabelName,Confidence\na,cat,1\na,dog,0\nb,dog,0\nb,cat,0\nc,dog,1\n"
        folder = folder_of(tmp_path, {"tags.csv": text}, *(f"{n}.jpg" for n in "abc"))
        data = load_dataset(folder)
        assert tags_of(data) == {"a": ["cat"], "b": [], "c": ["dog"]}
        assert data.known.all()
        (folder / "tags.csv").write_text(text + "a,cat,0\n")
        with pytest.raises(
            TagError, match=r"line 7: 'cat' is in photo 'a' and is not, as .*line 2"
        ):
            load_dataset(folder)

    def test_no_positive_tag(self, tmp_path):
        folder = folder_of(tmp_path, {"_classes.csv": "filename, cat\na.jpg, 0\nb.jpg, 0\n"},
                           "a.jpg", "b.jpg")  # fmt: skip
        with pytest.raises(TagError, match=r"not one of 2 photos has a tag \(of cat\)"):
            load_dataset(folder, untagged="negative")

    def test_words_for_nothing_are_named_in_the_question(self, tmp_path):
        text = "image,tags\na.jpg,cat\nb.jpg,nan\n"
        folder = folder_of(tmp_path, {"tags.csv": text}, "a.jpg", "b.jpg")
        with pytest.raises(TagError, match=r"1 of 2 photos have no tags; .*'nan' means no tags"):
            load_dataset(folder)

    def test_background_is_no_class(self, tmp_path):
        text = "image,tags\na.jpg,cat\nb.jpg,Background\n"
        data = load_dataset(folder_of(tmp_path, {"tags.csv": text}, "a.jpg", "b.jpg"))
        assert (data.classes, data.known.tolist()) == (("cat",), [True, True])

    def test_the_separator_can_be_said(self, tmp_path):
        text = "image,tags\na.jpg,cat rabbit\nb.jpg,cat\n"
        folder = folder_of(tmp_path, {"tags.csv": text}, "a.jpg", "b.jpg")
        assert load_dataset(folder).classes == ("cat", "cat rabbit")
        assert load_dataset(folder, how=Reading(tag_separator="space")).classes == ("cat", "rabbit")


class TestVocOfOnesOwn:
    def make(self, place: Path, *tags: str) -> Path:
        files = {
            f"Annotations/{n}.xml": f"<annotation><object><name>{tag}</name></object></annotation>"
            for n, tag in zip("abcdef", tags, strict=False)
        }
        return folder_of(place, files, *(f"JPEGImages/{n}.jpg" for n in "abcdef"[: len(tags)]))

    @pytest.mark.parametrize("tags", [("helmet", "Dog"), ("person", "helmet"), ("Cat", "Dog")])
    def test_classes_of_the_annotations(self, tmp_path, tags):
        data = load_dataset(self.make(tmp_path, *tags))
        assert data.classes == tuple(sorted(tags))
        assert "not VOC's 20" in data.notes[1]

    def test_a_few_others_are_left_out_and_named(self, tmp_path):
        data = load_dataset(self.make(tmp_path, "dog", "cat", "person", "unicorn"))
        assert len(data.classes) == 20
        assert "left out: unicorn (in 1 photos)" in data.notes[1]

    def test_a_list_does_not_change_the_classes(self, tmp_path):
        folder = self.make(tmp_path, "person", "helmet", "vest")
        (folder / "train.txt").write_text("a\n")
        assert load_dataset(folder, split="train").classes == ("helmet", "person", "vest")

    def test_a_list_may_hold_no_positive_photo(self, tmp_path):
        folder = self.make(tmp_path, "dog", "cat", "person", "unicorn")
        (folder / "val.txt").write_text("d\n")
        assert not load_dataset(folder, split="val").tags.any()

    def test_no_object_at_all(self, tmp_path):
        folder = folder_of(tmp_path, {"Annotations/a.xml": "<annotation/>"}, "JPEGImages/a.jpg")
        with pytest.raises(TagError, match="not one of 1 photos has a tag"):
            load_dataset(folder)
