from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.data.no_folder import near_folder, no_folder


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "photos.zip",
            "this is an archive, not a folder of photos; unpack it, and give the folder",
        ),
        (
            "a.tar",
            "this is an archive, not a folder of photos; give the folder that it lies in, wh",
        ),
        ("VOC.tar.gz", "this is an archive, not a folder of photos; unpack it"),
        ("tags.csv", "this is a file, not a folder of photos; give the folder of the photos, and"),
        (
            "coco.json",
            "this is a file, not a folder of photos; give the folder of the photos, and this file "
            "with --tags",
        ),
        ("a.JPG", "this is one file, not a folder of photos; give the folder of the photos"),
        ("README", "this is a file, not a folder of photos; give the folder of the photos"),
        ("Photo", "this folder does not exist; check the path; did you mean {here}/Photos?"),
        ("zzzz", "this folder does not exist; check the path"),
        ("zzzz/photos", "this folder does not exist; check the path"),
        ("tags.csv/x", "this folder does not exist; check the path"),
    ],
)
def test_what_was_given(tmp_path, given, line):
    (tmp_path / "Photos").mkdir()
    for name in ("photos.zip", "a.tar", "VOC.tar.gz", "tags.csv", "coco.json", "a.JPG", "README"):
        (tmp_path / name).write_text("")
    path = tmp_path / given
    assert str(no_folder(path)).startswith(f"{path}: {line.format(here=tmp_path)}")


@pytest.mark.parametrize(
    "address", ["https://example.org/a.zip", "http://x", "s3://bucket/photos", "gs://b/c"]
)
def test_addresses(address):
    line = "this is an address, and photos are read from folders; download them, and give the"
    assert line in str(no_folder(Path(address)))


def test_near_folders_as_they_were_written(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert near_folder(Path("photo")) == Path("photos")
    assert near_folder(Path("./fotos")) == Path("photos")
    assert near_folder(Path("nowhere/photos")) is None
