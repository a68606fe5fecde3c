"""Text files, decoded or refused; names of files as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from tagseg.errors import TagError, TagsegError

__all__ = ["lines_of", "read_text", "readable", "without_folders"]

_NO_LETTER = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTES = 0xDC00  # where Python keeps bytes of file names that are not UTF-8


def read_text(path: Path, error: type[TagsegError]) -> str:
    """The UTF-8 text of a file; ``error`` if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise error(f"cannot be read: {reason}", where=path, do="check the path") from None
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise error("not UTF-8 text", where=f"{path}, line {line}", do="save as UTF-8") from None


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of every line that is not blank and not a ``#`` comment."""
    for number, line in enumerate(read_text(path, TagError).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line.strip()


def readable(name: str) -> str:
    """A file's name as text: ``%E9`` for a byte that is not UTF-8, as after a Windows zip.

    So photos keep a name that can be written into any file; their path stays what it is.
    """
    return name if name.isascii() else _NO_LETTER.sub(_as_percent, name)


def _as_percent(found: re.Match[str]) -> str:
    byte = ord(found[0]) - _ESCAPED_BYTES
    return f"%{byte:02X}" if 0x80 <= byte <= 0xFF else f"%u{ord(found[0]):04X}"


def without_folders(word: str) -> str:
    """A word of a command or a setting for reports, which others read: of an absolute path the end.

    ``--out=/home/me/runs/a`` becomes ``--out=a``; all else stays.
    """
    head, mark, tail = word.rpartition("=")
    for path in (PurePosixPath(tail), PureWindowsPath(tail)):
        if path.is_absolute():
            return f"{head}{mark}{path.name or tail}"
    return word
