"""Scores of photos: made in the background, kept, and made again where a photo has changed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tagseg.errors import WorkspaceError
from tagseg.web.photo_folder import open_folder
from tagseg.web.suggestions import Suggestions, suggestions_of
from web_pages import write_photos


class Classifier:
    """Says how bright a photo is."""

    def __init__(self):
        self.asked = 0

    def __call__(self, image):
        self.asked += 1
        return np.array([image.mean() / 255, 0.25], np.float32)


@pytest.fixture
def photos(tmp_path):
    write_photos(tmp_path / "photos", "a.png", "b.png", "c.png")
    (tmp_path / "photos" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return open_folder(tmp_path / "photos")


def scored(photos, classify, keep=None):
    made = Suggestions(photos, ("bright", "x"), classify, about="run", keep=keep)
    made.start()
    assert made.wait(20)
    return made


def test_every_photo_is_scored_but_those_that_cannot_be_decoded(photos):
    made = scored(photos, Classifier())
    found = made.scores()
    assert found[:3, 0] == pytest.approx([0, 50 / 255, 100 / 255])
    assert np.isnan(found[3]).all()
    assert made.version == 4
    made.close()


def test_scores_are_kept_until_the_photo_changes(photos, tmp_path):
    keep = tmp_path / "kept" / "scores.npz"
    first = Classifier()
    scored(photos, first, keep).close()
    assert first.asked == 3
    write_photos(photos.home, "new.png")
    (photos.home / "a.png").write_bytes((photos.home / "c.png").read_bytes())
    again, second = open_folder(photos.home), Classifier()
    made = scored(again, second, keep)
    assert second.asked == 2
    assert made.scores()[0, 0] == pytest.approx(100 / 255)
    made.close()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04"])
def test_kept_scores_that_are_damaged_do_no_harm(photos, tmp_path, content):
    keep = tmp_path / "scores.npz"
    keep.write_bytes(content)
    made = scored(photos, Classifier(), keep)
    assert made.version == 4
    made.close()


def test_it_stops_when_asked(photos, tmp_path):
    begun, go = threading.Event(), threading.Event()

    def slow(image):
        begun.set()
        go.wait(20)
        return np.zeros(2, np.float32)

    made = Suggestions(photos, ("a", "b"), slow, keep=tmp_path / "kept.npz")
    made.start()
    begun.wait(20)
    threading.Timer(0.05, go.set).start()
    made.close()
    assert made.version == 1


def test_a_folder_without_a_run_is_told(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkspaceError, match="holds no run"):
        suggestions_of(tmp_path / "empty", photos)
