from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tagseg.errors import WorkspaceError
from tagseg.run.files import atomic_write, read_json, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"old")
        assert not path.exists()
    with suppress(RuntimeError), atomic_write(path) as file:
        file.write(b"new, half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_the_content_is_on_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((tmp_path / "a").exists()))
    with atomic_write(tmp_path / "a") as file:
        file.write(b"x")
    assert seen == [False]
    assert (tmp_path / "a").exists()


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(tmp_path / "a.json", {"old": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkspaceError, match="No space left on device; free some space"):
        write_json(tmp_path / "a.json", {"new": 1})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_written_or_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{")
    with pytest.raises(WorkspaceError, match=r"file/a\.json: cannot be used: Not a directory"):
        write_json(tmp_path / "file" / "a.json", 1)
    with pytest.raises(WorkspaceError, match=r"no\.json: cannot be used: No such file"):
        read_json(tmp_path / "no.json")
    with pytest.raises(WorkspaceError, match="file: is damaged"):
        read_json(tmp_path / "file")
