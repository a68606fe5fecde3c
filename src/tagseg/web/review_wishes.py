"""From what the page for reviewing wants to acts that a review holds, or an error of one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tagseg.errors import TagError
from tagseg.formats.review import Accepted, Act, Cleared, Rejected, Retagged
from tagseg.maps import IGNORE, Labels, label_of_tag
from tagseg.session.run_to_review import RunToReview
from tagseg.web.review_log import Deed
from tagseg.web.review_masks import MaskFolder, drawn_mask
from tagseg.web.review_states import States, undoing
from tagseg.web.shown_masks import ShownMasks

__all__ = ["Wishes"]

_AGAIN = "load the page again"


class Wishes:
    """Makes deeds of wishes; masks are on disk before a deed that names them is given.

    Args:
        run: that is reviewed.
        states: what was said so far.
        shown: masks as the page has them.
        masks: where accepted masks are kept.
    """

    def __init__(
        self, run: RunToReview, states: States, shown: ShownMasks, masks: MaskFolder
    ) -> None:
        self._run, self._states, self._shown, self._masks = run, states, shown, masks

    def deed(self, wanted: Mapping[str, Any]) -> Deed:
        """The deed for a wish.

        Args:
            wanted: the page's words: ``act``, ``photo`` (number), and ``candidate`` (number),
                ``png`` (base64), ``class`` (number) or ``of`` (number of a deed).

        Raises TagError or MaskError if the wish cannot be granted.
        """
        kind = wanted.get("act")
        if kind == "undo":
            return self._undo(wanted.get("of"))
        grant = _GRANTS.get(kind) if isinstance(kind, str) else None
        if grant is None:
            raise TagError("there is no such act", do=_AGAIN)
        return grant(self, self._photo(wanted), wanted)

    def _photo(self, wanted: Mapping[str, Any]) -> int:
        photo = wanted.get("photo")
        if type(photo) is not int or not 0 <= photo < len(self._states.names):
            raise TagError("there is no such photo", do=_AGAIN)
        return photo

    def _right(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        labels = self._shown.candidate(photo, 0, self.removed(photo))
        return Deed((self._accept(photo, "right", labels),))

    def _pick(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        number = wanted.get("candidate")
        if type(number) is not int:
            raise TagError("no candidate is named", do=_AGAIN)
        labels = self._shown.candidate(photo, number, self.removed(photo))
        return Deed((self._accept(photo, "pick", labels, self._run.maps[number].id),))

    def _corrected(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        shape, classes = self._shown.shape(photo), len(self._run.classes)
        labels = drawn_mask(wanted.get("png"), shape, classes)
        gone = np.intersect1d(labels, self.removed(photo))
        if gone.size:
            name = self._run.classes[int(gone[0]) - 1]
            raise TagError(f"the mask has {name}, which you took off", do=f"add {name} again first")
        return Deed((self._accept(photo, "corrected", labels),))

    def _wrong(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        return Deed((Rejected(photo=self._states.names[photo], at=_now()),))

    def _clear(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        return Deed((Cleared(photo=self._states.names[photo], at=_now()),))

    def _unsure(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        """Nothing is said of the mask; what was said of the tags stays."""
        acts: list[Act] = [Cleared(photo=self._states.names[photo], at=_now())]
        tags = self._states.said(photo).tags
        return Deed(tuple(acts if tags is None else [*acts, tags]), unsure=True)

    def _tag(self, photo: int, wanted: Mapping[str, Any]) -> Deed:
        """A class comes or goes; the mask that was accepted is not sure where it was."""
        number = wanted.get("class")
        if type(number) is not int or not 0 <= number < len(self._run.classes):
            raise TagError("there is no such class", do=_AGAIN)
        if not self._run.by_class:
            raise TagError("masks of this run tell no classes, so there are no tags to change")
        given, tags = self._run.photos.tags[photo], self._states.tags[photo].copy()
        tags[number] = not tags[number]
        acts: list[Act] = [
            Retagged(
                photo=self._states.names[photo],
                at=_now(),
                add=self._names(tags & ~given),
                remove=self._names(given & ~tags),
            )
        ]
        mask = self._states.said(photo).mask
        if isinstance(mask, Accepted) and not tags[number]:
            labels = self._shown.accepted(photo, mask)
            there = labels == label_of_tag(number)
            if there.any():
                rest = np.where(there, np.uint8(IGNORE), labels)
                acts.append(self._accept(photo, "corrected", rest))
        return Deed(tuple(acts))

    def _undo(self, of: object) -> Deed:
        if not self._states.undoable:
            raise TagError("there is nothing to undo")
        last = self._states.undoable[-1]
        if last.n != of:
            raise TagError("another page has done something since", do="undo again to undo that")
        return undoing(self._states, _now())

    def removed(self, photo: int) -> list[int]:
        """Labels of the classes that a person took off a photo."""
        gone = self._run.photos.tags[photo] & ~self._states.tags[photo]
        return [label_of_tag(int(c)) for c in np.flatnonzero(gone)]

    def _names(self, tags: Any) -> tuple[str, ...]:
        return tuple(self._run.classes[c] for c in np.flatnonzero(tags))

    def _accept(
        self, photo: int, how: str, labels: Labels, candidate: str | None = None
    ) -> Accepted:
        name = self._states.names[photo]
        written = self._masks.write(name, self._states.n + 1, labels)
        return Accepted(photo=name, at=_now(), how=how, candidate=candidate, **written._asdict())


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


_GRANTS: dict[str, Callable[[Wishes, int, Mapping[str, Any]], Deed]] = {
    "right": Wishes._right,
    "pick": Wishes._pick,
    "corrected": Wishes._corrected,
    "wrong": Wishes._wrong,
    "clear": Wishes._clear,
    "unsure": Wishes._unsure,
    "tag": Wishes._tag,
}
