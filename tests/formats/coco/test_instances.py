"""COCO's lists in columns: what is read, and a line for whatever does not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import TagError
from tagseg.formats.coco.instances import instances_in, may_be_coco, read_instances

BOX = [[1, 1, 3, 1, 3, 3]]
WHOLE: dict[str, Any] = {
    "info": {"year": 2014},
    "images": [
        {"id": 42, "file_name": "b.jpg", "height": 4, "width": 6},
        {"id": 7, "file_name": "ä.jpg", "height": 5, "width": 5},
        {"id": 9, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "segmentation": BOX, "iscrowd": 0},
        {"id": 2, "image_id": 42, "category_id": 3, "segmentation": BOX, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 3, "segmentation": [], "iscrowd": 0},
    ],
    "categories": [
        {"id": 90, "name": "dog", "supercategory": "animal"},
        {"id": 3, "name": "cat", "supercategory": "animal"},
    ],
}


def written(folder: Path, whole: Any, name: str = "i.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    return path


def reordered(*keys: str) -> dict[str, Any]:
    return {key: WHOLE[key] for key in keys}


@pytest.mark.parametrize(
    "whole",
    [
        WHOLE,
        reordered("annotations", "categories", "images"),
        reordered("categories", "annotations", "images", "info"),
    ],
)
def test_columns(tmp_path, whole):
    path = written(tmp_path, whole)
    assert may_be_coco(path)
    found = read_instances(path)
    assert found is not None
    assert found.names == ("b.jpg", "ä.jpg", "c.jpg")
    assert found.shapes.tolist() == [[4, 6], [5, 5], [0, 0]]
    assert found.categories == ("cat", "dog")  # in the order of their ids, which have gaps
    assert found.parents == ("animal", "animal")
    assert found.images.tolist() == [1, 0, 1]
    assert found.classes.tolist() == [1, 0, 0]
    assert found.crowds.tolist() == [False, True, False]
    assert [found.objects_of(i).tolist() for i in range(3)] == [[1], [0, 2], []]
    assert [entry["id"] for _, _, entry in found.objects(1)] == [1, 3]
    assert next(found.objects(0))[0] == f"{path}, annotations[1]"
    assert read_instances(path) is found  # and not read again


def test_eighty_classes_in_order(tmp_path):
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    rows = [{"id": i, "name": f"n{i}"} for i in ids]
    found = read_instances(written(tmp_path, {**WHOLE, "categories": rows}))
    assert found is not None
    assert found.categories == tuple(f"n{i}" for i in ids)
    assert len(found.categories) == 80


def test_a_file_that_changes_is_read_again_and_its_objects_are_refused(tmp_path):
    path = written(tmp_path, WHOLE)
    found = read_instances(path)
    assert found is not None
    path.write_text(json.dumps({**WHOLE, "annotations": []}))
    with pytest.raises(TagError, match=r"i\.json: has changed while it was used; start again"):
        list(found.objects(1))
    again = read_instances(path)
    assert again is not None
    assert not len(again.images)
    path.unlink()
    with pytest.raises(TagError, match="has changed"):
        list(found.objects(1))


def test_other_json_is_none(tmp_path):
    for whole in ({"images": 3, "annotations": []}, {"a": {"images": [], "annotations": []}},
                  {"images": ["a"], "notes": "annotations"}):  # fmt: skip
        path = written(tmp_path, whole)
        assert read_instances(path) is None
        path.unlink()
    assert not may_be_coco(written(tmp_path, {"a.jpg": ["cat"]}))
    assert not may_be_coco(written(tmp_path, [WHOLE]))
    assert not may_be_coco(tmp_path / "absent.json")
    (tmp_path / "empty.json").touch()
    assert not may_be_coco(tmp_path / "empty.json")
    said = instances_in(json.dumps(WHOLE), tmp_path / "utf-16.json")
    assert said is not None
    assert said.names == ("b.jpg", "ä.jpg", "c.jpg")


def changed(key: str, place: int, **values: object) -> dict[str, Any]:
    rows = [dict(row) for row in WHOLE[key]]
    rows[place] |= values
    return {**WHOLE, key: rows}


def without(key: str, place: int, name: str) -> dict[str, Any]:
    whole = changed(key, place)
    del whole[key][place][name]
    return whole


@pytest.mark.parametrize(
    ("whole", "line"),
    [
        (changed("images", 1, id=42), "images[1]: has the id 42 of images[0]; give each image"),
        (changed("categories", 1, id=90), "categories[1]: has the id 90 of 'dog'; give each"),
        (changed("annotations", 2, image_id=8), "annotations[2]: there is no image 8; add it"),
        (changed("annotations", 2, image_id="7"), "annotations[2]: there is no image '7'"),
        (changed("annotations", 1, category_id=1), "annotations[1]: there is no category 1; add"),
        (without("annotations", 0, "image_id"), "annotations[0]: has no image_id; check"),
        (changed("annotations", 0, category_id=None), "annotations[0]: has no category_id"),
        (without("images", 2, "file_name"), "images[2]: has no file_name; name the photo"),
        (changed("images", 2, file_name=" "), "images[2]: has no file_name"),
        (without("images", 2, "id"), "images[2]: has no id"),
        (changed("images", 2, id=True), "images[2]: has no id"),
        (changed("categories", 0, name=3), "categories[0]: has no name; name the class"),
        ({**WHOLE, "categories": []}, "i.json: there are no categories; export with"),
        ({**WHOLE, "categories": {}}, "i.json: 'categories' is not a list; give a COCO file"),
        ({**WHOLE, "annotations": [3]}, "annotations[0]: not an entry of a COCO file; check"),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path, whole, line):
    with pytest.raises(TagError) as caught:
        read_instances(written(tmp_path, whole))
    assert line in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_list_that_is_there_twice(tmp_path):
    path = tmp_path / "i.json"
    path.write_text(json.dumps(WHOLE)[:-1] + ', "images": []}')
    with pytest.raises(TagError, match="'images' is there twice; keep one"):
        read_instances(path)


def test_no_file_and_no_plain_file(tmp_path):
    with pytest.raises(TagError, match="this file does not exist"):
        read_instances(tmp_path / "none.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(TagError, match="is a pipe"):
        read_instances(tmp_path / "pipe.json")


LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["a", ""])
ENTRIES = st.dictionaries(
    st.sampled_from(["id", "file_name", "name", "image_id", "category_id", "height", "iscrowd"]),
    LEAVES | st.lists(LEAVES, max_size=2),
    max_size=5,
)
LISTS = st.lists(ENTRIES | LEAVES, max_size=4) | LEAVES
SCRAMBLED = st.dictionaries(st.sampled_from(["images", "annotations", "categories", "x"]), LISTS)


@given(SCRAMBLED)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_anything_is_read_or_refused_in_one_line(tmp_path_factory, whole):
    path = tmp_path_factory.mktemp("coco") / "i.json"
    path.write_text(json.dumps(whole))
    found, problem = None, ""
    try:
        found = read_instances(path)
    except TagError as error:
        problem = str(error)
    others = whole.keys() & {"annotations", "categories"}
    is_coco = isinstance(whole.get("images"), list) and bool(others)
    assert (found is not None or bool(problem)) == is_coco
    assert "\n" not in problem
    assert not problem or problem.startswith(str(path))
