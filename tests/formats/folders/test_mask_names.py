"""Which names hint at masks, and of which photos."""

from __future__ import annotations

import contextlib
from glob import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagseg.errors import ConfigError
from tagseg.formats.folders.exclusion import parse_patterns
from tagseg.formats.folders.mask_names import mask_names
from tagseg.formats.folders.photo_tree import read_tree

WORDS = st.sampled_from(
    [
        "cat",
        "train",
        "val",
        "images",
        "masks",
        "x",
        "x_mask",
        "x_mask_1",
        "mask_x",
        "GT",
        "0",
        "(a)",
    ]
)
FOLDERS = st.lists(WORDS, max_size=3)
PATHS = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    FOLDERS,
    st.one_of(WORDS, st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1)),
    st.sampled_from([".jpg", ".png", ".PNG", ".tif"]),
)


@given(st.lists(PATHS, unique=True, max_size=12))
def test_partners_are_other_pictures(paths):
    found = mask_names(paths)
    assert len({name.path for name in found}) == len(found)
    for name in found:
        assert name.path in paths
        assert name.partner is None or (name.partner in paths and name.partner != name.path)
        assert parse_patterns([name.pattern]).drops(name.path)


@given(PATHS.filter(lambda path: path == path.strip() and "\\" not in path and path[0] != "!"))
def test_a_pattern_of_a_path_matches_it(path):
    """A backslash is read as a slash, as Windows writes paths; "!" keeps what it matches."""
    assert parse_patterns(escape(path)).drops(path)


@given(st.text(max_size=8), PATHS)
def test_any_pattern_can_be_asked(pattern, path):
    with contextlib.suppress(ConfigError):
        parse_patterns([pattern]).drops(path)


@given(
    st.sets(FOLDERS.map("/".join), min_size=1),
    st.sampled_from(["auto", "csv", "folders", "split_folders", "inner_folders"]),
)
def test_folders_have_a_class_that_is_one_of_them(folders, layout):
    tree = read_tree(folders, layout)
    for folder in folders:
        assert tree.class_of(f"{folder}/a" if folder else "a") in {None, *folder.split("/")}
        assert tree.splits[folder] in {None, *folder.split("/")}


@pytest.mark.parametrize(
    ("paths", "partner"),
    [
        (["a/x_mask.png", "a/x.jpg", "b/x.jpg"], "a/x.jpg"),
        (["masks/b/x.png", "images/a/x.jpg", "images/b/x.jpg"], "images/b/x.jpg"),
        (["mask/1.png", "mask/2.png", "img/image 1.jpg"], "img/image 1.jpg"),
        (["1_GT.png", "1.bmp", "x/1.bmp"], "1.bmp"),
        (["cat/masks/x.png", "dog/x.jpg"], None),
    ],
)
def test_the_nearest_partner(paths, partner):
    assert mask_names(paths)[0].partner == partner
