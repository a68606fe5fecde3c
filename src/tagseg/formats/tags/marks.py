"""Marks before a tag: ``?cat`` says that nobody knows about the cat, ``-cat`` that there is none.

A word that begins with ``?`` or ``-`` may also be a class's own name, and so it is by a rule what
it is: a mark if what follows is a class, which is one of the class list or, without a list, a tag
that some photo has without a mark; and never if the whole word is a class of the list. Whatever is
read as a mark is counted in a note, and so is what is not although it looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tagseg.data.text import tidy_name
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow, listed, marks_nothing

__all__ = ["ABSENT", "UNSURE", "marked", "with_marks", "without_marks"]

UNSURE, ABSENT = "?", "-"
_NUMBER = re.compile(r"\d+(\.\d*)?")
_BEGINNING = re.compile(r"(^|[;,|\n\t；，、/+& ])[?-](?=[^\s;,|?-])")


class _Word(NamedTuple):
    """A word of a tag file: its mark, "" for none, and the class."""

    mark: str
    name: str


def marked(mark: str, name: str) -> str:
    """The word that says of a class what ``mark`` means."""
    return f"{mark}{name}"


def without_marks(cell: str) -> str:
    """A cell without its marks, by which it is told what separates tags.

    >>> without_marks("?cat;-dog;t-shirt")
    'cat;dog;t-shirt'
    """
    return _BEGINNING.sub(r"\1", cell)


def with_marks(said: TagFile, hints: Hints, where: str) -> TagFile:
    """The rows with marked tags as ``unsure`` and ``absent``, and notes that count them.

    What is sure counts: of a class that is tagged and marked ``?`` in one photo the mark is
    dropped. One that is tagged and marked ``-`` is in both, for :func:`joined` to refuse.

    Raises:
        TagError: a ``?`` stands alone and is no class of the list.
    """
    words = {tag for row in said.rows for tag in row.tags if tag[0] in (UNSURE, ABSENT)}
    if not words:
        return said
    alone = [row for row in said.rows if UNSURE in row.tags]
    if alone and UNSURE not in (hints.classes or ()):
        raise marks_nothing(UNSURE, alone[0].where)
    plain = {tag for row in said.rows for tag in row.tags} - words
    classes = plain if hints.classes is None else {*hints.classes, *_numbers(hints.classes)}
    known = frozenset(hints.classes or ())
    read = {word: _read(word, classes, known, numbers=hints.classes is not None) for word in words}
    rows = tuple(_row(row, read) for row in said.rows)
    return replace(said, rows=rows, notes=(*said.notes, *_notes(said.rows, read, known, where)))


def _numbers(classes: Sequence[str]) -> Iterable[str]:
    """What may stand for the classes of a list, counted from 0 or from 1."""
    return map(str, range(len(classes) + 1))


def _read(word: str, classes: Iterable[str], known: frozenset[str], *, numbers: bool) -> _Word:
    rest = tidy_name(word[1:])
    signed = word[0] == ABSENT and _NUMBER.fullmatch(rest) and not numbers  # -1 is a number
    if word in known or rest not in classes or signed:
        return _Word("", word)
    return _Word(word[0], rest)


def _row(row: TagRow, read: dict[str, _Word]) -> TagRow:
    words = [read.get(tag, _Word("", tag)) for tag in row.tags]
    by_mark = {mark: [name for of, name in words if of == mark] for mark in ("", UNSURE, ABSENT)}
    tags, absent = (tuple(dict.fromkeys(by_mark[mark])) for mark in ("", ABSENT))
    unsure = dict.fromkeys(name for name in by_mark[UNSURE] if name not in (*tags, *absent))
    return replace(row, tags=tags, unsure=tuple(unsure), absent=(*row.absent, *absent))


def _notes(
    rows: Sequence[TagRow], read: dict[str, _Word], known: frozenset[str], where: str
) -> Iterable[str]:
    said = [read[tag] for row in rows for tag in row.tags if tag in read]
    counts = {mark: sum(word.mark == mark for word in said) for mark in (UNSURE, ABSENT)}
    meanings = {UNSURE: "nobody knows", ABSENT: "surely absent"}
    told = [f"{n} with {mark} ({meanings[mark]})" for mark, n in counts.items() if n]
    if told:
        yield f"{where}: marked tags: {', '.join(told)}"
    names = sorted(word for word, of in read.items() if not of.mark and len(word) > 1)
    if names:
        yield (
            f"{where}: {listed(map(repr, names))} {_why_no_mark(names, known)}; a mark is ? or - "
            "before the name of a class"
        )


def _why_no_mark(names: Sequence[str], known: frozenset[str]) -> str:
    if all(name in known for name in names):
        return "is a class of the list, and no mark"
    return "is read as a name, and no mark, as what follows is no class that is known"
