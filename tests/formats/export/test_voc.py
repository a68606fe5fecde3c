"""Pascal VOC's folders, read by tagseg's own readers of them."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from exported import CLASSES, NAMES, exported
from tagseg.data.masks import read_mask
from tagseg.formats.export.catalog import FORMATS
from tagseg.formats.export.masked_photos import MaskedPhoto
from tagseg.formats.export.regions import regions_of
from tagseg.formats.lists.class_lists import read_class_list
from tagseg.formats.tags.voc import read_annotations


def test_pixels_and_objects(tmp_path):
    _, photos = exported(tmp_path / "out", "voc")
    for photo in photos:
        name = f"{photo.name}.png"
        assert np.array_equal(
            read_mask(tmp_path / "out" / "SegmentationClass" / name), photo.labels
        )
        objects = read_mask(tmp_path / "out" / "SegmentationObject" / name)
        assert np.array_equal(objects == 255, photo.labels == 255)
        regions = list(regions_of(photo.labels, "region"))
        assert sorted(set(np.unique(objects)) - {0, 255}) == list(range(1, len(regions) + 1))
        for number, region in enumerate(regions, start=1):
            assert (objects == number).sum() == region.area
        root = ElementTree.parse(tmp_path / "out" / "Annotations" / f"{photo.name}.xml").getroot()
        assert root.findtext("size/width") == str(photo.width)
        boxes = [[int(v.text) for v in box] for box in root.iterfind("object/bndbox")]
        assert boxes == [[x + 1, y + 1, x + w, y + h] for x, y, w, h in (r.box for r in regions)]
    assert boxes == []


def test_lists_and_tags(tmp_path):
    exported(tmp_path / "out", "voc")
    listed = (tmp_path / "out" / "ImageSets/Segmentation/train.txt").read_text(encoding="utf-8")
    assert listed.splitlines() == list(NAMES)
    known = read_class_list(tmp_path / "out" / "labelmap.txt")
    assert known.names == CLASSES.names
    assert known.colours[224, 224, 192] == 255
    said = read_annotations(tmp_path / "out" / "Annotations", NAMES, NAMES, None)
    assert {row.image: row.tags for row in said.rows}["one"] == CLASSES.names


def test_more_regions_than_numbers(tmp_path):
    labels = np.zeros((40, 40), np.uint8)
    labels[::2, ::2] = 1
    labels[:3, :3] = 1
    export, _ = exported(tmp_path / "out", "voc")
    piece = FORMATS["voc"].one(MaskedPhoto("many", "many.jpg", None, labels), export)
    (tmp_path / "objects.png").write_bytes(piece.files["SegmentationObject/many.png"])
    objects = read_mask(tmp_path / "objects.png")
    assert objects[0, 0] == 1  # the largest has a number
    assert len(np.unique(objects)) == 256
    assert np.array_equal(objects > 0, labels > 0)
    assert piece.regions == 397
