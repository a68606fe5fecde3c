"""Exports of annotation tools: COCO, Label Studio, CVAT, labelme and YOLO, written as they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.tag_files import TagFile, read_tag_file
from tagseg.formats.tags.yolo import find_names, read_names_of_yaml, row_of_labels


def read(folder: Path, name: str, text: object) -> TagFile:
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_tag_file(path)


def pairs(said: TagFile) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(row.image, row.tags, row.complete) for row in said.rows]


def coco(**changes: object) -> dict[str, object]:
    return {
        "info": {},
        "images": [{"id": 7, "file_name": "x/a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 3},
            {"id": 3, "image_id": 7, "category_id": 3},
        ],
        "categories": [
            {"id": 90, "name": "dog", "supercategory": "pets"},
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 3, "name": "cat", "supercategory": "pets"},
        ],
    } | changes


class TestCoco:
    def test_categories_in_the_order_of_their_ids(self, tmp_path):
        said = read(tmp_path, "c.json", coco())
        assert pairs(said) == [("x/a.jpg", ("cat", "dog"), True), ("b.jpg", (), True)]
        assert said.classes == ("cat", "dog")  # pets is their parent, with no annotation
        assert said.notes[0] == "c.json: read as COCO: 2 classes, cat, dog"
        assert "1 photo without annotation holds none" in said.notes[1]

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (
                {"annotations": [{"image_id": 8, "category_id": 3}]},
                "annotations[0]: there is no im",
            ),
            ({"annotations": [{"image_id": 7, "category_id": 4}]}, "there is no category 4"),
            ({"annotations": []}, "there are no annotations"),
            ({"annotations": {}}, "'annotations' is not a list"),
            ({"categories": []}, "there are no categories"),
            ({"categories": [{"id": 3}]}, "categories[0]: has no name"),
            ({"images": [{"file_name": "a"}]}, "images[0]: has no id"),
            ({"images": [{"id": 7}, {"id": 9}]}, "images[0]: has no file_name"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, changes, line):
        with pytest.raises(TagError) as caught:
            read(tmp_path, "c.json", coco(**changes))
        assert line in str(caught.value)


class TestLabelStudio:
    def task(self, *results: dict[str, object], **more: object) -> dict[str, object]:
        return {"id": 1, "data": {"image": "/u/a.jpg"}, "annotations": [{"result": results} | more]}

    @pytest.mark.parametrize(
        "value",
        [
            {"choices": ["cat", "dog"]},
            {"x": 1, "rectanglelabels": ["cat", "dog"]},
            {"points": [], "polygonlabels": ["cat", "dog"]},
            {"rle": [], "brushlabels": ["cat", "dog"]},
            {"taxonomy": [["cat"], ["dog"]]},
        ],
    )
    def test_results(self, tmp_path, value):
        said = read(tmp_path, "e.json", [self.task({"type": "t", "value": value})])
        assert pairs(said) == [("/u/a.jpg", ("cat", "dog"), True)]

    def test_what_nobody_finished_says_nothing(self, tmp_path):
        cat = {"value": {"choices": ["cat"]}}
        open_task = {
            "data": {"img": "b.jpg"},
            "annotations": [],
            "predictions": [{"result": [cat]}],
        }
        tasks = [self.task(cat, was_cancelled=True), self.task(), open_task, self.task(cat)]
        assert [row[1:] for row in pairs(read(tmp_path, "e.json", tasks))] == [
            ((), False),
            ((), True),
            ((), False),
            (("cat",), True),
        ]

    def test_no_photo(self, tmp_path):
        with pytest.raises(TagError, match="task 1: its data name no photo; there are n"):
            read(tmp_path, "e.json", [{"data": {"n": 3}}])

    def test_csv(self, tmp_path):
        text = 'image,id,choice,annotator,created_at\n/u/a.jpg,1,cat,1,2024\n/u/b.jpg,2,"'
        said = read(tmp_path, "e.csv", text + '{""choices"":[""cat"",""dog""]}",1,2024\n')
        assert [row.tags for row in said.rows] == [("cat",), ("cat", "dog")]


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><{0}>
<labels><label><name>dog</name></label><label><name>cat</name></label></labels></{0}></meta>
<image id="0" name="x/a.jpg" width="9" height="9"><tag label="cat" source="manual"/></image>
<image id="1" name="b.jpg"><box label="dog" xtl="1"/><polygon label="cat"/>
<mask label="cat"/></image>
<image id="2" name="c.jpg"/></annotations>"""


class TestCvat:
    @pytest.mark.parametrize("around", ["task", "project", "job"])
    def test_tags_and_shapes(self, tmp_path, around):
        said = read(tmp_path, "a.xml", CVAT.format(around))
        assert [row[1] for row in pairs(said)] == [("cat",), ("dog", "cat"), ()]
        assert said.classes == ("dog", "cat")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("<annotations/>", "holds no images; export annotations as CVAT for images 1.1"),
            ('<annotations><image name="a"/></annotations>', "no annotation in any of its images"),
            ('<annotations><track label="a"/></annotations>', "holds tracks of a video"),
            ("<svg/>", "XML of an unknown kind (<svg>)"),
            ('<annotations><image><tag label="a"/></image></annotations>', "image 1: has no name"),
            ("<annotations>", "not plain XML"),
            ("<!DOCTYPE a []><annotations/>", "a document type is declared"),
        ],
    )
    def test_others(self, tmp_path, text, line):
        with pytest.raises(TagError) as caught:
            read(tmp_path, "a.xml", text)
        assert line in str(caught.value)

    def test_one_voc_file(self, tmp_path):
        text = (
            "<annotation><filename>a.jpg</filename><object><name>cat</name></object></annotation>"
        )
        assert pairs(read(tmp_path, "q.xml", text)) == [("a.jpg", ("cat",), True)]


class TestLabelme:
    def test_shapes_and_flags(self, tmp_path):
        shapes = [{"label": " cat"}, {"label": "cat"}]
        value = {"flags": {"dog": True, "cow": False}, "shapes": shapes, "imagePath": "..\\a.jpg"}
        assert pairs(read(tmp_path, "a.json", value)) == [("..\\a.jpg", ("cat", "dog"), True)]
        assert pairs(read(tmp_path, "a.json", {"shapes": []})) == [("a", (), True)]
        with pytest.raises(TagError, match=r"shapes\[0\] has no label"):
            read(tmp_path, "a.json", {"shapes": [{}]})


class TestYolo:
    @pytest.mark.parametrize(
        "text",
        [
            "nc: 2\nnames: ['cat', 'tv set']\n",
            'names: ["cat", "tv set"] # mine\nnc: 2\n',
            "names: [cat, tv set]\n",
            "names:\n- cat\n- tv set\nnc: 2\n",
            "names:\n  - cat\n\n  - 'tv set'\n",
            "path: x\nnames:\n  0: cat\n  1: tv set  # b\ntrain: x\n",
            "names: {0: cat, 1: 'tv set'}\n",
            "names: ['cat',\n  'tv set',\n  ]\n",
            "names:\r\n  1: tv set\r\n  0: cat\r\n",
        ],
    )
    def test_names(self, tmp_path, text):
        (tmp_path / "data.yaml").write_bytes(text.encode())
        assert read_names_of_yaml(tmp_path / "data.yaml") == ("cat", "tv set")

    @pytest.mark.parametrize("text", ["names: x", "names: [a", "names: {0: a, 2: b}", "names: ['a"])
    def test_names_that_cannot_be_read(self, tmp_path, text):
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(TagError, match="line 1"):
            read_names_of_yaml(tmp_path / "data.yaml")

    def test_names_of_a_list(self, tmp_path):
        assert find_names([tmp_path]) is None
        (tmp_path / "data.yaml").write_text("nc: 3\n")
        (tmp_path / "classes.txt").write_text("cat\ntv set\n")
        assert find_names([tmp_path]) == (tmp_path / "classes.txt", ("cat", "tv set"))

    def test_labels(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("1 0.1 0.2 0.3 0.4\n0 0.1 0.1 0.2 0.2 0.3 0.3\n1 .1 .2 .3 .4\n")
        assert row_of_labels(path, "a", ("cat", "dog")).tags == ("dog", "cat")
        path.write_text("")
        assert row_of_labels(path, "a", ("cat",)).complete
        for text, line in (
            ("a cat", "not a line"),
            ("0 1 2", "not a line"),
            ("5 1 1 1 1", "class 5 has no name: there are 1 names"),
            (f"{'1' * 5000} 1 1 1 1", "not a line of YOLO labels"),
        ):
            path.write_text(text)
            with pytest.raises(TagError, match=f"line 1: {line}"):
                row_of_labels(path, "a", ("cat",))
