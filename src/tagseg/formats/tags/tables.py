"""Tables in text: what separates the columns, and rows of cells with their lines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tagseg.errors import TagError

__all__ = ["DELIMITERS", "Record", "Table", "delimiter_name", "read_table"]

DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_MOST_SHARED = 10_000
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*(?:\r\n|\r|\n|$)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Record:
    """A row of cells, stripped, and the line in which it ends."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """All rows that are not blank, the first one too, and what separates their cells."""

    path: Path
    records: tuple[Record, ...]
    delimiter: str

    def where(self, record: Record) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {record.line}"


def delimiter_name(delimiter: str) -> str:
    """What a delimiter is called in messages."""
    return _NAMES.get(delimiter, f"'{delimiter}'")


def read_table(
    text: str,
    path: Path,
    of_header: Callable[[tuple[str, ...]], int],
    of_table: Callable[[Table], int],
) -> Table:
    """A text as a table with the one of :data:`DELIMITERS` that fits best.

    ``of_header`` rates the cells of the first row; where none is over 0, ``of_table`` rates whole
    tables. Of equals the first counts, or tabs in a file .tsv; Excel's first line ``sep=;`` decides
    outright. Rows that are one quoted cell as a whole are unwrapped. Raises TagError, with the
    line, for text that is not CSV in the best reading.
    """
    told = _SEP_LINE.match(text)
    if told is not None:
        return _parsed("\n" + text[told.end() :], path, told[1])  # lines keep their numbers
    tabs_first = path.suffix.lower() in (".tsv", ".tab")
    order = tuple(dict.fromkeys(("\t", *DELIMITERS))) if tabs_first else DELIMITERS
    best = max(order, key=lambda d: of_header(_first_row(text, d)))
    if of_header(_first_row(text, best)):
        return _parsed(text, path, best)
    tables = [table for d in order if (table := _tried(text, path, d)) is not None]
    whole = max(tables, key=of_table, default=None)
    if whole is not None and of_table(whole):
        return whole
    plain = _parsed(text, path, order[0])  # raises, if it is not CSV
    return _unwrapped(plain, of_header) or plain


def _first_row(text: str, delimiter: str) -> tuple[str, ...]:
    for line in io.StringIO(text[:100_000], newline=""):
        if line.strip():
            cells = next(csv.reader([line], skipinitialspace=True, delimiter=delimiter), [])
            return tuple(cell.strip() for cell in cells)
    return ()


def _tried(text: str, path: Path, delimiter: str) -> Table | None:
    try:
        return _parsed(text, path, delimiter)
    except TagError:
        return None


def _parsed(text: str, path: Path, delimiter: str) -> Table:
    lines = (found[0] for found in _LINE.finditer(text))  # StringIO has four bytes for a letter
    reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=delimiter)
    return Table(path, tuple(_records(reader, path, delimiter)), delimiter)


def _records(reader, path: Path, delimiter: str) -> Iterator[Record]:  # type: ignore[no-untyped-def]
    done = 0
    shared: dict[str, str] = {}  # most cells are one of few tags
    try:
        for cells in reader:
            if any(
                delimiter in below for cell in cells for below in re.split(r"[\r\n]+", cell)[1:]
            ):
                where = f"{path}, line {done + 1}"
                what = f"not CSV: a quote that opens here closes in line {reader.line_num}"
                raise TagError(what, where=where, do="check quotes")
            done = reader.line_num
            if any(cell.strip() for cell in cells):
                if len(shared) > _MOST_SHARED:
                    shared.clear()
                plain = map(str.strip, cells)
                yield Record(done, tuple(shared.setdefault(cell, cell) for cell in plain))
    except csv.Error as problem:
        where = f"{path}, line {done + 1}"
        raise TagError(f"not CSV: {problem}", where=where, do="check quotes") from None


def _unwrapped(table: Table, of_header: Callable[[tuple[str, ...]], int]) -> Table | None:
    """The table within, if each row is one quoted cell that holds a row."""
    if any(len(record.cells) != 1 for record in table.records):
        return None
    for delimiter in DELIMITERS:
        inner = tuple(
            Record(record.line, _first_row(record.cells[0], delimiter)) for record in table.records
        )
        if inner and of_header(inner[0].cells):
            return Table(table.path, inner, delimiter)
    return None
