"""labelme's files, drawn as its shapes_to_label draws them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw

from exported import CLASSES, exported, without_unknown
from tagseg.formats.lists.class_lists import read_classes
from tagseg.formats.tags.labelme import row_of_labelme


def drawn(shape: dict, size: tuple[int, int]) -> np.ndarray:
    if shape["shape_type"] == "mask":
        (left, top), (right, bottom) = np.array(shape["points"]).astype(int).tolist()
        picture = PilImage.open(io.BytesIO(base64.b64decode(shape["mask"])))
        found = np.zeros(size, bool)
        found[top : bottom + 1, left : right + 1] = np.asarray(picture).astype(bool)
        return found
    canvas = PilImage.fromarray(np.zeros(size, np.uint8))
    ImageDraw.Draw(canvas).polygon(list(map(tuple, shape["points"])), fill=1, outline=1)
    return np.asarray(canvas) > 0


@pytest.mark.parametrize("per", ["region", "class"])
@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_pixels(tmp_path, shapes, per):
    _, photos = exported(tmp_path / "out", "labelme", shapes=shapes, per=per)
    for photo in photos:
        file = tmp_path / "out" / f"{photo.name}.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        back = np.zeros((about["imageHeight"], about["imageWidth"]), np.uint8)
        for shape in about["shapes"]:
            back[drawn(shape, back.shape)] = CLASSES.names.index(shape["label"]) + 1
        assert np.array_equal(back, without_unknown(photo.labels))
        assert about["imagePath"] == Path(photo.file).name
        tags = CLASSES.names if photo.name != "empty" else ()
        assert row_of_labelme(about, file).tags == tags
        groups = {shape["group_id"] for shape in about["shapes"]} - {None}
        split = (shapes, per) == ("polygons", "class") and photo.name != "empty"
        assert groups == ({3} if split else set())


def test_photos_that_stay_where_they_are(tmp_path):
    _, photos = exported(tmp_path / "out", "labelme", photos="name")
    for photo in photos:
        file = tmp_path / "out" / f"{photo.name}.json"
        named = json.loads(file.read_text(encoding="utf-8"))["imagePath"]
        assert (file.parent / named).resolve() == photo.source


def test_names_and_colours(tmp_path):
    exported(tmp_path / "out", "labelme")
    assert read_classes(tmp_path / "out" / "labels.txt") == CLASSES.names
    text = (tmp_path / "out" / "labelme.yaml").read_text(encoding="utf-8")
    assert '  "tv \\"set\\"": [0, 128, 255]\n' in text
