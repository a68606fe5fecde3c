"""Pictures in the tars of a folder, as WebDataset names them.

A sample is what shares a key, a member's name up to the first dot of its file name: the photo
``0001.jpg``, its tags ``0001.json``, its mask ``0001.mask.png``. The tars (``shard-000000.tar``)
say nothing of a photo's name, their folders do.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tagseg.data.paths import FilePaths
from tagseg.data.picture_formats import PHOTO_SUFFIXES, unread_suffix
from tagseg.data.text import readable
from tagseg.errors import DataError
from tagseg.tar_members import COMPRESSED, SUFFIX, Members, member_at, members_of

__all__ = [
    "TarPictures",
    "compressed_tars",
    "is_tar",
    "key_and_ending",
    "masks_in",
    "pictures_in",
    "tars_of",
]

_MASK = re.compile(
    r"(?:.*[._-])?(?:mask|masks|seg|segmentation|label|labels|labelmap|gt|annotation)",
    re.IGNORECASE,
)
_OURS = "masks-"  # tars that tagseg has written, in which names are whole
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))


class TarPictures(NamedTuple):
    """Pictures in tars.

    Attributes:
        files: relative posix path, with its suffix -> path below its tar, sorted.
        left_out: reason -> number of members that are no photos.
    """

    files: Mapping[str, Path]
    left_out: dict[str, int]


def is_tar(name: str) -> bool:
    """Whether a file's name is that of a tar that can be read by places."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def compressed_tars(names: Iterable[str]) -> list[str]:
    """Those names that are of compressed tars."""
    return sorted(name for name in names if name.lower().endswith(COMPRESSED))


def key_and_ending(member: str) -> tuple[str, str]:
    """A member's key, with its folders, and what follows the dot: ``a/1``, ``mask.png``."""
    folder, slash, file = member.rpartition("/")
    key, _, ending = file.partition(".")
    return f"{folder}{slash}{key}", ending


def tars_of(paths: Iterable[Path]) -> list[str]:
    """The tars that files lie in, each once, in order; none if the first lies in none."""
    found: dict[str, None] = {}
    seen: set[Path] = set()
    for path in paths:
        home = path.parent
        if home not in seen:
            seen.add(home)
            member = member_at(path)
            if member is None:
                break
            found[member.tar] = None
    return list(found)


def pictures_in(tars: Iterable[Path], root: Path) -> TarPictures:
    """The photos in tars under ``root``, each called by its tar's folder and its own path.

    Of a sample's pictures those of a plain ending (``jpg``, not ``mask.png``). Raises DataError for
    a tar that cannot be used, and if two tars have a photo of one name.
    """
    files: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for tar in tars:
        members, inside = members_of(tar), _folder_within(tar, root)
        for kind, number in members.left_out.items():
            left_out[f"that are {kind} in tars"] += number
        for name in _photos(members, left_out):
            _add(files, readable(inside + name), f"{tar}/{name}")
    return TarPictures(FilePaths(dict(sorted(files.items()))), dict(left_out))


def masks_in(tars: Iterable[Path], root: Path) -> FilePaths:
    """Masks in tars under ``root``, relative posix path with one suffix -> path below its tar.

    Members such as ``KEY.mask.png``, called ``KEY.png``; if there are none, all pictures of a kind
    that masks are saved as. Errors are those of :func:`pictures_in`.
    """
    plain: dict[str, str] = {}
    beside: dict[str, str] = {}
    for tar in tars:
        inside = _folder_within(tar, root)
        for name in filter(_is_visible, members_of(tar)):
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() not in _MASK_SUFFIXES:
                continue
            key, ending = key_and_ending(stem)
            if _MASK.fullmatch(ending) and not tar.name.startswith(_OURS):
                _add(beside, readable(f"{inside}{key}{suffix}"), f"{tar}/{name}")
            elif not beside:
                _add(plain, readable(inside + name), f"{tar}/{name}")
    return FilePaths(beside or plain)


def _photos(members: Members, left_out: Counter[str]) -> Iterator[str]:
    """The members that are photos; the other pictures are counted."""
    for name in members:
        suffix = posixpath.splitext(name)[1].lower()
        if suffix not in PHOTO_SUFFIXES:
            unread = unread_suffix(name)
            if unread is not None:
                left_out[f"in tars, {unread[0]}: {unread[1]}"] += 1
        elif not _is_visible(name):
            left_out["hidden or of the system"] += 1
        elif "." in key_and_ending(name)[1]:
            left_out["as masks, or as others beside the photo, by their ending in tars"] += 1
        else:
            yield name


def _add(files: dict[str, str], relative: str, path: str) -> None:
    there = files.setdefault(relative, path)
    if there is not path:
        both = " and ".join(map(_tar_of, (there, path)))
        raise DataError(
            f"'{relative}' is in two tars, {both}",
            do="give each photo a key of its own, or put the tars into folders, which are then "
            "part of the names",
        )


def _tar_of(path: str) -> str:
    """The tar that a path leads into: the first part that ends so and is a file."""
    member = member_at(path)
    return path if member is None else member.tar


def _folder_within(tar: Path, root: Path) -> str:
    inside = tar.parent.relative_to(root).as_posix()
    return "" if inside == "." else f"{inside}/"


def _is_visible(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)
