"""``review.jsonl`` while it grows: lines that are only appended, each act on disk before it counts.

The form of the file is that of :mod:`tagseg.formats.review`. What the page needs beside that stands
in keys of its own, which do no harm to other readers:

    "more": 1       so many lines of the same act follow; without them it does not count
    "undo": true    the act takes the last one back that still counts
    "unsure": true  of ``clear``: a person looked, and cannot say
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tagseg.errors import ConfigError
from tagseg.formats.review import Act, act_line, head_line, read_review
from tagseg.web.append_only import AppendOnly

__all__ = ["Deed", "ReviewLog"]


class Deed(NamedTuple):
    """What a person did at once: one act, or several that belong together.

    Attributes:
        acts: of one photo, in order.
        undo: whether they bring back what was before the last deed that counted.
        unsure: whether a person said that they are not sure.
    """

    acts: tuple[Act, ...]
    undo: bool = False
    unsure: bool = False


class ReviewLog:
    """A review's file, which is made if missing; one process at a time may have it open.

    Attributes:
        path: the file.
        deeds: those that were in it when it was opened.
        dropped: bytes at its end that were not whole, and are removed.
    """

    def __init__(self, path: Path, run: str, classes: Sequence[str]) -> None:
        """Open the file, or begin it.

        Raises DataError for one that is damaged, ConfigError for one of other classes,
        WorkspaceError if it cannot be written.
        """
        self.path = path
        head = head_line(run, classes)
        there = path.read_bytes() if path.is_file() else b""
        self.deeds: tuple[Deed, ...] = ()
        whole = 0
        if not head.startswith(there):  # else not even that was written whole
            self.deeds, whole = _read(path, there, classes)
        elif there == head:
            whole = len(head)
        self.dropped = len(there) - whole
        self._file = AppendOnly(path, whole, head)

    def append(self, deed: Deed) -> None:
        """Write a deed; it is on disk when this returns. WorkspaceError if it cannot be."""
        self._file.append(b"".join(_lines_of(deed)))

    def close(self) -> None:
        """Let the file go; a second call does nothing."""
        self._file.close()


def _lines_of(deed: Deed) -> Iterator[bytes]:
    for left, act in zip(range(len(deed.acts) - 1, -1, -1), deed.acts, strict=True):
        more: dict[str, Any] = {"more": left} if left else {}
        more |= {key: True for key in ("undo", "unsure") if getattr(deed, key)}
        entry = json.loads(act_line(act)) | more
        yield json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _read(path: Path, content: bytes, classes: Sequence[str]) -> tuple[tuple[Deed, ...], int]:
    """The deeds that are whole, and where the last one of them ends."""
    found = read_review(path)
    if found.classes != tuple(classes):
        raise ConfigError(
            "is a review of other classes than this run's",
            where=path,
            do="give another file with --out",
        )
    lines = _lines(content)
    _, whole = next(lines, (b"", 0))  # not even the first one may have an end
    deeds, acts = list[Deed](), list[Act]()
    for act, (line, end) in zip(found.acts, lines, strict=False):  # the last may have no end
        own = json.loads(line)
        acts.append(act)
        if not own.get("more"):
            deeds.append(Deed(tuple(acts), own.get("undo") is True, own.get("unsure") is True))
            acts, whole = [], end
    return tuple(deeds), whole


def _lines(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Each line that is not blank and has an end, and where that is."""
    start = 0
    while (end := content.find(b"\n", start) + 1) > 0:
        if content[start:end].strip():
            yield content[start:end], end
        start = end
