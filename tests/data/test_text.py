from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.finding import find_masks, find_photos, is_odd
from tagseg.data.text import readable, without_folders


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
