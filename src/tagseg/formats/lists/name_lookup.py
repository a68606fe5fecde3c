"""From what a list calls a photo to the photo that is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from tagseg.data.finding import without_suffix
from tagseg.data.text import readable

__all__ = ["Found", "How", "NameLookup"]

How = Literal["as it is", "without the first folders", "in other capitals", "by the file name"]
_LONGEST = 4096  # letters of a path
_CODE_PAGES = ("cp1252", "cp437", "cp850")  # of names in old zip files
_SCHEMES = frozenset(["http", "https", "file", "s3", "gs"])


class Found(NamedTuple):
    """The photos that a written name may mean: none, one, or several; and how they were found."""

    names: tuple[str, ...]
    how: How = "as it is"


class NameLookup:
    """Photos' names, to find what is written for them.

    Args:
        names: of all photos, relative paths without suffix.
        roots: folders in which they lie, the innermost first; written names may begin with these,
            with the last folder of these, or with ``JPEGImages``.
    """

    def __init__(self, names: Iterable[str], roots: Iterable[Path] = ()) -> None:
        self.names = tuple(names)
        self._exact = {normalize("NFC", name): name for name in self.names}
        places = [place for root in roots for place in (root, root.absolute(), root.resolve())]
        inner = [place.name for place in places if place.name]
        self._prefixes = tuple(
            dict.fromkeys(
                f"{start.rstrip('/')}/"
                for start in (*map(_slashes, map(str, places)), "/JPEGImages", "JPEGImages", *inner)
            )
        )

    @cached_property
    def _folded(self) -> Mapping[str, list[str]]:
        return _grouped(self.names, _folded)

    @cached_property
    def _by_file(self) -> Mapping[str, list[str]]:
        return _grouped(self.names, lambda name: normalize("NFC", _file_of(name)))

    @cached_property
    def _by_folded_file(self) -> Mapping[str, list[str]]:
        return _grouped(self.names, lambda name: _folded(_file_of(name)))

    def find(self, written: str) -> Found:
        """What ``written`` may mean, by the plainest reading that finds anything.

        With or without suffix; with what the photo folder's own path begins with; with more or
        other folders before, if the rest is a photo's whole name; in other capitals; the file's
        name alone, without the photo's folders.
        """
        if len(written) > _LONGEST:
            return Found(())
        plain = self.find_plain(written)
        if plain.names:
            return plain
        readings: dict[How, Callable[[str], tuple[str, ...]]] = {
            "without the first folders": self._without_folders,
            "in other capitals": self._in_capitals,
            "by the file name": self._by_file_name,
        }
        for how, look_up in readings.items():
            found = tuple(dict.fromkeys(look_up(written)))
            if found:
                return Found(found, how)
        return Found(())

    def find_plain(self, written: str) -> Found:
        """What ``written`` means as it is: a name, or a path from the photos' folders on."""
        if len(written) > _LONGEST:
            return Found(())
        return Found(tuple(dict.fromkeys(self._as_it_is(written))))

    def nearest(self, written: str) -> list[str]:
        """At most three names that are spelled much like ``written``."""
        wanted = _folded(_file_of(without_suffix(_slashes(written))))
        near = get_close_matches(wanted, self._by_folded_file, 3)
        return [name for file in near for name in self._by_folded_file[file]][:3]

    def _as_it_is(self, written: str) -> tuple[str, ...]:
        paths = tuple(self._paths(written))
        exact = _first(map(self._exactly, paths))
        return exact if exact or written.isascii() else _first(map(self._in_code_pages, paths))

    def _without_folders(self, written: str) -> tuple[str, ...]:
        return _first(self._exactly(tail) for path in self._paths(written) for tail in _tails(path))

    def _in_capitals(self, written: str) -> tuple[str, ...]:
        paths = (tail for path in self._paths(written) for tail in (path, *_tails(path)))
        return _first(_all_of(self._folded, _with_and_without_suffix(_folded(p))) for p in paths)

    def _by_file_name(self, written: str) -> tuple[str, ...]:
        files = [path for path in self._paths(written) if "/" not in path]
        exact = _first(
            _all_of(self._by_file, _with_and_without_suffix(normalize("NFC", file)))
            for file in files
        )
        return exact or _first(
            _all_of(self._by_folded_file, _with_and_without_suffix(_folded(file))) for file in files
        )

    def _exactly(self, path: str) -> tuple[str, ...]:
        written = _with_and_without_suffix(normalize("NFC", path))
        return tuple(self._exact[name] for name in written if name in self._exact)

    def _in_code_pages(self, path: str) -> tuple[str, ...]:
        """Photos whose names are bytes that are not UTF-8, and that are written as text."""
        found: list[str] = []
        for page in _CODE_PAGES:
            with suppress(UnicodeEncodeError):
                odd = readable(path.encode(page).decode("utf-8", "surrogateescape"))
                found += self._exactly(odd) if odd != path else ()
        return tuple(found)

    def _paths(self, written: str) -> Iterator[str]:
        """``written`` as a path with slashes, relative to the photos where it says so."""
        yield written
        path = _path_of_url(_slashes(written))
        while path.startswith("./"):
            path = path[2:]
        yield path
        for prefix in self._prefixes:
            if path.startswith(prefix):
                yield path[len(prefix) :]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _first(found: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The first that is not empty."""
    return next(filter(None, found), ())


def _all_of(groups: Mapping[str, list[str]], keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for key in keys if key in groups for name in groups[key])


def _path_of_url(path: str) -> str:
    scheme, mark, rest = path.partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        return path
    return unquote(rest.partition("?")[0]).partition("/")[2]


def _file_of(name: str) -> str:
    return name.rpartition("/")[2]


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _with_and_without_suffix(path: str) -> tuple[str, ...]:
    bare = without_suffix(path)
    return (path,) if bare == path else (path, bare)


def _tails(path: str) -> Iterator[str]:
    """The path without its first folder, without two, and so on."""
    while "/" in path:
        path = path.partition("/")[2]
        if path:
            yield path


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()
