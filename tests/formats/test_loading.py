from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.audit import audit
from tagseg.errors import DataError, TagError
from tagseg.formats.loading import Reading, load_dataset
from tagseg.formats.tags.voc import VOC_CLASSES

MSRC = Path(__file__).parents[3] / "shared" / "data" / "msrc_v2"


def photos(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PilImage.new("RGB", (4, 3)).save(folder / name)


def tags_of(data) -> dict[str, list[str]]:
    return {
        name: [data.classes[i] for i in np.flatnonzero(row)]
        for name, row in zip(data.names, data.tags, strict=True)
    }


def annotate(folder: Path, **tags: list[str]) -> None:
    (folder / "Annotations").mkdir(exist_ok=True)
    for name, classes in tags.items():
        objects = "".join(f"<object><name>{c}</name></object>" for c in classes)
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


class TestCsv:
    def test_plain(self, tmp_path):
        photos(tmp_path, "a.jpg", "x/b.png", "left-out.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\nx/b.png,dog;cat\na,dog\n")
        data = load_dataset(tmp_path)
        assert data.classes == ("cat", "dog")
        assert tags_of(data) == {"x/b": ["cat", "dog"], "a": ["dog"]}
        assert data.sources == (tmp_path / "x" / "b.png", tmp_path / "a.jpg")
        assert data.unlisted == 1
        assert data.image(0).shape == (3, 4, 3)

    def test_photos_in_jpegimages_under_any_spelling(self, tmp_path):
        photos(tmp_path / "JPEGImages", "a.jpg", "b.jpg", "c.v2.jpg")
        text = "image,tags\nJPEGImages/a.jpg,cat\n.\\b.png,cat\nc.v2,cat\n"
        (tmp_path / "tags.csv").write_text(text)
        assert load_dataset(tmp_path).names == ("a", "b", "c.v2")

    def test_composed_and_decomposed_letters_are_the_same(self, tmp_path):
        name = unicodedata.normalize("NFD", "Käfer")
        photos(tmp_path, f"{name}.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\nKäfer.jpg,cat\n", encoding="utf-8")
        assert load_dataset(tmp_path).names == (name,)

    def test_repeated_rows_with_the_same_tags(self, tmp_path):
        photos(tmp_path, "a.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat;dog\na,dog;cat\n")
        assert tags_of(load_dataset(tmp_path)) == {"a": ["cat", "dog"]}

    def test_tags_from_elsewhere(self, tmp_path):
        photos(tmp_path / "photos", "a.jpg")
        (tmp_path / "mine.csv").write_text("image,tags\na.jpg,cat\n")
        (tmp_path / "classes.txt").write_text("dog\ncat\n")
        data = load_dataset(tmp_path / "photos", tags=tmp_path / "mine.csv")
        assert data.classes == ("dog", "cat")

    def test_untagged(self, tmp_path):
        photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,\nc.jpg\n")
        with pytest.raises(TagError, match=r"2 of 3 photos have no tags; .* --untagged negative"):
            load_dataset(tmp_path)
        assert load_dataset(tmp_path, untagged="negative").known.tolist() == [True] * 3
        assert load_dataset(tmp_path, untagged="unknown").known.tolist() == [True, False, False]

    def test_split(self, tmp_path):
        photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,\nc.jpg,dog\n")
        (tmp_path / "train.txt").write_text("c\na.jpg\n")
        data = load_dataset(tmp_path, split="train")  # b is not asked for: no flag needed
        assert data.names == ("c", "a")
        assert data.classes == ("cat", "dog")
        assert load_dataset(tmp_path, split=tmp_path / "train.txt").names == data.names

    def test_few_missing_photos_are_left_to_the_audit(self, tmp_path):
        names = [f"{i}.png" for i in range(100)]
        photos(tmp_path, *names)
        rows = "".join(f"{name},cat\n" for name in [*names, "gone.png"])
        (tmp_path / "tags.csv").write_text("image,tags\n" + rows)
        data = load_dataset(tmp_path)
        assert len(data) == 101
        assert data.sources[-1] == tmp_path / "gone.png"
        (tmp_path / "0.png").unlink()
        with pytest.raises(DataError, match=r"2 of 101 tagged photos are not here: 0, gone"):
            load_dataset(tmp_path)

    def test_nothing_is_written(self, tmp_path):
        photos(tmp_path, "a.jpg")
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        for path in (*tmp_path.iterdir(), tmp_path):
            os.utime(path, ns=(5, 5))
        load_dataset(tmp_path).fingerprint()
        assert {p.stat().st_mtime_ns for p in (*tmp_path.iterdir(), tmp_path)} == {5}


def test_jsonl(tmp_path):
    photos(tmp_path, "a.jpg", "b.jpg")
    entries = [{"file_name": "a.jpg", "tags": ["cat"]}, {"file_name": "b.jpg", "tags": []}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    data = load_dataset(tmp_path, untagged="unknown")
    assert tags_of(data) == {"a": ["cat"], "b": []}
    assert data.known.tolist() == [True, False]


def test_class_folders(tmp_path):
    photos(tmp_path, "cat/a.jpg", "cat/b.jpg", "dog/a.jpg")
    data = load_dataset(tmp_path)
    assert tags_of(data) == {"cat/a": ["cat"], "cat/b": ["cat"], "dog/a": ["dog"]}
    assert load_dataset(tmp_path, classes=["dog", "cat"]).classes == ("dog", "cat")


class TestVoc:
    def make(self, folder: Path) -> Path:
        photos(folder / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
        annotate(folder, a=["dog", "cat"], b=["unicorn"], c=["person"])
        (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
        (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("c\nb\n")
        return folder

    def test_annotations(self, tmp_path):
        data = load_dataset(self.make(tmp_path))
        assert data.classes == VOC_CLASSES
        assert tags_of(data) == {"a": ["cat", "dog"], "b": [], "c": ["person"]}
        assert data.known.all()

    def test_split_and_other_classes(self, tmp_path):
        (self.make(tmp_path) / "classes.txt").write_text("background\nunicorn\nperson\n")
        data = load_dataset(tmp_path, split="train")
        assert data.classes == ("unicorn", "person")
        assert tags_of(data) == {"c": ["person"], "b": ["unicorn"]}
        assert data.unlisted == 0

    def test_a_photo_without_annotation_is_not_a_negative(self, tmp_path):
        (self.make(tmp_path) / "Annotations" / "b.xml").unlink()
        with pytest.raises(TagError, match="1 of 3 photos have no tags"):
            load_dataset(tmp_path)

    def test_tags_given(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "tags.csv").write_text("image,tags\na,boat\nb,train\n")
        data = load_dataset(tmp_path, tags=tmp_path / "tags.csv")
        assert data.classes == VOC_CLASSES
        assert tags_of(data) == {"a": ["boat"], "b": ["train"]}

    def test_tags_beside_if_there_are_no_annotations(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "Annotations").rename(tmp_path / "old")
        (tmp_path / "tags.csv").write_text("image,tags\na,boat\nb,train\n")
        assert tags_of(load_dataset(tmp_path)) == {"a": ["boat"], "b": ["train"]}


@pytest.mark.skipif(not MSRC.is_dir(), reason="MSRC is not on this machine")
def test_msrc():
    data = load_dataset(MSRC, untagged="negative")
    assert (len(data), len(data.classes), data.classes[0]) == (591, 16, "cow")
    assert np.count_nonzero(~data.tags.any(1)) == 94
    train = load_dataset(MSRC, untagged="negative", split="train")
    val = load_dataset(MSRC, untagged="negative", split="val")
    assert (len(train), len(val)) == (354, 237)
    assert set(data.without(val.names).names) == set(train.names)


class TestWithoutAnyTags:
    def test_of_photos_that_may_hold_anything_nothing_is_known(self, tmp_path):
        photos(tmp_path, "b.jpg", "a.jpg")
        data = load_dataset(tmp_path, untagged="unknown")
        assert data.classes == ("object",)
        assert sorted(data.names) == ["a", "b"]
        assert not data.known.any()
        assert not data.tags.any()

    def test_classes_may_be_said(self, tmp_path):
        photos(tmp_path, "a.jpg")
        assert load_dataset(tmp_path, untagged="unknown", classes=["x", "y"]).classes == ("x", "y")
        (tmp_path / "classes.txt").write_text("background\ncat\n")
        assert load_dataset(tmp_path, untagged="unknown").classes == ("cat",)

    def test_a_list_picks_photos(self, tmp_path):
        photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
        (tmp_path / "train.txt").write_text("c\na\n")
        assert load_dataset(tmp_path, untagged="unknown", split="train").names == ("c", "a")

    @pytest.mark.parametrize("untagged", [None, "negative"])
    def test_otherwise_it_is_a_mistake(self, tmp_path, untagged):
        photos(tmp_path, "a.jpg")
        with pytest.raises(TagError, match="no tags: neither"):
            load_dataset(tmp_path, untagged=untagged)


class TestLists:
    """More of them in test_photo_lists.py; here, what becomes of names that are not there."""

    def make(self, folder: Path, *tagged: str) -> Path:
        photos(folder, "a0.jpg", "a1.jpg", "IMG_1.jpg", "IMG_1 1.jpg", "untagged.jpg")
        rows = "".join(f"{name},cat\n" for name in tagged or ("a0", "a1", "IMG_1", "IMG_1 1"))
        (folder / "tags.csv").write_text(f"image,tags\n{rows}")
        return folder

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("IMG_1 1\na0", ("IMG_1 1", "a0")),
            ("{here}/a1.jpg\n./a0.jpg", ("a1", "a0")),
            ("image,tags\nA0.JPG,cat\n", ("a0",)),
        ],
    )
    def test_forms(self, tmp_path, text, names):
        (self.make(tmp_path) / "l.txt").write_text(text.format(here=tmp_path))
        assert load_dataset(tmp_path, split="l").names == names

    def test_what_was_understood_is_a_note(self, tmp_path):
        (self.make(tmp_path) / "l.txt").write_text("A0.jpg,x\na1.jpg,y\n")
        notes = load_dataset(tmp_path, split="l").notes
        assert "l.txt: the names are read from column 1: 'A0.jpg,x' is photo 'a0'" in notes
        assert "l.txt: 1 name is found in other capitals: 'A0.jpg' is photo 'a0'" in notes

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("untagged", "line 2; the photo 'untagged' is there, without tags"),
            ("IMG_11", "line 2; did you mean IMG_1 1 or IMG_1"),
            ("zebra", "line 2"),
        ],
    )
    def test_what_has_no_entry(self, tmp_path, name, hint):
        (self.make(tmp_path) / "l.txt").write_text(f"a0\n{name}\n")
        with pytest.raises(TagError) as caught:
            load_dataset(tmp_path, split="l")
        assert f"1 of 2 listed photos have no entry: {name}; " in str(caught.value)
        assert f"({tmp_path / 'l.txt'}, {hint}" in str(caught.value)

    def test_a_tagged_photo_that_is_not_here_may_be_listed(self, tmp_path):
        (self.make(tmp_path, "a0", "a1", "gone") / "l.txt").write_text("gone.jpg\na1\n")
        data = load_dataset(tmp_path, split="l", how=Reading(allow_missing=0.5))
        assert data.names == ("gone", "a1")
        assert "1 of 2 tagged photos are not here, and left out: gone" in data.notes


@pytest.mark.parametrize(
    ("gone", "needed"), [(("a0.jpg",), "0.05"), (("a0.jpg", "a3.jpg", "a4.jpg"), "0.15")]
)
def test_missing_photos_are_left_out_if_that_is_allowed(tmp_path, gone, needed):
    names = [f"a{i}.jpg" for i in range(20)]
    photos(tmp_path, *names)
    rows = "".join(f"{name},{'cat' if i % 2 else 'dog'}\n" for i, name in enumerate(names))
    (tmp_path / "tags.csv").write_text("image,tags\n" + rows)
    for name in gone:
        (tmp_path / name).unlink()
    for allowed in (0.01, float(needed) - 0.01):
        with pytest.raises(DataError) as caught:
            load_dataset(tmp_path, how=Reading(allow_missing=allowed))
        assert f"{len(gone)} of 20 tagged photos are not here: a0" in str(caught.value)
        assert str(caught.value).endswith(f"or go on without them: --allow-skipped {needed}")
    data = load_dataset(tmp_path, how=Reading(allow_missing=float(needed)))
    assert any(note.startswith(f"{len(gone)} of 20 tagged photos are not") for note in data.notes)
    found = audit(data, allow_skipped=float(needed))
    assert len(found.skipped) == len(gone)
    assert sum(found.per_class.values()) == len(found.dataset) == 20 - len(gone)


def test_no_flag_goes_on_without_any_photo(tmp_path):
    photos(tmp_path, "other.jpg")
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    with pytest.raises(DataError, match="1 of 1 tagged photos are not here: a; check the folder a"):
        load_dataset(tmp_path, how=Reading(allow_missing=0.5))
