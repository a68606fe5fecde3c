"""Photos and masks in a folder, by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from tagseg.data.picture_formats import (
    NAME_SUFFIXES,
    PHOTO_SUFFIXES,
    SPARE_SUFFIXES,
    unread_suffix,
)
from tagseg.errors import DataError

__all__ = [
    "PHOTO_SUFFIXES",
    "advice_without_photos",
    "find_masks",
    "find_photos",
    "notes_on_unread",
    "visible_folders",
    "without_suffix",
]

_COMMON_SUFFIXES, _READ_SPARES = PHOTO_SUFFIXES - SPARE_SUFFIXES, PHOTO_SUFFIXES & SPARE_SUFFIXES
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))


def find_photos(folder: Path) -> dict[str, Path]:
    """All photos under ``folder``: name (relative posix path without suffix) -> path, sorted.

    Hidden files and folders are left out; links are followed. Raises DataError if two files
    differ only in their suffix, because both would have the same name; but of a JPEG (or another
    common picture) and a HEIC, AVIF, JPEG 2000 or MPO file, the JPEG counts.
    """
    return _find(Path(folder), PHOTO_SUFFIXES)


def find_masks(folder: Path) -> dict[str, Path]:
    """All mask files under ``folder``, as :func:`find_photos` finds photos."""
    return _find(Path(folder), _MASK_SUFFIXES)


def without_suffix(name: str) -> str:
    """``name`` without its suffix if that is a photo's; other dots belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in NAME_SUFFIXES else name


def notes_on_unread(folder: Path) -> tuple[str, ...]:
    """What :func:`find_photos` passes over: a line for each kind of pictures, with counts.

    These are pictures that no decoder here reads, and further forms of a photo that counts.
    """
    found: dict[str, Counter[str]] = {}
    for _, names in visible_folders(folder):
        for suffix, advice in filter(None, map(unread_suffix, names)):
            found.setdefault(advice, Counter())[suffix] += 1
        for suffix in _spare(names):
            found.setdefault("a photo of the same name lies beside", Counter())[suffix] += 1
    return tuple(f"left out: {_files(counts)}; {advice}" for advice, counts in found.items())


def advice_without_photos(folder: Path) -> str:
    """What to do about a folder in which :func:`find_photos` finds none."""
    return "; ".join(notes_on_unread(folder)) or "check the path"


def _is_spare(path: Path) -> bool:
    return path.suffix.lower() in SPARE_SUFFIXES


def _spare(names: list[str]) -> list[str]:
    """Suffixes of the spare forms of photos among the files of one folder."""
    split = [os.path.splitext(name) for name in names]
    common = {stem for stem, suffix in split if suffix.lower() in _COMMON_SUFFIXES}
    return [s.lower() for stem, s in split if s.lower() in _READ_SPARES and stem in common]


def _files(counts: Counter[str]) -> str:
    parts = ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items()))
    return f"{parts} file{'s' if counts.total() > 1 else ''}"


def visible_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder that is not hidden and its files, through links, each real folder once."""
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), [name for name in names if not name.startswith(".")]


def _find(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=folder, do="check the path")
    found: dict[str, Path] = {}
    common = (path for path in _walk(folder) if not _is_spare(path))
    spare = filter(_is_spare, _walk(folder))
    for path in chain(common, spare):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found and _is_spare(path) and not _is_spare(found[name]):
            continue
        if name in found:
            both = " and ".join(sorted((found[name].name, path.name)))
            raise DataError(f"{both} have the same name", where=path.parent, do="rename one")
        found[name] = path
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden."""
    for place, names in visible_folders(folder):
        yield from (place / name for name in names)
