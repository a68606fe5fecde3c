from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.json_tags import read_json_tags, read_jsonl_tags
from tagseg.formats.tags.tag_rows import NO_HINTS, Hints, TagFile


def read(folder: Path, value: object, hints: Hints = NO_HINTS) -> TagFile:
    path = folder / "t.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return read_json_tags(path, hints)


def pairs(said: TagFile) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.image, row.tags) for row in said.rows]


WANTED = [("a.jpg", ("cat",)), ("b.jpg", ("cat", "dog"))]


@pytest.mark.parametrize(
    "value",
    [
        [{"file_name": "a.jpg", "tags": ["cat"]}, {"file_name": "b.jpg", "tags": ["cat", "dog"]}],
        [{"image": "a.jpg", "label": "cat"}, {"image": "b.jpg", "label": "cat, dog"}],
        {"a.jpg": "cat", "b.jpg": ["cat", "dog"]},
        {"a.jpg": {"cat": True, "dog": False}, "b.jpg": {"cat": True, "dog": True}},
        {"a.jpg": {"labels": ["cat"]}, "b.jpg": {"labels": ["cat", "dog"]}},
        {"data": [{"path": "a.jpg", "classes": ["cat"]}, {"path": "b.jpg", "classes": "cat;dog"}]},
        [
            {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]},
            {"image": "b.jpg", "annotations": [{"label": "cat"}, {"label": "dog"}]},
        ],
        [
            {"image": {"path": "a.jpg", "bytes": None}, "objects": {"categories": ["cat"]}},
            {"image": {"path": "b.jpg"}, "objects": {"categories": ["cat", "dog"], "id": [1, 2]}},
        ],
        '{"image": "a.jpg", "tag": "cat"}\n{"image": "b.jpg", "tag": ["cat", "dog"]}\n',
        [
            {"image": "a.jpg", "choice": "cat", "id": 1, "annotator": 3},
            {"image": "b.jpg", "choice": {"choices": ["cat", "dog"]}, "id": 2},
        ],
    ],
)
def test_forms(tmp_path, value):
    assert pairs(read(tmp_path, value)) == WANTED


def test_numbers_need_names(tmp_path):
    value = [{"file_name": "a.jpg", "objects": {"categories": [0, 1]}}]
    with pytest.raises(TagError, match=r"tags are numbers \(0, 1\).*--classes FILE"):
        read(tmp_path, value)
    assert pairs(read(tmp_path, value, Hints(("x", "y")))) == [("a.jpg", ("x", "y"))]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([{"file_name": "a.jpg", "text": "x"}], "no key of tags; there are file_name, text"),
        ([{"label": "x"}], "t.json, entry 1: has no file_name; name the photo there (it has label"),
        ([["a.jpg", "cat"]], "entry 1: has no file_name"),
        ([], "names no photos"),
        ("{", "line 1: not JSON"),
        ('[{"image": "a"},\n{"image" 3}]', "line 2: not JSON: Expecting ':' delimiter"),
        ("", "this file is empty"),
        ("3", "neither a list nor an object"),
        (
            [{"image": "a", "label": "x", "class": "y"}],
            "keys 'label' and 'class' may hold the tags",
        ),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be_read(tmp_path, value, line):
    with pytest.raises(TagError) as caught:
        read(tmp_path, value)
    assert line in str(caught.value)


def test_lines_keep_their_number(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('\n{"file_name": "a.jpg", "tags": []}\n\n{"file_name": 3.5}\n')
    with pytest.raises(TagError, match="line 4: has no file_name"):
        read_jsonl_tags(path, NO_HINTS)
    path.write_text('{"file_name": "a\u2028.jpg", "tags": ["x"]}\n', encoding="utf-8")
    assert read_jsonl_tags(path, NO_HINTS).rows[0].image == "a\u2028.jpg"
