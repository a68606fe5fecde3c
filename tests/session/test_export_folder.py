"""Folders of exports: whole or not there, and nothing of the user's is replaced."""

from __future__ import annotations

import os

import pytest

from small_runs import contents
from tagseg.errors import DataError, WorkspaceError
from tagseg.session.export_folder import EXPORT_MARKER, check_export_place, whole_folder


def export(out, **files: str) -> None:
    check_export_place(out, {})
    with whole_folder(out) as folder:
        for name, text in files.items():
            (folder / "x").mkdir(exist_ok=True)
            (folder / "x" / name).write_text(text)


def test_an_export_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "new" / "out"
    export(out, a="1", b="2")
    assert sorted(contents(out)) == [EXPORT_MARKER, "x/a", "x/b"]
    export(out, c="3")
    assert sorted(contents(out)) == [EXPORT_MARKER, "x/c"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    export(tmp_path / "out", a="1")
    assert (tmp_path / "out" / "x" / "a").read_text() == "1"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda out: (out / "x" / "a").write_text("mine"), "in which x/a was changed"),
        (lambda out: os.utime(out / "x" / "a", ns=(0, 5)), "in which x/a was changed"),
        (lambda out: (out / "x" / "b").write_text("mine"), "in which x/b was added"),
        (lambda out: (out / "x" / "a").unlink(), "in which x/a was removed"),
        (lambda out: (out / EXPORT_MARKER).unlink(), "is not empty, and no earlier export"),
        (lambda out: (out / EXPORT_MARKER).write_text("["), "is not empty, and no earlier export"),
        (lambda out: (out / EXPORT_MARKER).write_text("[]"), "is not empty, and no earlier export"),
    ],
)
def test_what_somebody_has_changed_stays(tmp_path, change, line):
    out = tmp_path / "out"
    export(out, a="1")
    change(out)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=f"{line}; give another folder, or remove this one"):
        export(out, a="2")
    assert contents(tmp_path) == before


def test_nothing_is_left_of_a_failure(tmp_path):
    out = tmp_path / "out"
    export(out, a="1")
    before = contents(tmp_path)

    def stopped() -> None:
        with whole_folder(out) as folder:
            (folder / "b").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert contents(tmp_path) == before


def test_places_that_are_refused(tmp_path):
    photos = tmp_path / "photos"
    (photos / "x").mkdir(parents=True)
    sources = {"the folder of the photos": photos}
    for out in (photos, photos / "export"):
        with pytest.raises(DataError, match="lies in the folder of the photos; give another"):
            check_export_place(out, sources)
    with pytest.raises(DataError, match="holds the folder of the photos; give another"):
        check_export_place(tmp_path, sources)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be used: File exists"):
        check_export_place(tmp_path / "file", sources)
    assert not (photos / "export").exists()
