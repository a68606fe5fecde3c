"""What is known of each photo, in columns, and how the acts of a journal change it.

A photo is in one of four states: nobody looked; decided, with tags; decided, with none of the
classes; not sure. Who is not sure keeps the tags for later.

The acts, with what stands in their entries beside ``n``, ``act`` and ``at``:

    class, unclass      ``name``: a class comes, or one that no photo has goes
    tag                 ``class``, ``on``, ``photos``
    none, clear         ``photos``: none of the classes is in them; nobody looked
    unsure              ``on``, ``photos``
    set                 ``tags``: photo -> all of its classes; it is decided
    undo                ``of``: the number of the last act that still counts
    read                ``classes``, ``tags``, ``gone``: what a tag file says, as photo -> classes,
                        and which photos it no longer names; nothing before it can be undone;
                        perhaps ``marks``: photo -> words such as ``?cat``, which stay as they are
    write               ``digest``: of the tag file that is written next, ``upto``: with all acts up
                        to this number; changes nothing
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import TagError
from tagseg.formats.tags.marks import UNSURE
from tagseg.web.journal import Entry

__all__ = ["Columns", "Done", "Ids", "State"]

Ids = npt.NDArray[np.int32]

_MOST_CLASSES = 254
_MOST_UNDONE = 1000  # acts in a row


class State(IntEnum):
    """What is known of a photo."""

    unseen = 0
    decided = 1
    unsure = 2


class _Before(NamedTuple):
    """What an act has changed, as it was."""

    ids: Ids
    tags: npt.NDArray[np.uint8]
    state: npt.NDArray[np.uint8]
    looked: npt.NDArray[np.int32]


class Done(NamedTuple):
    """An act that can be undone: its entry in short, and how to go back."""

    n: int
    what: str
    back: Callable[[], Ids]


class Columns:
    """Tags and states of photos.

    Attributes:
        names: of the photos; behind those that are here, what the journal names and is gone.
        here: how many are here; photos are known by their place in ``names``.
        classes: names by number. A class that is gone leaves its number unused.
        order: numbers of the classes there are, in label order.
        tags: (N, classes) bool.
        state: (N,), of :class:`State`.
        looked: (N,), number of the act that decided on the photo last.
        touched: (N,), number of the act that changed the photo last.
        from_file: (N,), whether a tag file said it, not an act.
        since: number of the act with which each class came.
        marks: photo -> what a tag file says of classes that are not its tags, as words.
        undoable: the acts that can be undone, the last one first to go.
        n: number of the last act.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.here = len(self.names)
        self._ids = {name: i for i, name in enumerate(self.names)}
        self.classes: list[str] = []
        self.since: list[int] = []
        self.order: list[int] = []
        self.tags = np.zeros((self.here, 8), bool)
        self.state = np.zeros(self.here, np.uint8)
        self.looked = np.zeros(self.here, np.int32)
        self.touched = np.zeros(self.here, np.int32)
        self.from_file = np.zeros(self.here, bool)
        self.marks: dict[int, tuple[str, ...]] = {}
        self.undoable: deque[Done] = deque(maxlen=_MOST_UNDONE)
        self.n = 0

    # --- questions ------------------------------------------------------------------------------

    def class_number(self, name: str) -> int | None:
        """The number of a class that is there."""
        return next((c for c in self.order if self.classes[c] == name), None)

    def class_names(self) -> tuple[str, ...]:
        """The classes there are, in label order."""
        return tuple(self.classes[c] for c in self.order)

    def tags_of(self, photo: int) -> tuple[int, ...]:
        """Numbers of a photo's classes, in label order."""
        row = self.tags[photo]
        return tuple(c for c in self.order if row[c])

    def marks_of(self, photo: int) -> tuple[str, ...]:
        """What is still said of classes that a photo does not have, as words of a tag file.

        Whoever says that it holds none of the classes knows of all of them.
        """
        words = self.marks.get(photo, ())
        if not words:
            return ()
        own = {self.classes[c] for c in self.tags_of(photo)}
        sure = self.state[photo] == State.decided and not own and not self.from_file[photo]
        return tuple(w for w in words if w[1:] not in own and not (sure and w[0] == UNSURE))

    def photos_of(self, number: int) -> npt.NDArray[np.bool_]:
        """Which photos have class ``number``."""
        return self.tags[:, number]

    def has_tag(self) -> npt.NDArray[np.bool_]:
        """Which photos have any."""
        return np.any(self.tags, axis=1)

    def ids_of(self, names: Iterable[str]) -> Ids:
        """Places of photos; those that are not known are added behind the others, as gone."""
        names = list(names)
        new = [name for name in dict.fromkeys(names) if name not in self._ids]
        if new:
            self._add(new)
        return np.fromiter((self._ids[name] for name in names), np.int32, len(names))

    def _add(self, names: list[str]) -> None:
        self._ids.update({name: len(self.names) + i for i, name in enumerate(names)})
        self.names += names
        more, few = len(names), (len(names), self.tags.shape[1])
        self.tags = np.concatenate([self.tags, np.zeros(few, bool)])
        self.state = np.concatenate([self.state, np.zeros(more, np.uint8)])
        self.looked = np.concatenate([self.looked, np.zeros(more, np.int32)])
        self.touched = np.concatenate([self.touched, np.zeros(more, np.int32)])
        self.from_file = np.concatenate([self.from_file, np.zeros(more, bool)])

    # --- acts -----------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Do what an entry says; TagError for one that nobody can have meant."""
        try:
            self.n = entry["n"]
            _ACTS[entry["act"]](self, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise TagError(
                f"entry {entry.get('n')} cannot be understood ({problem!r})",
                do="use the version that wrote it, or move the journal away",
            ) from None

    def _class(self, entry: Entry) -> None:
        name = entry["name"]
        number = self._new_class(name)
        self._remember(entry, f"class {name}", lambda: self._drop_class(number))

    def _new_class(self, name: str) -> int:
        if not isinstance(name, str) or self.class_number(name) is not None:
            raise ValueError(f"class {name}")
        if len(self.order) >= _MOST_CLASSES:
            raise TagError(f"there are {_MOST_CLASSES} classes", do="labels have no more numbers")
        number = len(self.classes)
        self.classes.append(name)
        self.since.append(self.n)
        self.order.append(number)
        if number >= self.tags.shape[1]:
            self.tags = np.concatenate([self.tags, np.zeros_like(self.tags)], axis=1)
        return number

    def _drop_class(self, number: int) -> Ids:
        self.order.remove(number)
        return _NOBODY

    def _unclass(self, entry: Entry) -> None:
        name = entry["name"]
        number = self._number(name)
        if self.photos_of(number).any():
            raise ValueError(f"class {name} is in use")
        place = self.order.index(number)
        self.order.remove(number)

        def back() -> Ids:
            self.order.insert(place, number)
            return _NOBODY

        self._remember(entry, f"class {name} removed", back)

    def _number(self, name: str) -> int:
        number = self.class_number(name)
        if number is None:
            raise KeyError(name)
        return number

    def _tag(self, entry: Entry) -> None:
        number, ids = self._number(entry["class"]), self.ids_of(entry["photos"])
        sign = "" if entry["on"] else "not "
        self._change(entry, ids, f"{sign}{entry['class']} on {_photos(ids)}")
        self.tags[ids, number] = bool(entry["on"])
        some = self.tags[ids].any(1)
        self.state[ids] = np.where(some, State.decided, State.unseen)

    def _none(self, entry: Entry) -> None:
        ids = self.ids_of(entry["photos"])
        self._change(entry, ids, f"none of these on {_photos(ids)}")
        self.tags[ids] = False
        self.state[ids] = State.decided

    def _clear(self, entry: Entry) -> None:
        ids = self.ids_of(entry["photos"])
        self._change(entry, ids, f"not looked at: {_photos(ids)}")
        self.tags[ids] = False
        self.state[ids] = State.unseen

    def _unsure(self, entry: Entry) -> None:
        ids = self.ids_of(entry["photos"])
        sign = "" if entry["on"] else "no longer "
        self._change(entry, ids, f"{sign}not sure of {_photos(ids)}")
        some = self.tags[ids].any(1)
        again = np.where(some, State.decided, State.unseen)
        self.state[ids] = State.unsure if entry["on"] else again

    def _set(self, entry: Entry) -> None:
        ids, rows = self._rows(entry["tags"])
        self._change(entry, ids, f"tags of {_photos(ids)}")
        self.tags[ids] = rows
        self.state[ids] = State.decided

    def _rows(self, tags: dict[str, list[str]]) -> tuple[Ids, npt.NDArray[np.bool_]]:
        number = {self.classes[c]: c for c in self.order}
        ids = self.ids_of(tags)
        rows = np.zeros((len(ids), self.tags.shape[1]), bool)
        for row, names in zip(rows, tags.values(), strict=True):
            row[[number[name] for name in names]] = True
        return ids, rows

    def _read(self, entry: Entry) -> None:
        for name in entry["classes"]:
            if self.class_number(name) is None:
                self._new_class(name)
        ids, rows = self._rows(entry["tags"])
        gone = self.ids_of(entry["gone"])
        self.tags[ids], self.state[ids], self.from_file[ids] = rows, State.decided, True
        self.tags[gone], self.state[gone], self.from_file[gone] = False, State.unseen, False
        for some in (ids, gone):
            self.looked[some] = self.touched[some] = self.n
        for name, words in entry.get("marks", {}).items():
            self.marks[int(self.ids_of([name])[0])] = tuple(words)
        self.undoable.clear()

    def _write(self, entry: Entry) -> None:
        pass

    def _undo(self, entry: Entry) -> None:
        if not self.undoable or self.undoable[-1].n != entry["of"]:
            raise ValueError(f"undo of {entry['of']}")
        self.touched[self.undoable.pop().back()] = self.n

    def _change(self, entry: Entry, ids: Ids, what: str) -> None:
        """Keep what the photos are, before an act changes them."""
        packed = np.packbits(self.tags[ids], axis=1)
        before = _Before(ids, packed, self.state[ids], self.looked[ids])
        self._remember(entry, what, lambda: self._restore(before))
        self.looked[ids] = self.touched[ids] = self.n
        self.from_file[ids] = False

    def _remember(self, entry: Entry, what: str, back: Callable[[], Ids]) -> None:
        self.undoable.append(Done(entry["n"], what, back))

    def _restore(self, before: _Before) -> Ids:
        ids, width = before.ids, before.tags.shape[1] * 8  # later classes have gone before
        self.tags[ids, :width] = np.unpackbits(before.tags, axis=1).astype(bool)
        self.state[ids], self.looked[ids] = before.state, before.looked
        return ids


_NOBODY = np.zeros(0, np.int32)

_ACTS: dict[str, Callable[[Columns, Entry], None]] = {
    "class": Columns._class,
    "unclass": Columns._unclass,
    "tag": Columns._tag,
    "none": Columns._none,
    "clear": Columns._clear,
    "unsure": Columns._unsure,
    "set": Columns._set,
    "read": Columns._read,
    "write": Columns._write,
    "undo": Columns._undo,
}


def _photos(ids: Ids) -> str:
    return "1 photo" if len(ids) == 1 else f"{len(ids):,} photos"
