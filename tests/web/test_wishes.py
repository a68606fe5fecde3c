"""What pages may want, and what they are told otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import TagError
from tagseg.web.columns import Columns
from tagseg.web.photo_folder import open_folder
from tagseg.web.tag_files import ClassFile
from tagseg.web.wishes import entry_of
from web_pages import write_photos


@pytest.fixture
def entry(tmp_path):
    """A function from a wish to its entry; photo a is a dog."""
    photos = open_folder(write_photos(tmp_path, "a.jpg", "b.jpg"))
    columns = Columns(photos.names)
    for n, act in enumerate(
        [
            {"act": "class", "name": "dog"},
            {"act": "class", "name": "cat"},
            {"act": "tag", "class": "dog", "on": True, "photos": ["a"]},
        ],
        1,
    ):
        columns.apply({"n": n, **act})
    scores = np.array([[0.1, 0.8], [0.1, 0.8]], np.float32)
    file = ClassFile(photos)
    return lambda wanted, known=scores: entry_of(wanted, columns, file, lambda: known)


def test_photos_and_classes_get_their_names(entry):
    wanted = {"act": "tag", "class": 1, "photos": [1, 1, 0], "on": True}
    assert entry(wanted) == {"act": "tag", "class": "cat", "on": True, "photos": ["b", "a"]}
    assert entry({"act": "none", "photos": [0]}) == {"act": "none", "photos": ["a"]}


@pytest.mark.parametrize(("photos", "on"), [([0], False), ([0, 1], True), ([1], True)])
def test_a_tag_is_taken_off_where_all_have_it(entry, photos, on):
    assert entry({"act": "tag", "class": 0, "photos": photos})["on"] is on


def test_not_sure_is_taken_back_where_all_are(entry):
    assert entry({"act": "unsure", "photos": [0, 1]})["on"] is True


def test_what_is_suggested_is_accepted_and_what_is_known_stays(entry):
    assert entry({"act": "accept", "photos": [0, 1]}) == {
        "act": "set",
        "tags": {"a": ["dog"], "b": ["cat"]},
    }
    with pytest.raises(TagError, match="nothing is suggested here"):
        entry({"act": "accept", "photos": [1]}, None)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({}, "no photo is chosen"),
        ({"act": "fly", "photos": [0]}, "no such act"),
        ({"act": "none", "photos": []}, "no photo is chosen"),
        ({"act": "none", "photos": "a"}, "no photo is chosen"),
        ({"act": "none", "photos": [2]}, "no such photo"),
        ({"act": "none", "photos": [-1]}, "no such photo"),
        ({"act": "none", "photos": ["a"]}, "no such photo"),
        ({"act": "none", "photos": [True]}, "no such photo"),
        ({"act": "tag", "class": 9, "photos": [0]}, "no such class"),
        ({"act": "tag", "class": True, "photos": [0]}, "no such class"),
        ({"act": "tag", "class": [], "photos": [0]}, "no such class"),
        ({"act": "class"}, "no name is given"),
        ({"act": "class", "name": 3}, "no name is given"),
        ({"act": "class", "name": "dog"}, "there is a class 'dog'"),
        ({"act": "unclass", "class": 0}, "'dog' is in 1 photos"),
        ({"act": "undo", "of": 1}, "another page has done something since"),
        ({"act": "undo"}, "another page has done something since"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(entry, wanted, why):
    with pytest.raises(TagError) as found:
        entry(wanted)
    assert why in str(found.value)


def test_the_only_class_stays_while_photos_hold_none_of_it(tmp_path):
    photos = open_folder(write_photos(tmp_path, "a.jpg"))
    columns, file = Columns(photos.names), ClassFile(photos)
    with pytest.raises(TagError, match="there are no classes yet"):
        entry_of({"act": "none", "photos": [0]}, columns, file, lambda: None)
    columns.apply({"n": 1, "act": "class", "name": "dog"})
    columns.apply({"n": 2, "act": "none", "photos": ["a"]})
    with pytest.raises(TagError, match="this is the only class"):
        entry_of({"act": "unclass", "class": 0}, columns, file, lambda: None)
