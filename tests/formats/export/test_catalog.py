"""All formats, empty and whole."""

from __future__ import annotations

import pytest

from exported import exported
from small_runs import contents
from tagseg.formats.export.catalog import FORMATS


@pytest.mark.parametrize("to", FORMATS)
def test_equal_masks_give_equal_files(tmp_path, to):
    for name in ("a", "b"):
        exported(tmp_path / name, to)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")


def test_the_first_choices():
    assert {name: form.photos_by[0] for name, form in FORMATS.items()} == {
        "coco": "name",
        "yolo": "copy",
        "label-studio": "name",
        "cvat": "name",
        "labelme": "copy",
        "voc": "copy",
        "png": "name",
        "hf": "copy",
    }
