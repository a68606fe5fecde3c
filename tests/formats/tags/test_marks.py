"""Marks before tags: what is one, what is a name, and that either is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.errors import TagError
from tagseg.formats.loading import load_dataset
from tagseg.formats.tags.marks import marked, with_marks, without_marks
from tagseg.formats.tags.tag_files import read_tag_file
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow

CLASSES = ("cat", "dog", "traffic light")


def rows_of(*tags: tuple[str, ...], classes: tuple[str, ...] | None = None) -> TagFile:
    said = TagFile(tuple(TagRow(f"{i}.jpg", own, f"line {i}") for i, own in enumerate(tags)))
    return with_marks(said, Hints(classes=classes), "tags.csv")


def told(said: TagFile) -> list[tuple[tuple[str, ...], ...]]:
    return [(row.tags, row.unsure, row.absent) for row in said.rows]


class TestTheRule:
    def test_a_mark_stands_before_the_name_of_a_class(self):
        said = rows_of(("cat", "?dog"), ("-cat", "dog"), ("? traffic light",), classes=CLASSES)
        assert told(said) == [
            (("cat",), ("dog",), ()),
            (("dog",), (), ("cat",)),
            ((), ("traffic light",), ()),
        ]
        assert said.notes == (
            "tags.csv: marked tags: 2 with ? (nobody knows), 1 with - (surely absent)",
        )

    def test_without_a_list_a_class_is_what_some_photo_has_without_a_mark(self):
        said = rows_of(("cat",), ("?cat",), ("?bird", "-bird"))
        assert told(said)[1:] == [((), ("cat",), ()), (("?bird", "-bird"), (), ())]
        assert said.notes[1].startswith("tags.csv: '-bird', '?bird' is read as a name, and no mark")

    def test_a_class_of_the_list_is_no_mark_and_that_is_said(self):
        said = rows_of(("-cat", "?dog"), classes=("cat", "-cat", "dog"))
        assert told(said) == [(("-cat",), ("dog",), ())]
        assert "'-cat' is a class of the list, and no mark" in said.notes[1]

    def test_numbers_with_a_sign_are_numbers_unless_a_list_counts_them(self):
        assert told(rows_of(("1",), ("-1",)))[1] == (("-1",), (), ())
        assert told(rows_of(("1",), ("-1",), ("?0",), classes=CLASSES))[1:] == [
            ((), (), ("1",)),
            ((), ("0",), ()),
        ]

    def test_what_is_sure_counts(self):
        said = rows_of(("cat", "?cat"), ("-dog", "?dog"), classes=CLASSES)
        assert told(said) == [(("cat",), (), ()), ((), (), ("dog",))]

    def test_files_without_such_words_are_as_they_were(self):
        said = TagFile((TagRow("a", ("t-shirt", "what?"), ""),))
        assert with_marks(said, Hints(), "x") is said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags.csv", "image,tags\na.png,cat;?dog\nb.png,-cat;dog\nc.png,?dog\n"),
        ("tags.tsv", "image\ttags\na.png\tcat;?dog\nb.png\t-cat;dog\nc.png\t?dog\n"),
        ("tags.csv", 'image,tags\na.png,"cat,?dog"\nb.png,"-cat,dog"\nc.png,?dog\n'),
        ("tags.csv", "image,tags\na.png,cat\na.png,?dog\nb.png,-cat\nb.png,dog\nc.png,?dog\n"),
        (
            "tags.csv",
            'image,tags\na.png,"[\'cat\', \'?dog\']"\nb.png,"[""-cat"",""dog""]"\nc.png,?dog\n',
        ),
        ("labels.csv", "image,cat,dog\na.png,1,?\nb.png,0,1\nc.png,0,?\n"),
        ("tags.json", '{"a.png": ["cat", "?dog"], "b.png": ["-cat", "dog"], "c.png": "?dog"}'),
        (
            "tags.jsonl",
            '{"file_name": "a.png", "tags": ["cat", "?dog"]}\n'
            '{"file_name": "b.png", "tags": ["-cat", "dog"]}\n'
            '{"file_name": "c.png", "tags": ["?dog"]}\n',
        ),
    ],
)
def test_every_form_of_words_has_them(tmp_path: Path, name: str, text: str) -> None:
    for photo in "abc":
        PilImage.new("RGB", (40, 40), (9 * ord(photo) % 255, 0, 0)).save(tmp_path / f"{photo}.png")
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = load_dataset(tmp_path, tags=tmp_path / name, untagged="unknown")
    assert found.classes == ("cat", "dog")
    assert found.tags.tolist() == [[True, False], [False, True], [False, False]]
    assert found.unsure is not None
    assert found.unsure.tolist() == [[False, True], [False, False], [False, True]]
    if name != "labels.csv":
        assert found.absent is not None
        assert found.absent.tolist() == [[False, False], [True, False], [False, False]]
        assert any("2 with ? (nobody knows)" in note for note in found.notes)
        assert found.known.tolist() == [True, True, False]


def test_a_photo_that_has_and_has_not_a_class_is_refused_by_its_line(tmp_path: Path) -> None:
    PilImage.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat;-cat\n", encoding="utf-8")
    with pytest.raises(TagError, match="line 2: 'cat' is in photo 'a' and is not"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("cell", ["?", "cat;?"])
def test_a_question_mark_alone_is_no_class(tmp_path: Path, cell: str) -> None:
    """It would be one that nobody meant, and each photo in doubt would teach it."""
    for name in ("a.png", "b.png"):
        PilImage.new("RGB", (40, 40)).save(tmp_path / name)
    tags = tmp_path / "tags.csv"
    tags.write_text(f"image,tags\na.png,cat;dog\nb.png,{cell}\n")
    with pytest.raises(TagError, match=r"line 3: '\?' marks no class; write \?CLASS, or leave"):
        load_dataset(tmp_path, untagged="negative")


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (
            "?cta",
            r"tag '\?cta' is not in the class list, and 'cta' is not either; did you mean "
            r"'\?cat'\?",
        ),
        ("-zebra", "tag '-zebra' is not in the class list, and 'zebra' is not either; add it"),
    ],
)
def test_what_a_mark_stands_before_is_named(tmp_path: Path, cell: str, line: str) -> None:
    PilImage.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text(f"image,tags\na.png,dog;{cell}\n")
    with pytest.raises(TagError, match=line):
        load_dataset(tmp_path, classes=["cat", "dog"], untagged="negative")


def test_class_folders_do_not_take_the_place_of_a_file_with_marks(tmp_path: Path) -> None:
    lines = []
    for i, name in enumerate(("cat", "dog", "cat", "dog")):
        (tmp_path / name).mkdir(exist_ok=True)
        PilImage.new("RGB", (40, 40), (60 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
        lines.append(f"{name}/{i}.png,{name}{';?dog' if name == 'cat' else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(("image,tags", *lines)), encoding="utf-8")
    found = load_dataset(tmp_path)
    assert found.unsure is not None
    assert int(found.unsure.sum()) == 2


WORDS = st.sampled_from(["", "?", "-"]).flatmap(
    lambda mark: st.sampled_from(CLASSES).map(lambda name: (mark, name))
)


@given(st.lists(st.lists(WORDS, max_size=3, unique_by=lambda w: w[1]), min_size=1, max_size=6))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, photos) -> None:
    folder = tmp_path_factory.mktemp("marks")
    words = [[marked(mark, name) for mark, name in own] for own in photos]
    table = "".join(f"{i}.jpg,{';'.join(own)}\n" for i, own in enumerate(words))
    (folder / "a.csv").write_text(f"image,tags\n{table}", encoding="utf-8")
    lines = [json.dumps({"file_name": f"{i}.jpg", "tags": own}) for i, own in enumerate(words)]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("a.csv", "a.jsonl"):
        rows = read_tag_file(folder / name, Hints(classes=CLASSES)).rows
        for row, own in zip(rows, photos, strict=True):
            by_mark = ("", row.tags), ("?", row.unsure), ("-", row.absent)
            assert {(m, n) for m, names in by_mark for n in names} == set(own)


@given(st.text(st.sampled_from("ab-? ;,|/"), max_size=12))
@settings(max_examples=80, derandomize=True, deadline=None)
def test_only_marks_go_where_separators_are_looked_for(cell: str) -> None:
    found = without_marks(cell)
    assert [c for c in found if c not in "?-"] == [c for c in cell if c not in "?-"]


def test_a_known_array_keeps_its_type(tmp_path: Path) -> None:
    PilImage.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat\n", encoding="utf-8")
    found = load_dataset(tmp_path)
    assert found.unsure is None
    assert found.absent is None
    assert found.tags.dtype == np.bool_
