"""CVAT for images 1.1, as its documentation describes the file."""

from __future__ import annotations

from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from exported import CLASSES, exported, without_unknown
from tagseg.formats.tags.tag_files import read_tag_file

COMMON = {"label", "source", "occluded", "z_order"}
ATTRIBUTES = {
    "mask": COMMON | {"rle", "left", "top", "width", "height"},
    "polygon": COMMON | {"points"},
}


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
