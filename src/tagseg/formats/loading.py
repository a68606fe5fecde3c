"""From a folder of photos, in any of the layouts, to a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset, tag_matrix
from tagseg.data.finding import notes_on_unread
from tagseg.data.pictures import MAX_PIXELS
from tagseg.errors import ConfigError, DataError, TagError
from tagseg.formats.class_folders import rows_of_class_folders
from tagseg.formats.class_lists import (
    ClassList,
    check_class_names,
    class_list,
    read_class_list,
)
from tagseg.formats.exclusion import parse_patterns
from tagseg.formats.layouts import Layout, Place, TagSource, find_photos_and_tags
from tagseg.formats.object_discovery import rows_of_object_discovery
from tagseg.formats.photo_lists import read_names
from tagseg.formats.photo_tree import kind_of_split
from tagseg.formats.synsets import check_classes_are_there, count_unlisted, rows_of_synset_folders
from tagseg.formats.tag_cells import separator_from
from tagseg.formats.tag_rows import TagFile, TagRow, check_tags, joined, settled, without_background
from tagseg.formats.tag_sources import read_tags_of_photos
from tagseg.formats.understood import understood
from tagseg.formats.voc import VOC_CLASSES, read_annotations

__all__ = [
    "ALL_SPLITS",
    "Layout",
    "OpenedPhotos",
    "Untagged",
    "load_dataset",
    "load_target",
    "open_photos",
]

Untagged = Literal["negative", "unknown"]

ALL_SPLITS = "all"
"""As the name of a list: the photos in all folders of splits."""

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
    exclude: str | Sequence[str] = (),
    tag_separator: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load a folder of photos with image-level tags; nothing is decoded yet, nothing written.

    Args:
        path: the folder; photos lie in it or in its ``JPEGImages``.
        tags: tag file of any known form, or a folder of annotations, one a photo; by default
            ``tags.csv`` or ``metadata.jsonl`` in the folder, or what the layout has, or the only
            file that names the photos.
        classes: the foreground classes in order, or a file of them; by default those of
            ``synsets``, else ``classes.txt`` beside the photos or the tags, else VOC's 20 in the
            VOC layout, else sorted names.
        untagged: whether photos without tags hold none of the classes, or may hold any. A folder
            without any tags is refused unless they may; its one class is then "object" where
            nothing else is said.
        layout: how the folder is laid out; by default what it looks like.
        split: a list file, or the name of one (``train`` for ImageSets/Segmentation/train.txt or
            train.txt), or of a folder of a split, or several: only these photos, in that order.
        synsets: a list of the WordNet synsets of each class (:func:`read_synsets`); the folder is
            then laid out as ImageNet, one folder per synset, in it or in its ``train``.
        exclude: patterns of pictures that are no photos, such as ``*_mask.png`` or ``masks``; one
            that begins with ``!`` keeps what looks like a mask (:mod:`tagseg.formats.exclusion`).
        tag_separator: what stands between tags in one cell of a tag file, or ``space``, ``comma``;
            by default what the file shows.
        max_pixels: refuse larger photos.

    Raises TagError for tags, classes or lists that cannot be used (and if photos without tags
    exist but ``untagged`` is not given), DataError for a folder that cannot, and if more than 1 %
    of the tagged photos are missing. Fewer stay in the dataset for the audit to report.
    """
    opened = open_photos(
        path,
        tags=tags,
        layout=layout,
        synsets=synsets,
        exclude=exclude,
        tag_separator=tag_separator,
        search=True,
    )
    return opened.load(split, classes=classes, untagged=untagged, max_pixels=max_pixels)


def open_photos(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    layout: Layout = "auto",
    synsets: Path | str | None = None,
    exclude: str | Sequence[str] = (),
    masks: Path | str | None = None,
    tag_separator: str | None = None,
    search: bool = False,
) -> OpenedPhotos:
    """Find the photos of a folder, and where their tags come from.

    Arguments and errors are those of :func:`load_dataset`. ``masks``: a folder of ground truth,
    whose pictures are no photos if it lies among them. ``search``: whether to look for files of
    other tools that tell the tags.
    """
    separator = separator_from(tag_separator)
    exclusion = parse_patterns(exclude).with_masks(_path(masks), Path(path))
    place, source = find_photos_and_tags(
        Path(path), _path(tags), layout, _path(synsets), exclusion, search=search
    )
    return OpenedPhotos(place, replace(source, separator=separator))


@dataclass(frozen=True)
class OpenedPhotos:
    """Photos that were found in a folder, not yet their tags.

    Attributes:
        place: where they are.
        source: where their tags come from.
    """

    place: Place
    source: TagSource

    def splits(self) -> dict[str, int]:
        """Number of photos in each folder of a split, such as ``train``; none if there is none."""
        return {split: len(names) for split, names in self.place.splits().items()}

    def load(
        self,
        split: str | Path | Sequence[str | Path] | None = None,
        *,
        classes: Path | str | Sequence[str] | None = None,
        untagged: Untagged | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Dataset:
        """The photos of a list, of several, or all, as :func:`load_dataset` does."""
        _check_untagged(untagged)
        place, source = self.place, self.source
        if source.layout is None and untagged == "unknown":  # as for recipes that use no tags
            told = classes is not None or _class_file(place, source) is not None
            anything = classes if told else _ANY_CLASS
            return _load_all(place, source, anything, split, max_pixels)
        _check_has_tags(source, place)
        listed = None if split is None else _listed_in_all(place, split)
        chosen, said = _read(place, source, classes, listed)
        if untagged != "unknown" and not _has_tag(said):
            whole = said if listed is None else _read(place, source, classes, None)[1]
            _check_some_tag(
                whole, chosen.names, source
            )  # a list may hold none, the folder must not
        by_name, said = _by_name(said, place)
        unlisted = len(place.photos.keys() - by_name.keys()) if source.file else 0
        if source.synsets:
            unlisted = count_unlisted(place.photo_folder, source.synsets)
        if split is not None and listed is not None:
            # Photos that a tag file leaves out are left out of the folders of splits, too.
            unnamed = _in_folders(place, split) - by_name.keys() if source.file else set()
            listed = tuple(name for name in listed if name not in unnamed)
            by_name = _pick(by_name, listed, source.where, "have no entry")
        dataset = _dataset(place, source, chosen, by_name, untagged, said.notes)
        return _told(dataset, place, source, said, max_pixels, unlisted)


def load_target(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    masks: Path | str | None = None,
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
    opened = open_photos(path, tags=tags, layout=layout, masks=masks)
    place, source = opened.place, opened.source
    if source.layout in ("folders", "split_folders") and layout == "auto":
        told = _class_file(place, source) is not None  # then the folders need not be classes
        source = replace(source, layout=None) if told else source
    return _load_all(place, source, classes, split, max_pixels)


def _load_all(
    place: Place,
    source: TagSource,
    classes: Path | str | Sequence[str] | None,
    split: str | Path | Sequence[str | Path] | None,
    max_pixels: int,
) -> Dataset:
    """All photos of the folder or of a list, with a tag or without."""
    listed = None if split is None else _listed_in_all(place, split)
    chosen, said = _read(place, source, classes, listed)
    by_name = {name: TagRow(name, (), name) for name in place.photos} | _by_name(said, place)[0]
    if listed is not None:
        by_name = _pick(by_name, listed, place.photo_folder, "are not here")
    dataset = _dataset(place, source, chosen, by_name, "unknown")
    return _told(dataset, place, source, said, max_pixels)


def _told(
    dataset: Dataset,
    place: Place,
    source: TagSource,
    said: TagFile,
    max_pixels: int,
    unlisted: int = 0,
) -> Dataset:
    """The dataset with all that was understood of its folder."""
    return replace(
        dataset,
        max_pixels=max_pixels,
        unlisted=unlisted,
        left_out=tuple(place.left_out.items()),
        notes=(
            *understood(place, source),
            *place.notes,
            *notes_on_unread(place.photo_folder),
            *said.notes,
        ),
    )


def _check_untagged(untagged: str | None) -> None:
    if untagged not in (None, *get_args(Untagged)):
        known = ", ".join(get_args(Untagged))
        raise ConfigError(f"untagged '{untagged}' does not exist", do=f"use one of {known}")


def _dataset(
    place: Place,
    source: TagSource,
    chosen: ClassList,
    rows: dict[str, TagRow],
    untagged: Untagged | None,
    notes: Sequence[str] = (),
) -> Dataset:
    _check_missing(rows, place)
    classes = chosen.names
    return Dataset(
        classes=classes,
        names=tuple(rows),
        tags=tag_matrix([row.tags for row in rows.values()], classes),
        known=_known(tuple(rows.values()), untagged, source, notes),
        sources=tuple(place.file_of(name, row) for name, row in rows.items()),
        legend=chosen.legend(),
    )


def _check_has_tags(source: TagSource, place: Place) -> None:
    if source.layout is None:
        raise TagError(
            "no tags: neither tags.csv nor metadata.jsonl nor class folders",
            where=place.folder,
            do=f"{_hint(place)}add one of them or give --tags; --untagged unknown for recipes that "
            "use none",
        )
    no_file = source.layout == "voc" and source.file is None
    if no_file and not (place.folder / "Annotations").is_dir():
        raise TagError("there are no Annotations", where=place.folder, do="give tags with --tags")


def _read(
    place: Place,
    source: TagSource,
    classes: Path | str | Sequence[str] | None,
    listed: Sequence[str] | None,
) -> tuple[ClassList, TagFile]:
    """The classes, and the photos' tags, which are among them."""
    chosen = _given_classes(classes, place, source)
    if chosen is None and source.layout is None:
        raise TagError(
            "nothing says which classes there are",
            where=place.folder,
            do="write their names, one a line in the order of the masks, into classes.txt",
        )
    known = chosen.names if chosen is not None else None
    said = without_background(_read_tags(place, source, known, listed), known)
    if chosen is None:
        found = said.classes or sorted({tag for row in said.rows for tag in row.tags})
        check_class_names(found, source.where)
        chosen = ClassList(tuple(found))
    check_tags(said.rows, chosen.names)
    return chosen, replace(said, notes=(*source.notes, *chosen.notes, *said.notes))


def _given_classes(
    classes: Path | str | Sequence[str] | None, place: Place, source: TagSource
) -> ClassList | None:
    if isinstance(classes, str | Path):
        return read_class_list(Path(classes))
    if classes is not None:
        return class_list(classes)
    if source.synsets:
        return ClassList(tuple(dict.fromkeys(source.synsets.values())))
    file = _class_file(place, source)
    if file is not None:
        return read_class_list(file)
    return ClassList(VOC_CLASSES) if source.layout == "voc" and source.file is not None else None


def _class_file(place: Place, source: TagSource) -> Path | None:
    """The class list that lies beside the tags or the photos."""
    beside = (
        source.where.parent if source.file else None,
        place.folder,
        place.photo_folder,
        place.given,
    )
    files = (folder / "classes.txt" for folder in beside if folder is not None)
    return next((file for file in files if file.is_file()), None)


def _read_tags(
    place: Place,
    source: TagSource,
    classes: tuple[str, ...] | None,
    listed: Sequence[str] | None,
) -> TagFile:
    if source.file is not None:
        files = source.files or (source.file,)
        return read_tags_of_photos(files, place.photos, place.name_of, classes, source.separator)
    if source.layout == "voc":
        names = place.photos if listed is None else listed
        return read_annotations(place.folder / "Annotations", names, place.photos, classes)
    if source.layout == "imagenet":
        every = TagRow("", tuple(source.synsets.values()), str(source.where))
        check_tags([every], classes or every.tags)
        rows = rows_of_synset_folders(place.photos, source.synsets)
        check_classes_are_there(rows, source.synsets, place.photo_folder)
        return TagFile(rows)
    if source.layout in ("object_discovery", "object_discovery_100"):
        return TagFile(rows_of_object_discovery(place.photos))
    return TagFile(() if source.layout is None else rows_of_class_folders(place.photos, place.tree))


def _listed_in_all(place: Place, splits: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    several = (splits,) if isinstance(splits, str | Path) else splits
    return tuple(dict.fromkeys(name for split in several for name in _listed(place, split)))


def _listed(place: Place, split: str | Path) -> tuple[str, ...]:
    file = _list_file(place, split)
    if file is None:
        return _in_split(place, str(split))
    return tuple(dict.fromkeys(place.name_of(name) for name in read_names(file)))


def _list_file(place: Place, split: str | Path) -> Path | None:
    named = (
        folder / inner
        for folder in dict.fromkeys((place.folder, place.given))
        for inner in (Path("ImageSets", "Segmentation", f"{split}.txt"), f"{split}.txt")
    )
    return next((path for path in (Path(split), *named) if path.is_file()), None)


def _in_folders(place: Place, splits: str | Path | Sequence[str | Path]) -> set[str]:
    """The photos that no list names, but the folder of a split holds."""
    several = (splits,) if isinstance(splits, str | Path) else splits
    folders = (str(split) for split in several if _list_file(place, split) is None)
    return {name for split in folders for name in _in_split(place, split)}


def _in_split(place: Place, split: str) -> tuple[str, ...]:
    """The photos in the folder of a split: of that name, else of that kind (val for valid)."""
    splits = place.splits()
    if splits and split == ALL_SPLITS:
        return tuple(place.photos)
    alike = [name for name in splits if kind_of_split(name) == kind_of_split(split) is not None]
    names = splits.get(split) or (splits[alike[0]] if len(alike) == 1 else None)
    if names is None:
        advice = f"give a list file, or one of the folders {', '.join(splits)}"
        raise TagError(
            f"there is no list '{split}'",
            where=place.folder,
            do=advice if splits else "give a list file",
        )
    return names


def _by_name(said: TagFile, place: Place) -> tuple[dict[str, TagRow], TagFile]:
    """The row of each photo; several are put together where the source says so."""
    found: dict[str, TagRow] = {}
    again = 0
    for row in said.rows:
        name = place.name_of(row.image)
        first = found.setdefault(name, row)
        if first is row:
            continue
        if said.merge:
            again += 1
            found[name] = joined(first, row)
        elif set(first.tags) != set(row.tags):
            raise TagError(
                f"photo '{row.image}' is listed again with other tags",
                where=row.where,
                do="keep one of the lines",
            )
    if again:
        note = f"{again} rows name a photo of another row: the tags of one photo are put together"
        said = replace(said, notes=(*said.notes, note))
    return {name: settled(row) for name, row in found.items()}, said


def _has_tag(said: TagFile) -> bool:
    return any(row.tags for row in said.rows)


def _check_some_tag(said: TagFile, classes: Sequence[str], source: TagSource) -> None:
    if not _has_tag(said):
        raise TagError(
            f"not one of {len(said.rows)} photos has a tag (of {_first(classes)})",
            where=source.where,
            do="check the tags and the class list, or give --tags FILE",
        )


def _pick(
    rows: dict[str, TagRow], listed: Sequence[str], where: Path, problem: str
) -> dict[str, TagRow]:
    absent = [name for name in listed if name not in rows]
    if absent:
        raise TagError(
            f"{len(absent)} of {len(listed)} listed photos {problem}: {_first(absent)}",
            where=where,
            do="add them, or take them off the list",
        )
    return {name: rows[name] for name in listed}


def _check_missing(rows: dict[str, TagRow], place: Place) -> None:
    missing = [name for name in rows if not place.file_of(name, rows[name]).exists()]
    if len(missing) > _MAX_MISSING * len(rows):
        raise DataError(
            f"{len(missing)} of {len(rows)} tagged photos are not here: {_first(missing)}",
            where=place.photo_folder,
            do="check the folder and the names",
        )


def _known(
    rows: Sequence[TagRow], untagged: Untagged | None, source: TagSource, notes: Sequence[str]
) -> npt.NDArray[np.bool_]:
    said = np.array([bool(row.tags) or row.complete for row in rows], bool)
    if untagged is None and not said.all():
        words = next((f" (note: {note})" for note in notes if "means no tags" in note), "")
        raise TagError(
            f"{np.count_nonzero(~said)} of {len(rows)} photos have no tags",
            where=source.where,
            do=f"say what that means: --untagged negative (none of the classes) or unknown{words}",
        )
    return said | (untagged == "negative")


def _hint(place: Place) -> str:
    """What was found where there are no tags: masks, and folders that are no classes."""
    masks = place.left_out.get("masks", 0)
    start = f"{masks} pictures are masks, from which no tags are read; " if masks else ""
    return start + _hint_on_folders(place)


def _hint_on_folders(place: Place) -> str:
    names = sorted({name.partition("/")[0] for name in place.photos if "/" in name})
    if names:
        return f"folders {_first(names)} are no classes (--layout folders makes them so); "
    if place.photo_folder != place.given:
        inner = place.photo_folder.relative_to(place.given).as_posix()
        return f"{inner} holds all photos and is no class (--layout folders makes it one); "
    return ""


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)
