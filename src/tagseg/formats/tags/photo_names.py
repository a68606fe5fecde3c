"""From what tag files call photos to the photos that are there: prefixes, folders and URLs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import PurePosixPath
from unicodedata import normalize
from urllib.parse import parse_qs, unquote, urlsplit

from tagseg.data.finding import without_suffix
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import TagFile, TagRow

__all__ = ["PhotoNames"]

_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts this before uploads
_WITHOUT_FOLDERS = "photos are found without the first folders of their names"
_BY_FILE_NAME = (
    "photos are found by their file names alone",
    "photos are found without what Label Studio puts before their names",
)
_Level = Callable[[str], str | None]


class PhotoNames:
    """Finds photos by what other tools call them.

    Args:
        photos: the photos' names.
        name_of: the name for a path that is written as the project's own files do.
    """

    def __init__(self, photos: Iterable[str], name_of: Callable[[str], str]) -> None:
        self._photos = frozenset(photos)
        self._name_of = name_of
        self._found: dict[str, str | None] = {}

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """File name without suffix -> photos of that name, in whatever folder."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._photos:
            found[_base(name)].append(name)
        return found

    def is_photo(self, written: str) -> bool:
        """Whether ``written`` names a photo in one of the ways that :meth:`renamed` knows."""
        if self._as_is(written) is not None:
            return True
        base = _base(_plain(written))
        upload = _UPLOAD.fullmatch(base)
        return base in self._by_base or (upload is not None and upload[1] in self._by_base)

    def renamed(self, said: TagFile, folder: str = "") -> TagFile:
        """The rows with photos' names for what is written there; a note says how, if not plainly.

        One rule for the whole file: the names as they are (``folder`` is that of the tag file
        among the photos; names may be relative to it), without folders that all begin with, or the
        file names alone, in the last case also without what Label Studio puts before them. The rule
        that finds most photos counts. TagError if a file name alone means several photos. Names
        that are not found stay.
        """
        written = list(dict.fromkeys(row.image for row in said.rows))
        found, note = self._best(written, folder)
        if note in _BY_FILE_NAME:
            self._check_unambiguous(said.rows, found)
        changed = next((w for w in written if self._as_is(w) != found.get(w)), None)
        if note and changed is not None:
            said = replace(said, notes=(*said.notes, f"{note}: '{changed}' is {found[changed]}"))
        rows = tuple(replace(row, image=found.get(row.image) or row.image) for row in said.rows)
        return replace(said, rows=rows)

    def _best(self, written: Sequence[str], folder: str) -> tuple[Mapping[str, str], str]:
        """The names that the best rule finds, and what to say about it."""
        best: dict[str, str] = {}
        said = ""
        for level, note in self._levels(written, folder):
            found = {w: name for w in written if (name := level(w)) is not None}
            if len(found) > len(best):
                best, said = found, note
            if len(best) == len(written):
                break
        return best, said

    def _levels(self, written: Sequence[str], folder: str) -> Iterable[tuple[_Level, str]]:
        if folder:
            yield lambda w: self._as_is(f"{folder}/{_plain(w)}") or self._as_is(w), ""
        yield self._as_is, ""
        for depth in range(1, _common_depth(written) + 1):
            yield partial(self._without_folders, depth), _WITHOUT_FOLDERS
        yield self._by_file_name, _BY_FILE_NAME[0]
        yield self._by_upload, _BY_FILE_NAME[1]

    def _as_is(self, written: str) -> str | None:
        if written not in self._found:  # each is asked for by several rules
            name = self._name_of(written) if written else ""
            self._found[written] = name if name in self._photos else None
        return self._found[written]

    def _without_folders(self, depth: int, written: str) -> str | None:
        return self._as_is("/".join(_parts(written)[depth:]))

    def _by_file_name(self, written: str) -> str | None:
        found = self._by_base.get(_base(_plain(written)), [])
        return self._as_is(written) or (found[0] if found else None)

    def _by_upload(self, written: str) -> str | None:
        upload = _UPLOAD.fullmatch(_base(_plain(written)))
        found = self._by_base.get(upload[1], []) if upload else []
        return found[0] if found else self._by_file_name(written)

    def _check_unambiguous(self, rows: Iterable[TagRow], found: Mapping[str, str]) -> None:
        taken: dict[str, str] = {}
        for row in rows:
            name = found.get(row.image)
            if name is None or self._as_is(row.image) == name:
                continue
            others = self._by_base[_base(name)]
            if len(others) > 1 and self._as_is(row.image) is None:
                both = " or ".join(sorted(others)[:2])
                raise TagError(
                    f"'{row.image}' may be photo {both}", where=row.where, do="write the folder too"
                )
            first = taken.setdefault(name, row.image)
            if PurePosixPath(first).parent != PurePosixPath(row.image).parent:
                raise TagError(
                    f"'{row.image}' and '{first}' would both be photo '{name}'",
                    where=row.where,
                    do="check the folder of photos",
                )


def _plain(written: str) -> str:
    """A path for a URL or what Label Studio's local storage writes."""
    if "?d=" in written:
        return parse_qs(urlsplit(written).query).get("d", [written])[0]
    if "://" in written:
        return unquote(urlsplit(written).path)
    return unquote(written) if written.startswith("/data/") else written


def _parts(written: str) -> tuple[str, ...]:
    path = _plain(written).replace("\\", "/").removeprefix("./")
    return tuple(part for part in path.split("/") if part)


def _common_depth(written: Sequence[str]) -> int:
    """How many folders all the names begin with."""
    folders = [_parts(w)[:-1] for w in written]
    depth = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        depth += 1
    return depth


def _base(written: str) -> str:
    parts = written.replace("\\", "/").rstrip("/").split("/")
    return normalize("NFC", without_suffix(parts[-1]))
