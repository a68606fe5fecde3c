"""What every reader of tags gives: rows, one a photo, and how they were understood."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from tagseg.errors import TagError, first_few

__all__ = [
    "NO_HINTS",
    "Hints",
    "TagFile",
    "TagRow",
    "check_tags",
    "joined",
    "listed",
    "marks_nothing",
    "name_numbers",
    "read_as",
    "settled",
    "some_rows",
    "without_background",
]

_NO_CLASSES = ("background", "_background_", "__background__", "__ignore__", "_ignore_")
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class TagRow:
    """One photo of a tag file.

    Attributes:
        image: the photo as written there.
        tags: its classes, each once.
        where: file and line, for messages.
        complete: no tags mean none of the classes; otherwise they may be just not there.
        absent: classes that somebody says are not in the photo.
        unsure: classes of which somebody says that nobody knows.
    """

    image: str
    tags: tuple[str, ...]
    where: str
    complete: bool = False
    absent: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class TagFile:
    """What a file, or a layout's own place, says of the photos.

    Attributes:
        rows: one a photo; several if ``merge``.
        classes: foreground classes in their order, where the source itself tells them.
        notes: how it was understood, a line each, where that is not plain.
        merge: a photo may be in several rows, whose tags belong together.
    """

    rows: tuple[TagRow, ...]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    merge: bool = False


@dataclass(frozen=True)
class Hints:
    """What is known apart from a tag file, and decides how it is read.

    Attributes:
        classes: the class list, if one is given.
        separator: what stands between tags in a cell, if the user says so.
        is_photo: whether a text names a photo that is there.
        known: names of photos and classes, which may prove an encoding.
    """

    classes: tuple[str, ...] | None = None
    separator: str | None = None
    is_photo: Callable[[str], bool] = lambda written: False
    known: tuple[str, ...] = ()


NO_HINTS = Hints()


def check_tags(rows: Sequence[TagRow], classes: Sequence[str]) -> None:
    """Raise TagError, with line and nearest class, for the first tag that is not a class."""
    known = set(classes)
    for row in rows:
        for tag in (*row.tags, *row.unsure):
            if tag not in known:
                raise _unknown(tag, classes, row.where)


def marks_nothing(mark: str, where: str) -> TagError:
    """A mark with no class behind it."""
    return TagError(
        f"'{mark}' marks no class", where=where, do=f"write {mark}CLASS, or leave it out"
    )


def _unknown(tag: str, classes: Sequence[str], where: str) -> TagError:
    """What is wrong with a tag that is no class, perhaps behind a mark (``?`` or ``-``)."""
    mark = tag[0] if tag.startswith(("?", "-")) else ""
    name = tag[len(mark) :].strip()
    if mark and not name:
        return marks_nothing(tag, where)
    near = _nearest(name, classes)
    advice = f"did you mean '{mark}{near}'?" if near else "add it to the class list"
    too = f", and '{name}' is not either" if mark else ""
    return TagError(f"tag '{tag}' is not in the class list{too}", where=where, do=advice)


def some_rows(rows: Sequence[TagRow], path: Path) -> tuple[TagRow, ...]:
    """The rows; TagError if there are none."""
    if not rows:
        raise TagError("this tag file names no photos", where=path, do="add one line per photo")
    return tuple(rows)


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names for a message: the first few, with a comma between them."""
    return first_few(names, most)


def read_as(
    kind: str, rows: tuple[TagRow, ...], classes: tuple[str, ...] | None, path: Path
) -> TagFile:
    """What another tool's export says, with a line that tells which and what is in it."""
    names = classes if classes is not None else sorted({tag for row in rows for tag in row.tags})
    notes = [f"{path.name}: read as {kind}: {len(names)} classes, {listed(names)}"]
    empty = sum(row.complete and not row.tags for row in rows)
    if empty:
        photos = (
            "photo without annotation holds" if empty == 1 else "photos without annotation hold"
        )
        notes.append(f"{path.name}: {empty} {photos} none of the classes")
    return TagFile(rows, classes, tuple(notes), merge=True)


def name_numbers(said: TagFile, hints: Hints, where: object, *, may_stay: bool = False) -> TagFile:
    """Tags that are numbers, replaced by the classes that they count.

    Numbers count from 0, or from 1 if the highest is the number of classes. Without a class list
    TagError; ``may_stay``: then the numbers are the classes' names, and a note says so.
    """
    every = {tag for row in said.rows for tag in (*row.tags, *row.absent, *row.unsure)}
    if not every or not all(_NUMBER.fullmatch(tag) for tag in every):
        return said
    shown = listed(sorted(every, key=int))
    if hints.classes is None:
        if may_stay:
            note = f"tags are numbers ({shown}) and stay so; --classes FILE would name them"
            return replace(said, notes=(*said.notes, note))
        raise TagError(
            f"tags are numbers ({shown}), and nothing says which classes they mean",
            where=where,
            do="write the names, one a line in the order of the numbers, into classes.txt, "
            "or give --classes FILE",
        )
    if every <= set(hints.classes):
        return said
    names = _names_of_numbers({int(tag) for tag in every}, hints.classes, where)
    rows = tuple(
        replace(
            row,
            tags=tuple(dict.fromkeys(names[int(tag)] for tag in row.tags)),
            absent=tuple(names[int(tag)] for tag in row.absent),
            unsure=tuple(names[int(tag)] for tag in row.unsure),
        )
        for row in said.rows
    )
    start = min(names)
    shown = listed(f"{n} is {name}" for n, name in names.items())
    note = f"tags are numbers that count the class list from {start}: {shown}"
    return replace(said, rows=rows, notes=(*said.notes, note))


def _names_of_numbers(numbers: set[int], classes: tuple[str, ...], where: object) -> dict[int, str]:
    top = max(numbers)
    start = 1 if top == len(classes) and 0 not in numbers else 0
    if top >= len(classes) + start:
        raise TagError(
            f"tag {top} is a number, but the class list has {len(classes)} names",
            where=where,
            do="give the list in which the numbers count, from 0",
        )
    return dict(enumerate(classes, start))


def joined(first: TagRow, second: TagRow) -> TagRow:
    """Two rows of a photo as one; TagError if one says that a class is there, the other not.

    What one of them does not know, the other may.
    """
    tags = tuple(dict.fromkeys((*first.tags, *second.tags)))
    absent = tuple(dict.fromkeys((*first.absent, *second.absent)))
    both = next((tag for tag in tags if tag in absent), None)
    if both is not None:
        raise TagError(
            f"'{both}' is in photo '{second.image}' and is not, as {first.where} says",
            where=second.where,
            do="keep one of the lines",
        )
    unsure = dict.fromkeys(tag for tag in (*first.unsure, *second.unsure))
    return replace(
        first,
        tags=tags,
        absent=absent,
        unsure=tuple(tag for tag in unsure if tag not in (*tags, *absent)),
        complete=first.complete or second.complete,
    )


def without_background(said: TagFile, classes: Sequence[str] | None) -> TagFile:
    """The rows without tags that mean no class, such as ``background``; a note counts them.

    A photo whose only tag is background is known to hold none of the classes.
    """
    ours = {*(classes or ())}
    every = {*(tag for row in said.rows for tag in row.tags), *(said.classes or ())}
    dropped = {tag for tag in every if tag.casefold() in _NO_CLASSES and tag not in ours}
    if not dropped:
        return said
    rows = tuple(
        replace(
            row,
            tags=tuple(tag for tag in row.tags if tag not in dropped),
            complete=row.complete or any("background" in tag.casefold() for tag in row.tags),
        )
        for row in said.rows
    )
    names = said.classes and tuple(name for name in said.classes if name not in dropped)
    count = sum(not dropped.isdisjoint(row.tags) for row in said.rows)
    note = f"{listed(sorted(dropped))} is no class ({count} photos have such a tag)"
    return replace(said, rows=rows, classes=names or None, notes=(*said.notes, note))


def settled(row: TagRow) -> TagRow:
    """A photo of which it is only said what it does not hold is known to hold none."""
    return replace(row, complete=True) if row.absent and not row.tags else row


def _nearest(tag: str, classes: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in classes}
    matches = get_close_matches(tag.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None
