"""Where a run keeps what it found damaged, after it has made it again.

RUN/damaged/03-cam-1    the third stage as it was, the first thing found in this run
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tagseg.errors import WorkspaceError
from tagseg.run.files import one_line_errors

__all__ = ["DAMAGED", "set_aside"]

DAMAGED = "damaged"

_KEPT = 3  # the last ones: enough to look at, and no disk is filled by one that rots on


def set_aside(path: Path, run: Path, name: str = "") -> Path:
    """Move ``path`` into the folder of damaged things of ``run``; where it is now.

    It is gone from its place at once or not at all. Only the last three things stay.

    Args:
        path: a stage's folder, or a file of one.
        name: what to call it there; as it is called for none.

    Raises:
        WorkspaceError: it cannot be moved, or the folder is a link, behind which is what others
            have.
    """
    folder = run / DAMAGED
    with one_line_errors(folder):
        if folder.is_symlink():
            raise WorkspaceError(
                "is a link; what it leads to is not touched", where=folder, do="remove the link"
            )
        folder.mkdir(exist_ok=True)
        before = {number: kept for kept in folder.iterdir() if (number := _number(kept))}
        number = max(before, default=0) + 1
        place = folder / f"{name or path.name}-{number}"
        path.rename(place)
        for old, kept in before.items():
            if old <= number - _KEPT:
                _remove(kept)
    return place


def _number(kept: Path) -> int:
    """The how manieth thing it was, from 1; 0 for what somebody else has put there."""
    digits = kept.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 10 else 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
