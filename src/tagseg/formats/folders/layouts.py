"""Where a data set's photos lie and where their tags come from, in each of the layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from unicodedata import normalize

from tagseg.data.finding import (
    Listing,
    advice_without_photos,
    is_picture,
    list_pictures,
    notes_on_unread,
    visible_entries,
    without_suffix,
)
from tagseg.data.no_folder import no_folder
from tagseg.data.paths import renamed
from tagseg.data.text import readable
from tagseg.errors import ConfigError, DataError, TagError
from tagseg.formats.folders.coco import CocoTags, instance_files, read_coco_tags
from tagseg.formats.folders.exclusion import NOTHING, Exclusion
from tagseg.formats.folders.object_discovery import (
    CLASSES,
    MASKS,
    class_folders,
    folder_of_classes,
    is_object_discovery,
    which_set,
)
from tagseg.formats.folders.photo_files import PhotoFiles, choose_photos, refuse_output
from tagseg.formats.folders.photo_tree import CONTAINERS, Tree, is_split, read_tree
from tagseg.formats.folders.synsets import folder_of_synsets, read_synsets
from tagseg.formats.folders.webdataset import (
    WEBDATASET,
    has_sample_tags,
    list_samples,
    splits_of_tars,
)
from tagseg.formats.folders.youtube_objects import (
    AS_PUBLISHED,
    FrameChoice,
    find_frames,
    is_youtube_objects,
)
from tagseg.formats.tags.tag_rows import TagFile, TagRow
from tagseg.formats.tags.tag_sources import find_tag_files
from tagseg.formats.tags.voc import is_voc
from tagseg.tar_members import member_at

__all__ = ["Layout", "Place", "TagSource", "find_photos_and_tags"]

Layout = Literal[
    "auto",
    "csv",
    "jsonl",
    "folders",
    "voc",
    "imagenet",
    "object_discovery",
    "object_discovery_100",
    "youtube_objects",
    "split_folders",
    "inner_folders",
    "coco",
    "webdataset",
]
_TAG_FILES: dict[Layout, str] = {"csv": "tags.csv", "jsonl": "metadata.jsonl"}
_CLASS_FOLDERS = ("folders", "split_folders", "inner_folders")
_OBJECT_DISCOVERY = ("object_discovery", "object_discovery_100")
_YOUTUBE: Layout = "youtube_objects"
_TABLES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".xml"])
_VOC_PHOTOS = "JPEGImages"


def find_photos_and_tags(
    folder: Path,
    tags: Path | None,
    layout: Layout,
    synsets: Path | None = None,
    exclusion: Exclusion = NOTHING,
    *,
    search: bool = False,
    frames: FrameChoice = AS_PUBLISHED,
) -> tuple[Place, TagSource]:
    """The photos in ``folder``, named, and where their tags come from.

    Args:
        tags: a tag file; None for what lies in the folder.
        layout: ``auto`` for what the folder looks like.
        synsets: a list of synsets, for the layout ``imagenet`` alone.
        exclusion: pictures that the user leaves out or keeps.
        search: for ``auto``, whether to look for files of other tools that tell the tags.
        frames: which frames of videos are taken, of the layout ``youtube_objects`` alone.

    Raises ConfigError if these exclude each other, DataError if there are no photos or if it cannot
    be told what is one, TagError for a list of synsets that cannot be used.
    """
    _check_fit(tags, layout, synsets)
    if synsets is not None:
        _check_frames(frames, "imagenet")
        classes = read_synsets(synsets)
        place = Place.at(folder, "imagenet", classes, exclusion)
        return place, TagSource("imagenet", None, synsets, classes)
    home = _unwrapped(folder) if layout == "auto" and tags is None else folder
    has_tags = tags is not None or _tag_file_in(home) is not None
    if layout == "auto" and not has_tags and not is_voc(home) and is_object_discovery(home):
        layout = "object_discovery_100" if which_set(home) else "object_discovery"
    elif layout == "auto" and not has_tags and not is_voc(home) and is_youtube_objects(home):
        layout = _YOUTUBE
    _check_frames(frames, layout)
    place = Place.at(home, layout, exclusion=exclusion, given=folder, frames=frames)
    coco = _coco(place, tags, layout) if not has_tags or layout == "coco" else None
    if coco is not None:
        return replace(place, by_file=coco.splits), _source_of_coco(coco)
    place = replace(place, by_file=splits_of_tars(place.photos))
    source = _tag_source(place, tags, layout, search=search)
    if source.file is None and place.doubt is not None:
        raise place.doubt
    return place, source


def _check_frames(frames: FrameChoice, layout: Layout) -> None:
    if frames.per_class is not None and layout != _YOUTUBE:
        what = "--frames-per-class is for the layout youtube_objects alone"
        raise ConfigError(what, do="leave it away")


def _coco(place: Place, tags: Path | None, layout: Layout) -> CocoTags | None:
    """What COCO's files say, if the folder has its layout; TagError for files of no use."""
    if layout not in ("auto", "coco") or (layout == "auto" and is_voc(place.folder)):
        return None
    files = instance_files(place.folder) if tags is None else (tags,)
    if not files and layout == "auto":
        return None
    if not files:
        raise TagError(
            "has no instances_*.json, nor has its annotations",
            where=place.folder,
            do="give one with --tags FILE",
        )
    found = read_coco_tags(files, place.photos, place.name_of)
    if not found.files and layout == "coco":
        what = "names none of the photos that are here"
        raise TagError(what, where=files[0], do="check the folder and the names")
    return found if found.files else None


def _source_of_coco(found: CocoTags) -> TagSource:
    first = found.files[0]
    return TagSource("coco", first, first, files=found.files, said=found.said)


def _check_fit(tags: Path | None, layout: Layout, synsets: Path | None) -> None:
    if layout not in get_args(Layout):
        known = ", ".join(get_args(Layout))
        raise ConfigError(f"layout '{layout}' does not exist", do=f"use one of {known}")
    if layout == "imagenet" and synsets is None:
        raise ConfigError("layout 'imagenet' needs a list of synsets", do="give --synsets FILE")
    if synsets is not None and layout not in ("auto", "imagenet"):
        raise ConfigError(f"synsets and the layout '{layout}' exclude each other", do="drop one")
    if synsets is not None and tags is not None:
        raise ConfigError("synsets and tags exclude each other", do="drop one")
    if tags is not None and layout in (*_CLASS_FOLDERS, *_OBJECT_DISCOVERY, _YOUTUBE, WEBDATASET):
        raise ConfigError(f"tags and the layout '{layout}' exclude each other", do="drop one")


def _unwrapped(folder: Path) -> Path:
    """The folder that is alone in ``folder`` and looks like a whole data set, or ``folder``."""
    below, names = visible_entries(folder) if folder.is_dir() else ([], [])
    if is_youtube_objects(folder):
        return folder
    if len(below) != 1 or any(map(is_picture, names)) or _may_tell_tags(names):
        return folder
    inner = folder / below[0]
    plain = inner.name.lower() in CONTAINERS or is_split(inner.name)
    return folder if plain or not _is_data_set(inner) else _unwrapped(inner)


def _is_data_set(folder: Path) -> bool:
    """Whether it holds tags, or no photos but several folders, or one that says no class."""
    below, names = visible_entries(folder)
    if _may_tell_tags(names) or is_voc(folder) or is_object_discovery(folder):
        return True
    if not below or any(map(is_picture, names)):
        return False
    alone = below[0]
    plain = alone.lower() in CONTAINERS or is_split(alone)
    return len(below) > 1 or plain or _is_data_set(folder / alone)


def _may_tell_tags(files: Iterable[str]) -> bool:
    return any(Path(name).suffix.lower() in _TABLES for name in files)


@dataclass(frozen=True)
class Place:
    """Where the photos are, and their names.

    Attributes:
        folder: the data set; ``given`` or the one folder in it.
        photo_folder: where names begin: ``folder``, or a folder of all photos in it.
        photos: name -> file, sorted.
        composed: Unicode-composed name -> name; macOS stores names decomposed.
        given: the folder that the user named.
        tree: what the photos' folders mean.
        left_out: reason -> number of pictures that are no photos.
        notes: what should be said of that, a line each.
        doubt: to be raised if no tag file tells photos and masks apart.
        by_file: split -> its photos, in a layout whose files tell them.
    """

    folder: Path
    photo_folder: Path
    photos: Mapping[str, Path]
    composed: dict[str, str]
    given: Path
    tree: Tree = field(default_factory=Tree)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubt: DataError | None = None
    by_file: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        folder: Path,
        layout: Layout,
        synsets: Iterable[str] = (),
        exclusion: Exclusion = NOTHING,
        given: Path | None = None,
        frames: FrameChoice = AS_PUBLISHED,
    ) -> Place:
        """The photos that the layout has in ``folder``; DataError if there are none."""
        given = given if given is not None else folder
        if not folder.is_dir():
            raise no_folder(folder)
        for place in (given, folder):
            refuse_output(place)
        home, listing, tree, notes = _pictures(folder, layout, synsets, frames)
        found = choose_photos(listing, exclusion, prefix=_prefix(home, given))
        if not found.photos:
            why = "".join(f"; {note}" for note in found.notes)
            raise DataError(_no_photos(layout) + why, where=home, do=advice_without_photos(home))
        if home == folder and layout not in (*_CLASS_FOLDERS, _YOUTUBE):
            home, found = _in_container(home, found)
        composed = {normalize("NFC", name): name for name in found.photos}
        if tree is None:
            tree = read_tree({name.rpartition("/")[0] for name in found.photos}, layout)
        return cls(
            folder,
            home,
            found.photos,
            composed,
            given,
            tree,
            found.left_out,
            (*notes, *found.notes, *(notes_on_unread(home) if layout != _YOUTUBE else ())),
            found.doubt,
        )

    def name_of(self, written: str) -> str:
        """The photo's name for what a tag file or list calls it, found or not."""
        found = self.photo_of(written)
        return found if found is not None else without_suffix(self._inner(_tidy(written)))

    def photo_of(self, written: str) -> str | None:
        """The name of the photo that is called so; None if there is none."""
        path = _tidy(written)
        if path in self.photos:
            return path
        inner = self._inner(path)
        for candidate in (path, without_suffix(path), inner, without_suffix(inner)):
            name = self.composed.get(normalize("NFC", candidate))
            if name is not None:
                return name
        return None

    def _inner(self, path: str) -> str:
        """The path without the folders in which all photos lie."""
        start = next((start for start in self._starts if path.startswith(start)), "")
        return path.removeprefix(start)

    @cached_property
    def _starts(self) -> tuple[str, ...]:
        """What a path may begin with before the photo's name."""
        parts = _prefix(self.photo_folder, self.given).split("/")[:-1] or [_VOC_PHOTOS]
        return tuple("/".join(parts[i:]) + "/" for i in range(len(parts)))

    def file_of(self, name: str, row: TagRow) -> Path:
        """The photo's file; for one that is missing, where it was looked for."""
        return self.photos[name] if name in self.photos else self.photo_folder / row.image

    def has(self, name: str, row: TagRow) -> bool:
        """Whether the photo's file, or its member of a tar, is there."""
        path = self.file_of(name, row)
        return path.exists() or member_at(path) is not None

    def splits(self) -> dict[str, tuple[str, ...]]:
        """The photos' names by their split, where files or folders tell it."""
        if self.by_file:
            return dict(self.by_file)
        found: dict[str, list[str]] = {}
        for name in self.photos:
            split = self.tree.split_of(name)
            if split is not None:
                found.setdefault(split, []).append(name)
        return {split: tuple(names) for split, names in found.items()}


class _Pictures(NamedTuple):
    """Where the layout's photos lie, the pictures there, and what the layout itself says."""

    home: Path
    listing: Listing
    tree: Tree | None = None
    notes: tuple[str, ...] = ()


def _pictures(
    folder: Path, layout: Layout, synsets: Iterable[str], frames: FrameChoice
) -> _Pictures:
    if layout == _YOUTUBE:
        return _Pictures(*find_frames(folder, frames))
    if layout == WEBDATASET:
        return _Pictures(folder, list_samples(folder))
    if layout == "imagenet":
        home = folder_of_synsets(folder, synsets)
        return _Pictures(home, _listed_in(home / wnid for wnid in synsets))
    if layout in _OBJECT_DISCOVERY:
        found = _listed_in(class_folders(folder, subset=layout.endswith("_100")))
        files = {name: path for name, path in found.files.items() if MASKS not in name.split("/")}
        return _Pictures(folder_of_classes(folder), found._replace(files=files))
    inner = folder / _VOC_PHOTOS
    home = inner if inner.is_dir() else folder
    return _Pictures(home, list_pictures(home))


def _tidy(written: str) -> str:
    return written.replace("\\", "/").removeprefix("./")


def _prefix(folder: Path, given: Path) -> str:
    inside = readable(folder.relative_to(given).as_posix())
    return "" if inside == "." else f"{inside}/"


def _in_container(home: Path, found: PhotoFiles) -> tuple[Path, PhotoFiles]:
    """Photos that all lie in a folder such as ``images`` are named from there."""
    first = next(iter(found.photos)).partition("/")[0]
    if first.lower() not in CONTAINERS or not all(n.startswith(f"{first}/") for n in found.photos):
        return home, found
    photos = renamed(found.photos, ((name[len(first) + 1 :], name) for name in found.photos))
    return _in_container(home / first, replace(found, photos=photos))


@dataclass(frozen=True)
class TagSource:
    """Where the tags come from: a file, or else the layout's own place.

    ``layout`` None: there are no tags. ``synsets``: the class of each, of the layout imagenet.
    ``files``: all files (or folders of annotations) that belong to ``file``, which is the first.
    ``notes``: how it was found, a line each. ``separator``: what the user says stands between tags.
    ``said``: what the files say, where the layout had to read them.
    """

    layout: Layout | None
    file: Path | None
    where: Path
    synsets: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    separator: str | None = None
    said: TagFile | None = None


def _tag_source(
    place: Place, tags: Path | None, layout: Layout, *, search: bool = False
) -> TagSource:
    folder = place.folder
    if tags is not None:
        voc = layout == "voc" or (layout == "auto" and is_voc(folder))
        return TagSource("voc" if voc else layout, tags, tags)
    beside = {kind: folder / name for kind, name in _TAG_FILES.items()}
    if layout == "auto":
        return _guess(place, search=search)
    if layout == "voc" and not (folder / "Annotations").is_dir():
        file = next((path for path in beside.values() if path.is_file()), None)
        return TagSource("voc", file, file or folder)
    own = beside.get(layout)
    return TagSource(layout, own, own or folder)


def _guess(place: Place, *, search: bool) -> TagSource:
    if is_voc(place.folder):
        return _tag_source(place, None, "voc")
    for folder in (place.folder, place.photo_folder):
        found = _tag_file_in(folder)
        if found is not None:
            return TagSource(found[0], found[1], found[1])
    parts = _tag_files_in_parts(place)
    if parts:
        return TagSource(parts[0][0], parts[0][1], parts[0][1], files=tuple(f for _, f in parts))
    notes: tuple[str, ...] = ()
    if search:
        files, notes = find_tag_files(
            place.folder, place.photos, place.name_of, place.tree.class_of
        )
        if files:
            return TagSource("csv", files[0], files[0], files=files, notes=notes)
    if has_sample_tags(place.photos):
        return TagSource(WEBDATASET, None, place.folder, notes=notes)
    if place.tree.doubt:
        raise DataError(place.tree.doubt, where=place.photo_folder, do=_WAYS)
    if any(name is not None for name in place.tree.classes.values()):
        has_splits = any(name is not None for name in place.tree.splits.values())
        layout: Layout = "split_folders" if has_splits else "folders"
        return TagSource(layout, None, place.folder, notes=notes)
    return TagSource(None, None, place.folder, notes=notes)


_WAYS = (
    "say which: --layout folders (the first folder is the class), split_folders (the first is the "
    "split, the second the class) or inner_folders (the last is the class); give tags with --tags; "
    "or leave folders out with --exclude NAME"
)


def _tag_file_in(folder: Path) -> tuple[Layout, Path] | None:
    """The tag file that lies in a folder, and its layout."""
    found = ((layout, folder / name) for layout, name in _TAG_FILES.items())
    return next((each for each in found if each[1].is_file()), None)


def _tag_files_in_parts(place: Place) -> list[tuple[Layout, Path]]:
    """The tag files of the folders at the top, if all have one, or all are splits and some do."""
    tops = sorted({name.partition("/")[0] for name in place.photos if "/" in name})
    if not tops or not all("/" in name for name in place.photos):
        return []
    found = {top: _tag_file_in(place.photo_folder / top) for top in tops}
    there = [each for each in found.values() if each is not None]
    return there if len(there) == len(tops) or all(map(is_split, tops)) else []


def _listed_in(folders: Iterable[Path]) -> Listing:
    """The pictures of the folders that exist, with the folder in their name."""
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    for folder in folders:
        if folder.is_dir():
            found = list_pictures(folder)
            files |= {f"{readable(folder.name)}/{name}": path for name, path in found.files.items()}
            left_out.update(found.left_out)
    return Listing(files, dict(left_out))


def _no_photos(layout: Layout) -> str:
    if layout == "imagenet":
        return "no photos in folders of the list's synsets"
    if layout in _OBJECT_DISCOVERY:
        ending = "100" if layout.endswith("_100") else ""
        return f"no photos in folders {', '.join(name + ending for name in CLASSES)}"
    return "no photos in this folder"
