"""JSON files of many entries."""

from __future__ import annotations

import json

from tagseg.formats.export.json_files import quoted, to_bytes, write_json_array, write_json_lists


def test_arrays_and_objects(tmp_path):
    for entries in ([], [{"a": 1}], [1, "ö", None]):
        write_json_array(tmp_path / "x" / "a.json", iter(entries))
        assert json.loads((tmp_path / "x" / "a.json").read_text(encoding="utf-8")) == entries
        late: list[str] = []

        def told(entries=entries, late=late):
            for entry in entries:
                late.append(json.dumps(entry))
                yield entry

        path = tmp_path / "b.json"
        write_json_lists(path, {"head": {"k": 0}}, "one", told(), "two", late)
        assert json.loads(path.read_text(encoding="utf-8")) == {
            "head": {"k": 0},
            "one": entries,
            "two": entries,
        }


def test_text():
    assert quoted('a "b" ö') == '"a \\"b\\" ö"'
    assert to_bytes("\udcff") == b'"\\udcff"'
