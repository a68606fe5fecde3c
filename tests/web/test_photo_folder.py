"""Photos of a folder: which there are, what they are called, and which files may be served."""

from __future__ import annotations

import os

import pytest

from tagseg.errors import DataError, TagError
from tagseg.web.photo_folder import open_folder
from tagseg.web.thumbnails import Thumbnails
from tars import jpeg, write_tar
from web_pages import write_photos


def test_photos_are_named_by_their_path(tmp_path):
    folder = open_folder(write_photos(tmp_path, "b.jpg", "trip/a.jpg", "a.png"))
    assert list(folder.names) == ["a", "b", "trip/a"]
    assert list(folder.written) == ["a.png", "b.jpg", "trip/a.jpg"]
    assert folder.file(2) == (tmp_path / "trip" / "a.jpg").resolve()


def test_photos_in_tars_are_named_by_their_keys(tmp_path):
    write_tar(tmp_path / "sub" / "0.tar", {"trip/a.jpg": jpeg(1)})
    folder = open_folder(tmp_path)
    assert list(folder.written) == ["sub/trip/a.jpg"]
    assert folder.file(0) == (tmp_path / "sub" / "0.tar").resolve() / "trip" / "a.jpg"
    assert Thumbnails(tmp_path / "cache").of(folder.file(0), "small").startswith(b"\xff\xd8")


def test_folders_are_no_tags_and_no_doubt(tmp_path):
    names = ("train/dog/a.jpg", "test/x/b.jpg", "holidays/c.jpg")
    assert len(open_folder(write_photos(tmp_path, *names))) == 3


def test_names_begin_in_the_folder_of_all_photos(tmp_path):
    folder = open_folder(write_photos(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg"))
    assert list(folder.names) == ["a", "b"]
    assert folder.written[0] == "a.jpg"


def test_there_must_be_photos(tmp_path):
    with pytest.raises(DataError, match="this folder does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no photos in this folder"):
        open_folder(tmp_path)
    photo = write_photos(tmp_path, "a.jpg") / "a.jpg"
    with pytest.raises(DataError, match="this is one file"):
        open_folder(photo)


def test_vocs_annotations_tell_the_tags(tmp_path):
    write_photos(tmp_path, "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation/>")
    with pytest.raises(TagError, match="laid out as VOC"):
        open_folder(tmp_path)
    assert len(open_folder(tmp_path / "JPEGImages")) == 1


def test_names_that_no_tag_file_can_hold_are_left_out_and_told(tmp_path):
    folder = open_folder(write_photos(tmp_path, "a.jpg", " b.jpg", "c\nd.jpg"))
    assert list(folder.names) == ["a"]
    assert any("2 photos with names that a tag file cannot hold" in note for note in folder.notes)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match="no photo has a name that a tag file can hold"):
        open_folder(tmp_path)


def test_a_name_that_is_not_utf8_is_written_with_percent(tmp_path):
    write_photos(tmp_path, "a.jpg")
    os.rename(tmp_path / "a.jpg", os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    folder = open_folder(tmp_path)
    assert list(folder.names) == ["caf%E9"]
    assert folder.written[0] == "caf%E9.jpg"
    assert folder.file(0).is_file()


def test_no_file_outside_the_folder_is_given(tmp_path):
    photos = write_photos(tmp_path / "photos", "a.jpg", "b.jpg")
    secret = write_photos(tmp_path / "other", "secret.jpg") / "secret.jpg"
    (photos / "out.jpg").symlink_to(secret)
    (photos / "in.jpg").symlink_to(photos / "a.jpg")
    (photos / "around").symlink_to(tmp_path / "other")
    folder = open_folder(photos)
    place = {name: i for i, name in enumerate(folder.names)}
    assert folder.file(place["in"]) == (photos / "a.jpg").resolve()
    for name in ("out", "around/secret"):
        with pytest.raises(DataError, match="leads out of the photos' folder"):
            folder.file(place[name])
    (photos / "b.jpg").unlink()
    with pytest.raises(DataError, match="the file is gone"):
        folder.file(place["b"])


def test_what_is_excluded_is_no_photo(tmp_path):
    write_photos(tmp_path, "a.jpg", "old/b.jpg")
    assert list(open_folder(tmp_path, ["old"]).names) == ["a"]
