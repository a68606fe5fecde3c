"""Forms of the lines of a list of photos: what of a line may be the photo's name.

Which of them a file has is decided in :mod:`tagseg.formats.lists.photo_lists`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from tagseg.data.finding import without_suffix

__all__ = [
    "CLASS_COLUMN",
    "WHOLE",
    "Form",
    "Header",
    "forms_of",
    "header_of",
    "is_file_name",
    "name_in",
]

NAME_COLUMNS = (
    *("image", "file_name", "filename", "file", "image_path", "image_name", "image_file", "path"),
    *("file_path", "filepath", "img", "img_path", "name", "photo", "picture", "image_id", "images"),
)
_DELIMITERS = (",", "\t", ";", "|")
_MOST_COLUMNS = 30
_QUOTES = ('"', "'")
_CLASS_COLUMN = re.compile(r"(.*\S)\s+(?:-1|0|1)")
_NUMBER_COLUMN = re.compile(r"(.*\S)\s+-?\d+(?:\.\d+)?")


class Form(NamedTuple):
    """One way to take a line apart.

    Attributes:
        name_in: what would be the photo's name in a line; None if the line has not this form.
        note: what to say if a list is read so; empty where that is plain.
        in_all: only if all lines of the file are so, as nothing marks the end of the name.
    """

    name_in: Callable[[str], str | None]
    note: str = ""
    in_all: bool = False


class Header(NamedTuple):
    """A first line of column names: the delimiter, and which columns may name the photos."""

    delimiter: str
    columns: tuple[int, ...]

    def form(self) -> Form:
        """The names in the first of these columns."""
        return _column(self.delimiter, self.columns[0])


def header_of(line: str) -> Header | None:
    """The header that ``line`` is; None if it is none."""
    for delimiter in _DELIMITERS:
        cells = _cells(line, delimiter) or []
        names = [cell.strip().casefold().replace(" ", "_") for cell in cells]
        columns = [names.index(name) for name in NAME_COLUMNS if name in names]
        if columns:
            return Header(delimiter, tuple(columns))
    return None


def forms_of(lines: list[str], header: Header | None) -> Iterator[Form]:
    """The forms that all ``lines`` might have, the plainest first."""
    yield WHOLE
    yield Form(_in_json, "each line is read as JSON")
    if header is not None:
        for index in header.columns:
            yield _column(header.delimiter, index)
        return
    for delimiter in _DELIMITERS:
        if all(delimiter in line for line in lines):
            columns = min(len(_cells(line, delimiter) or ()) for line in lines)
            for index in range(min(columns, _MOST_COLUMNS)):
                yield _column(delimiter, index)
    yield Form(_before_suffix, "of each line, what ends in a photo's suffix is the name")
    yield Form(_of_a_pair, "lines are pairs of a photo and a mask of the same name")
    yield CLASS_COLUMN
    yield Form(
        partial(_matched, _NUMBER_COLUMN), "the number that ends each line is a column", True
    )


def name_in(entry: Any) -> str | None:
    """The name in an entry of JSON: a string, or an object with a field such as ``file_name``."""
    if isinstance(entry, dict):
        fields = {str(key).casefold(): value for key, value in entry.items()}
        entry = next((fields[name] for name in NAME_COLUMNS if name in fields), None)
    return entry.strip() if isinstance(entry, str) and entry.strip() else None


def is_file_name(written: str) -> bool:
    """Whether it ends in a photo's suffix."""
    return without_suffix(written) != written


def _unquoted(line: str) -> str:
    for quote in _QUOTES:
        if len(line) > 2 and line[0] == line[-1] == quote and quote not in line[1:-1]:
            return line[1:-1].strip()
    return line


def _matched(pattern: re.Pattern[str], line: str) -> str | None:
    found = pattern.fullmatch(line)
    return found[1] if found else None


WHOLE = Form(_unquoted)
CLASS_COLUMN = Form(
    partial(_matched, _CLASS_COLUMN),
    "the 1, 0 or -1 that ends each line is read as the column of a class list, and not looked at",
    True,
)
"""``2007_000032 -1``: whether the class is in the photo, in the class lists of VOC."""


def _column(delimiter: str, index: int) -> Form:
    def cell(line: str) -> str | None:
        cells = _cells(line, delimiter) or []
        return cells[index].strip() or None if index < len(cells) else None

    return Form(cell, f"the names are read from column {index + 1}")


def _cells(line: str, delimiter: str) -> list[str] | None:
    reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        return next(reader, None)
    except csv.Error:
        return None


def _in_json(line: str) -> str | None:
    if not line.startswith(("{", '"')):
        return None
    try:
        return name_in(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _before_suffix(line: str) -> str | None:
    """``a b.jpg masks/a b.png``: what comes before the first space behind a photo's suffix."""
    for space in re.finditer(r"\s+", line):
        if is_file_name(line[: space.start()]):
            return line[: space.start()]
    return None


def _of_a_pair(line: str) -> str | None:
    """``images/a masks/a``: two paths whose last parts are the same."""
    for space in re.finditer(r"\s+", line):
        one, other = line[: space.start()], line[space.end() :]
        if _file(one) == _file(other):
            return one
    return None


def _file(path: str) -> str:
    return without_suffix(path.replace("\\", "/").rpartition("/")[2])
