"""From a folder of photos, in any of the four layouts, to a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from tagseg.data.class_folders import rows_of_class_folders
from tagseg.data.dataset import Dataset, tag_matrix
from tagseg.data.images import MAX_PIXELS, find_photos, without_suffix
from tagseg.data.tag_files import (
    TagRow,
    check_tags,
    class_names,
    read_classes,
    read_names,
    read_tags_csv,
    read_tags_jsonl,
)
from tagseg.data.voc import VOC_CLASSES, is_voc, rows_of_annotations
from tagseg.errors import ConfigError, DataError, TagError

__all__ = ["Layout", "Untagged", "load_dataset"]

Layout = Literal["auto", "csv", "jsonl", "folders", "voc"]
Untagged = Literal["negative", "unknown"]

_TAG_FILES: dict[Layout, str] = {"csv": "tags.csv", "jsonl": "metadata.jsonl"}
_MAX_MISSING = 0.01  # share of tagged photos that may be missing from the folder


def load_dataset(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    untagged: Untagged | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load a folder of photos with image-level tags; nothing is decoded yet, nothing written.

    Args:
        path: the folder; photos lie in it or in its ``JPEGImages``.
        tags: tag file (.csv, or .jsonl); by default ``tags.csv`` or ``metadata.jsonl`` in the
            folder, or what the layout has.
        classes: the foreground classes in order, or a file of them; by default ``classes.txt``
            beside the photos or the tags, else VOC's 20 in the VOC layout, else sorted names.
        untagged: whether photos without tags hold none of the classes, or may hold any.
        layout: how the folder is laid out; by default what it looks like.
        split: a list file, or the name of one (``train`` for ImageSets/Segmentation/train.txt or
            train.txt), or several: only these photos, in that order.
        max_pixels: refuse larger photos.

    Raises TagError for tags, classes or lists that cannot be used (and if photos without tags
    exist but ``untagged`` is not given), DataError for a folder that cannot, and if more than 1 %
    of the tagged photos are missing. Fewer stay in the dataset for the audit to report.
    """
    _check_choice(layout, get_args(Layout), "layout")
    _check_choice(untagged, (None, *get_args(Untagged)), "untagged")
    place = _Place.at(Path(path))
    source = _tag_source(place, None if tags is None else Path(tags), layout)
    listed = None if split is None else _listed_in_all(place, split)
    class_list = _given_classes(classes, place, source)
    rows = _read_rows(place, source, class_list, listed)
    if class_list is None:
        class_list = class_names(sorted({t for row in rows for t in row.tags}), where=source.where)
    check_tags(rows, class_list)
    by_name = _by_name(rows, place)
    unlisted = len(place.photos.keys() - by_name.keys()) if source.file else 0
    if listed is not None:
        by_name = _pick(by_name, listed, source)
    _check_missing(by_name, place)
    return Dataset(
        classes=class_list,
        names=tuple(by_name),
        tags=tag_matrix([row.tags for row in by_name.values()], class_list),
        known=_known(tuple(by_name.values()), untagged, source),
        sources=tuple(place.file_of(name, row) for name, row in by_name.items()),
        max_pixels=max_pixels,
        unlisted=unlisted,
    )


@dataclass(frozen=True)
class _Place:
    """Where the photos are, and their names."""

    folder: Path
    photo_folder: Path
    photos: dict[str, Path]
    composed: dict[str, str]  # Unicode-composed name -> name; macOS stores names decomposed

    @classmethod
    def at(cls, folder: Path) -> _Place:
        inner = folder / "JPEGImages"
        photo_folder = inner if inner.is_dir() else folder
        photos = find_photos(photo_folder)
        if not photos:
            raise DataError("no photos in this folder", where=photo_folder, do="check the path")
        return cls(folder, photo_folder, photos, {normalize("NFC", n): n for n in photos})

    def name_of(self, written: str) -> str:
        """The photo's name for what a tag file or list calls it, found or not."""
        path = written.replace("\\", "/").removeprefix("./")
        inner = path.removeprefix("JPEGImages/")
        for candidate in (path, without_suffix(path), inner, without_suffix(inner)):
            name = self.composed.get(normalize("NFC", candidate))
            if name is not None:
                return name
        return without_suffix(inner)

    def file_of(self, name: str, row: TagRow) -> Path:
        """The photo's file; for one that is missing, where it was looked for."""
        return self.photos.get(name) or self.photo_folder / row.image


@dataclass(frozen=True)
class _TagSource:
    """Where the tags come from: a file, or else the layout's own place."""

    layout: Layout
    file: Path | None
    where: Path


def _tag_source(place: _Place, tags: Path | None, layout: Layout) -> _TagSource:
    folder = place.folder
    if tags is not None:
        if layout == "folders":
            raise ConfigError("tags and the layout 'folders' exclude each other", do="drop one")
        voc = layout == "voc" or (layout == "auto" and is_voc(folder))
        return _TagSource("voc" if voc else layout, tags, tags)
    beside = {kind: folder / name for kind, name in _TAG_FILES.items()}
    if layout == "auto":
        layout = _guess(place, beside)
    if layout == "voc" and not (folder / "Annotations").is_dir():
        file = next((path for path in beside.values() if path.is_file()), None)
        if file is None:
            raise TagError("there are no Annotations", where=folder, do="give tags with --tags")
        return _TagSource("voc", file, file)
    own = beside.get(layout)
    return _TagSource(layout, own, own or folder)


def _guess(place: _Place, beside: dict[Layout, Path]) -> Layout:
    if is_voc(place.folder):
        return "voc"
    for layout, path in beside.items():
        if path.is_file():
            return layout
    if any("/" in name for name in place.photos):
        return "folders"
    raise TagError(
        "no tags: neither tags.csv nor metadata.jsonl nor class folders",
        where=place.folder,
        do="add one of them or give --tags",
    )


def _given_classes(
    classes: Path | str | Sequence[str] | None, place: _Place, source: _TagSource
) -> tuple[str, ...] | None:
    if isinstance(classes, str | Path):
        return read_classes(Path(classes))
    if classes is not None:
        return class_names(classes)
    for folder in (source.where.parent if source.file else None, place.folder, place.photo_folder):
        if folder is not None and (folder / "classes.txt").is_file():
            return read_classes(folder / "classes.txt")
    return VOC_CLASSES if source.layout == "voc" else None


def _read_rows(
    place: _Place,
    source: _TagSource,
    classes: tuple[str, ...] | None,
    listed: Sequence[str] | None,
) -> tuple[TagRow, ...]:
    if source.file is not None:
        as_json = source.layout == "jsonl" or source.file.suffix.lower() in (".jsonl", ".json")
        return read_tags_jsonl(source.file) if as_json else read_tags_csv(source.file)
    if source.layout == "voc":
        names = place.photos if listed is None else listed
        return rows_of_annotations(place.folder / "Annotations", names, classes or VOC_CLASSES)
    return rows_of_class_folders(place.photos)


def _listed_in_all(place: _Place, splits: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    several = (splits,) if isinstance(splits, str | Path) else splits
    return tuple(dict.fromkeys(name for split in several for name in _listed(place, split)))


def _listed(place: _Place, split: str | Path) -> tuple[str, ...]:
    named = (
        place.folder / "ImageSets" / "Segmentation" / f"{split}.txt",
        place.folder / f"{split}.txt",
    )
    file = next((path for path in (Path(split), *named) if path.is_file()), None)
    if file is None:
        raise TagError(f"there is no list '{split}'", where=place.folder, do="give a list file")
    return tuple(dict.fromkeys(place.name_of(name) for name in read_names(file)))


def _by_name(rows: Iterable[TagRow], place: _Place) -> dict[str, TagRow]:
    found: dict[str, TagRow] = {}
    for row in rows:
        first = found.setdefault(place.name_of(row.image), row)
        if set(first.tags) != set(row.tags):
            raise TagError(
                f"photo '{row.image}' is listed again with other tags",
                where=row.where,
                do="keep one of the lines",
            )
    return found


def _pick(rows: dict[str, TagRow], listed: Sequence[str], source: _TagSource) -> dict[str, TagRow]:
    absent = [name for name in listed if name not in rows]
    if absent:
        raise TagError(
            f"{len(absent)} of {len(listed)} listed photos have no entry: {_first(absent)}",
            where=source.where,
            do="add them, or take them off the list",
        )
    return {name: rows[name] for name in listed}


def _check_missing(rows: dict[str, TagRow], place: _Place) -> None:
    missing = [name for name in rows if not place.file_of(name, rows[name]).exists()]
    if len(missing) > _MAX_MISSING * len(rows):
        raise DataError(
            f"{len(missing)} of {len(rows)} tagged photos are not here: {_first(missing)}",
            where=place.photo_folder,
            do="check the folder and the names",
        )


def _known(
    rows: Sequence[TagRow], untagged: Untagged | None, source: _TagSource
) -> npt.NDArray[np.bool_]:
    said = np.array([bool(row.tags) or row.complete for row in rows], bool)
    if untagged is None and not said.all():
        raise TagError(
            f"{np.count_nonzero(~said)} of {len(rows)} photos have no tags",
            where=source.where,
            do="say what that means: --untagged negative (none of the classes) or unknown",
        )
    return said | (untagged == "negative")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_choice(value: object, choices: Sequence[object], name: str) -> None:
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise ConfigError(f"{name} '{value}' does not exist", do=f"use one of {known}")
