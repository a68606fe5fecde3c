"""Tags in JSON: a line or an entry a photo, or the exports of annotation tools, told by content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tagseg.data.text import lines_of, read_text_and_notes, split_lines
from tagseg.errors import TagError
from tagseg.formats.coco.instances import instances_in, may_be_coco, read_instances
from tagseg.formats.tags.coco_tags import is_coco, read_coco
from tagseg.formats.tags.columns import CONFIDENCES, IMAGES, TAGS, folded
from tagseg.formats.tags.label_studio import is_label_studio, read_label_studio
from tagseg.formats.tags.labelme import is_labelme, row_of_labelme
from tagseg.formats.tags.marks import with_marks
from tagseg.formats.tags.tag_cells import names_in, read_cells
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow, listed, name_numbers, some_rows

__all__ = ["keys_of_tags", "parse_json", "read_json_tags", "read_jsonl_tags", "tags_of_entries"]

Entry = tuple[str, Mapping[str, Any]]
"""Where an object stands, and the object."""

_FILE_NAME = "file_name"


def read_jsonl_tags(path: Path, hints: Hints) -> TagFile:
    """Tags of a file with one JSON object a line; TagError, with the line, for anything else."""
    entries = []
    for where, line in lines_of(path):
        try:
            entries.append((where, json.loads(line)))
        except (ValueError, RecursionError):
            raise TagError("not JSON", where=where, do="write one object per line") from None
    return tags_of_entries(some_entries(entries, path), path, hints)


def read_json_tags(path: Path, hints: Hints) -> TagFile:
    """Tags of a JSON file: COCO, Label Studio, labelme, or objects with a photo and its tags.

    A file of one object a line is read as such, whatever its suffix. Raises TagError for JSON that
    is none of these, with the keys that are there.
    """
    instances = read_instances(path) if may_be_coco(path) else None
    if instances is not None:
        return read_coco(instances)
    text, _ = read_text_and_notes(path, TagError, hints.known)
    if _is_lines(text):
        return read_jsonl_tags(path, hints)
    whole = parse_json(text, path)
    if is_coco(whole) and (instances := instances_in(text, path)) is not None:  # UTF-16
        return read_coco(instances)
    for matches, read in _EXPORTS:
        if matches(whole):
            return read(whole, path, hints)
    return tags_of_entries(some_entries(_entries(whole, path), path), path, hints)


def parse_json(text: str, path: Path) -> Any:
    """A JSON value; TagError, with the line, if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        where = f"{path}, line {problem.lineno}"
        what = "this file is empty" if not text.strip() else f"not JSON: {problem.msg}"
        raise TagError(what, where=where, do="check that the file is whole") from None
    except (ValueError, RecursionError):
        raise TagError("not JSON that can be read", where=path, do="check the file") from None


def _labelme(whole: Any, path: Path, hints: Hints) -> TagFile:
    return TagFile((row_of_labelme(whole, path),))


_EXPORTS: Sequence[tuple[Callable[[Any], bool], Callable[[Any, Path, Hints], TagFile]]] = (
    (is_label_studio, read_label_studio),
    (is_labelme, _labelme),
)


def _is_lines(text: str) -> bool:
    """Whether there are several lines and the first is an object by itself."""
    lines = [line for line in split_lines(text) if line.strip()]
    if len(lines) < 2 or not lines[0].lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def _entries(whole: Any, path: Path) -> list[tuple[str, Any]]:
    """The objects of a list, of the only list in an object, or of an object by photos' names."""
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if _is_objects(value)]
        if _image_key(whole) is None and len(lists) == 1:
            whole = lists[0]
        elif _image_key(whole) is not None:
            whole = [whole]
    if isinstance(whole, list):
        return [(f"{path}, entry {i}", entry) for i, entry in enumerate(whole, 1)]
    if not isinstance(whole, dict):
        raise TagError(
            "neither a list nor an object", where=path, do='write [{"file_name": "a.jpg", ...}]'
        )
    return [(f"{path}, '{name}'", _by_name(name, value)) for name, value in whole.items()]


def _by_name(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {_FILE_NAME: name, "tags": value}
    if _tag_keys(value) or _image_key(value) is not None:
        return {_FILE_NAME: name} | value
    return {_FILE_NAME: name, "tags": value}


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def some_entries(entries: Sequence[tuple[str, Any]], path: Path) -> list[Entry]:
    """Entries that are objects; TagError for others, or if there are none."""
    for where, entry in entries:
        if not isinstance(entry, dict):
            raise TagError("has no file_name", where=where, do="name the photo there")
    some_rows([TagRow("", (), "")] * len(entries), path)
    return list(entries)


# --- objects of a photo and its tags ------------------------------------------------------------


def tags_of_entries(entries: Sequence[Entry], path: Path, hints: Hints) -> TagFile:
    """The rows of objects with a photo and its tags; which keys hold them is told over all."""
    image_key, tag_keys = _keys(entries, path, hints)
    images = [_image(entry, image_key, where) for where, entry in entries]
    values = [next((e[k] for k in tag_keys if k in e), None) for _, e in entries]
    places = [where for where, _ in entries]
    names = [
        None if isinstance(value, str) else names_in(value, where)
        for value, where in zip(values, places, strict=True)
    ]
    # A list is one of names already; a text may hold several.
    texts = [
        json.dumps(n) if n else (v or "") if n is None else ""
        for v, n in zip(values, names, strict=True)
    ]
    cells = read_cells(texts, places, hints, path)
    rows = tuple(map(TagRow, images, cells.tags, places))
    notes = []
    if (image_key, *tag_keys) != (_FILE_NAME, "tags"):
        tag_names = " and ".join(map(repr, tag_keys))
        notes = [f"{path.name}: photos by key '{image_key}', tags by key {tag_names}"]
    single = all(len(row.tags) <= 1 for row in rows)
    said = TagFile(rows, None, (*notes, *cells.notes), merge=single)
    said = with_marks(said, hints, path.name)
    return name_numbers(said, hints, path, may_stay=any(isinstance(v, str) for v in values))


def _keys(entries: Sequence[Entry], path: Path, hints: Hints) -> tuple[str | None, tuple[str, ...]]:
    """The key of the photos and that of the tags, over all entries."""
    every = dict.fromkeys(key for _, entry in entries for key in entry)
    image = _image_key(every)
    if image is None:
        image = next((k for k in every if _names_photos(entries, k, hints)), None)
    if image is None:
        return None, ("tags",)
    tags = [key for key in _tag_keys(every) if key != image]
    if not tags:
        raise TagError(
            f"no key of tags; there are {listed(every, 10)}",
            where=path,
            do='write "tags": ["cat"]',
        )
    return image, _best(tags, entries, path)


def keys_of_tags(entries: Sequence[Entry], path: Path) -> tuple[str, ...]:
    """The key that holds the tags of objects, or several of which each has one; () for none.

    Raises TagError where two may hold them.
    """
    keys = _tag_keys(dict.fromkeys(key for _, entry in entries for key in entry))
    return _best(keys, entries, path) if keys else ()


def _best(keys: Sequence[str], entries: Sequence[Entry], path: Path) -> tuple[str, ...]:
    """``tags`` before all others, names before numbers; TagError where two are left."""
    if "tags" in keys or len(keys) == 1:
        return ("tags",) if "tags" in keys else tuple(keys)
    together = all(sum(key in entry for key in keys) <= 1 for _, entry in entries)
    if together:
        return tuple(keys)
    words = [key for key in keys if any(_is_words(entry.get(key)) for _, entry in entries)]
    if len(words) == 1:
        return tuple(words)
    both = " and ".join(f"'{key}'" for key in words or keys)
    raise TagError(f"keys {both} may hold the tags", where=path, do="call the right one 'tags'")


def _is_words(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_words, value))
    if isinstance(value, dict):
        return any(map(_is_words, value.values()))
    return isinstance(value, str) and not value.isdigit()


def _image_key(keys: Mapping[str, Any]) -> str | None:
    if _FILE_NAME in keys:
        return _FILE_NAME
    found = [key for key in keys if folded(key) in IMAGES]
    texts = [key for key in found if "id" not in folded(key)]
    return next(iter([*texts, *found]), None)


def _tag_keys(keys: Mapping[str, Any]) -> list[str]:
    return [k for k in keys if folded(k) in TAGS and folded(k) not in CONFIDENCES]


def _names_photos(entries: Sequence[Entry], key: str, hints: Hints) -> bool:
    return all(isinstance(e.get(key), str) and hints.is_photo(e[key]) for _, e in entries)


def _image(entry: Mapping[str, Any], key: str | None, where: str) -> str:
    value = entry.get(key) if key is not None else None
    if isinstance(value, Mapping):  # as of Hugging Face: {"path": "a.jpg", "bytes": null}
        value = value.get("path") or value.get("file_name") or value.get("filename")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        there = f" (it has {listed(map(str, entry), 8)})" if entry else ""
        raise TagError("has no file_name", where=where, do=f"name the photo there{there}")
    return value.strip()
