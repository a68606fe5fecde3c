"""Lists of photos: text in, names out."""

from __future__ import annotations

import re
from pathlib import Path

from tagseg.data.finding import without_suffix
from tagseg.data.text import lines_of
from tagseg.errors import TagError

__all__ = ["read_names"]

# "2007_000032 -1": the column in which the VOC class lists say whether the class is there.
_CLASS_COLUMN = re.compile(r"\s+(?:-1|0|1)$")


def read_names(path: Path) -> tuple[str, ...]:
    """Photo names from a list, one a line, each once, without suffix.

    Blank lines and ``#`` comments are skipped. Lists that come with VOC 2012 are understood: the
    column 1, 0 or -1 of its class lists, and pairs ``/JPEGImages/a.jpg /SegmentationClass/a.png``.
    """
    lines = [line for _, line in lines_of(path)]
    bare = [_CLASS_COLUMN.sub("", line) for line in lines]
    # A name may end in a number too, but not all names, and not so that they coincide.
    if all(a != b for a, b in zip(lines, bare, strict=True)) and len(set(bare)) == len(lines):
        lines = bare
    names = dict.fromkeys(_listed_name(line) for line in lines)
    if not names:
        raise TagError("this list names no photos", where=path, do="write one name a line")
    return tuple(names)


def _listed_name(line: str) -> str:
    if line.startswith("/"):
        line = line.split()[0].removeprefix("/").removeprefix("JPEGImages/")
    return without_suffix(line.replace("\\", "/").removeprefix("./"))
