from __future__ import annotations

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.voc import VOC_CLASSES, is_voc, rows_of_annotations

XML = """<annotation><filename>a.jpg</filename>
<object><name>person</name><part><name>head</name></part><difficult>1</difficult></object>
<object><name> dog </name></object><object><name>person</name></object>
<object><name>unicorn</name></object><object></object></annotation>"""


def test_standard_order():
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert VOC_CLASSES.index("person") == 14


def test_objects_become_tags(tmp_path):
    (tmp_path / "a.xml").write_text(XML)
    (row,) = rows_of_annotations(tmp_path, ["a"], VOC_CLASSES)
    assert row.tags == ("dog", "person")
    assert row.complete


def test_no_objects_is_a_statement_and_no_file_is_not(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation/>")
    a, b = rows_of_annotations(tmp_path, ["a", "b"], VOC_CLASSES)
    assert (a.tags, a.complete) == ((), True)
    assert (b.tags, b.complete) == ((), False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_never_expanded(tmp_path, encoding):
    bomb = (
        '<!DOCTYPE a [<!ENTITY x "dog">]><annotation><object><name>&x;</name></object></annotation>'
    )
    (tmp_path / "a.xml").write_bytes(bomb.encode(encoding))
    with pytest.raises(TagError, match="not plain XML: a document type is declared"):
        rows_of_annotations(tmp_path, ["a"], VOC_CLASSES)


def test_looks(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    assert not is_voc(tmp_path)
    (tmp_path / "ImageSets").mkdir()
    assert is_voc(tmp_path)
