"""A JSON object read an entry at a time is the same object."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import TagError
from tagseg.formats.coco import members as module
from tagseg.formats.coco.members import LIST, OBJECT, members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=6), max_size=5)


def read(data: bytes, folder: Path) -> list[module.Member]:
    path = folder / "a.json"
    path.write_bytes(data)
    return list(members(io.BytesIO(data), path))


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]), st.integers(1, 40))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_it_is_what_json_reads_wherever_a_part_ends(tmp_path_factory, whole, ascii, indent, size):
    data = json.dumps(whole, ensure_ascii=ascii, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", size)
        found = read(data, tmp_path_factory.mktemp("json"))
    again: dict[str, object] = {}
    for key, place, value, start, length in found:
        if place == LIST:
            again[key] = []
        elif place == OBJECT:
            again[key] = value
        else:
            entries = again[key]
            assert isinstance(entries, list)
            assert len(entries) == place
            entries.append(value)
        if place != LIST:
            assert json.loads(data[start : start + length]) == value
    assert again == whole


@given(OBJECTS.filter(bool), st.data())
@settings(max_examples=200, derandomize=True, deadline=None)
def test_a_cut_file_is_refused_in_one_line(tmp_path_factory, whole, data):
    text = json.dumps(whole).encode()
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    with pytest.raises(TagError, match=r"a\.json, line 1: not JSON: .*; check that the file is"):
        read(cut, tmp_path_factory.mktemp("json"))


def test_other_values_hold_nothing(tmp_path):
    assert read(b"[1, 2]", tmp_path) == read(b"  ", tmp_path) == []
    assert [m.key for m in read(b'{"a": 1}\n{"a": 2}\n', tmp_path)] == ["a"]
    assert [m.start for m in read(b'\xef\xbb\xbf{"a": 17}', tmp_path)] == [9]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"a": [1,\n2,]}', "line 2: not JSON: expecting a value, not ']'"),
        (b'{"a": [1 2]}', "line 1: not JSON: expecting ','"),
        (b'{"a" 1}', "line 1: not JSON: expecting ':'"),
        (b'{"a":\n\n nope}', "line 3: not JSON: Expecting value"),
        (b"{1: 2}", "line 1: not JSON: a key must be a text"),
        (b'{"a": 1} x', "line 1: not JSON: more stands behind the object"),
        (b'{"a": ' + b"[" * 100_000, "not JSON: a value that cannot be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: a value that cannot be read"),
        (b'{"a": "\xe9"}', "not UTF-8 text; save as UTF-8"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, data, line):
    with pytest.raises(TagError) as caught:
        read(data, tmp_path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
