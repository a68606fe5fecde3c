"""Photos of one data set to learn from, and of another to be predicted and scored.

The two meet by the names of their classes. Names are the same if they are after stripping and
case folding: ``Car`` is ``car``, and ``aeroplane`` is not ``airplane``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.errors import DataError, TagError, first_few

__all__ = ["TARGET", "class_columns", "notes_on_classes", "with_target"]

TARGET = "target/"
"""What the names of a target's photos begin with, once they are joined to those to learn from."""


def with_target(photos: Dataset, target: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """Join ``target``'s photos to ``photos``: one Dataset, and the names to give as ``val``.

    The photos of the target are called ``target/NAME``; its tags become columns of the classes of
    ``photos``, by name. Tags of classes that are not learned are dropped, and nothing counts as
    known of a photo where the target does not tell of all learned classes.

    Raises:
        TagError: the two have no class in common.
        DataError: the target is empty, or a photo to learn from is called ``target/...`` too.
    """
    if not len(target):
        raise DataError("the target has no photos", do="check the folder and the list")
    taken = next((name for name in photos.names if name.startswith(TARGET)), None)
    if taken is not None:
        raise DataError(
            f"photo '{taken}' to learn from is called as the target's photos are",
            do=f"rename the folder {TARGET}",
        )
    columns = class_columns(target.classes, photos.classes)
    tags = _in_columns(target.tags, columns, len(photos.classes))
    tells_all = set(range(len(photos.classes))) <= set(columns)
    names = tuple(TARGET + name for name in target.names)
    joined = replace(
        photos,
        names=photos.names + names,
        tags=np.concatenate([photos.tags, tags]),
        known=np.concatenate([photos.known, target.known & tells_all]),
        sources=[*photos.sources, *target.sources],
        unsure=_joined_mark(photos, photos.unsure, _own_mark(target.unsure, columns, tags)),
        absent=_joined_mark(photos, photos.absent, _own_mark(target.absent, columns, tags)),
        max_pixels=max(photos.max_pixels, target.max_pixels),
        unlisted=photos.unlisted + target.unlisted,
        left_out=photos.left_out + target.left_out,
        notes=photos.notes + tuple(f"target: {note}" for note in target.notes),
    )
    return joined, names


def _in_columns(
    own: npt.NDArray[np.bool_], columns: Sequence[int | None], count: int
) -> npt.NDArray[np.bool_]:
    """What is said of a target's own classes, of those to learn (N, ``count``)."""
    found = np.zeros((len(own), count), bool)
    for column, values in zip(columns, own.T, strict=True):
        if column is not None:
            found[:, column] |= values
    return found


def _own_mark(
    mark: npt.NDArray[np.bool_] | None,
    columns: Sequence[int | None],
    tags: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """A target's mark of classes to learn; two of its own may be one of them, and a tag counts."""
    if mark is None:
        return np.zeros_like(tags)
    return _in_columns(mark, columns, tags.shape[1]) & ~tags


def _joined_mark(
    photos: Dataset, ours: npt.NDArray[np.bool_] | None, theirs: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """The marks of both."""
    return np.concatenate([np.zeros_like(photos.tags) if ours is None else ours, theirs])


def class_columns(own: Sequence[str], learned: Sequence[str]) -> tuple[int | None, ...]:
    """Where each class of ``own`` stands in ``learned``, None if it is not there.

    Raises TagError, with the nearest names, if none is.
    """
    folded = {_folded(name): i for i, name in reversed(list(enumerate(learned)))}
    exact = {name: i for i, name in enumerate(learned)}
    columns = tuple(exact.get(name, folded.get(_folded(name))) for name in own)
    if all(column is None for column in columns):
        near = next(filter(None, (_near(name, learned) for name in own)), None)
        raise TagError(
            f"the target has no class of those to learn: it has {first_few(own)}, "
            f"not {first_few(learned)}",
            do=f"call '{near[0]}' and '{near[1]}' alike" if near else "check both class lists",
        )
    return columns


def notes_on_classes(own: Sequence[str], learned: Sequence[str]) -> list[str]:
    """What to tell of the classes of a target, ``own``, that differ from those learned."""
    columns = class_columns(own, learned)
    strange = [name for name, column in zip(own, columns, strict=True) if column is None]
    absent = [name for i, name in enumerate(learned) if i not in columns]
    notes = []
    if strange:
        pairs = filter(None, (_near(name, absent) for name in strange))
        alike = "".join(f"; is '{a}' the same as '{b}'?" for a, b in pairs)
        notes.append(
            f"classes of the target that are not learned count as background: "
            f"{', '.join(strange)}{alike}"
        )
    if absent:
        notes.append(f"learned classes that the target does not have: {', '.join(absent)}")
    return notes


def _folded(name: str) -> str:
    return name.strip().casefold()


def _near(name: str, others: Sequence[str]) -> tuple[str, str] | None:
    """(``name``, the one of ``others`` that is spelled much like it)."""
    spelled = {_folded(other): other for other in others}
    matches = get_close_matches(_folded(name), spelled, n=1, cutoff=0.7)
    return (name, spelled[matches[0]]) if matches else None
