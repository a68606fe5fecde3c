"""Box annotations in files: MSRA's text, COCO's JSON and CSV; text in, checked boxes out.

Boxes are in pixels: left, top, right, bottom, where right - left is the width.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagseg.data.text import read_text
from tagseg.errors import DataError, choose_from

__all__ = ["BoxRow", "read_box_rows"]

_EDGES = ("left", "top", "right", "bottom")
_OPTIONAL = ("annotator", "object", "class", "width", "height")
_NUMBERS_ONLY = re.compile(r"[-+.\d\s,;]+")


@dataclass(frozen=True)
class BoxRow:
    """One annotator's box of one object.

    Attributes:
        image: the photo as written there.
        box: left, top, right, bottom, pixels; not empty, but maybe not all inside the photo.
        where: file and line (or entry), for messages.
        shape: height and width of the photo, if the file says so.
        annotator: who drew it; empty if nobody is named.
        object: which object of the photo it is; empty if the file does not say.
        label: the object's class; empty if the file does not say.
    """

    image: str
    box: tuple[float, float, float, float]
    where: str
    shape: tuple[int, int] | None = None
    annotator: str = ""
    object: str = ""
    label: str = ""


def read_box_rows(file: Path) -> tuple[BoxRow, ...]:
    """All boxes of a file, in its order; DataError, with the line, for anything malformed.

    The suffix .txt, .json or .csv says which of the three formats it is, otherwise the beginning.
    """
    text = read_text(file, DataError)
    if not text.strip():
        raise DataError("this file of boxes is empty", where=file, do="check the path")
    rows = tuple(_READERS[_format_of(file, text)](file, text))
    if not rows:
        raise DataError("this file holds no boxes", where=file, do="check the file")
    return rows


# --- MSRA ---------------------------------------------------------------------------------------


def _msra_rows(file: Path, text: str) -> Iterator[BoxRow]:
    """The number of photos; then for each its name, ``width height``, and its boxes with ``;``.

    Blank lines may stand anywhere, and a photo's boxes may run over several lines.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    first, said = lines[0]
    if not said.isdecimal() or len(said) > 9:
        raise DataError(
            f"the first line is '{_short(said)}'",
            where=f"{file}, line {first}",
            do="begin with the number of photos",
        )
    records = _msra_records(lines[1:])
    if len(records) != int(said):
        raise DataError(
            f"says {said} photos, but holds {len(records)}",
            where=file,
            do="check that the file is whole",
        )
    for record in records:
        yield from _msra_photo(file, record)


def _msra_records(lines: Sequence[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """The lines of each photo: a name, then lines of nothing but numbers."""
    records: list[list[tuple[int, str]]] = []
    for number, line in lines:
        if not records or not _NUMBERS_ONLY.fullmatch(line):
            records.append([])
        records[-1].append((number, line))
    return records


def _msra_photo(file: Path, record: Sequence[tuple[int, str]]) -> Iterator[BoxRow]:
    (start, name), *rest = record
    size = rest[0][1].rstrip(";").split() if rest else []
    if len(size) != 2:
        where = f"{file}, line {rest[0][0] if rest else start}"
        raise DataError(f"no size of '{_short(name)}'", where=where, do="write: width height")
    width, height = (_number(text, f"{file}, line {rest[0][0]}") for text in size)
    shape = _shape(width, height, f"{file}, line {rest[0][0]}")
    annotator = 0
    for number, line in rest[1:]:
        where = f"{file}, line {number}"
        for group in filter(str.strip, line.split(";")):
            annotator += 1
            box = _box([_number(t, where) for t in group.replace(",", " ").split()], where)
            yield BoxRow(name, box, where, shape, annotator=str(annotator))
    if not annotator:
        where = f"{file}, line {start}"
        raise DataError(f"no box of '{_short(name)}'", where=where, do="add one or take it out")


# --- COCO ---------------------------------------------------------------------------------------


def _coco_rows(file: Path, text: str) -> Iterator[BoxRow]:
    """``annotations`` with an ``image_id`` and a ``bbox`` of x, y, width and height.

    Crowds are left out: their boxes are not of one object.
    """
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as problem:
        where = f"{file}, line {problem.lineno}"
        raise DataError("not JSON", where=where, do="check that the file is whole") from None
    except (ValueError, RecursionError):
        raise DataError("not JSON that can be read", where=file, do="check the file") from None
    if not isinstance(whole, dict):
        raise DataError("not a COCO file", where=file, do="give one with images and annotations")
    images = {entry.get("id"): (where, entry) for where, entry in _entries(file, whole, "images")}
    labels = (
        {
            entry.get("id"): str(entry.get("name", ""))
            for _, entry in _entries(file, whole, "categories")
        }
        if "categories" in whole
        else {}
    )
    for where, entry in _entries(file, whole, "annotations"):
        if not entry.get("iscrowd"):
            yield _coco_row(where, entry, images, labels)


def _entries(file: Path, whole: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict]]:
    entries = whole.get(key)
    if not isinstance(entries, list):
        raise DataError(f"has no list '{key}'", where=file, do="give a COCO file of boxes")
    for i, entry in enumerate(entries):
        where = f"{file}, {key}[{i}]"
        if not isinstance(entry, dict) or isinstance(entry.get("id"), list | dict):
            raise DataError("not an entry of a COCO file", where=where, do="check the file")
        yield where, entry


def _coco_row(
    where: str, entry: dict, images: Mapping[Any, tuple[str, dict]], labels: Mapping[Any, str]
) -> BoxRow:
    key = entry.get("image_id")
    if isinstance(key, list | dict) or key not in images:
        raise DataError(f"there is no image {key!r}", where=where, do="add it to images")
    place, image = images[key]
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DataError("has no file_name", where=place, do="name the photo there")
    edges = entry.get("bbox")
    if not isinstance(edges, list) or len(edges) != 4:
        raise DataError("has no bbox of 4 numbers", where=where, do="write x, y, width, height")
    x, y, w, h = (_number(edge, where) for edge in edges)
    shape = None
    if "width" in image and "height" in image:
        shape = _shape(_number(image["width"], place), _number(image["height"], place), place)
    category = entry.get("category_id")
    return BoxRow(
        name.strip(),
        _box([x, y, x + w, y + h], where),
        where,
        shape,
        annotator=_said(entry.get("annotator")),
        object=_said(entry.get("object")),
        label="" if isinstance(category, list | dict) else labels.get(category, ""),
    )


def _said(value: object) -> str:
    return "" if value is None else str(value).strip()


# --- CSV ----------------------------------------------------------------------------------------


def _csv_rows(file: Path, text: str) -> Iterator[BoxRow]:
    """Columns image, left, top, right, bottom; and, if there, who, which object, class and size."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        columns = _columns(next(reader, []), file)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _csv_row(cells, columns, f"{file}, line {reader.line_num}")
    except csv.Error as problem:
        where = f"{file}, line {reader.line_num}"
        raise DataError(f"not CSV: {problem}", where=where, do="check quotes") from None


def _columns(header: Sequence[str], file: Path) -> list[str]:
    names = [cell.strip().lower() for cell in header]
    known = ("image", *_EDGES, *_OPTIONAL)
    for name in names:
        if name not in known:
            where = f"{file}, line 1"
            raise DataError(
                f"unknown column '{_short(name)}'", where=where, do=choose_from(known, name)
            )
    for name in known:
        if names.count(name) > 1 or (name not in names and name not in _OPTIONAL):
            raise DataError(
                f"the first line has {names.count(name) or 'no'} columns '{name}'",
                where=file,
                do="begin with the line image,left,top,right,bottom",
            )
    return names


def _csv_row(cells: Sequence[str], columns: Sequence[str], where: str) -> BoxRow:
    if len(cells) != len(columns):
        raise DataError(
            f"{len(cells)} cells, but the first line has {len(columns)}",
            where=where,
            do="put quotes around names with a comma",
        )
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    if not row["image"]:
        raise DataError("no image is named", where=where, do="name the photo or remove the line")
    shape = None
    if row.get("width") and row.get("height"):
        shape = _shape(_number(row["width"], where), _number(row["height"], where), where)
    return BoxRow(
        row["image"],
        _box([_number(row[edge], where) for edge in _EDGES], where),
        where,
        shape,
        annotator=row.get("annotator", ""),
        object=row.get("object", ""),
        label=row.get("class", ""),
    )


# --- what they share ----------------------------------------------------------------------------

_READERS = {"msra": _msra_rows, "coco": _coco_rows, "csv": _csv_rows}
_SUFFIXES = {".txt": "msra", ".json": "coco", ".csv": "csv"}


def _format_of(file: Path, text: str) -> str:
    by_suffix = _SUFFIXES.get(file.suffix.lower())
    if by_suffix is not None:
        return by_suffix
    beginning = text.lstrip()
    if beginning.startswith("{"):
        return "coco"
    return "msra" if beginning.splitlines()[0].strip().isdecimal() else "csv"


def _number(value: object, where: str) -> float:
    """A finite number, from text or JSON."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"'{_short(str(value))}' is not a number", where=where, do="correct it")
    return number


def _shape(width: float, height: float, where: str) -> tuple[int, int]:
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise DataError(
            f"a photo of {width:g} x {height:g} pixels", where=where, do="write whole numbers"
        )
    return int(height), int(width)


def _box(edges: Sequence[float], where: str) -> tuple[float, float, float, float]:
    if len(edges) != 4:
        raise DataError(
            f"a box of {len(edges)} numbers", where=where, do="write: left top right bottom"
        )
    left, top, right, bottom = edges
    if right <= left or bottom <= top:
        raise DataError(
            f"the box {left:g} {top:g} {right:g} {bottom:g} is empty",
            where=where,
            do="right must be larger than left, bottom than top",
        )
    return left, top, right, bottom


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
