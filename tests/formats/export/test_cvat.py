"""CVAT for images 1.1, as its documentation describes the file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from lxml import etree

from exported import CLASSES, exported, without_unknown
from tagseg.formats.tags.tag_files import read_tag_file

COMMON = {"label", "source", "occluded", "z_order"}
ATTRIBUTES = {
    "mask": COMMON | {"rle", "left", "top", "width", "height"},
    "polygon": COMMON | {"points"},
}
SCHEMA = Path(__file__).parent / "cvat_images_1_1.xsd"  # which names its source


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(SCHEMA))


def inside(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a mask or a polygon."""
    canvas = np.zeros(size, np.uint8)
    if shape.tag == "polygon":
        points = [[float(v) for v in p.split(",")] for p in shape.attrib["points"].split(";")]
        assert len(points) >= 3
        cv2.fillPoly(canvas, [np.array(points).astype(np.int32)], 1)
        return canvas > 0
    left, top, width, height = (int(shape.attrib[k]) for k in ("left", "top", "width", "height"))
    lengths = [int(length) for length in shape.attrib["rle"].split(",")]
    values = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(height, width)
    canvas[top : top + height, left : left + width] = values
    return canvas > 0


@pytest.mark.parametrize("per", ["region", "class"])
@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_pixels(tmp_path, shapes, per):
    _, photos = exported(tmp_path / "out", "cvat", shapes=shapes, per=per)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("id") for image in images] == ["0", "1", "2"]
    groups = []
    for image, photo in zip(images, photos, strict=True):
        assert image.get("name") == photo.file
        size = int(image.attrib["height"]), int(image.attrib["width"])
        back = np.zeros(size, np.uint8)
        for shape in image:
            groups.append(shape.attrib.pop("group_id", None))
            assert set(shape.attrib) == ATTRIBUTES[shape.tag]
            back[inside(shape, size)] = CLASSES.names.index(shape.attrib["label"]) + 1
        assert np.array_equal(back, without_unknown(photo.labels))
    grouped = [group for group in groups if group is not None]
    assert grouped == (["3"] * 4 if (shapes, per) == ("polygons", "class") else [])


def test_labels_and_tags(tmp_path):
    exported(tmp_path / "out", "cvat")
    file = tmp_path / "out" / "annotations.xml"
    labels = ElementTree.parse(file).getroot().findall("meta/task/labels/label")
    assert [label.findtext("name") for label in labels] == list(CLASSES.names)
    assert [label.findtext("color") for label in labels] == list(CLASSES.hex_colours())
    said = read_tag_file(file)
    assert said.classes == CLASSES.names
    assert [row.tags for row in said.rows] == [CLASSES.names, CLASSES.names, ()]


@pytest.mark.parametrize("per", ["region", "class"])
@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_it_is_as_documented(tmp_path, schema, shapes, per):
    exported(tmp_path / "out", "cvat", shapes=shapes, per=per)
    schema.assertValid(etree.parse(tmp_path / "out" / "annotations.xml"))


@pytest.mark.parametrize(
    ("path", "name", "value", "error"),
    [
        (".//mask", "rle", "3, -1, 2", "'rle'"),
        (".//mask", "left", "0.5", "'left'"),
        (".//mask", "label", "unicorn", "labelOfShape"),
        (".//mask", "occluded", None, "'occluded' is required"),
        (".//mask", "score", "0.5", "'score' is not allowed"),
        ("image", "width", "0", "'width'"),
        ("image", "id", "1", "'image'"),
        (".//type", None, "blob", "'blob'"),
        (".//color", None, "red", "'red'"),
        ("version", None, "1.2", "1.1"),
    ],
)
def test_the_schema_refuses_what_is_not_documented(tmp_path, schema, path, name, value, error):
    exported(tmp_path / "out", "cvat")
    tree = etree.parse(tmp_path / "out" / "annotations.xml")
    place = tree.find(path)
    if name is None:
        place.text = value
    elif value is None:
        del place.attrib[name]
    else:
        place.set(name, value)
    assert not schema.validate(tree)
    assert error in str(schema.error_log)


@pytest.mark.parametrize("points", ["1,2;3,4", "1,2;3,4;5", "1,2;3,4;a,b", ""])
def test_a_polygon_has_three_corners(tmp_path, schema, points):
    exported(tmp_path / "out", "cvat", shapes="polygons")
    tree = etree.parse(tmp_path / "out" / "annotations.xml")
    tree.find(".//polygon").set("points", points)
    assert not schema.validate(tree)


def test_the_schema_takes_what_cvat_documents_beyond_ours(schema):
    """All that is documented of a task, and a shape of each kind."""
    text = """<annotations><version>1.1</version><meta><task><id>4</id><name>cars</name>
    <size>1</size><mode>annotation</mode><overlap>0</overlap><bugtracker></bugtracker>
    <flipped>False</flipped><created>2026-11-30</created><updated>2026-11-30</updated><labels>
    <label><name>car</name><attributes><attribute><name>make</name><mutable>False</mutable>
    <input_type>select</input_type><default_value>a</default_value><values>a\nb</values></attribute>
    </attributes></label><label><name>left</name><type>points</type><attributes></attributes>
    <parent>car</parent></label></labels><segments><segment><id>1</id><start>0</start><stop>0</stop>
    <url>http://localhost</url></segment></segments><owner><username>me</username><email></email>
    </owner></task><dumped>2026-11-30</dumped></meta>
    <image id="0" name="a.jpg" width="9" height="8">
    <box label="car" xtl="0.5" ytl="1" xbr="3" ybr="4.25" occluded="0" z_order="4"><attribute
    name="make">a</attribute></box>
    <polyline label="car" points="1.00,2.00;3,4" occluded="1" z_order="-1"></polyline>
    <points label="car" points="1.00,2.00" occluded="0" z_order="5"></points>
    <tag label="car" source="manual"></tag>
    <skeleton label="car" source="manual" z_order="0"><points label="left" occluded="0"
    source="manual" outside="0" points="1,2"></points></skeleton>
    </image></annotations>"""
    schema.assertValid(etree.fromstring(text))
