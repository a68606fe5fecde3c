"""Masks as PNG files."""

from __future__ import annotations

import numpy as np
from PIL import Image as PilImage

from exported import CLASSES, exported
from tagseg.data.masks import read_mask
from tagseg.formats.lists.class_lists import read_class_list, read_classes


def test_pixels_names_and_colours(tmp_path):
    _, photos = exported(tmp_path / "out", "png")
    for photo in photos:
        path = tmp_path / "out" / "masks" / f"{photo.name}.png"
        assert np.array_equal(read_mask(path), photo.labels)
        with PilImage.open(path) as picture:
            assert tuple(picture.getpalette()[3:12]) == sum(CLASSES.colours, ())
    assert read_classes(tmp_path / "out" / "classes.txt") == CLASSES.names
    known = read_class_list(tmp_path / "out" / "labelmap.txt")
    assert known.names == CLASSES.names
    assert known.colours == {(0, 0, 0): 0, **{c: k for k, c in enumerate(CLASSES.colours, 1)}}
