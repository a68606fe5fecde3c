"""Tags in the cells of a table: what separates them is decided over the whole file, by evidence."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.columns import TAGS, folded
from tagseg.formats.tags.marks import without_marks
from tagseg.formats.tags.tag_rows import Hints, listed

__all__ = ["MISSING", "Cells", "names_in", "read_cells", "separator_from"]

MISSING = frozenset(
    ("", "nan", "null", "none", "n/a", "na", "#n/a", "<na>", "nil", "-", "--", "[]", "{}", "()")
)
_SURE = (";", ",", "|", "\n", "\t", "；", "，", "、")  # never part of a class's name
_MAYBE = ("/", "+", "&", " ")  # of which a name may hold some
_WORDS = {"space": " ", "comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}
_QUOTED = re.compile(r"""\s*,?\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,'"\s][^,'"]*))""")
_ID = re.compile(r"/[mgt]/[\w-]+")  # of Open Images
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_MOST_SHARED = 10_000  # cells of which equal ones are read once, and share what they hold


@dataclass(frozen=True)
class Cells:
    """The tags of each cell, and how they were told apart."""

    tags: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def separator_from(text: str | None) -> str | None:
    """What a user means by a separator: itself, or ``space``, ``comma``, ``tab`` and so on."""
    if text is None:
        return None
    if not text:
        raise TagError("the tag separator is empty", do="give ';', ',', 'space' or another")
    return _WORDS.get(text.lower(), text)


def read_cells(cells: Sequence[str], places: Sequence[str], hints: Hints, path: Path) -> Cells:
    """The tags in each of ``cells``, which stand at ``places``.

    A cell is a list as JSON or Python write it, or text in which a separator stands between tags.
    Which one is decided by the user (``hints.separator``), by the class list, or else by
    evidence over all cells; where that is not plain, a note says how it was read. Words such as
    ``nan`` mean that there are no tags, unless a class is called so.
    """
    classes = frozenset(hints.classes or ())
    missing = [_is_missing(cell, classes) for cell in cells]
    lists = [
        None if gone or not cell.strip() else _as_list(cell.strip(), place)
        for cell, place, gone in zip(cells, places, missing, strict=True)
    ]
    plain = [
        c
        for c, gone, names in zip(cells, missing, lists, strict=True)
        if not gone and names is None
    ]
    separators, notes = _separators(plain, hints)

    @lru_cache(_MOST_SHARED)
    def taken_apart(cell: str) -> tuple[str, ...]:
        return _tidy(_pieces(cell, separators))

    split: list[tuple[str, ...]] = []
    for cell, gone, names in zip(cells, missing, lists, strict=True):
        found = taken_apart(cell) if names is None else _tidy(names)
        split.append(() if gone else found)
    tags, words = _without_missing(split, classes)
    words.update(
        tidy_name(c).lower() for c, gone in zip(cells, missing, strict=True) if gone and c.strip()
    )
    notes = [*(f"{path.name}: {note}" for note in _said(notes, tags)), *_missing_notes(words, path)]
    return Cells(tuple(tags), tuple(notes))


def names_in(value: object, where: str) -> tuple[str, ...]:
    """The names in a JSON value: a name, a number, a list, or objects with a label.

    TagError, with the keys that are there, for an object that holds no names.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TagError(f"{json.dumps(value)} is no name of a class", where=where, do="write names")
    if isinstance(value, int | float):
        return (str(int(value)),)
    if isinstance(value, Mapping):
        return _names_in_object(value, where)
    if isinstance(value, list):
        return tuple(name for item in value for name in names_in(item, where))
    raise TagError("tags are neither names nor a list of names", where=where, do="write names")


def _names_in_object(value: Mapping[str, object], where: str) -> tuple[str, ...]:
    if not value:
        return ()
    if all(isinstance(flag, bool) or flag in (0, 1) for flag in value.values()):
        return tuple(name for name, flag in value.items() if flag)
    keys = [key for key in value if folded(key).endswith(("labels", "choices"))]
    keys = keys or [key for key in value if folded(key) in TAGS or folded(key) in ("name", "value")]
    if not keys:
        raise TagError(
            f"no key names a class; there are {listed(map(str, value))}",
            where=where,
            do='write "tags": ["cat"]',
        )
    return names_in(value[keys[0]], where)


# --- lists in a cell ----------------------------------------------------------------------------


def _as_list(cell: str, place: str) -> tuple[str, ...] | None:
    """The names of a list or object in JSON or Python text; None for other text."""
    closing = _BRACKETS.get(cell[0])
    if closing is None or cell[-1] != closing:
        return None
    try:
        return names_in(json.loads(cell), place)
    except (ValueError, RecursionError):
        pass
    if cell[0] == "{" and ":" in cell:
        raise TagError("this cell is no JSON that can be read", where=place, do="write a;b")
    names, at, inner = [], 0, cell[1:-1].rstrip().rstrip(",")
    while at < len(inner.rstrip()):
        match = _QUOTED.match(inner, at)
        if match is None:
            raise TagError(
                f"'{cell[:40]}' is not a list that can be read", where=place, do="write a;b"
            )
        names.append(next(group for group in match.groups() if group is not None))
        at = match.end()
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in names)


# --- separators ---------------------------------------------------------------------------------


def _separators(cells: Iterable[str], hints: Hints) -> tuple[tuple[str, ...], list[str]]:
    """What stands between tags, and lines that say why, where it is not ``;``."""
    distinct = list(dict.fromkeys(map(without_marks, cells)))
    if hints.separator is not None:
        return (hints.separator,), [f"tags are separated by {_quoted([hints.separator])}"]
    if hints.classes is not None:
        found = _by_classes(distinct, hints.classes)
        plain = not any(s in cell for s in found if s != ";" for cell in distinct)
        return found, [] if plain else [f"tags are separated by {_quoted(found)}"]
    return _by_evidence(distinct)


def _by_classes(cells: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The separators that leave the fewest pieces which are no classes."""
    known = {*classes, *map(str, range(len(classes) + 1)), "background"}

    def unknown(separators: tuple[str, ...]) -> int:
        every = (piece for cell in cells for piece in _tidy(_pieces(cell, separators)))
        return sum(piece not in known and piece.lower() not in MISSING for piece in every)

    single = [(";",), *((s,) for s in (*_SURE[1:], *_MAYBE))]
    return min((*single, (";", ","), (";", " "), (",", " ")), key=unknown)


def _by_evidence(cells: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    used = Counter(s for cell in cells for s in _SURE if s in cell)
    first: tuple[str, ...] = ()
    notes: list[str] = []
    if used[";"]:
        first = (";",)
    elif used:
        first = (used.most_common(1)[0][0],)
        notes = [f"tags are separated by {_quoted(first)}"]
        if not _is_proven(first[0], cells) and first[0] in ",|":
            notes.append(_both_readings(first[0], cells, split=True))
    chosen, pieces = first, _distinct_pieces(cells, first)
    for other in (*(s for s in _SURE if used[s] and s not in first), *_MAYBE):
        doubtful = [piece for piece in pieces if other in piece and not _ID.fullmatch(piece)]
        if not doubtful:
            continue
        if _is_proven(other, pieces):
            chosen = (*chosen, other)
            notes.append(f"tags are separated by {_quoted(chosen)}")
            pieces = _distinct_pieces(pieces, (other,))
        elif other != " " or not first:
            notes.append(_both_readings(other, pieces, split=False))
    return chosen or (";",), notes


def _distinct_pieces(cells: Iterable[str], separators: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(p for cell in cells for p in _tidy(_pieces(cell, separators))))


def _is_proven(separator: str, cells: Iterable[str]) -> bool:
    """Whether ``separator`` stands between tags: the pieces occur alone, or in other orders.

    Also if they recombine freely: more combinations than pieces, of three or more sizes.
    """
    distinct = {tidy_name(cell) if separator == " " else cell.strip() for cell in cells}
    split = [_tidy(cell.split(separator)) for cell in distinct if separator in cell]
    split = [pieces for pieces in split if len(pieces) > 1]
    if not split:
        return False
    pieces = {piece for names in split for piece in names}
    if all(piece.isdigit() for piece in pieces):
        return True
    whole = {tidy_name(cell) for cell in distinct if separator not in cell}
    orders = Counter(frozenset(names) for names in set(split))
    sizes = {len(names) for names in split} | ({1} if whole & pieces else set())
    if pieces <= whole or max(orders.values()) > 1:
        return True
    return (len(orders) > len(pieces) and len(sizes) > 2) or _recombine(split)


def _recombine(split: Sequence[tuple[str, ...]]) -> bool:
    """Whether pieces of two or more cells stand apart from each other in others."""
    apart = (
        any(set(few) < set(many) and f"\n{chr(10).join(few)}\n" not in joined for few in split)
        for many in split
        if (joined := f"\n{chr(10).join(many)}\n")
    )
    return len(split) <= 500 and sum(apart) > 1


def _both_readings(separator: str, cells: Iterable[str], *, split: bool) -> str:
    every = [cell.strip() for cell in cells]
    found = [cell for cell in every if separator in cell]
    alone = {tidy_name(cell) for cell in every}
    # The most doubtful one: whose pieces are tags themselves.
    example = max(found, key=lambda cell: sum(p in alone for p in _tidy(cell.split(separator))))
    name = "space" if separator == " " else separator
    if split:
        return (
            f"warning: '{example}' is read as {len(_tidy(example.split(separator)))} tags; "
            f"if it is one, give --tag-separator ';'"
        )
    several = listed(_tidy(example.split(separator)))
    return (
        f"warning: '{example}' is read as one tag; if it means {several}, "
        f"give --tag-separator '{name}' (';' if it is one, and there will be no warning)"
    )


def _pieces(cell: str, separators: Iterable[str]) -> list[str]:
    pieces = [cell]
    for separator in separators:
        pieces = [piece for part in pieces for piece in part.split(separator)]
    return pieces


def _quoted(separators: Sequence[str]) -> str:
    names = {" ": "spaces", "\t": "tabs", "\n": "line ends"}
    return " and ".join(names.get(s, f"'{s}'") for s in dict.fromkeys(separators))


def _said(notes: Sequence[str], tags: Sequence[tuple[str, ...]]) -> list[str]:
    """The notes; the last that tells a separator with the classes that it leads to."""
    telling = [note for note in notes if note.startswith("tags are separated")]
    others = [note for note in notes if not note.startswith("tags are separated")]
    if not telling:
        return others
    classes = sorted({tag for names in tags for tag in names})
    return [f"{telling[-1]}: {len(classes)} classes, {listed(classes)}", *others]


# --- words for nothing --------------------------------------------------------------------------


def _tidy(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in map(tidy_name, names) if name))


def _is_missing(cell: str, classes: Collection[str]) -> bool:
    name = tidy_name(cell)
    return name.lower() in MISSING and name not in classes


def _without_missing(
    split: Iterable[tuple[str, ...]], classes: Collection[str]
) -> tuple[list[tuple[str, ...]], Counter[str]]:
    """The tags without words for nothing among them, and how often each such word stood there."""
    words: Counter[str] = Counter()
    kept = []
    for names in split:
        gone = [name for name in names if _is_missing(name, classes)]
        words.update(name.lower() for name in gone)
        kept.append(tuple(name for name in names if name not in gone) if gone else names)
    return kept, words


def _missing_notes(words: Counter[str], path: Path) -> list[str]:
    named = [f"'{word}'" for word in words if word[0] not in _BRACKETS]
    count = sum(n for word, n in words.items() if word[0] not in _BRACKETS)
    return [f"{path.name}: {listed(named)} means no tags ({count} cells)"] if named else []
