from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.lists.class_lists import class_names, read_classes
from tagseg.formats.lists.photo_lists import read_names
from tagseg.formats.tags.tag_cells import MISSING
from tagseg.formats.tags.tag_files import Hints, TagRow, check_tags, read_tags_csv, read_tags_jsonl


def pairs(rows: tuple[TagRow, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.image, row.tags) for row in rows]


class TestCsv:
    def read(self, tmp_path: Path, text: str | bytes) -> tuple[TagRow, ...]:
        path = tmp_path / "tags.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_tags_csv(path)

    def test_plain(self, tmp_path):
        rows = self.read(tmp_path, "image,tags\na.jpg,cat;dog\nb.jpg,\n")
        assert pairs(rows) == [("a.jpg", ("cat", "dog")), ("b.jpg", ())]
        assert rows[1].where == f"{tmp_path}/tags.csv, line 3"

    def test_as_spreadsheets_write_it(self, tmp_path):
        text = '\ufeffImage , TAGS\r\n"a, b.jpg", "cat; dog ;"\r\n\r\n,\r\n c ,cat;cat;;\r\n'
        rows = self.read(tmp_path, text)
        assert pairs(rows) == [("a, b.jpg", ("cat", "dog")), ("c", ("cat",))]
        assert rows[1].where.endswith("line 5")

    def test_other_columns_do_no_harm(self, tmp_path):
        rows = self.read(tmp_path, "id,tags,image,note\n1,cat,a.jpg,x\n2,dog,b.jpg\n")
        assert pairs(rows) == [("a.jpg", ("cat",)), ("b.jpg", ("dog",))]

    def test_a_row_may_lack_its_tags(self, tmp_path):
        assert pairs(self.read(tmp_path, "image,tags\na.jpg\n")) == [("a.jpg", ())]

    NAME = st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"),
        min_size=1,
        max_size=8,
    ).filter(lambda s: s == s.strip())
    TAG = NAME.map(tidy_name).filter(lambda s: s and ";" not in s and s[0] not in "[({")

    @given(st.lists(st.tuples(NAME, st.lists(TAG, unique=True, max_size=3)), min_size=1))
    @settings(max_examples=60, derandomize=True, deadline=None)
    def test_what_the_csv_module_writes_is_read_back(self, tmp_path_factory, entries):
        path = tmp_path_factory.mktemp("csv") / "tags.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "tags"])
            writer.writerows([image, ";".join(tags)] for image, tags in entries)
        # With a separator that is said; what the file alone shows is tested in test_tag_cells.
        rows = read_tags_csv(path, Hints(separator=";"))
        said = [
            (image, tuple(t for t in tags if t.lower() not in MISSING)) for image, tags in entries
        ]
        assert pairs(rows) == said

    @given(st.binary(max_size=80), st.booleans())
    @settings(max_examples=100, derandomize=True, deadline=None)
    def test_no_bytes_raise_anything_else(self, tmp_path_factory, junk, with_header):
        folder = tmp_path_factory.mktemp("junk")
        path = folder / "tags.csv"
        path.write_bytes(b"image,tags\n" * with_header + junk)
        for read in (read_tags_csv, read_tags_jsonl, read_names, read_classes):
            try:
                read(path)
            except TagError as problem:
                lines = str(problem).splitlines()
            else:
                lines = ["fine"]
            assert len(lines) == 1


class TestJsonl:
    def test_plain(self, tmp_path):
        path = tmp_path / "metadata.jsonl"
        entries = [
            {"file_name": "x/a.jpg", "tags": ["cat", " dog", "cat"], "width": 3},
            {"file_name": "b.jpg", "tags": []},
            {"file_name": "c.jpg", "tags": None},
            {"file_name": "d;e.jpg"},
        ]
        path.write_text("\n\n".join(map(json.dumps, entries)))
        rows = read_tags_jsonl(path)
        assert pairs(rows)[0] == ("x/a.jpg", ("cat", "dog"))
        assert [row.image for row in rows] == ["x/a.jpg", "b.jpg", "c.jpg", "d;e.jpg"]
        assert [row.tags for row in rows[1:]] == [(), (), ()]
        assert rows[1].where.endswith("line 3")


class TestClasses:
    @pytest.mark.parametrize(
        "first", ["", "background\n", "_background_\n", "\n# mine\nbackground\n"]
    )
    def test_file(self, tmp_path, first):
        (tmp_path / "classes.txt").write_text(f"{first}dog\n\n cat \r\n")
        assert read_classes(tmp_path / "classes.txt") == ("dog", "cat")

    def test_order_is_kept(self):
        assert class_names(["b", "a", "c"]) == ("b", "a", "c")

    def test_nearest_name(self):
        row = TagRow("a", ("cat", "Aeroplan"), "tags.csv, line 2")
        check_tags([row], ["cat", "Aeroplan"])
        with pytest.raises(TagError, match=r"line 2: tag 'Aeroplan' .* did you mean 'aeroplane'\?"):
            check_tags([row], ["cat", "aeroplane"])
        with pytest.raises(TagError, match="add it to the class list"):
            check_tags([row], ["cat", "xyz"])
