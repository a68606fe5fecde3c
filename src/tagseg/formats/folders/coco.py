"""The layout of COCO: ``instances_NAME.json`` in ``annotations``, and the photos in ``NAME``.

The files are the splits: ``train2014`` of ``instances_train2014.json``. The photos may as well lie
in one folder, or in ``images``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tagseg.data.finding import visible_entries
from tagseg.errors import TagError
from tagseg.formats.coco.instances import read_instances
from tagseg.formats.folders.photo_tree import CONTAINERS, kind_of_split
from tagseg.formats.tags.coco_tags import tags_of
from tagseg.formats.tags.photo_names import PhotoNames
from tagseg.formats.tags.tag_rows import TagFile
from tagseg.formats.tags.tag_sources import together

__all__ = ["CocoTags", "folder_of_photos", "instance_files", "read_coco_tags"]

_START = "instances_"
_ANNOTATIONS = "annotations"


class CocoTags(NamedTuple):
    """What COCO files say of the photos that are here.

    Attributes:
        files: those that name some of the photos.
        said: the photos' tags, by their names.
        splits: name of the split -> its photos.
    """

    files: tuple[Path, ...]
    said: TagFile
    splits: dict[str, tuple[str, ...]]


def instance_files(place: Path) -> tuple[Path, ...]:
    """The files ``instances_*.json`` in a folder or its ``annotations``, or ``place`` if it is a
    JSON file itself."""
    if place.is_file():
        return (place,) if place.suffix.lower() == ".json" else ()
    found = {*place.glob(f"{_START}*.json"), *place.glob(f"{_ANNOTATIONS}/{_START}*.json")}
    return tuple(sorted(path for path in found if path.is_file()))


def folder_of_photos(file: Path) -> str:
    """The folder that a file's photos lie in, by name: of its split, or of that kind; "" for none.

    It is looked for beside the file or its ``annotations``, and in ``images`` there.
    """
    home = file.absolute().parent
    home = home.parent if home.name.lower() == _ANNOTATIONS else home
    below = visible_entries(home)[0]
    inner = [home / name for name in below if name.lower() in CONTAINERS]
    names = {*below, *(name for place in inner for name in visible_entries(place)[0])}
    split = _split_of(file)
    alike = [name for name in names if kind_of_split(name) == kind_of_split(split) is not None]
    return split if split in names else (alike[0] if len(alike) == 1 else "")


def read_coco_tags(
    files: tuple[Path, ...], photos: Mapping[str, Path], name_of: Callable[[str], str]
) -> CocoTags:
    """The tags and splits of ``photos`` (name -> path) by COCO files.

    A file that names none of them is left out, with a note. Raises TagError, with the entry, for a
    file that cannot be used, and if there is no object at all.
    """
    homes = {file: folder_of_photos(file) for file in files}
    said = {}
    for file, home in homes.items():
        pool = [name for name in photos if _may_be_of(file, home, name)]
        said[file] = _at_home(PhotoNames(pool, name_of).renamed(_tags_in(file), home), home, photos)
    # Photos that are not here stay, to be missed, where others of the file are.
    splits = {
        file: tuple(dict.fromkeys(name_of(row.image) for row in said[file].rows)) for file in files
    }
    used = tuple(file for file in files if any(name in photos for name in splits[file]))
    joined = together([said[file] for file in used])
    if used and not any(row.tags for row in joined.rows):
        raise TagError("there are no annotations", where=used[0], do="export with annotations")
    idle = [file.name for file in files if file not in used]
    notes = tuple(f"{name} is left out: none of its photos are here" for name in idle)
    joined = replace(joined, notes=(*joined.notes, *notes))
    return CocoTags(used, joined, {_split_of(file): splits[file] for file in used})


def _may_be_of(file: Path, home: str, name: str) -> bool:
    """Whether a photo lies in a file's ``home``, or, without one, in no folder of another split."""
    folders = name.split("/")[:-1]
    kind = kind_of_split(_split_of(file))
    if home:
        return home in folders
    return kind is None or all(kind_of_split(each) in (None, kind) for each in folders)


def _at_home(said: TagFile, home: str, photos: Collection[str]) -> TagFile:
    """Photos that are not here are named where they would lie."""
    if not home:
        return said
    rows = (
        row if row.image in photos else replace(row, image=f"{home}/{row.image}")
        for row in said.rows
    )
    return replace(said, rows=tuple(rows))


def _tags_in(file: Path) -> TagFile:
    instances = read_instances(file)
    if instances is None:
        what = "is no COCO file: it has no lists images, annotations and categories"
        raise TagError(what, where=file, do="give another layout, or another file")
    return tags_of(instances)


def _split_of(file: Path) -> str:
    return file.stem.removeprefix(_START)
