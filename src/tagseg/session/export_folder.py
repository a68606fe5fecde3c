"""The folder of an export: whole or not there, and never in the place of something of the user's.

An export is written beside its place and then renamed. It keeps a list of its files; an earlier one
is replaced only while all of them are as they were written and no others have been added.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tagseg
from tagseg.errors import DataError, WorkspaceError
from tagseg.run.files import TEMPORARY, check_folder, one_line_errors, read_json, write_json

__all__ = ["EXPORT_MARKER", "check_export_place", "whole_folder"]

EXPORT_MARKER = ".tagseg-export"
"""The list of an export's files, in its folder."""


def check_export_place(out: Path, sources: Mapping[str, Path]) -> None:
    """Raise DataError or WorkspaceError unless an export can be written to ``out``.

    Args:
        sources: folders that are read, by what they are; none may lie in ``out``, nor ``out`` in
            one of them, where its pictures would be taken for photos or masks.
    """
    check_folder(out)
    place = out.resolve()
    for what, folder in sources.items():
        source = folder.resolve()
        if place == source or source in place.parents:
            raise DataError(f"lies in {what}", where=out, do="give another folder to --out")
        if place in source.parents:
            raise DataError(f"holds {what}", where=out, do="give another folder to --out")
    if not out.exists():
        return
    with one_line_errors(out):
        if not any(out.iterdir()):
            return
    change = _change(out)
    if change:
        raise DataError(change, where=out, do="give another folder, or remove this one")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` if the block ends without an exception.

    What :func:`check_export_place` allows to be replaced is replaced.
    """
    place = out.absolute()
    new, old = (place.with_name(f"{TEMPORARY}{kind}-{place.name}"[:200]) for kind in ("new", "old"))
    with one_line_errors(out):
        try:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
            new.mkdir(parents=True)
            yield new
            about = {"by": "tagseg export", "version": tagseg.__version__, "files": _states(new)}
            write_json(new / EXPORT_MARKER, about)
            if place.exists():
                place.rename(old)
            new.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


def _change(out: Path) -> str:
    """Why the folder may not be replaced; nothing if it is an earlier export as it was written."""
    try:
        about = read_json(out / EXPORT_MARKER)
    except WorkspaceError:
        return "is not empty, and no earlier export"
    told: Any = about.get("files") if isinstance(about, dict) else None
    if not isinstance(told, dict):
        return "is not empty, and no earlier export"
    found = _states(out)
    for name in sorted(found.keys() | told.keys()):
        if found.get(name) != told.get(name):
            what = "added" if name not in told else "changed" if name in found else "removed"
            return f"is an earlier export in which {name} was {what}"
    return ""


def _states(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every file but the list itself."""
    states = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            about = path.lstat()
            states[path.relative_to(folder).as_posix()] = [about.st_size, about.st_mtime_ns]
    states.pop(EXPORT_MARKER, None)
    return states
