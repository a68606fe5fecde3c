"""A file that is only appended to: what counts is on disk, and what failed leaves nothing."""

from __future__ import annotations

import pytest

from tagseg.errors import WorkspaceError
from tagseg.web import append_only
from tagseg.web.append_only import AppendOnly


def test_it_begins_with_its_head_and_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    file = AppendOnly(path, 0, b"head\n")
    file.append(b"one\n")
    file.close()
    file.close()
    assert path.read_bytes() == b"head\none\n"
    again = AppendOnly(path, len(b"head\none\n"), b"other\n")
    again.append(b"two\n")
    again.close()
    assert path.read_bytes() == b"head\none\ntwo\n"
    with pytest.raises(WorkspaceError, match="is closed"):
        again.append(b"x")


def test_what_is_behind_the_whole_part_is_cut(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"head\none\ntw")
    AppendOnly(path, len(b"head\none\n"), b"head\n").close()
    assert path.read_bytes() == b"head\none\n"


def test_a_piece_that_fails_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    file = AppendOnly(path, 0, b"head\n")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(append_only.os, "fsync", full)
        with pytest.raises(WorkspaceError, match="No space left"):
            file.append(b"lost\n")
    file.append(b"kept\n")
    file.close()
    assert path.read_bytes() == b"head\nkept\n"


def test_nothing_may_follow_a_piece_that_cannot_be_taken_back(tmp_path, monkeypatch):
    file = AppendOnly(tmp_path / "a.jsonl", 0, b"head\n")

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(append_only.os, "fsync", broken)
        patch.setattr(append_only.os, "ftruncate", broken)
        with pytest.raises(WorkspaceError, match="Input/output"):
            file.append(b"half")
    with pytest.raises(WorkspaceError, match="is closed"):
        file.append(b"more")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(WorkspaceError, match="cannot be used"):
        AppendOnly(tmp_path / "no" / "a.jsonl", 0, b"head\n")
