"""COCO's JSON as tags: which categories have an annotation in which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tagseg.errors import TagError
from tagseg.formats.coco.instances import Instances
from tagseg.formats.tags.tag_rows import TagFile, TagRow, listed, read_as

__all__ = ["is_coco", "read_coco", "tags_of"]


def is_coco(whole: Any) -> bool:
    """Whether a JSON value has COCO's lists."""
    return (
        isinstance(whole, dict)
        and isinstance(whole.get("images"), list)
        and ("annotations" in whole or "categories" in whole)
    )


def read_coco(instances: Instances) -> TagFile:
    """The same as :func:`tags_of`; TagError if there are no annotations."""
    said = tags_of(instances)
    if not any(row.tags for row in said.rows):
        raise TagError(
            "there are no annotations", where=instances.path, do="export with annotations"
        )
    return said


def tags_of(instances: Instances) -> TagFile:
    """The categories of each image's annotations, crowds too, in the order of the categories' ids.

    An image without annotations is known to hold none of them. Categories that are only named as
    a parent, and have no annotation, are no classes. Those of one name are one class, with a note.
    """
    said = read_as("COCO", tuple(_rows(instances)), _classes(instances), instances.path)
    twice = [name for name, n in Counter(instances.categories).items() if n > 1]
    if not twice:
        return said
    note = f"{instances.path.name}: several categories are called {listed(twice)}: one class each"
    return replace(said, notes=(*said.notes, note))


def _rows(instances: Instances) -> Iterator[TagRow]:
    names = instances.categories
    present = np.zeros((len(instances.names), len(names)), bool)
    present[instances.images, instances.classes] = True
    for image, written in enumerate(instances.names):
        tags = dict.fromkeys(names[c] for c in np.flatnonzero(present[image]))
        yield TagRow(written, tuple(tags), instances.where(image), complete=True)


def _classes(instances: Instances) -> tuple[str, ...]:
    names, parents = instances.categories, instances.parents
    used = set(instances.classes.tolist())
    above = {
        parent for name, parent in zip(names, parents, strict=True) if parent and parent != name
    }
    return tuple(dict.fromkeys(n for c, n in enumerate(names) if c in used or n not in above))
