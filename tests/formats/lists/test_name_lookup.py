from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from tagseg.formats.lists.name_lookup import Found, NameLookup

NAMES = ("a0", "a.v2", "cat/a1", "cat/b", "dog/b", "Haus/Käse 1", "my photo", "x.png", "x")


@pytest.fixture
def photos(tmp_path) -> NameLookup:
    (tmp_path / "photos").mkdir()
    return NameLookup(NAMES, (tmp_path / "photos",))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a0", "a0"),
        ("a0.JPG", "a0"),
        ("./a0.jpg", "a0"),
        ("././a0", "a0"),
        ("a.v2", "a.v2"),
        ("a.v2.tif", "a.v2"),
        ("photos/a0.jpg", "a0"),
        ("./photos/a0.jpg", "a0"),
        ("photos\\cat\\a1.jpg", "cat/a1"),
        ("JPEGImages/my photo", "my photo"),
        ("/JPEGImages/my photo.jpg", "my photo"),
        ("{here}/photos/cat/b.png", "cat/b"),
        ("Haus/" + unicodedata.normalize("NFD", "Käse 1"), "Haus/Käse 1"),
    ],
)
def test_names_as_they_are(photos, tmp_path, written, name):
    assert photos.find(written.format(here=tmp_path)) == Found((name,))


@pytest.mark.parametrize(
    ("written", "name", "how"),
    [
        ("/elsewhere/set/cat/b.jpg", "cat/b", "without the first folders"),
        ("C:\\Users\\me\\photos\\a0.jpg", "a0", "without the first folders"),
        ("https://example.org/set/my%20photo.jpg?size=1", "my photo", "without the first folders"),
        ("A0.JPG", "a0", "in other capitals"),
        ("CAT/A1", "cat/a1", "in other capitals"),
        ("haus/KÄSE 1.png", "Haus/Käse 1", "in other capitals"),
        ("a1.jpg", "cat/a1", "by the file name"),
        ("A1.jpg", "cat/a1", "by the file name"),
    ],
)
def test_names_written_otherwise(photos, written, name, how):
    assert photos.find(written) == Found((name,), how)


def test_another_folder_is_another_photo(photos):
    """A photo is never found by the end of its name alone if a folder is written, too."""
    assert photos.find("dog/a1.jpg").names == ()
    assert photos.find("a/a.v3").names == ()
    assert photos.find("").names == ()
    assert photos.find("..").names == ()


def test_several_photos_are_all_told(photos):
    assert photos.find("b") == Found(("cat/b", "dog/b"), "by the file name")
    assert photos.find("x.png") == Found(("x.png", "x"))
    assert NameLookup(["A", "a"]).find("A") == Found(("A",))
    assert NameLookup(["Ab", "aB"]).find("ab") == Found(("Ab", "aB"), "in other capitals")


def test_names_of_old_zip_files():
    """Their bytes are not UTF-8, so the photos are called with %XX; lists have letters."""
    photos = NameLookup(["caf%E9 5", "stra%E1e"])
    assert photos.find("café 5.png").names == ("caf%E9 5",)
    assert photos.find("straße").names == ("stra%E1e",)  # cp437
    assert photos.find("gâteau").names == ()


def test_nearest(photos):
    assert photos.nearest("a00.jpg") == ["a0"]
    assert photos.nearest("my foto") == ["my photo"]
    assert photos.nearest("cat/a12") == ["cat/a1"]
    assert photos.nearest("zzzz") == []


def test_roots_may_be_relative_and_links(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    photos = NameLookup(["a"], (Path("link"),))
    for written in ("link/a.jpg", os.path.join(tmp_path, "link", "a"), tmp_path / "real" / "a.png"):
        assert photos.find(str(written)) == Found(("a",))
