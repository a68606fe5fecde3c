"""Tags of WebDataset's samples: what lies beside each photo in its tar, under the same key.

``KEY.json`` with an object, ``KEY.cls`` with a number or a name, ``KEY.txt`` with names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tagseg.data.tar_pictures import key_and_ending, tars_of
from tagseg.errors import TagError, first_few
from tagseg.formats.tags.columns import TAGS, folded
from tagseg.formats.tags.json_tags import Entry, keys_of_tags, tags_of_entries
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow
from tagseg.tar_members import Member, member_at, members_of

__all__ = ["ENDINGS", "read_sample_tags"]

ENDINGS = (".json", ".cls", ".txt")

_CAPTIONS = frozenset(("caption", "captions", "text"))
_MOST = 1 << 20  # bytes of one sample's tags

Object = dict[str, Any]


class _Said(NamedTuple):
    """What the members of one ending say.

    Attributes:
        entries: photo -> where it is said, and its tags in an object.
        others: keys of objects that say nothing of tags.
    """

    entries: dict[str, Entry]
    others: set[str]


def read_sample_tags(
    photos: Mapping[str, Path], classes: tuple[str, ...] | None = None, separator: str | None = None
) -> TagFile:
    """The tags of ``photos`` (name -> path below a tar) by their samples.

    Those in JSON if there are any, else the numbers or names in ``cls``, else the names in ``txt``,
    but no captions. A photo of which nothing is said has no tags. Raises TagError, with the member,
    for what cannot be read, and if no sample says anything.
    """
    where = Path(tars_of(photos.values())[0]).parent
    said = _read_all(photos, ".json", _of_json)
    captions = said.others & _CAPTIONS
    others = iter(((".cls", _of_number), *(() if captions else ((".txt", _of_text),))))
    ending, keys = ".json", keys_of_tags(list(said.entries.values()), where)
    while not keys:
        ending, read = next(others, ("", _of_text))
        if not ending:
            raise _no_tags(where, said.others, captions)
        entries = _read_all(photos, ending, read).entries
        said, keys = _Said(entries, said.others), ("tags",) if entries else ()
    found = tags_of_entries(_entries(said, keys), where, Hints(classes, separator))
    rows = {row.image: row for row in found.rows}
    every = tuple(rows.get(name) or TagRow(name, (), str(path)) for name, path in photos.items())
    return TagFile(every, None, (*_notes(photos, ending, keys, len(rows)), *found.notes))


def _entries(said: _Said, keys: tuple[str, ...]) -> list[Entry]:
    """Objects of a photo and its tags, as one file of all would have them."""
    return [
        (where, {"file_name": name, "tags": next((o[key] for key in keys if key in o), None)})
        for name, (where, o) in said.entries.items()
    ]


def _read_all(photos: Mapping[str, Path], ending: str, read: Callable[[str, str], Object]) -> _Said:
    entries: dict[str, Entry] = {}
    others: set[str] = set()
    for name, path in photos.items():
        member = member_at(path.with_name(key_and_ending(path.name)[0] + ending))
        if member is None:
            continue
        where = f"{member.tar}, {member.name}"
        found = read(_text_of(member, where), where)
        tags = {key: value for key, value in found.items() if folded(key) in TAGS}
        if tags:
            entries[name] = where, tags
        else:
            others.update(found)
    return _Said(entries, others)


def _text_of(member: Member, where: str) -> str:
    if member.size > _MOST:
        do = f"a sample's tags take at most {_MOST} bytes"
        raise TagError(f"has {member.size} bytes", where=where, do=do)
    try:
        return member.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise TagError("is not UTF-8 text", where=where, do="save as UTF-8") from None


def _of_json(text: str, where: str) -> Object:
    """The object; one that is no object, such as a list of names, is the tags themselves."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise TagError("is not JSON", where=where, do='write {"tags": ["cat"]}') from None
    return value if isinstance(value, dict) else {"tags": value}


def _of_number(text: str, where: str) -> Object:
    return {"tags": int(text) if text.isdecimal() else text}


def _of_text(text: str, where: str) -> Object:
    return {"tags": text}


def _no_tags(where: Path, others: set[str], captions: set[str]) -> TagError:
    told = f" (their json has {first_few(sorted(others), 6)})" if others else ""
    told += ", and captions are no tags" if captions else ""
    return TagError(
        f"no sample tells tags{told}",
        where=where,
        do='put KEY.json with {"tags": ["cat"]} or KEY.cls beside the photos, or give --tags FILE '
        "with --layout csv",
    )


def _notes(
    photos: Mapping[str, Path], ending: str, keys: tuple[str, ...], tagged: int
) -> Iterator[str]:
    by_key = "" if keys == ("tags",) else f", key {' and '.join(map(repr, keys))}"
    yield f"tags are read from KEY{ending} of {tagged} samples{by_key}"
    alone = _without_photo(photos, ending)
    if alone:
        yield f"left out: {alone} members KEY{ending} of tars, beside which there is no photo"


def _without_photo(photos: Mapping[str, Path], ending: str) -> int:
    """How many members of an ending have a key that no photo has."""
    keys = {f"{path.parent}/{key_and_ending(path.name)[0]}" for path in photos.values()}
    return sum(
        name.endswith(ending) and f"{tar}/{key_and_ending(name)[0]}" not in keys
        for tar in tars_of(photos.values())
        for name in members_of(tar)
    )
