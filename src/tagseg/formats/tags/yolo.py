"""YOLO's label files, one a photo, and the files that name their classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tagseg.data.text import lines_of, read_text, split_lines, tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import TagRow

__all__ = ["NAME_FILES", "find_names", "read_names_of_yaml", "row_of_labels"]

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "classes.names")

_KEY = re.compile(r"names\s*:(.*)")
_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\""""
_ITEM = re.compile(rf"\s*(?:(\d+)\s*:\s*)?({_QUOTED}|[^,'\"\[\]{{}}]+)\s*(?:,|$)")


def row_of_labels(path: Path, image: str, names: tuple[str, ...]) -> TagRow:
    """The classes in a file of lines ``class x y width height``, or with a polygon's points.

    An empty file says that there are none. TagError, with the line, for anything else.
    """
    found = []
    for where, line in lines_of(path):
        number, *numbers = line.split()
        if not number.isdecimal() or len(numbers) < 4 or not all(map(_is_number, numbers)):
            raise TagError(
                "not a line of YOLO labels", where=where, do="write: class x y width height"
            )
        if int(number) >= len(names):
            raise TagError(
                f"class {number} has no name: there are {len(names)} names",
                where=where,
                do="check data.yaml or classes.txt",
            )
        found.append(names[int(number)])
    return TagRow(image, tuple(dict.fromkeys(found)), str(path), complete=True)


def find_names(folders: Iterable[Path]) -> tuple[Path, tuple[str, ...]] | None:
    """The first of :data:`NAME_FILES` in ``folders`` that names classes, and the names."""
    for folder in folders:
        for file in (folder / name for name in NAME_FILES):
            if file.is_file():
                names = (
                    read_names_of_yaml(file)
                    if file.suffix in (".yaml", ".yml")
                    else tuple(tidy_name(line) for _, line in lines_of(file))
                )
                if names:
                    return file, names
    return None


def read_names_of_yaml(path: Path) -> tuple[str, ...]:
    """The entry ``names`` of a YAML file: a list or a mapping of numbers, in one line or several.

    No other YAML is understood. Empty if there is no such entry; TagError if it cannot be read.
    """
    lines = split_lines(read_text(path, TagError))
    start = next((i for i, line in enumerate(lines) if _KEY.match(line)), None)
    if start is None:
        return ()
    first = _without_comment(_KEY.match(lines[start])[1])  # type: ignore[index]
    where = f"{path}, line {start + 1}"
    if first[:1] in ("[", "{"):
        return _flow(_until_closed([first, *lines[start + 1 :]], where), where)
    if first:
        raise TagError("'names' is neither a list nor a mapping", where=where, do="write [a, b]")
    items: dict[int, str] = {}
    for line in lines[start + 1 :]:
        text = _without_comment(line)
        match = re.fullmatch(r"(?:-|(\d+)\s*:)\s+(.+)", text)
        if text and match is None:
            break
        if match is not None:
            items[int(match[1]) if match[1] else len(items)] = _plain(match[2])
    return _in_order(items, where)


def _until_closed(lines: Iterable[str], where: str) -> str:
    text = ""
    for line in lines:
        text += " " + _without_comment(line)
        if text.strip()[-1] == {"[": "]", "{": "}"}[text.strip()[0]]:
            return text.strip()[1:-1]
    raise TagError("the list of names is not closed", where=where, do="write names: [a, b]")


def _flow(inner: str, where: str) -> tuple[str, ...]:
    items: dict[int, str] = {}
    at = 0
    inner = inner.strip().rstrip(",").rstrip()
    while at < len(inner):
        match = _ITEM.match(inner, at)
        if match is None or not match[2].strip():
            raise TagError("the list of names cannot be read", where=where, do="write [a, b]")
        items[int(match[1]) if match[1] else len(items)] = _plain(match[2])
        at = match.end()
    return _in_order(items, where)


def _in_order(items: dict[int, str], where: str) -> tuple[str, ...]:
    if sorted(items) != list(range(len(items))):
        raise TagError("the numbers of names have gaps", where=where, do="number them from 0")
    return tuple(items[i] for i in range(len(items)))


def _plain(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1].replace("''", "'")
    elif len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return tidy_name(text)


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
