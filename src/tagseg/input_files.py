"""Files that a user names: plain ones of a bounded size, since pipes and devices may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tagseg.errors import TagsegError

__all__ = ["LIMITS", "MOST_TEXT", "MOST_WEIGHTS", "check_plain"]

LIMITS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that are no file's fault: of open files or memory this process can have no more."""

MOST_TEXT = 1 << 30  # bytes; COCO's largest list of annotations has 0.45 GB
MOST_WEIGHTS = 16 << 30

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_plain(path: Path, error: type[TagsegError], most: int) -> None:
    """Raise ``error`` for a pipe, a device, or a file of more than ``most`` bytes.

    What is missing or a folder is left to the reader, which has words of its own for it.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is not None:
        raise error(f"is {kind}, which may never end", where=path, do="save it into a file")
    if stat.S_ISREG(found.st_mode) and found.st_size > most:
        raise error(
            f"has {found.st_size / 1e9:.1f} GB, over the limit of {most / 1e9:.1f}",
            where=path,
            do="give a smaller file",
        )
