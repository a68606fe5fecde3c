"""A large JSON object, read an entry at a time, with the bytes at which each entry stands."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tagseg.errors import TagError

__all__ = ["LIST", "OBJECT", "Member", "members"]

LIST = -1
"""``Member.place`` of a list's beginning."""
OBJECT = -2
"""``Member.place`` of a value that is no list."""

_CHUNK = 1 << 22  # bytes
_LONGEST = 1 << 28  # letters of one entry
_NUMBER = 3  # letters that may follow a number and belong to it: "1" of "1e+5"
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_BOM = codecs.BOM_UTF8


class Member(NamedTuple):
    """A value of the object, or an entry of a list that is one.

    Attributes:
        key: the object's key.
        place: in the list; LIST for its beginning, OBJECT for a value that is no list.
        value: what stands there; None for a list's beginning.
        start, size: where its text is, in bytes of the file.
    """

    key: str
    place: int
    value: Any
    start: int
    size: int


def members(file: BinaryIO, path: Path) -> Iterator[Member]:
    """Everything in the object that a file holds, lists entry by entry; nothing if it holds another
    value, or objects line by line.

    Memory is that of the largest entry. Raises TagError, with the line, for what is not JSON in
    UTF-8.
    """
    text = _Text(file, path)
    if text.next() != "{":
        return
    text.take("{")
    while text.next() != "}":
        key, *_ = text.value()
        if not isinstance(key, str):
            raise text.problem("a key must be a text")
        text.take(":")
        if text.next() == "[":
            yield from _entries(text, key)
        else:
            yield Member(key, OBJECT, *text.value())
        if not text.goes_on("}"):
            break
    text.take("}")
    if text.next() not in ("", "{"):
        raise text.problem("more stands behind the object")


def _entries(text: _Text, key: str) -> Iterator[Member]:
    text.take("[")
    yield Member(key, LIST, None, 0, 0)
    place = 0
    while text.next() != "]":
        yield Member(key, place, *text.value())
        place += 1
        if not text.goes_on("]"):
            break
    text.take("]")


class _Text:
    """The part of a file that is looked at, as text that grows at its end when it must."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at = "", 0
        self._start = 0  # the text's first byte in the file
        self._counted = (0, 0)  # a place in the text, and the bytes up to it
        self._ended = False
        self._grow()
        if self._text.startswith("\ufeff"):
            self._at = 1

    def next(self) -> str:
        """The next letter that is no space; none at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._grow()

    def take(self, letter: str) -> None:
        """Pass over ``letter``; TagError if another stands here."""
        if self.next() != letter:
            raise self.problem(f"expecting {letter!r}")
        self._at += 1

    def goes_on(self, end: str) -> bool:
        """Whether a comma, which is passed over, and not ``end`` stands here."""
        if self.next() == end:
            return False
        self.take(",")
        if self.next() == end:
            raise self.problem(f"expecting a value, not {end!r}")
        return True

    def value(self) -> tuple[Any, int, int]:
        """The value that begins here, its first byte in the file, and its length in bytes."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end + _NUMBER < len(self._text) or self._ended:
                    break
            except JSONDecodeError as problem:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise self.problem(problem.msg, problem.pos) from None
            except (ValueError, RecursionError):
                raise self.problem("a value that cannot be read") from None
            self._grow()
        start, stop = self._byte(self._at), self._byte(end)
        self._at = end
        return value, start, stop - start

    def problem(self, what: str, at: int | None = None) -> TagError:
        """The error for this place, or another one in the text."""
        size = self._start + len(self._text[: self._at if at is None else at].encode())
        line = 1 + _lines_before(self._path, size)
        if not self._start and not self._text.strip():
            return TagError("this file is empty", where=self._path, do="check that it is whole")
        return TagError(
            f"not JSON: {what}",
            where=f"{self._path}, line {line}",
            do="check that the file is whole",
        )

    def _byte(self, at: int) -> int:
        """Where a place of the text is in the file; asked for in rising order."""
        if self._text.isascii():
            return self._start + at
        place, size = self._counted
        size += len(self._text[place:at].encode())
        self._counted = at, size
        return self._start + size

    def _grow(self) -> None:
        """Drop what has been read, and read more."""
        rest = self._text[self._at :]
        read = self._file.read(max(_CHUNK, len(rest)))
        try:
            more = self._decoder.decode(read, final=not read)
        except UnicodeDecodeError:
            raise TagError("not UTF-8 text", where=self._path, do="save as UTF-8") from None
        self._start = self._byte(self._at)
        self._text, self._at, self._counted = rest + more, 0, (0, 0)
        self._ended = not read


def _lines_before(path: Path, size: int) -> int:
    """Line ends in the first ``size`` bytes of a file."""
    count = 0
    with path.open("rb") as file:
        while size > 0 and (read := file.read(min(size, _CHUNK))):
            count += read.count(b"\n")
            size -= len(read)
    return count
