"""What a person has said of each photo of a run so far, and how the last word is taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.formats.review import Accepted, Act, Cleared, Rejected, Retagged
from tagseg.web.review_log import Deed

__all__ = ["NOTHING", "STATES", "Done", "Said", "States", "undoing"]

STATES = ("todo", "right", "pick", "corrected", "wrong", "unsure")
"""What a photo can be, as pages call it."""

_MOST_UNDONE = 1000  # deeds in a row


class Said(NamedTuple):
    """What was said of a photo and still counts.

    Attributes:
        mask: of its mask.
        tags: how its tags differ from the data set's.
        unsure: a person looked, and cannot say.
    """

    mask: Accepted | Rejected | None = None
    tags: Retagged | None = None
    unsure: bool = False

    @property
    def state(self) -> str:
        """One of :data:`STATES`."""
        if isinstance(self.mask, Accepted):
            return self.mask.how
        if self.mask is not None:
            return "wrong"
        return "unsure" if self.unsure else "todo"

    def after(self, act: Act, unsure: bool) -> Said:
        """The same after one more act."""
        match act:
            case Accepted() | Rejected():
                return self._replace(mask=act, unsure=False)
            case Retagged():
                return self._replace(tags=act if act.add or act.remove else None)
            case _:
                return Said(unsure=unsure)


NOTHING = Said()


class Done(NamedTuple):
    """A deed that can be undone: its number, the photo, what was said before, what it was."""

    n: int
    photo: int
    before: Said
    what: str


class States:
    """What was said of the photos of a run.

    Attributes:
        names: of the photos; they are known by their place here.
        tags: (N, C) bool, as a person would have them.
        state: (N,), places in :data:`STATES`.
        touched: (N,), number of the deed that changed the photo last.
        undoable: the deeds that can be undone, the last one first to go.
        n: number of the last deed.
    """

    def __init__(
        self, names: Sequence[str], classes: Sequence[str], tags: npt.NDArray[np.bool_]
    ) -> None:
        self.names = names
        self._ids = {name: i for i, name in enumerate(names)}
        self._class = {name: c for c, name in enumerate(classes)}
        self._given, self.tags = tags, tags.copy()
        self._said: dict[int, Said] = {}
        self.state = np.zeros(len(names), np.uint8)
        self.touched = np.zeros(len(names), np.int32)
        self.undoable: deque[Done] = deque(maxlen=_MOST_UNDONE)
        self.n = 0

    def said(self, photo: int) -> Said:
        """What counts of a photo."""
        return self._said.get(photo, NOTHING)

    def has_other_tags(self) -> npt.NDArray[np.bool_]:
        """Which photos have other tags than in the data set."""
        return (self.tags != self._given).any(1)

    def apply(self, deed: Deed) -> None:
        """Take in what is on disk; photos that are not here are passed over."""
        self.n += 1
        photo = self._ids.get(deed.acts[0].photo)
        if photo is None:
            return
        before = now = self.said(photo)
        for act in deed.acts:
            now = now.after(act, deed.unsure)
        if not deed.undo:
            self.undoable.append(Done(self.n, photo, before, _what(deed)))
        elif self.undoable and self.undoable[-1].photo == photo:
            now = self.undoable.pop().before
        self._set(photo, now)

    def _set(self, photo: int, said: Said) -> None:
        self._said[photo] = said
        self.state[photo] = STATES.index(said.state)
        self.touched[photo] = self.n
        self.tags[photo] = self._given[photo]
        if said.tags is not None:
            self.tags[photo, [self._class[name] for name in said.tags.add]] = True
            self.tags[photo, [self._class[name] for name in said.tags.remove]] = False


def undoing(states: States, at: datetime) -> Deed:
    """The deed that takes the last one back that still counts; there must be one."""
    last = states.undoable[-1]
    name, now = states.names[last.photo], states.said(last.photo)
    acts = _bring_back(last.before, now, name, at)
    # Where the last deed said what was said before, a line stands for the undoing all the same.
    same: Act = now.mask or now.tags or Cleared(photo=name, at=at)
    return Deed(acts or (same,), undo=True, unsure=last.before.unsure)


def _bring_back(before: Said, now: Said, photo: str, at: datetime) -> tuple[Act, ...]:
    """The acts after which a photo is as it was."""
    acts = list[Act]()
    void = (before.mask is None and now.mask is not None) or before.unsure != now.unsure
    if void:
        acts.append(Cleared(photo=photo, at=at))
    if (void and before.tags is not None) or (not void and before.tags != now.tags):
        none = Retagged(photo=photo, at=at)
        acts.append(none if before.tags is None else replace(before.tags, at=at))
    if before.mask is not None and (void or before.mask != now.mask):
        acts.append(replace(before.mask, at=at))
    return tuple(acts)


def _what(deed: Deed) -> str:
    """A deed in short."""
    match deed.acts[0]:
        case Accepted(how="pick", candidate=candidate):
            return f"picked {candidate}"
        case Accepted(how=how):
            return how
        case Rejected():
            return "wrong"
        case Retagged(add=add, remove=remove):
            words = [*(f"with {name}" for name in add), *(f"without {name}" for name in remove)]
            return f"tags: {', '.join(words) or 'as they were'}"
        case _:
            return "not sure" if deed.unsure else "not looked at"
