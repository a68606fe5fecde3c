"""Where a data set's photos lie and where their tags come from, in each of the layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from unicodedata import normalize

from tagseg.data.finding import find_photos, without_suffix
from tagseg.data.no_folder import no_folder
from tagseg.errors import ConfigError, DataError
from tagseg.formats.object_discovery import (
    CLASSES,
    MASKS,
    class_folders,
    folder_of_classes,
    is_object_discovery,
    which_set,
)
from tagseg.formats.synsets import folder_of_synsets, read_synsets
from tagseg.formats.tag_files import TagRow
from tagseg.formats.voc import is_voc

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
]
_TAG_FILES: dict[Layout, str] = {"csv": "tags.csv", "jsonl": "metadata.jsonl"}
_TAGS_BY_FOLDER = ("folders", "object_discovery", "object_discovery_100")


def find_photos_and_tags(
    folder: Path, tags: Path | None, layout: Layout, synsets: Path | None = None
) -> tuple[Place, TagSource]:
    """The photos in ``folder``, named, and where their tags come from.

    Args:
        tags: a tag file; None for what lies in the folder.
        layout: ``auto`` for what the folder looks like.
        synsets: a list of synsets, for the layout ``imagenet`` alone.

    Raises ConfigError if these exclude each other, DataError if there are no photos, TagError for
    a list of synsets that cannot be used.
    """
    _check_fit(tags, layout, synsets)
    if synsets is not None:
        classes = read_synsets(synsets)
        place = Place.at(folder, "imagenet", classes)
        return place, TagSource("imagenet", None, synsets, classes)
    has_tags = tags is not None or any((folder / f).is_file() for f in _TAG_FILES.values())
    if layout == "auto" and not has_tags and not is_voc(folder) and is_object_discovery(folder):
        layout = "object_discovery_100" if which_set(folder) else "object_discovery"
    place = Place.at(folder, layout)
    return place, _tag_source(place, tags, layout)


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
    if tags is not None and layout in _TAGS_BY_FOLDER:
        raise ConfigError(f"tags and the layout '{layout}' exclude each other", do="drop one")


@dataclass(frozen=True)
class Place:
    """Where the photos are, and their names."""

    folder: Path
    photo_folder: Path
    photos: dict[str, Path]
    composed: dict[str, str]  # Unicode-composed name -> name; macOS stores names decomposed

    @classmethod
    def at(cls, folder: Path, layout: Layout, synsets: Iterable[str] = ()) -> Place:
        """The photos that the layout has in ``folder``; DataError if there are none."""
        if not folder.is_dir():
            raise no_folder(folder)
        if layout == "imagenet":
            photo_folder = folder_of_synsets(folder, synsets)
            photos = _photos_in(photo_folder / wnid for wnid in synsets)
        elif layout in ("object_discovery", "object_discovery_100"):
            photo_folder = folder_of_classes(folder)
            every = _photos_in(class_folders(folder, subset=layout.endswith("_100")))
            photos = {name: path for name, path in every.items() if MASKS not in name.split("/")}
        else:
            inner = folder / "JPEGImages"
            photo_folder = inner if inner.is_dir() else folder
            photos = find_photos(photo_folder)
        if not photos:
            raise DataError(_no_photos(layout), where=photo_folder, do="check the path")
        return cls(folder, photo_folder, photos, {normalize("NFC", n): n for n in photos})

    def name_of(self, written: str) -> str:
        """The photo's name for what a tag file or list calls it, found or not."""
        path = written.replace("\\", "/").removeprefix("./")
        nested = self.photo_folder != self.folder
        inner = path.removeprefix(f"{self.photo_folder.name}/" if nested else "JPEGImages/")
        for candidate in (path, without_suffix(path), inner, without_suffix(inner)):
            name = self.composed.get(normalize("NFC", candidate))
            if name is not None:
                return name
        return without_suffix(inner)

    def file_of(self, name: str, row: TagRow) -> Path:
        """The photo's file; for one that is missing, where it was looked for."""
        return self.photos.get(name) or self.photo_folder / row.image


@dataclass(frozen=True)
class TagSource:
    """Where the tags come from: a file, or else the layout's own place.

    ``layout`` None: there are no tags. ``synsets``: the class of each, of the layout imagenet.
    """

    layout: Layout | None
    file: Path | None
    where: Path
    synsets: Mapping[str, str] = field(default_factory=dict)


def _tag_source(place: Place, tags: Path | None, layout: Layout) -> TagSource:
    folder = place.folder
    if tags is not None:
        voc = layout == "voc" or (layout == "auto" and is_voc(folder))
        return TagSource("voc" if voc else layout, tags, tags)
    beside = {kind: folder / name for kind, name in _TAG_FILES.items()}
    if layout == "auto":
        guess = _guess(place, beside)
        if guess is None:
            return TagSource(None, None, folder)
        layout = guess
    if layout == "voc" and not (folder / "Annotations").is_dir():
        file = next((path for path in beside.values() if path.is_file()), None)
        return TagSource("voc", file, file or folder)
    own = beside.get(layout)
    return TagSource(layout, own, own or folder)


def _guess(place: Place, beside: dict[Layout, Path]) -> Layout | None:
    if is_voc(place.folder):
        return "voc"
    for layout, path in beside.items():
        if path.is_file():
            return layout
    return "folders" if any("/" in name for name in place.photos) else None


def _photos_in(folders: Iterable[Path]) -> dict[str, Path]:
    """The photos of the folders that exist, with the folder in their name."""
    return {
        f"{folder.name}/{name}": path
        for folder in folders
        if folder.is_dir()
        for name, path in find_photos(folder).items()
    }


def _no_photos(layout: Layout) -> str:
    if layout == "imagenet":
        return "no photos in folders of the list's synsets"
    if layout in ("object_discovery", "object_discovery_100"):
        ending = "100" if layout.endswith("_100") else ""
        return f"no photos in folders {', '.join(name + ending for name in CLASSES)}"
    return "no photos in this folder"
