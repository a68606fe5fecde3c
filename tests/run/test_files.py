from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tagseg.errors import WorkspaceError
from tagseg.run.files import (
    atomic_write,
    check_file,
    check_folder,
    check_names_fit,
    read_json,
    sync_folder,
    write_json,
)


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


def test_names_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    here = tmp_path.stat()
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(os.path.samestat(os.fstat(file), here))
    )
    sync_folder(tmp_path)
    assert synced == [True]


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


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    for name in ("x" * 255, "写" * 85, "a" * 101, "\udce9" * 254):
        write_json(tmp_path / name, {"name": name})
        assert read_json(tmp_path / name) == {"name": name}
        with suppress(RuntimeError), atomic_write(tmp_path / name) as file:
            file.write(b"half")
            raise RuntimeError
    assert len(list(tmp_path.iterdir())) == 4


def test_places_that_can_be_written_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new" / "newer"):
        check_folder(folder)
        check_names_fit(["a", "写" * 83, "b/c"], folder)
    check_file(tmp_path / "there" / "scores.json")
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("file", "cannot be used: File exists; check the path"),
        ("file/below", "cannot be used: Not a directory; check the path"),
        ("link", "cannot be used: File exists; check the path"),
        ("/dev/null/x", "cannot be used: Not a directory; check the path"),
        ("/proc/nothing", "cannot be used: "),
        ("x" * 300, "cannot be used: File name too long; give shorter names"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, place: str, line: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    path = tmp_path / place
    with pytest.raises(WorkspaceError) as caught:
        check_folder(path)
    assert str(caught.value).startswith(f"{path}: {line}")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_place_that_is_read_only_or_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As root, permissions do not count: what the system would say."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("tempfile._mkstemp_inner", refuse)
    full = number == errno.ENOSPC
    advice = "free some space" if full else "choose a place that you may write to"
    with pytest.raises(WorkspaceError, match=f"{os.strerror(number)}; {advice}"):
        check_folder(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(WorkspaceError, match=f"{os.strerror(number)}; {advice}"):
        check_file(tmp_path / "a.json")


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="Is a directory"):
        check_file(tmp_path)
    with pytest.raises(WorkspaceError, match="No such file or directory"):
        check_file(tmp_path / "no" / "a.json")


@pytest.mark.parametrize("name", ["x" * 252, "写" * 84, "cat/" + "é" * 126, "x" * 256 + "/a"])
def test_names_that_do_not_fit(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="bytes; names may have 255 there; rename the photo"):
        check_names_fit(["a", name], tmp_path / "new")


def test_names_on_a_file_system_with_shorter_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pathconf", lambda folder, name: 143)  # eCryptfs
    check_names_fit(["x" * 139], tmp_path)
    with pytest.raises(WorkspaceError, match="144 bytes; names may have 143"):
        check_names_fit(["x" * 140], tmp_path)
    monkeypatch.delattr(os, "pathconf")
    check_names_fit(["x" * 140], tmp_path)  # Windows does not say
