"""The journal: nothing that was said to be saved is ever lost, and nothing else is taken for it."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import TagError, WorkspaceError
from tagseg.web.journal import Journal, entries_in


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tags.journal"


def filled(path, *names):
    journal = Journal(path)
    for name in names:
        journal.append({"act": "class", "name": name})
    journal.close()
    return path.read_bytes()


def test_what_is_appended_is_read_again(path):
    filled(path, "dog", "Kätzchen\n;")
    again = Journal(path)
    assert [entry["name"] for entry in again.entries()] == ["dog", "Kätzchen\n;"]
    assert [entry["n"] for entry in again.entries(upto=1)] == [1]
    assert again.last == 2
    assert again.append({"act": "x"})["n"] == 3
    again.close()


def test_an_entry_is_on_disk_before_it_is_given_back(path, monkeypatch):
    journal = Journal(path)
    synced = []
    real = os.fsync
    monkeypatch.setattr("os.fsync", lambda fd: (synced.append(path.read_bytes()), real(fd)))
    journal.append({"act": "class", "name": "dog"})
    assert synced[-1] == path.read_bytes()
    assert b"dog" in synced[-1]
    journal.close()


def test_a_half_written_last_line_is_dropped(path):
    whole = filled(path, "dog", "cat")
    path.write_bytes(whole[:-3])
    journal = Journal(path)
    assert [entry["name"] for entry in journal.entries()] == ["dog"]
    assert journal.dropped > 0
    journal.append({"act": "class", "name": "bird"})
    journal.close()
    assert [entry.get("name") for entry in entries_in(path.read_bytes(), path)][1:] == [
        "dog",
        "bird",
    ]


@pytest.mark.parametrize("rest", [b"\0" * 40, b"\0" * 40 + b"\n", b'{"n":3,"act"\n', b"[]\n"])
def test_what_a_power_cut_leaves_is_dropped(path, rest):
    whole = filled(path, "dog")
    path.write_bytes(whole + rest)
    journal = Journal(path)
    assert journal.dropped == len(rest)
    assert path.read_bytes() == whole
    journal.close()


def test_damage_before_the_end_is_an_error(path):
    lines = filled(path, "dog", "cat").splitlines(keepends=True)
    broken = lines[0] + b"garbage\n" + lines[2]
    path.write_bytes(broken)
    with pytest.raises(TagError, match=r"line 2 is damaged; bring the file back"):
        Journal(path)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(TagError, match="line 2 has number 2, not 1"):
        Journal(path)
    assert path.read_bytes() == lines[0] + lines[2]


@pytest.mark.parametrize(
    "content", [b"dear diary", b"dear diary\n", b"{}\n", b'{"n":0,"format":9,"of":"tagseg tag"}\n']
)
def test_the_file_of_somebody_else_is_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(TagError, match="no journal that this tagseg can read"):
        Journal(path)
    assert path.read_bytes() == content


def test_an_entry_that_cannot_be_written_does_not_count(path, monkeypatch):
    journal = Journal(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WorkspaceError, match="No space left on device; free some space"):
            journal.append({"act": "class", "name": "dog"})
    assert path.read_bytes() == before
    assert journal.append({"act": "class", "name": "cat"})["n"] == 1
    journal.close()
    assert len(entries_in(path.read_bytes(), path)) == 2


def test_after_a_failure_that_cannot_be_mended_nothing_is_appended(path, monkeypatch):
    journal = Journal(path)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        patch.setattr("os.ftruncate", fail)
        with pytest.raises(WorkspaceError):
            journal.append({"act": "x"})
    with pytest.raises(WorkspaceError, match="is closed"):
        journal.append({"act": "x"})


def test_a_pipe_is_refused(path):
    os.mkfifo(path)
    with pytest.raises(TagError, match="is a pipe"):
        Journal(path)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(max_size=5), max_size=6), data=st.data())
def test_any_prefix_of_the_bytes_holds_a_prefix_of_the_entries(tmp_path_factory, names, data):
    path = tmp_path_factory.mktemp("journal") / "tags.journal"
    whole = filled(path, *names)
    every = entries_in(whole, path)
    cut = data.draw(st.integers(0, len(whole)))
    found = entries_in(whole[:cut], path)
    assert found == every[: len(found)]
    assert len(found) == whole[:cut].count(b"\n")
    assert all(json.dumps(entry).isascii() for entry in found)
