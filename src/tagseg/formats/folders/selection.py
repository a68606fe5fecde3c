"""Which photos are meant by ``--train`` and ``--val``: those of a list, or of a split's folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path

from tagseg.errors import TagError, first_few
from tagseg.formats.folders.layouts import Place
from tagseg.formats.folders.photo_tree import kind_of_split
from tagseg.formats.lists.name_lookup import NameLookup
from tagseg.formats.lists.photo_lists import PhotoList, no_list, read_list
from tagseg.formats.tags.tag_rows import TagRow

__all__ = ["ALL_SPLITS", "listed_photos", "only_listed", "unnamed_in_folders"]

ALL_SPLITS = "all"
"""As the name of a list: the photos in all folders of splits."""

Splits = str | Path | Sequence[str | Path]


def listed_photos(place: Place, splits: Splits) -> PhotoList:
    """The photos of a list, or of several, each a file, the name of one, or a split's folder.

    Raises TagError for a list that is not there or cannot be used.
    """
    photos = NameLookup(place.photos, (place.photo_folder, place.folder))
    lists = [_one(place, split, photos) for split in _several(splits)]
    return reduce(PhotoList.and_also, lists)


def unnamed_in_folders(place: Place, splits: Splits, named: Collection[str]) -> frozenset[str]:
    """Photos that lie in the folder of a split, where no list names them, and are not ``named``."""
    folders = (str(split) for split in _several(splits) if _list_file(place, split) is None)
    return frozenset(n for split in folders for n in _in_split(place, split) if n not in named)


def only_listed(
    rows: Mapping[str, TagRow], listed: PhotoList, where: Path, problem: str, place: Place
) -> dict[str, TagRow]:
    """The rows of the listed photos, in that order; TagError if one has none."""
    absent = [name for name in listed.names if name not in rows]
    if absent:
        raise TagError(
            f"{len(absent)} of {len(listed.names)} listed photos {problem}: {first_few(absent)}",
            where=where,
            do=f"add them, or take them off the list ({_about_absent(absent[0], listed, place)})",
        )
    return {name: rows[name] for name in listed.names}


def _several(splits: Splits) -> Sequence[str | Path]:
    return (splits,) if isinstance(splits, str | Path) else splits


def _one(place: Place, split: str | Path, photos: NameLookup) -> PhotoList:
    file = _list_file(place, split)
    return read_list(file, photos) if file is not None else PhotoList(_in_split(place, str(split)))


def _list_file(place: Place, split: str | Path) -> Path | None:
    named = (
        folder / inner
        for folder in dict.fromkeys((place.folder, place.given))
        for inner in (Path("ImageSets", "Segmentation", f"{split}.txt"), f"{split}.txt")
    )
    return next((path for path in (Path(split), *named) if path.is_file()), None)


def _in_split(place: Place, split: str) -> tuple[str, ...]:
    """The photos in the folder of a split: of that name, else of that kind (val for valid)."""
    splits = place.splits()
    if splits and split == ALL_SPLITS:
        return tuple(place.photos)
    alike = [name for name in splits if kind_of_split(name) == kind_of_split(split) is not None]
    names = splits.get(split) or (splits[alike[0]] if len(alike) == 1 else None)
    if names is None and splits:
        raise TagError(
            f"there is no list '{split}'",
            where=place.folder,
            do=f"give a list file, or one of the folders {', '.join(splits)}",
        )
    if names is None:
        raise no_list(split, place.folder)
    return names


def _about_absent(name: str, listed: PhotoList, place: Place) -> str:
    """Where a name of a list stands, and what is known of it."""
    where = listed.where.get(name, "the list")
    if name in place.photos:
        return f"{where}; the photo '{name}' is there, without tags"
    near = NameLookup(place.photos).nearest(name)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{where}{hint}"
