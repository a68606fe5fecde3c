"""Files that are whole or absent: written under a temporary name beside, then renamed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tagseg.errors import WorkspaceError

__all__ = ["TEMPORARY", "atomic_write", "one_line_errors", "read_json", "write_json"]

TEMPORARY = ".tmp-"  # prefix of a file that is being written; such a file is never an artefact

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn an OSError on ``path`` (disk full, no permission, missing) into a WorkspaceError."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise WorkspaceError(
            f"cannot be used: {error.strerror or error}",
            where=path,
            do="free some space and run the same command again" if full else "check the path",
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at ``path`` only when the block ends without an exception.

    The content reaches the disk before the name does, so a kill or a power cut leaves the old
    file or the new one. Raises WorkspaceError when the disk is full or the folder not writable.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    with one_line_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raise WorkspaceError if it is missing or not JSON."""
    with one_line_errors(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:
        raise WorkspaceError("is damaged (not JSON)", where=path, do="delete it") from error
