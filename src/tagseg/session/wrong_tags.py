"""The list of tags that are probably missing or wrong: a file in the run's folder, and a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tagseg.run.files import atomic_write
from tagseg.stages.context import Run
from tagseg.stages.settings import Settings, TagSettings
from tagseg.stages.tag_doubts import tag_doubts

__all__ = ["WRONG_TAGS", "WrongTag", "told_wrong_tags", "write_wrong_tags", "wrong_tags"]

WRONG_TAGS = "wrong_tags.csv"
"""The file's name."""

_MOST = 100  # that a report shows


class WrongTag(NamedTuple):
    """A photo and a class of which what the tags say is probably wrong.

    Attributes:
        image: the photo's name.
        tag: the class.
        probably: "missing" if it is not tagged and probably there, "wrong" if it is the other way.
        confidence: 0 to 1 (:func:`tagseg.evaluate.wrong_tags.error_confidence`).
    """

    image: str
    tag: str
    probably: str
    confidence: float


def wrong_tags(run: Run, settings: Settings) -> list[WrongTag] | None:
    """What is probably wrong, the surest first; None where the tags count as complete."""
    if not isinstance(settings, TagSettings) or not settings.tags_in_doubt:
        return None
    doubts = tag_doubts(run.given or run, settings)
    assert doubts is not None
    found = np.argwhere(doubts.confidence >= settings.missing_confidence)
    sure = doubts.confidence[tuple(found.T)]
    rows = []
    for place in np.argsort(-sure, kind="stable"):
        photo, tag = found[place].tolist()
        probably = "wrong" if doubts.tags[photo, tag] else "missing"
        name, word = run.photos.names[photo], run.photos.classes[tag]
        rows.append(WrongTag(name, word, probably, round(float(sure[place]), 3)))
    return rows


def write_wrong_tags(run: Run, settings: Settings) -> None:
    """Write the list into the run's folder, and say how long it is.

    One of before goes where tags now count as complete.
    """
    path = run.open_workspace.folder / WRONG_TAGS
    rows = wrong_tags(run, settings)
    if rows is None:
        path.unlink(missing_ok=True)
        return
    content = _table(rows).encode()
    if not path.is_file() or path.read_bytes() != content:
        with atomic_write(path) as file:
            file.write(content)
    run.progress.say(f"tags: {_line(rows)}: {path}")


def told_wrong_tags(run: Run, settings: Settings) -> dict[str, Any] | None:
    """The list for the report: in words, and its first rows; None where there is none."""
    rows = wrong_tags(run, settings)
    if rows is None:
        return None
    return {"line": _line(rows), "rows": [list(row) for row in rows[:_MOST]]}


def _line(rows: Sequence[WrongTag]) -> str:
    counts = {kind: sum(row.probably == kind for row in rows) for kind in ("missing", "wrong")}
    photos = len({row.image for row in rows})
    return (
        f"{counts['missing']} are probably missing and {counts['wrong']} wrong, in {photos} photos"
    )


def _table(rows: Sequence[WrongTag]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "class", "probably", "confidence"))
    writer.writerows(rows)
    return text.getvalue()
