"""From a folder of photos, in any of the layouts, to a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset, tag_matrix
from tagseg.data.finding import is_odd
from tagseg.data.pictures import MAX_PIXELS
from tagseg.errors import ConfigError, DataError, TagError
from tagseg.formats.class_folders import rows_of_class_folders
from tagseg.formats.class_lists import class_names, read_classes
from tagseg.formats.layouts import Layout, Place, TagSource, find_photos_and_tags
from tagseg.formats.name_lookup import NameLookup
from tagseg.formats.object_discovery import rows_of_object_discovery
from tagseg.formats.photo_lists import PhotoList, no_list, read_list
from tagseg.formats.synsets import check_classes_are_there, count_unlisted, rows_of_synset_folders
from tagseg.formats.tag_files import TagFile, TagRow, check_tags, read_tag_file
from tagseg.formats.voc import VOC_CLASSES, rows_of_annotations

__all__ = ["Layout", "Untagged", "load_dataset", "load_target"]

Untagged = Literal["negative", "unknown"]

_ANY_CLASS = ("object",)  # of photos without any tags
_MAX_MISSING = 0.01  # share of tagged photos that may be missing from the folder


def load_dataset(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    untagged: Untagged | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    synsets: Path | str | None = None,
    allow_missing: float = _MAX_MISSING,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load a folder of photos with image-level tags; nothing is decoded yet, nothing written.

    Args:
        path: the folder; photos lie in it or in its ``JPEGImages``.
        tags: tag file (.csv, or .jsonl); by default ``tags.csv`` or ``metadata.jsonl`` in the
            folder, or what the layout has.
        classes: the foreground classes in order, or a file of them; by default those of
            ``synsets``, else ``classes.txt`` beside the photos or the tags, else VOC's 20 in the
            VOC layout, else sorted names.
        untagged: whether photos without tags hold none of the classes, or may hold any. A folder
            without any tags is refused unless they may; its one class is then "object" where
            nothing else is said.
        layout: how the folder is laid out; by default what it looks like.
        split: a list file, or the name of one (``train`` for ImageSets/Segmentation/train.txt or
            train.txt), or several: only these photos, in that order.
        synsets: a list of the WordNet synsets of each class (:func:`read_synsets`); the folder is
            then laid out as ImageNet, one folder per synset, in it or in its ``train``.
        allow_missing: share of the tagged photos that may be missing.
        max_pixels: refuse larger photos.

    Raises TagError for tags, classes or lists that cannot be used (and if photos without tags
    exist but ``untagged`` is not given), DataError for a folder that cannot, and if more of the
    tagged photos are missing than allowed. Fewer stay in the dataset for the audit to report.
    """
    if untagged not in (None, *get_args(Untagged)):
        known = ", ".join(get_args(Untagged))
        raise ConfigError(f"untagged '{untagged}' does not exist", do=f"use one of {known}")
    place, source = find_photos_and_tags(Path(path), _path(tags), layout, _path(synsets))
    if source.layout is None and untagged == "unknown":  # as for recipes that use no tags
        told = classes is not None or _class_file(place, source) is not None
        anything = classes if told else _ANY_CLASS
        return load_target(path, classes=anything, split=split, max_pixels=max_pixels)
    _check_has_tags(source, place)
    listed = None if split is None else _listed_in_all(place, split)
    class_list, said = _read(place, source, classes, listed)
    by_name = _by_name(said.rows, place)
    unlisted = len(place.photos.keys() - by_name.keys()) if source.file else 0
    if source.synsets:
        unlisted = count_unlisted(place.photo_folder, source.synsets)
    if listed is not None:
        by_name = _pick(by_name, listed, source.where, "have no entry", place)
    left_out = _check_missing(by_name, place, allow_missing)
    dataset = _dataset(place, source, class_list, by_name, untagged)
    notes = (*said.notes, *_notes(place, listed, left_out))
    return replace(dataset, max_pixels=max_pixels, unlisted=unlisted, notes=notes)


def load_target(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    masks: Path | str | None = None,
    allow_missing: float = _MAX_MISSING,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load photos that are to be predicted and scored only, so that they need no tags.

    The arguments are :func:`load_dataset`'s. All photos of the folder or of ``split`` are loaded,
    named in a tag file or not, but for pictures in the folder ``masks``; of those without tags
    nothing is known. The classes, which are those of the masks' numbers, must come from somewhere:
    TagError if nothing tells them.
    """
    if layout == "imagenet":
        raise ConfigError("a target cannot have the layout 'imagenet'", do="use another layout")
    place, source = find_photos_and_tags(Path(path), _path(tags), layout)
    listed = None if split is None else _listed_in_all(place, split)
    if source.layout == "folders" and layout == "auto" and _class_file(place, source) is not None:
        source = replace(source, layout=None)  # the folders need not be classes
    class_list, said = _read(place, source, classes, listed)
    photos = [name for name in place.photos if not _is_mask(place.photos[name], place, masks)]
    by_name = {name: TagRow(name, (), name) for name in photos} | _by_name(said.rows, place)
    if listed is not None:
        by_name = _pick(by_name, listed, place.photo_folder, "are not here", place)
    left_out = _check_missing(by_name, place, allow_missing)
    dataset = _dataset(place, source, class_list, by_name, "unknown")
    notes = (*said.notes, *_notes(place, listed, left_out))
    return replace(dataset, max_pixels=max_pixels, notes=notes)


def _notes(place: Place, listed: PhotoList | None, left_out: str) -> Iterator[str]:
    """What to say of the photos' names, of the lists and of photos that are not here."""
    odd = [name for name, path in place.photos.items() if is_odd(path, place.photo_folder)]
    if odd:
        yield (
            f"names that are not UTF-8: {len(odd)}, in which %XX stands for a byte: "
            f"{_first(odd)}; rename them, with convmv for example, if results should not have it"
        )
    yield from listed.notes if listed is not None else ()
    yield from (left_out,) if left_out else ()


def _dataset(
    place: Place,
    source: TagSource,
    classes: tuple[str, ...],
    rows: dict[str, TagRow],
    untagged: Untagged | None,
) -> Dataset:
    return Dataset(
        classes=classes,
        names=tuple(rows),
        tags=tag_matrix([row.tags for row in rows.values()], classes),
        known=_known(tuple(rows.values()), untagged, source),
        sources=tuple(place.file_of(name, row) for name, row in rows.items()),
    )


def _check_has_tags(source: TagSource, place: Place) -> None:
    if source.layout is None:
        raise TagError(
            "no tags: neither tags.csv nor metadata.jsonl nor class folders",
            where=place.folder,
            do="add one of them or give --tags; --untagged unknown for recipes that use none",
        )
    no_file = source.layout == "voc" and source.file is None
    if no_file and not (place.folder / "Annotations").is_dir():
        raise TagError("there are no Annotations", where=place.folder, do="give tags with --tags")


def _read(
    place: Place,
    source: TagSource,
    classes: Path | str | Sequence[str] | None,
    listed: PhotoList | None,
) -> tuple[tuple[str, ...], TagFile]:
    """The classes, and the photos' tags, which are among them."""
    class_list = _given_classes(classes, place, source)
    if class_list is None and source.layout is None:
        raise TagError(
            "nothing says which classes there are",
            where=place.folder,
            do="write their names, one a line in the order of the masks, into classes.txt",
        )
    said = _read_tags(place, source, class_list, listed)
    class_list = class_list or said.classes
    if class_list is None:
        found = sorted({tag for row in said.rows for tag in row.tags})
        class_list = class_names(found, where=source.where)
    check_tags(said.rows, class_list)
    return class_list, said


def _given_classes(
    classes: Path | str | Sequence[str] | None, place: Place, source: TagSource
) -> tuple[str, ...] | None:
    if isinstance(classes, str | Path):
        return read_classes(Path(classes))
    if classes is not None:
        return class_names(classes)
    if source.synsets:
        return tuple(dict.fromkeys(source.synsets.values()))
    file = _class_file(place, source)
    if file is not None:
        return read_classes(file)
    return VOC_CLASSES if source.layout == "voc" else None


def _class_file(place: Place, source: TagSource) -> Path | None:
    """The class list that lies beside the tags or the photos."""
    beside = (source.where.parent if source.file else None, place.folder, place.photo_folder)
    files = (folder / "classes.txt" for folder in beside if folder is not None)
    return next((file for file in files if file.is_file()), None)


def _read_tags(
    place: Place,
    source: TagSource,
    classes: tuple[str, ...] | None,
    listed: PhotoList | None,
) -> TagFile:
    if source.file is not None:
        return read_tag_file(source.file)
    if source.layout == "voc":
        names = place.photos if listed is None else listed.names
        rows = rows_of_annotations(place.folder / "Annotations", names, classes or VOC_CLASSES)
        return TagFile(rows)
    if source.layout == "imagenet":
        every = TagRow("", tuple(source.synsets.values()), str(source.where))
        check_tags([every], classes or every.tags)
        rows = rows_of_synset_folders(place.photos, source.synsets)
        check_classes_are_there(rows, source.synsets, place.photo_folder)
        return TagFile(rows)
    if source.layout in ("object_discovery", "object_discovery_100"):
        return TagFile(rows_of_object_discovery(place.photos))
    return TagFile(() if source.layout is None else rows_of_class_folders(place.photos))


def _listed_in_all(place: Place, splits: str | Path | Sequence[str | Path]) -> PhotoList:
    several = (splits,) if isinstance(splits, str | Path) else splits
    photos = NameLookup(place.photos, (place.photo_folder, place.folder))
    lists = [read_list(_list_file(place, split), photos) for split in several]
    return reduce(PhotoList.and_also, lists)


def _list_file(place: Place, split: str | Path) -> Path:
    """The file of a list, given as its path or its name; TagError if there is none."""
    named = (
        place.folder / "ImageSets" / "Segmentation" / f"{split}.txt",
        place.folder / f"{split}.txt",
    )
    file = next((path for path in (Path(split), *named) if path.is_file()), None)
    if file is None:
        raise no_list(split, place.folder)
    return file


def _by_name(rows: Iterable[TagRow], place: Place) -> dict[str, TagRow]:
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


def _pick(
    rows: dict[str, TagRow], listed: PhotoList, where: Path, problem: str, place: Place
) -> dict[str, TagRow]:
    absent = [name for name in listed.names if name not in rows]
    if absent:
        raise TagError(
            f"{len(absent)} of {len(listed.names)} listed photos {problem}: {_first(absent)}",
            where=where,
            do=f"add them, or take them off the list ({_about_absent(absent[0], listed, place)})",
        )
    return {name: rows[name] for name in listed.names}


def _about_absent(name: str, listed: PhotoList, place: Place) -> str:
    """Where a name of a list stands, and what is known of it."""
    if name in place.photos:
        return f"{listed.where[name]}; the photo '{name}' is there, without tags"
    near = NameLookup(place.photos).nearest(name)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{listed.where[name]}{hint}"


def _check_missing(rows: dict[str, TagRow], place: Place, allowed: float) -> str:
    """What to say of tagged photos that are not here; DataError if they are more than allowed."""
    missing = [name for name in rows if not place.file_of(name, rows[name]).exists()]
    if not missing:
        return ""
    told = f"{len(missing)} of {len(rows)} tagged photos are not here"
    if len(missing) > allowed * len(rows):
        advice = "check the folder and the names"
        if len(missing) < len(rows):
            share = -(-len(missing) * 100 // len(rows)) / 100
            advice += f", or go on without them: --allow-skipped {share:.2f}"
        raise DataError(f"{told}: {_first(missing)}", where=place.photo_folder, do=advice)
    return f"{told}, and left out: {_first(missing)}"


def _known(
    rows: Sequence[TagRow], untagged: Untagged | None, source: TagSource
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


def _is_mask(picture: Path, place: Place, masks: Path | str | None) -> bool:
    """Whether a picture lies in a folder ``masks`` among the photos."""
    if masks is None:
        return False
    folder, photos = Path(masks).resolve(), place.photo_folder.resolve()
    inside = folder != photos and folder.is_relative_to(photos)
    return inside and picture.resolve().is_relative_to(folder)


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)
