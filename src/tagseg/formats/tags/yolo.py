"""YOLO's label files, one a photo, and the files that name their classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tagseg.data.text import lines_of, read_text, tidy_name
from tagseg.errors import TagError
from tagseg.formats.lists.yaml_names import names_of_yaml
from tagseg.formats.tags.tag_rows import TagRow

__all__ = ["NAME_FILES", "find_names", "read_names_of_yaml", "row_of_labels"]

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "classes.names")

_MOST_DIGITS = 9  # of a class's number; Python refuses numbers of thousands


def row_of_labels(path: Path, image: str, names: tuple[str, ...]) -> TagRow:
    """The classes in a file of lines ``class x y width height``, or with a polygon's points.

    An empty file says that there are none. TagError, with the line, for anything else.
    """
    found = []
    for where, line in lines_of(path):
        number, *numbers = line.split()
        is_class = number.isdecimal() and len(number) <= _MOST_DIGITS
        if not is_class or len(numbers) < 4 or not all(map(_is_number, numbers)):
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
    """The entry ``names`` of a YAML file, in the order of its numbers.

    Empty if there is no such entry; TagError if it cannot be read or its numbers have gaps.
    """
    where, names = names_of_yaml(read_text(path, TagError), path)
    items: dict[int, str] = {}
    for number, name in names:
        items[len(items) if number is None else number] = name
    if sorted(items) != list(range(len(items))):
        raise TagError("the numbers of names have gaps", where=where, do="number them from 0")
    return tuple(items[i] for i in range(len(items)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
