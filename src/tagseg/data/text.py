"""Text files, decoded or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tagseg.errors import TagError, TagsegError

__all__ = ["lines_of", "read_text"]


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
