"""A journal of acts: lines of JSON that are only ever appended, each on disk before it counts.

    {"n": 0, "format": 1, "of": "tagseg tag"}
    {"n": 1, "act": "class", "name": "dog"}
    {"n": 2, "act": "tag", "class": "dog", "on": true, "photos": ["beach"]}

A kill or a power cut can leave the last line half written. Nobody was told that such an act is
saved, so it is dropped when the journal is opened again. Damage anywhere else is an error: what
comes after it was said to be saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tagseg.errors import TagError
from tagseg.input_files import MOST_TEXT, check_plain
from tagseg.run.files import one_line_errors
from tagseg.web.append_only import AppendOnly

__all__ = ["FORMAT", "Entry", "Journal", "entries_in"]

FORMAT = 1
_OF = "tagseg tag"
_HEAD = {"n": 0, "format": FORMAT, "of": _OF}

Entry = dict[str, Any]
"""One line: its number ``n``, what was done (``act``), and to what."""


class _Line(NamedTuple):
    """A line that ends, and where it ends in the file."""

    text: bytes
    end: int


class Journal:
    """The journal in a file, which is made if missing; one process at a time may have it open.

    Attributes:
        path: the file.
        last: number of the last entry, 0 if there is none but the head.
        dropped: bytes of a half-written last line, which were removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_plain(path, TagError, MOST_TEXT)
        with one_line_errors(path):
            there = path.read_bytes() if path.exists() else b""
        whole, self.last = 0, -1
        for entry, end in _entries(there, path):
            whole, self.last = end, entry["n"]
        self.dropped = len(there) - whole
        self._file = AppendOnly(path, whole, _line(_HEAD))
        self.last = max(self.last, 0)

    def entries(self, upto: int | None = None) -> Iterator[Entry]:
        """All entries but the head, in order; those up to number ``upto``."""
        with one_line_errors(self.path):
            content = self.path.read_bytes()[: self._file.size]
        for entry, _ in _entries(content, self.path):
            if upto is not None and entry["n"] > upto:
                return
            if entry["n"] > 0:
                yield entry

    def append(self, entry: Mapping[str, Any]) -> Entry:
        """Write an entry and return it with its number, once it is on disk.

        Raises WorkspaceError if it cannot be written; then it does not count.
        """
        numbered = {"n": self.last + 1, **entry}
        self._file.append(_line(numbered))
        self.last = numbered["n"]
        return numbered

    def close(self) -> None:
        """Let the file go; a second call does nothing."""
        self._file.close()


def entries_in(content: bytes, path: Path) -> list[Entry]:
    """The entries that ``content``, of the file ``path``, holds whole; with the head."""
    return [entry for entry, _ in _entries(content, path)]


def _entries(content: bytes, path: Path) -> Iterator[tuple[Entry, int]]:
    """Each entry and where it ends; TagError for one that is damaged and not the last."""
    number = 0
    for line in _lines(content):
        entry = _entry(line.text)
        if entry is None:
            if number > 0 and line.end == len(content):
                return  # half written; a block of zeros, as power cuts leave them, may end so
            raise _damaged(path, number, "is damaged") if number > 0 else _of_another(path)
        if entry["n"] != number:
            raise _damaged(path, number, f"has number {entry['n']}, not {number}")
        if number == 0 and (entry.get("of") != _OF or entry.get("format") != FORMAT):
            raise _of_another(path)
        yield entry, line.end
        number += 1
    if number == 0 and not _line(_HEAD).startswith(content):
        raise _of_another(path)


def _lines(content: bytes) -> Iterator[_Line]:
    start = 0
    while (end := content.find(b"\n", start) + 1) > 0:
        yield _Line(content[start : end - 1], end)
        start = end


def _entry(line: bytes) -> Entry | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = value.get("n") if isinstance(value, dict) else None
    return value if isinstance(number, int) and not isinstance(number, bool) else None


def _damaged(path: Path, number: int, what: str) -> TagError:
    return TagError(
        f"line {number + 1} {what}",
        where=path,
        do="bring the file back from a backup, or move it away: then tags.csv alone counts",
    )


def _of_another(path: Path) -> TagError:
    return TagError(
        "is no journal that this tagseg can read",
        where=path,
        do="use the version that wrote it, or move the file away",
    )


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"  # ASCII: the rest is escaped
