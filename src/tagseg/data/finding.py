"""Photos and masks in a folder, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tagseg.data.text import readable
from tagseg.errors import DataError

__all__ = [
    "PHOTO_SUFFIXES",
    "find_masks",
    "find_photos",
    "is_odd",
    "visible_folders",
    "without_suffix",
]

PHOTO_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"],
)
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))


def find_photos(folder: Path) -> dict[str, Path]:
    """All photos under ``folder``: name (relative posix path without suffix) -> path, sorted.

    Hidden files and folders are left out; links are followed. Raises DataError if two files
    differ only in their suffix, because both would have the same name.
    """
    return _find(Path(folder), PHOTO_SUFFIXES)


def find_masks(folder: Path) -> dict[str, Path]:
    """All mask files under ``folder``, as :func:`find_photos` finds photos."""
    return _find(Path(folder), _MASK_SUFFIXES)


def without_suffix(name: str) -> str:
    """``name`` without its suffix if that is a photo's; other dots belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in PHOTO_SUFFIXES else name


def is_odd(path: Path, folder: Path) -> bool:
    """Whether the name of a file under ``folder`` is not UTF-8, so that it is told with ``%XX``."""
    text = str(path)
    if text.isascii():
        return False
    inner = text.removeprefix(str(folder))
    return readable(inner) != inner


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
    for path in _walk(folder):
        if path.suffix.lower() not in suffixes:
            continue
        name = readable(path.relative_to(folder).with_suffix("").as_posix())
        if name in found:
            both = " and ".join(sorted((found[name].name, path.name)))
            raise DataError(f"{both} have the same name", where=path.parent, do="rename one")
        found[name] = path
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden."""
    for place, names in visible_folders(folder):
        yield from (place / name for name in names)
