from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.finding import find_masks, find_photos, is_odd
from tagseg.data.text import (
    lines_of,
    read_text,
    read_text_and_notes,
    readable,
    split_lines,
    tidy_name,
    without_folders,
)
from tagseg.errors import TagError

TEXT = "image,tags\na.jpg,Kätzchen\n"


def written(folder: Path, data: bytes, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
    ],
)
def test_unicode_in_every_form(tmp_path, data):
    assert read_text(written(tmp_path, data), TagError) == TEXT


@pytest.mark.parametrize(
    ("encoding", "word"),
    [("cp1252", "Kätzchen"), ("cp1251", "собака"), ("cp1250", "kočka"), ("cp932", "猫")],
)
def test_a_code_page_is_read_where_known_names_prove_it(tmp_path, encoding, word):
    path = written(tmp_path, f"a.jpg,{word}\n".encode(encoding))
    text, (note,) = read_text_and_notes(path, TagError, ["x", word])
    assert text == f"a.jpg,{word}\n"
    assert "not UTF-8; read as " in note
    with pytest.raises(TagError, match=r"line 1: not UTF-8 text; save as UTF-8"):
        read_text_and_notes(path, TagError, ["cat", "a"])


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.xlsx", b"PK\x03\x04..", "this is an Excel workbook, not text; save the table as CSV"),
        ("a.csv", b"PK\x03\x04 xl/workbook.xml", "this is an Excel workbook"),
        ("a.csv", b"PK\x03\x04..", "this is a ZIP archive, not text; unpack it"),
        ("a.xls", b"\xd0\xcf\x11\xe0..", "this is an old Excel workbook"),
        ("a.csv", b"PAR1..", "this is a Parquet file"),
        ("a.csv", b"\x89PNG..", "this is a PNG picture"),
        ("a.csv", b"\xff\xd8\xff\xe0", "this is a JPEG picture"),
        ("a.csv", b"a\nb\0c", "line 2: holds NUL bytes"),
        ("a.csv", b"\xff\xfea", "cut or damaged UTF-16 text"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, name, data, line):
    with pytest.raises(TagError) as caught:
        read_text(written(tmp_path, data, name), TagError)
    assert line in str(caught.value)


def test_lines_end_as_in_editors_alone(tmp_path):
    assert split_lines("a\r\nb\rc\nd\u2028e") == ["a", "b", "c", "d\u2028e"]
    path = written(tmp_path, b"a\r# no\r\rb\r")
    assert list(lines_of(path)) == [(f"{path}, line 1", "a"), (f"{path}, line 4", "b")]


def test_names_that_look_alike_are_one():
    assert len({tidy_name(name) for name in ("Käfer", "Ka\u0308fer", " Käfer\u200b\u00a0")}) == 1
    assert tidy_name("tv\u00a0 monitor") == "tv monitor"
    assert tidy_name("Cat") != tidy_name("cat")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b", "a b"),
        ("写真 Käse", "写真 Käse"),
        ("caf\udce9 5", "caf%E9 5"),
        ("写\udce9/\udcff\udc80", "写%E9/%FF%80"),
        ("\ud800x", "%uD800x"),
    ],
)
def test_readable(name, text):
    assert readable(name) == text


@given(st.binary(max_size=12))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_bytes_become_text(name):
    text = readable(os.fsdecode(name))
    assert text.encode().decode() == text
    assert readable(text) == text


def test_photos_and_masks_of_odd_names_meet(tmp_path):
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/\xe9")
    for name in (b"caf\xe9.png", b"\xe9/a.png", "é.png".encode()):
        with open(folder + b"/" + name, "wb"):
            pass
    photos = find_photos(tmp_path)
    assert set(photos) == set(find_masks(tmp_path)) == {"caf%E9", "%E9/a", "é"}
    assert {name for name, path in photos.items() if is_odd(path, tmp_path)} == {"caf%E9", "%E9/a"}
    assert not is_odd(photos["%E9/a"], tmp_path / "\udce9")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("train", "train"),
        ("runs/a", "runs/a"),
        ("../photos", "../photos"),
        ("/home/anna/photos", "photos"),
        ("/home/anna/photos/", "photos"),
        ("--out=/home/anna/run", "--out=run"),
        ("boxes=/data/my boxes.csv", "boxes=my boxes.csv"),
        ("cam_scales=1,0.5", "cam_scales=1,0.5"),
        ("C:\\Users\\anna\\photos", "photos"),
        ("--tags=C:/Users/anna/tags.csv", "--tags=tags.csv"),
        ("https://example.org/w.pth", "https://example.org/w.pth"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_without_folders(word, shown):
    assert without_folders(word) == shown
