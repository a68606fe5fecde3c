"""The classes' table."""

from __future__ import annotations

import numpy as np

from tagseg.data.masks import voc_palette
from tagseg.formats.export.masked_photos import ClassTable, used_labels


def test_colours_are_vocs_where_none_are_given():
    table = ClassTable(("cat", "dog"))
    assert table.palette == tuple(map(tuple, voc_palette().tolist()))
    assert table.hex_colours() == ("#800000", "#008000")
    own = ClassTable(("cat", "dog"), ((1, 2, 3), (4, 5, 6)))
    assert own.palette[:4] == ((0, 0, 0), (1, 2, 3), (4, 5, 6), (128, 128, 0))
    assert list(own.coloured()) == [("cat", (1, 2, 3)), ("dog", (4, 5, 6))]
    assert own.name(2) == "dog"


def test_label_map():
    lines = ClassTable(("cat",), ((1, 2, 3),)).label_map(unknown=True).splitlines()
    assert lines[1:] == ["background:0,0,0::", "cat:1,2,3::", "ignored:224,224,192::"]
    assert len(ClassTable(tuple("abc")).label_map().splitlines()) == 5


def test_used_labels():
    assert used_labels(np.array([[0, 255, 7], [254, 1, 7]], np.uint8)) == [1, 7, 254]
