"""COCO's JSON as tags: which categories have an annotation in which image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow, read_as

__all__ = ["is_coco", "read_coco"]


def is_coco(whole: Any) -> bool:
    """Whether a JSON value has COCO's lists."""
    return (
        isinstance(whole, dict)
        and isinstance(whole.get("images"), list)
        and ("annotations" in whole or "categories" in whole)
    )


def read_coco(whole: Any, path: Path, hints: Hints) -> TagFile:
    """The categories of each image's annotations, crowds too, in the order of the categories' ids.

    An image without annotations is known to hold none of them. Categories that are only named as
    a parent, and have no annotation, are no classes. TagError, with the entry, for what does not
    fit together.
    """
    names = _categories(whole, path)
    if not names:
        raise TagError("there are no categories", where=path, do="export with annotations")
    images = {entry["id"]: (where, entry) for where, entry in _entries(whole, "images", path)}
    found: dict[Any, set[Any]] = {image: set() for image in images}
    for where, entry in _entries(whole, "annotations", path):
        image, category = _key(entry, "image_id", where), _key(entry, "category_id", where)
        if image not in images:
            raise TagError(f"there is no image {image!r}", where=where, do="add it to images")
        if category not in names:
            raise TagError(
                f"there is no category {category!r}", where=where, do="add it to categories"
            )
        found[image].add(category)
    rows = tuple(_row(images[i], [names[c] for c in names if c in found[i]]) for i in images)
    if not any(row.tags for row in rows):
        raise TagError("there are no annotations", where=path, do="export with annotations")
    used = set().union(*found.values())
    classes = tuple(
        dict.fromkeys(n for c, n in names.items() if c in used or not _is_parent(whole, n))
    )
    return read_as("COCO", rows, classes, path)


def _row(image: tuple[str, Mapping[str, Any]], tags: list[str]) -> TagRow:
    where, entry = image
    name = entry.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise TagError("has no file_name", where=where, do="name the photo there")
    return TagRow(name.strip(), tuple(dict.fromkeys(tags)), where, complete=True)


def _categories(whole: Mapping[str, Any], path: Path) -> dict[Any, str]:
    names = {}
    for where, entry in _entries(whole, "categories", path):
        name = entry.get("name")
        if not isinstance(name, str) or not tidy_name(name):
            raise TagError("has no name", where=where, do="name the class there")
        names[entry["id"]] = tidy_name(name)
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _is_parent(whole: Mapping[str, Any], name: str) -> bool:
    return any(
        tidy_name(str(c.get("supercategory", ""))) == name
        for c in whole["categories"]
        if c.get("name") != name
    )


def _entries(
    whole: Mapping[str, Any], key: str, path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = whole.get(key, [])
    if not isinstance(entries, list):
        raise TagError(f"'{key}' is not a list", where=path, do="give a COCO file")
    for i, entry in enumerate(entries):
        where = f"{path}, {key}[{i}]"
        if not isinstance(entry, dict):
            raise TagError("not an entry of a COCO file", where=where, do="check the file")
        if key != "annotations":
            _key(entry, "id", where)
        yield where, entry


def _key(entry: Mapping[str, Any], name: str, where: str) -> Any:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TagError(f"has no {name}", where=where, do="check that this is a COCO file")
    return value
