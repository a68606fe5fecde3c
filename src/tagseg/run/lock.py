"""One process at a time in a run's folder; the lock falls with its process, even by ``kill -9``."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import filelock

from tagseg.errors import WorkspaceError
from tagseg.run.files import TEMPORARY, one_line_errors, read_json, write_json

__all__ = ["LOCK_FILES", "FolderLock"]

_LOCK = ".lock"
_OWNER = ".lock-owner.json"
LOCK_FILES = frozenset({_LOCK, _OWNER, TEMPORARY + _OWNER})


class FolderLock:
    """Lock on ``folder``, which is made if missing; WorkspaceError says who else holds it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = filelock.FileLock(folder / _LOCK, timeout=0, thread_local=False)
        with one_line_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise WorkspaceError(
                    f"in use by {self._owner()}", where=folder, do="wait for it, or end it"
                ) from None
        self._leave_word()

    def release(self) -> None:
        """Let the folder go; a second call does nothing."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self._folder / _OWNER).unlink(missing_ok=True)
            self._lock.release()

    def _leave_word(self) -> None:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        try:
            write_json(self._folder / _OWNER, owner)
        except WorkspaceError:
            self._lock.release()
            raise

    def _owner(self) -> str:
        try:
            owner = read_json(self._folder / _OWNER)
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (WorkspaceError, KeyError, TypeError):
            return "another process"
