"""COCO, read by pycocotools and by tagseg's own reader of tags."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO as PyCoco

from exported import CLASSES, NAMES, exported, without_unknown
from tagseg.errors import ConfigError
from tagseg.formats.export.catalog import FORMATS
from tagseg.formats.export.masked_photos import Export
from tagseg.formats.tags.tag_files import read_tag_file

# pycocotools 2.0.11 decodes with an __array__ that NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FILE = "annotations/instances_train.json"


@pytest.mark.parametrize("per", ["region", "class"])
@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_pixels(tmp_path, shapes, per):
    _, photos = exported(tmp_path / "out", "coco", shapes=shapes, per=per)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = PyCoco(str(tmp_path / "out" / FILE))
    assert [image["file_name"] for image in coco.dataset["images"]] == [p.file for p in photos]
    for image, photo in zip(coco.dataset["images"], photos, strict=True):
        assert (image["height"], image["width"]) == photo.labels.shape
        back = np.zeros_like(photo.labels)
        for annotation in coco.imgToAnns[image["id"]]:
            found = coco.annToMask(annotation) > 0
            assert annotation["area"] == found.sum()
            rows, columns = np.nonzero(found)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert annotation["iscrowd"] == 0
            back[found] = annotation["category_id"]
        assert np.array_equal(back, without_unknown(photo.labels))
    per_photo = [len(coco.imgToAnns[image["id"]]) for image in coco.dataset["images"]]
    assert per_photo == ([4, 4, 0] if per == "region" else [3, 3, 0])
    assert [c["name"] for c in coco.dataset["categories"]] == list(CLASSES.names)
    assert [tuple(c["color"]) for c in coco.dataset["categories"]] == list(CLASSES.colours)


def test_tags(tmp_path):
    exported(tmp_path / "out", "coco")
    said = read_tag_file(tmp_path / "out" / FILE)
    assert [(row.image, row.tags) for row in said.rows] == [
        ("one.jpg", CLASSES.names),
        ("more/two ö.v2.jpg", CLASSES.names),
        ("empty.jpg", ()),
    ]
    assert len(NAMES) == len(said.rows)


def test_no_photos_are_a_whole_file(tmp_path):
    FORMATS["coco"].whole(iter(()), Export(tmp_path, tmp_path, CLASSES, "name"))
    about = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert (about["images"], about["annotations"]) == ([], [])


def test_without_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setattr("tagseg.formats.export.coco.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need pycocotools; pip install 'tagseg\[formats\]'"):
        exported(tmp_path / "out", "coco", shapes="masks")
    exported(tmp_path / "out", "coco", shapes="polygons")
