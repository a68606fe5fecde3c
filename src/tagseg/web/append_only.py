"""A file that is only ever appended to, each piece on disk before it counts."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from tagseg.errors import WorkspaceError
from tagseg.run.files import one_line_errors

__all__ = ["AppendOnly", "sync_folder"]


class AppendOnly:
    """A file open for appending, made if missing.

    Attributes:
        path: the file.
        size: bytes that count.
    """

    def __init__(self, path: Path, size: int, head: bytes) -> None:
        """Cut the file after ``size`` bytes, which are whole; ``head`` begins an empty one.

        Raises WorkspaceError if it cannot be written.
        """
        self.path, self.size = path, size
        with one_line_errors(path):
            self._file = path.open("ab", buffering=0)
            try:
                if self._file.tell() > size:
                    os.ftruncate(self._file.fileno(), size)
                os.fsync(self._file.fileno())
                sync_folder(path.parent)
                if not size:
                    self.append(head)
            except BaseException:
                self.close()
                raise

    def append(self, piece: bytes) -> None:
        """Write a piece and wait until it is on disk.

        Raises WorkspaceError if that cannot be; then it does not count.
        """
        if self._file.closed:
            raise WorkspaceError("is closed", where=self.path, do="start the same command again")
        with one_line_errors(self.path):
            try:
                _write_whole(self._file, piece)
            except OSError:
                self._take_back()
                raise
        self.size += len(piece)

    def _take_back(self) -> None:
        """Remove what a piece that failed has left; where that fails, no more may follow it."""
        try:
            os.ftruncate(self._file.fileno(), self.size)
        except OSError:
            self.close()

    def close(self) -> None:
        """Let the file go; a second call does nothing."""
        with suppress(OSError):
            self._file.close()


def _write_whole(file: FileIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make sure that files' names are on disk, too, where a folder can be opened for that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
