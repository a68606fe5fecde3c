"""Class lists: which classes there are, and what masks' numbers and colours stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

from tagseg.data.legends import Colour, Legend
from tagseg.data.text import tidy_name
from tagseg.errors import TagError, first_few
from tagseg.formats.lists.class_list_files import Entry, read_entries
from tagseg.maps import IGNORE

__all__ = [
    "ClassList",
    "check_class_names",
    "class_list",
    "class_names",
    "meaning_of",
    "read_class_list",
    "read_classes",
]

_BACKGROUND = frozenset(("background", "bg", "backgrounds"))
_PLAIN = ("background", "_background_")  # at the top: the documented form, which needs no word
_IGNORED = frozenset(
    ("ignore", "ignored", "void", "unlabeled", "unlabelled", "dontcare", "don't care")
)


@dataclass(frozen=True)
class ClassList:
    """Foreground classes, and what stands for them in masks made with this list.

    Attributes:
        names: the foreground classes in their order.
        numbers: label of each number (0 background, k + 1 class k, 255 ignore); None: the same.
        colours: label of each colour; None if the list has no colours.
        numbered: the file itself numbers its names as masks do.
        notes: how the list was understood, a line each, where that is not plain.
        source: the file's name, for messages.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    numbered: bool = False
    notes: tuple[str, ...] = ()
    source: str = ""

    def legend(self) -> Legend:
        """What stands for the classes in masks."""
        return Legend(len(self.names), self.numbers, self.colours, source=self.source)

    def legend_of(self, given: Legend, classes: Sequence[str]) -> tuple[Legend, tuple[str, ...]]:
        """The legend of masks of ``classes``, found here by name, and the names not among them.

        Those count as background. Numbers or colours that this list lacks are as ``given``.
        Raises TagError if none of the classes is here.
        """
        place = {_folded(name): i + 1 for i, name in reversed(list(enumerate(classes)))}
        ids = [place.get(_folded(name), 0) for name in self.names]
        if not any(ids):
            raise TagError(
                f"has none of the classes {first_few(classes)}, but {first_few(self.names)}",
                where=self.source,
                do="call the classes alike",
            )
        labels = {0: 0, IGNORE: IGNORE, **{i + 1: label for i, label in enumerate(ids)}}
        numbers, colours = given.numbers, given.colours
        if self.numbered:
            own = self.numbers or {label: label for label in labels}
            numbers = _unless_same({n: labels[i] for n, i in own.items()}, len(classes))
        if self.colours is not None:
            colours = {colour: labels[i] for colour, i in self.colours.items()}
        legend = replace(given, numbers=numbers, colours=colours, source=self.source)
        return legend, tuple(n for n, i in zip(self.names, ids, strict=True) if not i)

    def meaning(self) -> str:
        """What numbers stand for, in words: ``0 background, 1 cat, 2 dog``."""
        return meaning_of(self.legend(), self.names)


def meaning_of(legend: Legend, classes: Sequence[str]) -> str:
    """What numbers in masks stand for, in words: ``0 background, 1 cat, 255 ignore``."""
    names = {0: "background", IGNORE: "ignore", **{i + 1: n for i, n in enumerate(classes)}}
    numbers = legend.numbers or {label: label for label in (*range(len(classes) + 1),)}
    said = [f"{number} {names[label]}" for number, label in sorted(numbers.items())]
    return ", ".join(said if len(said) < 9 else [*said[:4], "...", *said[-2:]])


def read_classes(path: Path) -> tuple[str, ...]:
    """Foreground classes from a file, in any of the forms; names for background are dropped."""
    return read_class_list(path).names


def read_class_list(path: Path) -> ClassList:
    """Read a class list in any of the forms of :mod:`tagseg.formats.lists.class_list_files`.

    Names for background or for pixels that do not count are dropped, wherever they stand, and the
    notes say so. Raises TagError for a list that is empty, or holds a name, number or colour twice.
    """
    path = Path(path)
    found = read_entries(path)
    notes = (f"{path.name}: {found.note}",) if found.note else ()
    return _understood(found.entries, path, notes)


def class_list(names: Sequence[str], *, where: object = None) -> ClassList:
    """The class list of ``names``, which are checked and understood as those of a file."""
    return _understood([Entry(str(name).strip()) for name in names], where)


def class_names(names: Sequence[str], *, where: object = None) -> tuple[str, ...]:
    """Check a list of classes and drop names for background or for pixels that do not count."""
    return class_list(names, where=where).names


def _understood(entries: Sequence[Entry], where: object, notes: tuple[str, ...] = ()) -> ClassList:
    entries = [Entry(tidy_name(e.name), e.number, e.colour) for e in entries]
    has_numbers = all(entry.number is not None for entry in entries)
    if has_numbers:
        entries = sorted(entries, key=lambda entry: entry.number or 0)
    names = [entry.name for entry in entries if _label_of_no_class(entry.name) is None]
    check_class_names(names, where)
    labels = _labels(entries, names)
    numbers, doubt = (
        _explicit_numbers(entries, labels, where) if has_numbers else _by_place(entries, labels)
    )
    found = ClassList(
        tuple(names),
        _unless_same(numbers, len(names)),
        _colours(entries, labels, where),
        has_numbers and numbers is not None,
        source=where.name if isinstance(where, Path) else "",
    )
    return replace(found, notes=(*notes, *_notes(found, entries, doubt)))


def _labels(entries: Sequence[Entry], names: Sequence[str]) -> list[int]:
    """The label of each entry.

    Without a background, what does not count is background where it has number 0 or is black, as
    ``unlabeled`` often is: else what is found beside the classes would cost nothing.
    """
    place = {name: i + 1 for i, name in enumerate(names)}
    labels = [place.get(e.name, _label_of_no_class(e.name) or 0) for e in entries]
    if 0 not in labels:
        labels = [
            0 if label == IGNORE and (e.number == 0 or e.colour == (0, 0, 0)) else label
            for e, label in zip(entries, labels, strict=True)
        ]
    return labels


def check_class_names(names: Sequence[str], where: object = None) -> None:
    """Raise TagError for names that cannot be classes, or if there are none."""
    if not names:
        raise TagError("this class list is empty", where=where, do="write one name a line")
    seen = set[str]()
    for name in names:
        if not name:
            raise TagError("a class has no name", where=where, do="write one name a line")
        if ";" in name:
            raise TagError(f"class '{name}' contains ;", where=where, do="write one name a line")
        if name in seen:
            raise TagError(f"class '{name}' is listed twice", where=where, do="remove one")
        seen.add(name)


def _label_of_no_class(name: str) -> int | None:
    """0 for a name of background, 255 for one of pixels that do not count, else None."""
    bare = name.casefold().strip(" _-<>[]()'\"")
    if bare in _BACKGROUND:
        return 0
    return IGNORE if bare in _IGNORED else None


def _explicit_numbers(
    entries: Sequence[Entry], labels: Sequence[int], where: object
) -> tuple[dict[int, int] | None, str]:
    """The list's own numbers; from 0 without a background they only count the classes."""
    own = [entry.number or 0 for entry in entries]
    twice = next((a for a, b in pairwise(own) if a == b), None)
    if twice is not None:
        raise TagError(f"number {twice} is listed twice", where=where, do="number each name once")
    found = dict(zip(own, labels, strict=True))
    if 0 in found and found[0] != 0 and 0 not in labels:
        return None, "numbered from 0 without a background, so only the order counts"
    if any(not 0 <= n <= 255 for n, label in found.items() if label not in (0, IGNORE)):
        return None, "its numbers are not 0 to 255, so only the order counts"
    found = {number: label for number, label in found.items() if 0 <= number <= 255}
    return {0: 0, IGNORE: IGNORE, **found}, ""


def _by_place(entries: Sequence[Entry], labels: Sequence[int]) -> tuple[dict[int, int] | None, str]:
    """Numbers count the lines, from a background that stands first or from before them.

    ``__ignore__`` before it is labelme's -1. With a background elsewhere two ways are usual: the
    classes alone count, which is what is read, or all lines from 0.
    """
    first = next((i for i, label in enumerate(labels) if label != IGNORE), 0)
    start = next((i for i, label in enumerate(labels) if label == 0), None)
    if start is not None and start != first:
        lines = ", ".join(f"{i} {entry.name}" for i, entry in enumerate(entries))
        return (
            None,
            f"if masks count all lines ({_short(lines)}), write these numbers into the list",
        )
    base = start if start is not None else first - 1
    found = {i - base: label for i, label in enumerate(labels) if 0 < i - base < IGNORE}
    return {0: 0, IGNORE: IGNORE, **found}, ""


def _unless_same(numbers: Mapping[int, int] | None, n_classes: int) -> Mapping[int, int] | None:
    """None where every number is its label."""
    plain = {label: label for label in (*range(n_classes + 1), IGNORE)}
    return None if numbers == plain else numbers


def _colours(
    entries: Sequence[Entry], labels: Sequence[int], where: object
) -> dict[Colour, int] | None:
    found: dict[Colour, int] = {}
    for entry, label in zip(entries, labels, strict=True):
        if entry.colour is None:
            continue
        if found.setdefault(entry.colour, label) != label:
            raise TagError(
                f"colour {entry.colour} is of two classes, one of them '{entry.name}'",
                where=where,
                do="give each its own",
            )
    if found and 0 not in found.values():
        found.setdefault((0, 0, 0), 0)
    return found or None


def _notes(found: ClassList, entries: Sequence[Entry], doubt: str) -> tuple[str, ...]:
    dropped = [entry.name for entry in entries if _label_of_no_class(entry.name) is not None]
    is_usual = not dropped or (dropped == [entries[0].name] and dropped[0] in _PLAIN)
    has_more = found.numbered or found.colours is not None
    if is_usual and not doubt and found.numbers is None and not (dropped and has_more):
        return ()
    said = []
    if dropped:
        names = " and ".join(f"'{name}'" for name in dropped)
        said.append(f"{names} {'is no class' if len(dropped) == 1 else 'are no classes'}")
    if found.numbered:
        said.append("it numbers its names as the masks do")
    said.append(f"in masks {found.meaning()}")
    said += [doubt] if doubt else []
    return (f"{found.source or 'class list'}: " + "; ".join(said),)


def _folded(name: str) -> str:
    return normalize("NFC", name).strip().casefold()


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
