from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.paths import FilePaths, Paths, renamed

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@given(st.lists(st.lists(names, min_size=1, max_size=3).map(lambda parts: Path(*parts))))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_are_the_paths_that_were_given(paths):
    kept = Paths(paths)
    assert list(kept) == paths
    assert kept == tuple(paths)
    assert kept == pickle.loads(pickle.dumps(kept))
    assert hash(kept) == hash(Paths(paths))


def test_names_that_are_not_utf8():
    path = Path(os.fsdecode(b"/photos/caf\xe9.jpg"))
    assert Paths([path, Path("b")])[0] == path


def test_work_as_a_tuple_does():
    paths = (Path("a"), Path("b/c"), Path("d"))
    kept = Paths(paths)
    assert kept[-1] == Path("d")
    assert kept[1:] == paths[1:]
    assert kept[::-1] == paths[::-1]
    assert kept + paths == paths + kept == kept * 2 == paths * 2
    assert Path("b/c") in kept
    assert kept.take(np.array([2, 0, 2])) == (paths[2], paths[0], paths[2])
    assert kept.take([-1]) == (paths[2],)
    assert repr(kept) == f"Paths({list(paths)!r})"
    assert len(Paths([])) == 0
    with pytest.raises(IndexError):
        kept[3]


def test_take_little_memory():
    paths = Paths(Path(f"/data/photos/photo_{i:07d}.jpg") for i in range(1000))
    held = sys.getsizeof(paths._text) + sys.getsizeof(paths._ends)
    assert held / 1000 < 50


def test_files_by_name_are_kept_as_text():
    plain = {"a": Path("x/a.jpg"), "b/c": Path("/y/c.png")}
    files = renamed(plain, [("c", "b/c"), ("a", "a")])
    assert isinstance(files, FilePaths)
    assert list(files.items()) == [("c", Path("/y/c.png")), ("a", Path("x/a.jpg"))]
    assert renamed(files, [("d", "a")]) == {"d": Path("x/a.jpg")}
    assert "a" in files
    assert "d" not in files
    assert files.get("d") is None
    assert len(files) == 2
    assert repr(renamed(files, [])) == "FilePaths({})"
