"""From what a page wants to an entry of the journal, or an error of one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import TagError
from tagseg.web.columns import Columns, State
from tagseg.web.journal import Entry
from tagseg.web.tag_files import ClassFile, check_class, check_classes
from tagseg.web.views import SURE_FROM

__all__ = ["entry_of"]

Scores = Callable[[], npt.NDArray[np.float32] | None]
"""Gives the scores of the photos by class number (N, C), NaN where they are not known."""


def entry_of(
    wanted: Mapping[str, Any], columns: Columns, class_file: ClassFile, scores: Scores
) -> Entry:
    """The entry for a wish: photos and classes by name, on or off decided.

    Args:
        wanted: the page's words: ``act``, and ``photos`` (numbers), ``class`` (number), ``name``,
            ``on`` (None for what changes something), ``of``.
        columns: what is known.
        class_file: where the classes are to be written.
        scores: of a classifier, for ``accept``.

    Raises TagError if the wish cannot be granted.
    """
    kind = wanted.get("act")
    if kind == "class":
        name = check_class(_text(wanted, "name"), columns.class_names())
        class_file.check_takes((*columns.class_names(), name))
        return {"act": kind, "name": name}
    if kind == "unclass":
        return _unclass(_class(wanted, columns), columns, class_file)
    if kind == "undo":
        return _undo(wanted.get("of"), columns)
    ids = _ids(wanted, columns)
    if kind == "accept":
        return {"act": "set", "tags": _accepted(ids, columns, scores())}
    return _of_photos(kind, wanted, ids, columns)


def _of_photos(
    kind: object, wanted: Mapping[str, Any], ids: Sequence[int], columns: Columns
) -> Entry:
    names = [columns.names[i] for i in ids]
    if kind == "tag":
        number = _class(wanted, columns)
        on = _choice(wanted, not columns.tags[ids, number].all())
        return {"act": kind, "class": columns.classes[number], "on": on, "photos": names}
    if kind == "unsure":
        on = _choice(wanted, not (columns.state[ids] == State.unsure).all())
        return {"act": kind, "on": on, "photos": names}
    if kind == "none" and not columns.order:
        raise TagError("there are no classes yet", do="type in a class first")
    if kind in ("none", "clear"):
        return {"act": kind, "photos": names}
    raise TagError("there is no such act", do="load the page again")


def _unclass(number: int, columns: Columns, class_file: ClassFile) -> Entry:
    name = columns.classes[number]
    used = int(np.count_nonzero(columns.photos_of(number)))
    if used:
        raise TagError(f"'{name}' is in {used} photos", do="take it off them first")
    rest = tuple(known for known in columns.class_names() if known != name)
    if not rest and columns.state.any():
        raise TagError("this is the only class", do="add another one first")
    check_classes(rest, ", ".join(rest[:3]))
    class_file.check_takes(rest)
    return {"act": "unclass", "name": name}


def _undo(last: object, columns: Columns) -> Entry:
    if not columns.undoable:
        raise TagError("there is nothing to undo")
    if columns.undoable[-1].n != last:
        raise TagError("another page has done something since", do="undo again to undo that")
    return {"act": "undo", "of": last}


def _accepted(
    ids: Sequence[int], columns: Columns, scores: npt.NDArray[np.float32] | None
) -> dict[str, list[str]]:
    """All tags of photos: as they are, or of those that nobody looked at, as suggested."""
    tags = {}
    for i in ids:
        numbers: Sequence[int] = columns.tags_of(i)
        if columns.state[i] == State.unseen:
            if scores is None or np.isnan(scores[i]).all():
                raise TagError("nothing is suggested here", do="choose a class, or none of these")
            numbers = [c for c in columns.order if scores[i, c] >= SURE_FROM]
        tags[columns.names[i]] = [columns.classes[c] for c in numbers]
    return tags


def _class(wanted: Mapping[str, Any], columns: Columns) -> int:
    number = wanted.get("class")
    if type(number) is not int or number not in columns.order:
        raise TagError("there is no such class", do="load the page again")
    return number


def _ids(wanted: Mapping[str, Any], columns: Columns) -> list[int]:
    ids = wanted.get("photos")
    if not isinstance(ids, list) or not ids:
        raise TagError("no photo is chosen", do="choose one")
    if not all(type(i) is int and 0 <= i < columns.here for i in ids):
        raise TagError("there is no such photo", do="load the page again")
    return list(dict.fromkeys(ids))


def _text(wanted: Mapping[str, Any], key: str) -> str:
    value = wanted.get(key)
    if not isinstance(value, str):
        raise TagError(f"no {key} is given", do="load the page again")
    return value


def _choice(wanted: Mapping[str, Any], otherwise: np.bool_ | bool) -> bool:
    """Whether a page says on or off; if neither, what changes something."""
    on = wanted.get("on")
    return on if isinstance(on, bool) else bool(otherwise)
