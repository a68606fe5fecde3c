"""ImageNet's layout: one folder per WordNet synset, and a list of the synsets of each class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tagseg.data.finding import PHOTO_SUFFIXES
from tagseg.data.text import read_text
from tagseg.errors import TagError, first_few
from tagseg.formats.tags.tag_files import TagRow

__all__ = [
    "check_classes_are_there",
    "count_unlisted",
    "folder_of_synsets",
    "read_synsets",
    "rows_of_synset_folders",
]

_WNID = re.compile(r"n[0-9]{8}")
_COMMENT = re.compile(r"(?:^|\s)#.*")


def read_synsets(path: Path) -> dict[str, str]:
    """The class of each synset, from a file with lines ``n02691156 aeroplane``, in its order.

    A class may have several synsets, one a line, and spaces in its name. ``#`` begins a comment.
    Raises TagError, with the line, for anything else and for a synset that is listed twice.
    """
    found: dict[str, str] = {}
    for where, wnid, name in _entries(path):
        _check_entry(wnid, name, where)
        if wnid in found:
            raise TagError(
                f"synset {wnid} is listed twice (class '{found[wnid]}' before)",
                where=where,
                do="keep one of the lines",
            )
        found[wnid] = name
    if not found:
        raise TagError(
            "this list names no synsets", where=path, do="write lines such as n02691156 aeroplane"
        )
    return found


def rows_of_synset_folders(names: Iterable[str], synsets: Mapping[str, str]) -> tuple[TagRow, ...]:
    """Tag each photo ``n02691156/a`` with its synset's class; photos elsewhere are left out."""
    folders = ((name, name.split("/")[0]) for name in names if "/" in name)
    return tuple(TagRow(name, (synsets[f],), name) for name, f in folders if f in synsets)


def folder_of_synsets(folder: Path, synsets: Iterable[str]) -> Path:
    """Where the synsets' folders lie: in ``folder``, or else in its ``train``."""
    inner = folder / "train"
    here = any((folder / wnid).is_dir() for wnid in synsets)
    return inner if inner.is_dir() and not here else folder


def check_classes_are_there(rows: Iterable[TagRow], synsets: Mapping[str, str], home: Path) -> None:
    """Raise TagError for a class of which no synset's folder in ``home`` holds a photo."""
    there = {tag for row in rows for tag in row.tags}
    for name in dict.fromkeys(synsets.values()):
        if name not in there:
            wnids = [wnid for wnid, other in synsets.items() if other == name]
            raise TagError(
                f"no photos of class '{name}': its synsets {first_few(wnids)} have no folder "
                "here, or no photo in it",
                where=home,
                do="check the path, get the photos, or take the class off the list",
            )


def count_unlisted(home: Path, synsets: Mapping[str, str]) -> int:
    """Number of photos in folders of other synsets, which are many: they are only counted."""
    others = (f for f in home.iterdir() if _WNID.fullmatch(f.name) and f.name not in synsets)
    return sum(
        os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES
        for folder in others
        for _, _, files in os.walk(folder)
        for name in files
    )


def _entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, synset, class) of every line that is not blank but for a comment."""
    for number, line in enumerate(read_text(path, TagError).splitlines(), start=1):
        words = _COMMENT.sub("", line).split()
        if words:
            yield f"{path}, line {number}", words[0], " ".join(words[1:])


def _check_entry(wnid: str, name: str, where: str) -> None:
    if not _WNID.fullmatch(wnid):
        raise TagError(
            f"'{wnid}' is not the id of a noun synset",
            where=where,
            do="write n and eight digits, then the class, such as n02691156 aeroplane",
        )
    if not name:
        raise TagError(f"synset {wnid} has no class", where=where, do="write it after the id")
    if name == "background" or ";" in name:
        raise TagError(
            f"a class cannot be called '{name}'", where=where, do="name foreground, without ;"
        )
