"""Label Studio's tasks: what its converter and its pages read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw

from exported import CLASSES, exported, without_unknown
from tagseg.formats.tags.tag_files import read_tag_file


def drawn(result: dict[str, Any]) -> np.ndarray:
    """A result's pixels."""
    shape = result["original_height"], result["original_width"]
    value = result["value"]
    if result["type"] == "polygonlabels":
        canvas = PilImage.fromarray(np.zeros(shape, np.uint8))
        points = np.array(value["points"]) / 100 * shape[::-1]
        ImageDraw.Draw(canvas).polygon(list(map(tuple, points.tolist())), fill=1, outline=1)
        return np.asarray(canvas) > 0
    bits = np.unpackbits(np.array(value["rle"], np.uint8))
    values: list[int] = []
    at = 32 + 5 + 16
    while len(values) < 4 * shape[0] * shape[1]:
        size = (3, 4, 8, 16)[int(bits[at + 1]) * 2 + int(bits[at + 2])]
        length, word = (
            int("".join(map(str, bits[start:stop])), 2)
            for start, stop in ((at + 3, at + 3 + size), (at + 3 + size, at + 11 + size))
        )
        values += [word] * (length + 1)
        at += 11 + size
    return np.array(values).reshape(*shape, 4)[:, :, 3] > 0


@pytest.mark.parametrize(
    ("shapes", "per", "numbers"),
    [
        ("masks", "class", [3, 3, 0]),
        ("masks", "region", [4, 4, 0]),
        ("polygons", "region", [4, 4, 0]),
    ],
)
def test_pixels(tmp_path, shapes, per, numbers):
    _, photos = exported(tmp_path / "out", "label-studio", shapes=shapes, per=per)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    kind = "brushlabels" if shapes == "masks" else "polygonlabels"
    for task, photo, number in zip(tasks, photos, numbers, strict=True):
        back = np.zeros_like(photo.labels)
        (annotation,) = task["annotations"]
        assert len({result["id"] for result in annotation["result"]}) == number
        for result in annotation["result"]:
            assert (result["from_name"], result["to_name"]) == ("label", "image")
            back[drawn(result)] = CLASSES.names.index(result["value"][kind][0]) + 1
        assert np.array_equal(back, without_unknown(photo.labels))


def test_the_labelling_interface(tmp_path):
    for shapes, tag in (("masks", "BrushLabels"), ("polygons", "PolygonLabels")):
        exported(tmp_path / shapes, "label-studio", shapes=shapes)
        root = ElementTree.parse(tmp_path / shapes / "labeling_config.xml").getroot()
        labels = root.findall(f"{tag}[@name='label'][@toName='image']/Label")
        assert [label.get("value") for label in labels] == list(CLASSES.names)
        assert labels[0].get("background") == "#c81e5a"


def test_photos_and_tags(tmp_path):
    for by, folder in (("name", ""), ("copy", "images/")):
        exported(tmp_path / by, "label-studio", photos=by)
        file = tmp_path / by / "tasks.json"
        urls = [task["data"]["image"] for task in json.loads(file.read_text(encoding="utf-8"))]
        assert all(url.isascii() for url in urls)
        paths = [unquote(url).partition("?d=")[2] for url in urls]
        assert paths == [f"{folder}{n}.jpg" for n in ("one", "more/two ö.v2", "empty")]
        said = read_tag_file(Path(file))
        assert [row.tags for row in said.rows] == [CLASSES.names, CLASSES.names, ()]
        assert all(row.complete for row in said.rows)
