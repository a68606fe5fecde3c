"""From a folder of photos, in any of the layouts, to a Dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset, Origin, tag_matrix
from tagseg.data.finding import is_odd
from tagseg.data.paths import Paths
from tagseg.data.pictures import MAX_PIXELS
from tagseg.errors import ConfigError, DataError, TagError, first_few
from tagseg.formats.folders.class_folders import rows_of_class_folders
from tagseg.formats.folders.exclusion import parse_patterns
from tagseg.formats.folders.layouts import Layout, Place, TagSource, find_photos_and_tags
from tagseg.formats.folders.object_discovery import rows_of_object_discovery
from tagseg.formats.folders.selection import listed_photos, only_listed, unnamed_in_folders
from tagseg.formats.folders.synsets import (
    check_classes_are_there,
    count_unlisted,
    rows_of_synset_folders,
)
from tagseg.formats.folders.understood import understood
from tagseg.formats.folders.webdataset import WEBDATASET
from tagseg.formats.folders.youtube_objects import FrameChoice
from tagseg.formats.lists.class_lists import (
    ClassList,
    check_class_names,
    class_list,
    read_class_list,
)
from tagseg.formats.lists.photo_lists import PhotoList
from tagseg.formats.tags.samples import read_sample_tags
from tagseg.formats.tags.tag_cells import separator_from
from tagseg.formats.tags.tag_rows import (
    TagFile,
    TagRow,
    check_tags,
    joined,
    settled,
    without_background,
)
from tagseg.formats.tags.tag_sources import read_tags_of_photos
from tagseg.formats.tags.voc import VOC_CLASSES, read_annotations

__all__ = [
    "MAX_MISSING",
    "Layout",
    "OpenedPhotos",
    "Reading",
    "Untagged",
    "load_dataset",
    "load_target",
    "open_photos",
]

Untagged = Literal["negative", "unknown"]

_ANY_CLASS = ("object",)  # of photos without any tags
MAX_MISSING = 0.01
"""Share of the tagged photos that may be missing from the folder, if nothing else is said."""


@dataclass(frozen=True)
class Reading:
    """What may be said of a folder's photos and tags, where they do not show it themselves.

    Attributes:
        exclude: patterns of pictures that are no photos, such as ``*_mask.png`` or ``masks``; one
            that begins with ``!`` keeps what looks like a mask
            (:mod:`tagseg.formats.folders.exclusion`).
        tag_separator: what stands between tags in one cell of a tag file, or ``space``, ``comma``.
        allow_missing: share of the tagged photos that may be missing.
        max_pixels: refuse larger photos.
        frames_per_class: of YouTube-Objects alone: most training frames of a class, spread evenly;
            0 for all, None for those of Saleh et al., 2,200.
    """

    exclude: str | Sequence[str] = ()
    tag_separator: str | None = None
    allow_missing: float = MAX_MISSING
    max_pixels: int = MAX_PIXELS
    frames_per_class: int | None = None


def load_dataset(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    untagged: Untagged | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    synsets: Path | str | None = None,
    how: Reading = Reading(),
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
        how: what else there is to say.

    Raises TagError for tags, classes or lists that cannot be used (and if photos without tags
    exist but ``untagged`` is not given), DataError for a folder that cannot, and if more of the
    tagged photos are missing than allowed. Fewer stay in the dataset for the audit to report.
    """
    opened = open_photos(path, tags=tags, layout=layout, synsets=synsets, how=how, search=True)
    return opened.load(split, classes=classes, untagged=untagged, max_pixels=how.max_pixels)


def open_photos(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    layout: Layout = "auto",
    synsets: Path | str | None = None,
    masks: Path | str | None = None,
    how: Reading = Reading(),
    search: bool = False,
) -> OpenedPhotos:
    """Find the photos of a folder, and where their tags come from.

    Arguments and errors are those of :func:`load_dataset`. ``masks``: a folder of ground truth,
    whose pictures are no photos if it lies among them. ``search``: whether to look for files of
    other tools that tell the tags.
    """
    separator = separator_from(how.tag_separator)
    exclusion = parse_patterns(how.exclude).with_masks(_path(masks), Path(path))
    place, source = find_photos_and_tags(
        Path(path),
        _path(tags),
        layout,
        _path(synsets),
        exclusion,
        search=search,
        frames=FrameChoice(_path(masks), how.frames_per_class),
    )
    source = replace(source, separator=separator)
    return OpenedPhotos(place, source, how.allow_missing, _path(tags))


@dataclass(frozen=True)
class OpenedPhotos:
    """Photos that were found in a folder, not yet their tags.

    Attributes:
        place: where they are.
        source: where their tags come from.
        allow_missing: share of the tagged photos that may be missing.
        tags: the tag file that the user named, if any.
    """

    place: Place
    source: TagSource
    allow_missing: float = MAX_MISSING
    tags: Path | None = None

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
        if split is None:
            _check_something_to_train_on(place, source)
        if source.layout is None and untagged == "unknown":  # as for recipes that use no tags
            told = classes is not None or _class_file(place, source) is not None
            anything = classes if told else _ANY_CLASS
            return self.load_all(split, anything, max_pixels)
        _check_has_tags(source, place)
        listed = None if split is None else listed_photos(place, split)
        chosen, said = _read(place, source, classes, listed)
        if untagged != "unknown" and not _has_tag(said):
            # A list may hold none, the folder must not.
            whole = said if listed is None else _read(place, source, classes, None)[1]
            _check_some_tag(whole, chosen.names, source)
        by_name, said = _by_name(said, place)
        unlisted = len(place.photos.keys() - by_name.keys()) if source.file else 0
        if source.synsets:
            unlisted = count_unlisted(place.photo_folder, source.synsets)
        if split is not None and listed is not None:
            # Photos that a tag file leaves out are left out of the folders of splits, too.
            unnamed = unnamed_in_folders(place, split, by_name) if source.file else frozenset()
            listed = listed.without(unnamed)
            by_name = only_listed(by_name, listed, source.where, "have no entry", place)
        missing = _check_missing(by_name, place, self.allow_missing)
        dataset = _dataset(place, source, chosen, by_name, untagged, said.notes)
        notes = (*said.notes, *_notes(place, listed, missing))
        return self._told(dataset, notes, max_pixels, unlisted)

    def load_all(
        self,
        split: str | Path | Sequence[str | Path] | None = None,
        classes: Path | str | Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Dataset:
        """All photos of the folder or of a list, with a tag or without."""
        place, source = self.place, self.source
        listed = None if split is None else listed_photos(place, split)
        chosen, said = _read(place, source, classes, listed)
        tagged, _ = _by_name(said, place)
        by_name = {name: TagRow(name, (), name) for name in place.photos} | tagged
        if listed is not None:
            by_name = only_listed(by_name, listed, place.photo_folder, "are not here", place)
        missing = _check_missing(by_name, place, self.allow_missing)
        dataset = _dataset(place, source, chosen, by_name, "unknown")
        return self._told(dataset, (*said.notes, *_notes(place, listed, missing)), max_pixels)

    def _told(
        self, dataset: Dataset, notes: Sequence[str], max_pixels: int, unlisted: int = 0
    ) -> Dataset:
        """The dataset with all that was understood of its folder."""
        place = self.place
        return replace(
            dataset,
            max_pixels=max_pixels,
            unlisted=unlisted,
            left_out=tuple(place.left_out.items()),
            notes=(
                *understood(place, self.source),
                *place.notes,
                *notes,
            ),
            origin=Origin(place.given, self.tags),
        )


def load_target(
    path: Path | str,
    *,
    tags: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    layout: Layout = "auto",
    split: str | Path | Sequence[str | Path] | None = None,
    masks: Path | str | None = None,
    allow_missing: float = MAX_MISSING,
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
    how = Reading(allow_missing=allow_missing)
    opened = open_photos(path, tags=tags, layout=layout, masks=masks, how=how)
    by_folder = layout == "auto" and opened.source.layout in ("folders", "split_folders")
    if by_folder and _class_file(opened.place, opened.source) is not None:
        # The folders need not be classes.
        opened = replace(opened, source=replace(opened.source, layout=None))
    return opened.load_all(split, classes, max_pixels)


def _notes(place: Place, listed: PhotoList | None, left_out: str) -> Iterator[str]:
    """What to say of the photos' names, of the lists and of photos that are not here."""
    odd = [name for name, path in place.photos.items() if is_odd(path, place.photo_folder)]
    if odd:
        yield (
            f"names that are not UTF-8: {len(odd)}, in which %XX stands for a byte: "
            f"{first_few(odd)}; rename them, with convmv for example, if results should not have it"
        )
    yield from listed.notes if listed is not None else ()
    yield from (left_out,) if left_out else ()


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
    classes = chosen.names
    return Dataset(
        classes=classes,
        names=tuple(rows),
        tags=tag_matrix([row.tags for row in rows.values()], classes),
        unsure=tag_matrix([row.unsure for row in rows.values()], classes),
        absent=_absent(rows.values(), classes),
        known=_known(tuple(rows.values()), untagged, source, notes),
        sources=Paths(place.file_of(name, row) for name, row in rows.items()),
        legend=chosen.legend(),
    )


def _absent(rows: Collection[TagRow], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which classes are surely in no photo; one that is to be learned by nobody is of no use.

    Raises TagError where a photo's line says both.
    """
    for row in rows:
        both = next((tag for tag in row.absent if tag in row.tags), None)
        if both is not None:
            what = f"'{both}' is in photo '{row.image}' and is not"
            raise TagError(what, where=row.where, do="keep one of the two")
    known = set(classes)
    return tag_matrix([[tag for tag in row.absent if tag in known] for row in rows], classes)


def _check_something_to_train_on(place: Place, source: TagSource) -> None:
    if source.layout == "youtube_objects" and "train" not in place.splits():
        raise DataError(
            "all shots have masks, and none is left to train on",
            where=place.photo_folder,
            do="give the folder of all shots, and that of the masks with --ground-truth; or lists "
            "with --train and --val",
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
    listed: PhotoList | None,
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
    listed: PhotoList | None,
) -> TagFile:
    if source.said is not None:
        return source.said
    if source.file is not None:
        files = source.files or (source.file,)
        return read_tags_of_photos(files, place.photos, place.name_of, classes, source.separator)
    if source.layout == "voc":
        names = place.photos if listed is None else listed.names
        return read_annotations(place.folder / "Annotations", names, place.photos, classes)
    if source.layout == WEBDATASET:
        return read_sample_tags(place.photos, classes, source.separator)
    if source.layout == "imagenet":
        every = TagRow("", tuple(source.synsets.values()), str(source.where))
        check_tags([every], classes or every.tags)
        rows = rows_of_synset_folders(place.photos, source.synsets)
        check_classes_are_there(rows, source.synsets, place.photo_folder)
        return TagFile(rows)
    if source.layout in ("object_discovery", "object_discovery_100"):
        return TagFile(rows_of_object_discovery(place.photos))
    return TagFile(() if source.layout is None else rows_of_class_folders(place.photos, place.tree))


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
        elif set(first.tags) != set(row.tags) or set(first.unsure) != set(row.unsure):
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
            f"not one of {len(said.rows)} photos has a tag (of {first_few(classes)})",
            where=source.where,
            do="check the tags and the class list, or give --tags FILE",
        )


def _check_missing(rows: dict[str, TagRow], place: Place, allowed: float) -> str:
    """What to say of tagged photos that are not here; DataError if they are more than allowed."""
    missing = [name for name in rows if not place.has(name, rows[name])]
    if not missing:
        return ""
    told = f"{len(missing)} of {len(rows)} tagged photos are not here"
    if len(missing) > allowed * len(rows):
        advice = "check the folder and the names"
        if len(missing) < len(rows):
            share = -(-len(missing) * 100 // len(rows)) / 100
            advice += f", or go on without them: --allow-skipped {share:.2f}"
        raise DataError(f"{told}: {first_few(missing)}", where=place.photo_folder, do=advice)
    return f"{told}, and left out: {first_few(missing)}"


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
        return f"folders {first_few(names)} are no classes (--layout folders makes them so); "
    if place.photo_folder != place.given:
        inner = place.photo_folder.relative_to(place.given).as_posix()
        return f"{inner} holds all photos and is no class (--layout folders makes it one); "
    return ""


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)
