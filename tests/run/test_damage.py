"""What was damaged is kept for a look, and never outside the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.errors import WorkspaceError
from tagseg.run.damage import set_aside


def test_files_and_folders_are_moved_and_the_last_three_kept(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    for name in ("notes", "of-mine", "x-²", "y-12345678901"):
        (tmp_path / "damaged" / name).touch()
    for number in range(1, 6):
        thing = tmp_path / "thing"
        if number % 2:
            thing.mkdir()
        else:
            thing.touch()
        assert set_aside(thing, tmp_path) == tmp_path / f"damaged/thing-{number}"
        assert not thing.exists()
    kept = {path.name for path in (tmp_path / "damaged").iterdir()}
    strangers = {"notes", "of-mine", "x-²", "y-12345678901"}
    assert kept == strangers | {"thing-3", "thing-4", "thing-5"}


def test_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").touch()
    place = set_aside(tmp_path / "a.sqlite", tmp_path, "03-cam-a.sqlite")
    assert place == tmp_path / "damaged/03-cam-a.sqlite-1"
    assert place.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    (other / "photos-1").mkdir(parents=True)
    (run / "stages/01-a").mkdir(parents=True)
    (run / "damaged").symlink_to(other)
    with pytest.raises(WorkspaceError, match="damaged: is a link; what it leads to is not touched"):
        set_aside(run / "stages/01-a", run)
    assert [path.name for path in other.iterdir()] == ["photos-1"]
    assert (run / "stages/01-a").is_dir()


def test_what_cannot_be_moved_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="damaged: cannot be used: No such file"):
        set_aside(tmp_path / "missing", tmp_path)
