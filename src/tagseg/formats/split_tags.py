"""Tag files of several folders, joined: ``train/metadata.csv`` and ``test/metadata.csv``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tagseg.formats.tag_files import TagFile, TagRow, read_tag_file

__all__ = ["read_tag_files"]


def read_tag_files(
    files: Sequence[Path], home: Path, *, is_photo: Callable[[str], bool]
) -> TagFile:
    """The rows of all files, named relative to ``home``.

    Args:
        files: tag files in folders of ``home``; photos are named relative to their own file.
        is_photo: whether a name relative to ``home`` is that of a photo. A row that is written
            relative to ``home`` is taken so.

    Raises TagError as :func:`read_tag_file` does.
    """
    told = [(file.parent.relative_to(home).as_posix(), read_tag_file(file)) for file in files]
    rows = tuple(_placed(row, folder, is_photo) for folder, one in told for row in one.rows)
    listed = [one.classes for _, one in told]
    classes = None
    if all(names is not None for names in listed):
        classes = tuple(dict.fromkeys(name for names in listed for name in names or ()))
    notes = dict.fromkeys(note for _, one in told for note in one.notes)
    return TagFile(rows, classes, (*_class_notes(files, home, [one for _, one in told]), *notes))


def _placed(row: TagRow, folder: str, is_photo: Callable[[str], bool]) -> TagRow:
    written = row.image.replace("\\", "/").removeprefix("./")
    inside = f"{folder}/{written}"
    return row if is_photo(written) and not is_photo(inside) else replace(row, image=inside)


def _class_notes(files: Sequence[Path], home: Path, told: Sequence[TagFile]) -> list[str]:
    """Which files do not have all of the classes."""
    found = [{tag for row in one.rows for tag in row.tags} for one in told]
    every = set().union(*found)
    return [
        f"{file.relative_to(home).as_posix()} has no photo of {', '.join(sorted(every - names))}"
        for file, names in zip(files, found, strict=True)
        if names and names != every
    ]
