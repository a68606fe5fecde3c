"""Label Studio's JSON: tasks with annotations, whose results carry choices or labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.columns import IMAGES, folded
from tagseg.formats.tags.tag_cells import names_in
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow, listed, read_as

__all__ = ["is_label_studio", "read_label_studio"]


def is_label_studio(whole: Any) -> bool:
    """Whether a JSON value is a list of tasks (the short JSON-MIN is not: it has no ``data``)."""
    return (
        isinstance(whole, list)
        and bool(whole)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in whole)
    )


def read_label_studio(whole: Any, path: Path, hints: Hints) -> TagFile:
    """The labels of each task's annotations; those of several annotators together.

    Cancelled annotations and predictions do not count. An annotation without results says that
    there is nothing; a task without annotations says nothing.
    """
    rows = tuple(_row(task, f"{path}, task {i}") for i, task in enumerate(whole, 1))
    said = read_as("Label Studio", rows, None, path)
    several = sum(len(_annotations(task)) > 1 for task in whole)
    if not several:
        return said
    note = f"{path.name}: {several} tasks have several annotations; all their tags count"
    return replace(said, notes=(*said.notes, note))


def _row(task: Mapping[str, Any], where: str) -> TagRow:
    data = task["data"]
    names = [v for k, v in data.items() if isinstance(v, str) and folded(k) in IMAGES]
    names = names or [v for v in data.values() if isinstance(v, str)]
    if not names or not names[0].strip():
        raise TagError(
            f"its data name no photo; there are {listed(map(str, data))}",
            where=where,
            do="add 'image'",
        )
    annotations = _annotations(task)
    found = (name for annotation in annotations for name in _labels(annotation, where))
    tags = tuple(dict.fromkeys(filter(None, map(tidy_name, found))))
    return TagRow(names[0].strip(), tags, where, complete=bool(annotations))


def _annotations(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    every = task.get("annotations", task.get("completions"))
    every = every if isinstance(every, list) else []
    return [a for a in every if isinstance(a, dict) and not a.get("was_cancelled")]


def _labels(annotation: Mapping[str, Any], where: str) -> Iterator[str]:
    """Labels of all results: of choices, boxes, polygons, brushes, key points and taxonomies."""
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, dict) else None
        for key, labels in value.items() if isinstance(value, dict) else ():
            if key in ("choices", "taxonomy") or key.endswith("labels"):
                yield from names_in(labels, where)
