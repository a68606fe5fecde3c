"""Class lists: text in, checked names out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tagseg.data.text import lines_of
from tagseg.errors import TagError

__all__ = ["class_names", "read_classes"]

_BACKGROUND_NAMES = ("background", "_background_")


def read_classes(path: Path) -> tuple[str, ...]:
    """Foreground classes from a file, one a line; a first line ``background`` is dropped."""
    return class_names([line for _, line in lines_of(path)], where=path)


def class_names(names: Sequence[str], *, where: object = None) -> tuple[str, ...]:
    """Check a list of classes and drop a leading ``background`` or ``_background_``."""
    tidy = [name.strip() for name in names]
    if tidy and tidy[0] in _BACKGROUND_NAMES:
        tidy = tidy[1:]
    if not tidy:
        raise TagError("this class list is empty", where=where, do="write one name a line")
    for i, name in enumerate(tidy):
        if ";" in name:
            raise TagError(f"class '{name}' contains ;", where=where, do="write one name a line")
        if name in tidy[:i]:
            raise TagError(f"class '{name}' is listed twice", where=where, do="remove one")
    return tuple(tidy)
