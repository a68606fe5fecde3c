"""Photos and masks in a folder, by name."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tagseg.data.paths import FilePaths, renamed
from tagseg.data.picture_formats import (
    NAME_SUFFIXES,
    PHOTO_SUFFIXES,
    SPARE_SUFFIXES,
    unread_suffix,
)
from tagseg.data.tar_pictures import compressed_tars, is_tar, masks_in, pictures_in
from tagseg.data.text import readable
from tagseg.errors import DataError

__all__ = [
    "OUTPUT_MARKER",
    "PHOTO_SUFFIXES",
    "Listing",
    "advice_without_photos",
    "find_masks",
    "find_photos",
    "is_odd",
    "is_output",
    "is_picture",
    "list_pictures",
    "named",
    "notes_on_unread",
    "visible_entries",
    "visible_folders",
    "without_suffix",
]

_COMMON_SUFFIXES, _READ_SPARES = PHOTO_SUFFIXES - SPARE_SUFFIXES, PHOTO_SUFFIXES & SPARE_SUFFIXES
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))

OUTPUT_MARKER = ".tagseg-output"
"""A file that ``tagseg predict`` leaves where it writes, so that no result is read as a photo."""

_HIDDEN = "hidden or of the system"
_RUN = "workspace.json"  # the file of a run's folder; "stages" lies beside it
_STAGES = "stages"
_SYSTEM_FOLDERS = frozenset(
    ["__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
)
_VERSION_CONTROL = frozenset([".git", ".hg", ".svn"])  # no pictures, and many files


class Listing(NamedTuple):
    """Pictures under a folder.

    Attributes:
        files: relative posix path, with its suffix -> file, sorted.
        left_out: reason -> number of pictures that are no photos of the user's.
    """

    files: Mapping[str, Path]
    left_out: dict[str, int]


def list_pictures(folder: Path, *, outputs: bool = False) -> Listing:
    """All pictures under ``folder`` but hidden ones, the system's, and what tagseg wrote.

    Where there are none but tars, the pictures in these (:mod:`tagseg.data.tar_pictures`).

    Args:
        outputs: take what tagseg wrote, too. ``folder`` itself is always taken.

    Links are followed. Raises DataError if there is no such folder, and for tars of no use.
    """
    root = _existing(Path(folder))
    files: dict[str, str] = {}
    tars: list[Path] = []
    left_out: Counter[str] = Counter()
    for place, below, names in _each_folder(root):
        inside = "" if place == root else place.relative_to(root).as_posix() + "/"
        if place != root and not outputs and _is_output(below, names):
            left_out[f"in {readable(inside[:-1])}, which tagseg wrote"] = _count(place)
            below.clear()
            continue
        pictures = [name for name in names if is_picture(name)]
        visible = [name for name in pictures if not name.startswith(".")]
        tars += [place / name for name in sorted(names) if is_tar(name)]
        files |= {readable(inside + name): os.path.join(place, name) for name in visible}
        hidden = [name for name in below if _is_hidden(name)]
        left_out[_HIDDEN] += len(pictures) - len(visible)
        left_out[_HIDDEN] += sum(_count(place / name) for name in hidden)
        below[:] = sorted(set(below).difference(hidden))
    found: Mapping[str, Path] = FilePaths(dict(sorted(files.items())))
    if tars and not files:
        found, inside_tars = pictures_in(tars, root)
        left_out.update(inside_tars)
    return Listing(found, {why: n for why, n in left_out.items() if n})


def named(files: Mapping[str, Path]) -> Mapping[str, Path]:
    """Pictures by name, without suffix; DataError if two differ only in their suffix.

    But of a JPEG (or another common picture) and a HEIC, AVIF, JPEG 2000 or MPO file, the JPEG
    counts.
    """
    found: dict[str, str] = {}
    for spare in (False, True):
        for relative in (each for each in files if _is_spare(each) == spare):
            name = os.path.splitext(relative)[0]
            if name in found and spare and not _is_spare(found[name]):
                continue
            if name in found:
                first, path = files[found[name]], files[relative]
                both = " and ".join(sorted((first.name, path.name)))
                raise DataError(f"{both} have the same name", where=path.parent, do="rename one")
            found[name] = relative
    return renamed(files, sorted(found.items()))


def find_photos(folder: Path, *, outputs: bool = False) -> Mapping[str, Path]:
    """All photos under ``folder``: name (relative posix path without suffix) -> path, sorted.

    What :func:`list_pictures` finds. Raises DataError if two files differ only in their suffix,
    because both would have the same name.
    """
    return named(list_pictures(folder, outputs=outputs).files)


def find_masks(folder: Path) -> Mapping[str, Path]:
    """All mask files under ``folder`` but hidden ones, named as :func:`find_photos` does.

    Where there are none but tars, the masks in these (:mod:`tagseg.data.tar_pictures`).
    """
    root = _existing(Path(folder))
    files = [place / name for place, names in visible_folders(root) for name in names]
    masks = (path for path in files if path.suffix.lower() in _MASK_SUFFIXES)
    found = {readable(path.relative_to(root).as_posix()): path for path in masks}
    return named(found or masks_in((path for path in files if is_tar(path.name)), root))


def without_suffix(name: str) -> str:
    """``name`` without its suffix if that is a photo's; other dots belong to the name."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in NAME_SUFFIXES else name


def is_odd(path: Path, folder: Path) -> bool:
    """Whether the name of a file under ``folder`` is not UTF-8, so that it is told with ``%XX``."""
    text = str(path)
    if text.isascii():
        return False
    inner = text.removeprefix(str(folder))
    return readable(inner) != inner


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
    tars = [name for _, names in visible_folders(folder) for name in compressed_tars(names)]
    if tars:
        return f"decompress {tars[0]} and the like (photos are compressed already): tars are read"
    return "; ".join(notes_on_unread(folder)) or "check the path"


def _is_spare(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SPARE_SUFFIXES


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
    for folder, below, names in _each_folder(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield folder, [name for name in names if not name.startswith(".")]


def is_output(folder: Path) -> bool:
    """Whether a folder is a run's, or one that ``tagseg predict`` wrote."""
    return _is_output(*_entries(folder))


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def visible_entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders that may hold photos, and of the files, in one folder."""
    below, names = _entries(folder)
    inner = sorted(name for name in below if not _is_hidden(name))
    return (
        [name for name in inner if not is_output(folder / name)],
        [name for name in names if not name.startswith(".")],
    )


def _is_output(below: list[str], names: list[str]) -> bool:
    return OUTPUT_MARKER in names or (_RUN in names and _STAGES in below)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in one folder."""
    below: list[str] = []
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (below if entry.is_dir() else names).append(entry.name)
    return below, names


def _each_folder(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folder, folders in it (what is taken from that list is not visited) and files.

    Raises DataError for a link to a folder above ``root``, which could lead through the machine.
    """
    seen: set[str] = set()
    above = {str(place) for place in Path(os.path.realpath(root)).parents}
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in above:
            raise DataError(
                f"is a link to {real}, in which the photos' folder lies",
                where=folder,
                do="remove the link",
            )
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(folder), below, names


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=folder, do="check the path")
    return folder


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder in _SYSTEM_FOLDERS


def _count(folder: Path) -> int:
    """Number of pictures in a folder that is left out."""
    if folder.name in _VERSION_CONTROL:
        return 0
    return sum(is_picture(name) for _, _, names in os.walk(folder) for name in names)
