"""Class lists in files, in the forms that tools write: text in, entries with their lines out.

=====================  ==========================================================
form                   one entry
=====================  ==========================================================
lines                  ``cat``
numbered lines         ``1 cat``, ``1: cat``, ``1,cat``, ``cat: 1``, ``cat,1``
lines with colours     ``cat,255,0,0``, ``255 0 0 cat`` (CamVid)
CVAT's label map       ``cat:255,0,0::``
tables                 ``Pixel Value, Class`` / ``1, cat``; ``name,r,g,b``
JSON                   ``["cat"]``, ``{"cat": 1}``, ``[{"id": 1, "name": "cat"}]``
YOLO's data.yaml       ``names: [cat]``, ``names:`` / ``- cat``, ``names:`` / ``0: cat``
TensorFlow's pbtxt     ``item { id: 1 name: 'cat' }``
=====================  ==========================================================
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tagseg.data.legends import Colour
from tagseg.data.text import read_text
from tagseg.errors import TagError
from tagseg.formats.lists.yaml_names import names_of_yaml

__all__ = ["Entries", "Entry", "read_entries"]

_NAMES = ("name", "class", "classname", "class_name", "label", "category", "title", "classes")
_NUMBERS = ("pixelvalue", "pixel_value", "value", "id", "index", "class_id", "classid", "label_id")
_COLOURS = ("color", "colour", "rgb", "hex", "color_rgb")
_HEADINGS = (*_NAMES, "classname", "labels", "names", "categories", "class name")
_TRIPLE = re.compile(r"\D*(\d{1,3})\D+(\d{1,3})\D+(\d{1,3})\D*")
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_CVAT = re.compile(r"([^:]*):\s*(\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3})?\s*:[^:]*:[^:]*")
_NUMBER_FIRST = re.compile(r"(-?\d{1,3})(\s*[:,;=\t]\s*|\s+)(\S.*)")
_NUMBER_LAST = re.compile(r"(\S.*?)\s*[:,;=\t]\s*(-?\d{1,3})")
_COLOUR_LAST = re.compile(r"(\S.*?)\s*[,;\t]\s*(\d{1,3}\s*[,;\t ]\s*\d{1,3}\s*[,;\t ]\s*\d{1,3})")
_COLOUR_FIRST = re.compile(r"(\d{1,3}[,;\t ]+\d{1,3}[,;\t ]+\d{1,3})[,;\t ]+(\S.*)")


@dataclass(frozen=True)
class Entry:
    """One name of a class list, with its number and its colour in masks where the file has them."""

    name: str
    number: int | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class Entries:
    """A class list as it stands in a file.

    Attributes:
        entries: in the file's order.
        note: how the file was understood, where that is not plain.
    """

    entries: tuple[Entry, ...]
    note: str = ""


def read_entries(path: Path) -> Entries:
    """The entries of a class list; TagError, with the line where there is one, if it has none."""
    text = read_text(path, TagError)
    by_suffix = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".pbtxt": _pbtxt}
    reader = by_suffix.get(path.suffix.lower())
    if reader is None:
        has_quotes = '"' in text or "'" in text  # [Background] may stand on a line of its own
        reader = _json if text.lstrip()[:1] in ("[", "{") and has_quotes else _lines
    found = reader(text, path)
    if not found.entries:
        raise TagError("this class list is empty", where=path, do="write one name a line")
    return found


# --- lines ---------------------------------------------------------------------------------------

_Line = tuple[str, str]  # place, text


def _lines(text: str, path: Path) -> Entries:
    """The first form that all lines fit."""
    lines = [
        (f"{path}, line {number}", line.strip().strip("\ufeff\u200b"))
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    for form in _FORMS:
        found = form(lines)
        if found is not None:
            return found
    return _plain(lines)


def _cvat(lines: Sequence[_Line]) -> Entries | None:
    matches = [_CVAT.fullmatch(line) for _, line in lines]
    if not lines or not all(matches):
        return None
    rows = [(where, m[1], m[2]) for (where, _), m in zip(lines, matches, strict=True) if m]
    return Entries(tuple(Entry(name.strip(), None, _colour(c, w)) for w, name, c in rows))


def _table(lines: Sequence[_Line]) -> Entries | None:
    """Columns with a heading that names them."""
    if not lines:
        return None
    mark = max(",;\t", key=lines[0][1].count)
    heading = [_key(cell) for cell in lines[0][1].split(mark)]
    name, number = _place(heading, _NAMES), _place(heading, _NUMBERS)
    colour = _colour_columns(heading)
    if name is None or (number is None and not colour):
        return None
    entries = []
    for where, line in lines[1:]:
        cells = [cell.strip() for cell in _cells(line, mark, where)]
        if len(cells) < len(heading):
            raise TagError(
                f"{len(cells)} cells, but the first line has {len(heading)}",
                where=where,
                do="put quotes around names with a comma",
            )
        shade = ",".join(cells[i] for i in colour)
        value = None if number is None else _number(cells[number], where)
        entries.append(Entry(cells[name], value, _colour(shade, where)))
    return Entries(tuple(entries))


def _with_colours(lines: Sequence[_Line]) -> Entries | None:
    """``cat,255,0,0`` on every line, or ``255 0 0 cat``."""
    for pattern, name, colour in ((_COLOUR_LAST, 1, 2), (_COLOUR_FIRST, 2, 1)):
        matches = [pattern.fullmatch(line) for _, line in lines]
        if matches and all(matches):
            pairs = zip(lines, matches, strict=True)
            return Entries(
                tuple(Entry(m[name], None, _colour(m[colour], w)) for (w, _), m in pairs if m)
            )
    return None


def _numbered(lines: Sequence[_Line]) -> Entries | None:
    """A number before every name; spaces alone between them if the numbers rise."""
    matches = [m for _, line in lines if (m := _NUMBER_FIRST.fullmatch(line))]
    if not matches or len(matches) < len(lines):
        return None
    numbers = [int(m[1]) for m in matches]
    rises = all(a < b for a, b in pairwise(numbers))
    is_count = rises and (len(numbers) > 1 or numbers[0] == 0)
    if not is_count and any(not m[2].strip(" ") for m in matches):
        return None
    if len(set(numbers)) < len(numbers) or len({m[3].strip() for m in matches}) < len(matches):
        return None
    return Entries(tuple(Entry(m[3].strip(), int(m[1])) for m in matches))


def _numbered_behind(lines: Sequence[_Line]) -> Entries | None:
    matches = [m for _, line in lines if (m := _NUMBER_LAST.fullmatch(line))]
    if not matches or len(matches) < len(lines):
        return None
    numbers = [int(m[2]) for m in matches]
    if len(set(numbers)) < len(numbers):
        return None
    return Entries(tuple(Entry(m[1].strip(), int(m[2])) for m in matches))


def _plain(lines: Sequence[_Line]) -> Entries:
    names = [_unquoted(line) for _, line in lines]
    if len(names) > 1 and names[0].casefold() in _HEADINGS:
        return Entries(tuple(map(Entry, names[1:])), f"'{names[0]}' is read as a heading")
    if len(names) == 1 and "," in names[0]:
        parts = [_unquoted(part) for part in names[0].split(",") if part.strip()]
        return Entries(tuple(map(Entry, parts)), f"its one line is read as {len(parts)} names")
    return Entries(tuple(map(Entry, names)))


_Form = Callable[[Sequence[_Line]], Entries | None]
_FORMS: tuple[_Form, ...] = (_cvat, _table, _with_colours, _numbered, _numbered_behind)


# --- JSON, YAML, pbtxt ---------------------------------------------------------------------------


def _json(text: str, path: Path) -> Entries:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as problem:
        whole = _python_literal(text)
        if whole is None:
            line = getattr(problem, "lineno", 1)
            where = f"{path}, line {line}"
            raise TagError("not JSON", where=where, do='write a list of names: ["cat"]') from None
    return Entries(tuple(_of_json(whole, path)))


def _python_literal(text: str) -> Any:
    """``['cat', 'dog']``, as it stands in programs."""
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return found if isinstance(found, list | dict) else None


def _of_json(whole: Any, path: Path) -> Iterator[Entry]:
    for key in ("categories", "classes", "names", "labels"):
        if isinstance(whole, dict) and isinstance(whole.get(key), list | dict):
            whole = whole[key]
            break
    if isinstance(whole, dict):
        yield from (_of_pair(key, value, path) for key, value in whole.items())
    elif isinstance(whole, list):
        yield from (_of_item(item, path) for item in whole)
    else:
        raise TagError("not a list of names", where=path, do='write ["cat", "dog"]')


def _of_pair(key: Any, value: Any, path: Path) -> Entry:
    """``"cat": 1``, ``"1": "cat"`` or ``"cat": [255, 0, 0]``."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,3}", str(key).strip()):
        return Entry(value.strip(), int(str(key)))
    if isinstance(value, int) and not isinstance(value, bool):
        return Entry(str(key).strip(), value)
    if isinstance(value, list | str):
        return Entry(str(key).strip(), None, _colour(value, path))
    raise TagError(f"'{str(key)[:60]}' has neither a number nor a name", where=path, do="check it")


def _of_item(item: Any, path: Path) -> Entry:
    if isinstance(item, str):
        return Entry(item.strip())
    if not isinstance(item, dict):
        raise TagError("not a list of names", where=path, do='write ["cat", "dog"]')
    fields = {_key(str(key)): value for key, value in item.items()}
    name = next((fields[k] for k in _NAMES if isinstance(fields.get(k), str)), None)
    if name is None:
        raise TagError("an entry has no name", where=path, do='write {"id": 1, "name": "cat"}')
    number = next((fields[k] for k in _NUMBERS if type(fields.get(k)) is int), None)
    colour = next((fields[k] for k in _COLOURS if fields.get(k)), None)
    return Entry(name.strip(), number, _colour(colour, path))


def _yaml(text: str, path: Path) -> Entries:
    _, found = names_of_yaml(text, path)
    if not found:
        raise TagError("has no names", where=path, do="write names: [cat, dog]")
    return Entries(tuple(Entry(name, number) for number, name in found))


def _pbtxt(text: str, path: Path) -> Entries:
    entries = []
    for item in re.findall(r"item\s*\{([^}]*)\}", text):
        number = re.search(r"\bid\s*:\s*(\d{1,9})\b", item)
        name = re.search(r"\b(?:display_)?name\s*:\s*[\"']([^\"']*)[\"']", item)
        if number is None or name is None:
            raise TagError("an item has no id or no name", where=path, do="check the file")
        entries.append(Entry(name[1].strip(), int(number[1])))
    return Entries(tuple(entries))


# --- cells ---------------------------------------------------------------------------------------


def _key(cell: str) -> str:
    return _unquoted(cell).casefold().replace(" ", "")


def _place(heading: Sequence[str], known: Sequence[str]) -> int | None:
    return next((heading.index(name) for name in known if name in heading), None)


def _colour_columns(heading: Sequence[str]) -> list[int]:
    for triple in (("r", "g", "b"), ("red", "green", "blue")):
        if all(name in heading for name in triple):
            return [heading.index(name) for name in triple]
    whole = _place(heading, _COLOURS)
    return [] if whole is None else [whole]


def _cells(line: str, mark: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True))
    except csv.Error as problem:
        raise TagError(f"not CSV: {problem}", where=where, do="check quotes") from None


def _number(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise TagError(
            f"'{text[:60]}' is not a number", where=where, do="write a whole number"
        ) from None


def _colour(value: Any, where: object) -> Colour | None:
    """A colour from ``255,0,0``, ``#ff0000`` or ``[255, 0, 0]``; None for nothing."""
    if value is None or value in ("", []):
        return None
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value).strip()
    as_hex = _HEX.fullmatch(text)
    if as_hex:
        code = int(as_hex[1], 16)
        return code >> 16, code >> 8 & 255, code & 255
    triple = _TRIPLE.fullmatch(text)
    numbers = [int(part) for part in triple.groups()] if triple else [256]
    if max(numbers) > 255:
        raise TagError(
            f"'{text[:60]}' is not a colour", where=where, do="write red,green,blue, each 0 to 255"
        )
    return numbers[0], numbers[1], numbers[2]


def _unquoted(text: str) -> str:
    bare = text.strip().rstrip(",").strip()
    is_quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\""
    return bare[1:-1].strip() if is_quoted else bare
