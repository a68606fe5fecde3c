"""Open Images: labels such as ``/m/01yrx``, and the file that says what they are called."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

from tagseg.data.text import read_text, tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import TagFile, listed

__all__ = ["read_descriptions"]

_ID = re.compile(r"/[mgt]/[\w-]+")


def read_descriptions(said: TagFile, path: Path) -> TagFile:
    """Tags that are Open Images' ids, by the names in ``*class-descriptions*.csv`` beside ``path``.

    Without such a file, or for ids that it lacks, the ids stay, and a note says so.
    """
    every = {tag for row in said.rows for tag in (*row.tags, *row.absent, *row.unsure)}
    ids = {tag for tag in every if _ID.fullmatch(tag)}
    if not ids:
        return said
    names, files = _descriptions(path.parent)
    unnamed = sorted(ids - names.keys())
    notes = [f"{path.name}: labels are called as in {listed(files)}"] if ids & names.keys() else []
    if unnamed:
        notes.append(
            f"{path.name}: labels without a name: {listed(unnamed)}; put Open Images' "
            "class-descriptions.csv beside it to name them"
        )
    rows = tuple(
        replace(
            row,
            tags=tuple(dict.fromkeys(names.get(tag, tag) for tag in row.tags)),
            absent=tuple(names.get(tag, tag) for tag in row.absent),
            unsure=tuple(names.get(tag, tag) for tag in row.unsure),
        )
        for row in said.rows
    )
    return replace(said, rows=rows, notes=(*said.notes, *notes))


def _descriptions(folder: Path) -> tuple[dict[str, str], list[str]]:
    names: dict[str, str] = {}
    files = []
    for file in sorted(folder.glob("*class-descriptions*.csv")):
        files.append(file.name)
        try:
            for cells in csv.reader(read_text(file, TagError).splitlines()):
                if len(cells) >= 2 and _ID.fullmatch(cells[0].strip()):
                    names[cells[0].strip()] = tidy_name(cells[1])
        except csv.Error as problem:
            raise TagError(f"not CSV: {problem}", where=file, do="check quotes") from None
    return names, files
