"""Tag files: text in, checked rows out.

Every reader here keeps the line of each entry, so that an error can point to it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tagseg.data.text import lines_of, read_text
from tagseg.errors import TagError

__all__ = ["TagFile", "TagRow", "check_tags", "read_tag_file", "read_tags_csv", "read_tags_jsonl"]


@dataclass(frozen=True, slots=True)
class TagRow:
    """One photo of a tag file.

    Attributes:
        image: the photo as written there.
        tags: its classes, each once.
        where: file and line, for messages.
        complete: no tags mean none of the classes; otherwise they may be just not there.
    """

    image: str
    tags: tuple[str, ...]
    where: str
    complete: bool = False


@dataclass(frozen=True)
class TagFile:
    """What a file, or a layout's own place, says of the photos.

    Attributes:
        rows: one a photo.
        classes: foreground classes in their order, where the source itself tells them.
        notes: how it was understood, a line each, where that is not plain.
    """

    rows: tuple[TagRow, ...]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def read_tag_file(path: Path) -> TagFile:
    """The rows of a tag file of any known form; TagError, with the line, for anything else."""
    as_json = path.suffix.lower() in (".jsonl", ".json")
    return TagFile(read_tags_jsonl(path) if as_json else read_tags_csv(path))


def read_tags_csv(path: Path) -> tuple[TagRow, ...]:
    """Rows of a CSV file with the columns ``image`` and ``tags`` (``;`` between tags).

    Other columns do no harm. Raises TagError, with the line, for anything malformed.
    """
    text = io.StringIO(read_text(path, TagError), newline="")
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    try:
        image, tags, width = _columns(next(reader, []), path)
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                where = f"{path}, line {reader.line_num}"
                rows.append(_row_of(cells, image, tags, width, where))
    except csv.Error as problem:
        where = f"{path}, line {reader.line_num}"
        raise TagError(f"not CSV: {problem}", where=where, do="check quotes") from None
    return _some(rows, path)


def read_tags_jsonl(path: Path) -> tuple[TagRow, ...]:
    """Rows of a file with one JSON object per line: ``file_name`` and ``tags``, a list of names."""
    rows = []
    for where, line in lines_of(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise TagError("not JSON", where=where, do="write one object per line") from None
        image = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(image, str) or not image.strip():
            raise TagError("has no file_name", where=where, do="name the photo there")
        tags = entry.get("tags")
        if tags is not None and not _is_list_of_names(tags):
            raise TagError("tags is not a list of names", where=where, do='write "tags": ["cat"]')
        rows.append(TagRow(image.strip(), _tidy(tags or ()), where))
    return _some(rows, path)


def check_tags(rows: Sequence[TagRow], classes: Sequence[str]) -> None:
    """Raise TagError, with line and nearest class, for the first tag that is not a class."""
    known = set(classes)
    for row in rows:
        for tag in row.tags:
            if tag not in known:
                near = _nearest(tag, classes)
                advice = f"did you mean '{near}'?" if near else "add it to the class list"
                raise TagError(f"tag '{tag}' is not in the class list", where=row.where, do=advice)


def _nearest(tag: str, classes: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in classes}
    matches = get_close_matches(tag.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None


def _columns(header: Sequence[str], path: Path) -> tuple[int, int, int]:
    names = [cell.strip().lower() for cell in header]
    for wanted in ("image", "tags"):
        if names.count(wanted) != 1:
            raise TagError(
                f"the first line has no column '{wanted}'",
                where=path,
                do="begin with the line image,tags and put ; between tags",
            )
    return names.index("image"), names.index("tags"), len(names)


def _row_of(cells: Sequence[str], image: int, tags: int, width: int, where: str) -> TagRow:
    if len(cells) > width:
        raise TagError(
            f"{len(cells)} cells, but the first line has {width}",
            where=where,
            do="put ; between tags and quotes around names with a comma",
        )
    padded = [*cells, *[""] * (width - len(cells))]
    name = padded[image].strip()
    if not name:
        raise TagError("no image is named", where=where, do="name the photo or remove the line")
    return TagRow(name, _tidy(padded[tags].split(";")), where)


def _tidy(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _some(rows: Sequence[TagRow], path: Path) -> tuple[TagRow, ...]:
    if not rows:
        raise TagError("this tag file names no photos", where=path, do="add one line per photo")
    return tuple(rows)
