"""What pages show of the columns: filters, counts, photos in words, and what is suggested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import TagError
from tagseg.web.columns import Columns, State

__all__ = ["SURE_FROM", "classes", "counts", "described", "doubt", "shown"]

SURE_FROM = 0.5
"""Score from which a class is suggested."""

Mask = npt.NDArray[np.bool_]


def shown(columns: Columns, show: str) -> Mask:
    """Which photos a filter leaves, those that are gone too.

    Args:
        show: ``all``, ``todo`` (nobody looked), ``tagged``, ``none``, ``unsure``; ``class-3`` for
            those with class number 3; ``before-3`` for those that were decided before it came, so
            that nobody looked for it.

    Raises TagError if there is no such filter.
    """
    state = columns.state
    simple: dict[str, Callable[[], Mask]] = {
        "all": lambda: np.ones(len(state), bool),
        "todo": lambda: state == State.unseen,
        "tagged": lambda: (state == State.decided) & columns.has_tag(),
        "none": lambda: (state == State.decided) & ~columns.has_tag(),
        "unsure": lambda: state == State.unsure,
    }
    if show in simple:
        return simple[show]()
    kind, _, number = show.partition("-")
    known = {str(c): c for c in columns.order}
    if kind == "class" and number in known:
        return columns.photos_of(known[number])
    if kind == "before" and number in known:
        return _not_asked(columns, known[number])
    raise TagError("there is no such filter", do="load the page again")


def _not_asked(columns: Columns, number: int) -> Mask:
    early = columns.looked < columns.since[number]
    return (columns.state == State.decided) & early & ~columns.photos_of(number)


def classes(columns: Columns) -> list[dict[str, Any]]:
    """The classes in label order, each with its photos and those that were not asked for it."""
    here = columns.here
    return [
        {
            "id": c,
            "name": columns.classes[c],
            "photos": int(np.count_nonzero(columns.tags[:here, c])),
            "before": int(np.count_nonzero(_not_asked(columns, c)[:here])),
        }
        for c in columns.order
    ]


def counts(columns: Columns) -> dict[str, int]:
    """How many photos there are, by what is known of them."""
    kinds = ("all", "todo", "tagged", "none", "unsure")
    return {kind: int(np.count_nonzero(shown(columns, kind)[: columns.here])) for kind in kinds}


def described(
    columns: Columns, ids: Sequence[int], scores: npt.NDArray[np.float32] | None
) -> list[dict[str, Any]]:
    """Photos as a page shows them; ``suggested`` is None where a classifier says nothing."""
    return [
        {
            "id": i,
            "name": columns.names[i],
            "state": State(columns.state[i]).name,
            "tags": columns.tags_of(i),
            "suggested": _suggestion(columns, scores, i),
        }
        for i in ids
    ]


def _suggestion(
    columns: Columns, scores: npt.NDArray[np.float32] | None, photo: int
) -> list[tuple[int, float]] | None:
    """Classes that a classifier sees in a photo nobody looked at."""
    if scores is None or columns.state[photo] != State.unseen or np.isnan(scores[photo]).all():
        return None
    row = scores[photo]
    return [(c, round(float(row[c]), 2)) for c in columns.order if row[c] >= SURE_FROM]


def doubt(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How unsure a classifier is of photos (N, C) -> (N,): the largest entropy of a class, in bits.

    A photo without scores is at -1, so that it comes last.
    """
    p = np.clip(scores, 1e-6, 1 - 1e-6)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.nan_to_num(entropy, nan=-1.0).max(1, initial=-1.0)
