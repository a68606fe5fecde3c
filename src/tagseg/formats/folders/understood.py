"""Lines that say how a folder was understood."""

from __future__ import annotations

from pathlib import Path

from tagseg.formats.folders.layouts import Place, TagSource

__all__ = ["understood"]

_FROM = {
    "folders": "the first folder is the class",
    "split_folders": "the folder in that of the split is the class",
    "inner_folders": "the last folder is the class",
    "voc": "tags from Annotations",
    "youtube_objects": "the class is that of the video",
    "webdataset": "tags from the samples in tars",
    "imagenet": "classes from the list of synsets",
}


def understood(place: Place, source: TagSource) -> tuple[str, ...]:
    """Such as ``read as csv: 24 photos in images, tags from tags.csv``; what folders mean."""
    number = f"{len(place.photos)} photo{'s' if len(place.photos) > 1 else ''}"
    inner = place.photo_folder.relative_to(place.given).as_posix()
    where = "" if inner == "." else f" in {inner}"
    line = f"read as {source.layout or 'photos'}: {number}{where}, {_tags(place, source)}"
    by_folders = source.file is None and source.layout in ("folders", "split_folders")
    return (line, *place.tree.notes) if by_folders else (line,)


def _tags(place: Place, source: TagSource) -> str:
    if source.layout is None:
        return "no tags"
    files = source.files or ((source.file,) if source.file is not None else ())
    if files:
        shown = ", ".join(_relative(file, place.given) for file in files[:3])
        return f"tags from {shown}{', ...' if len(files) > 3 else ''}"
    if source.layout == "split_folders" and 1 in _places_of_splits(place):
        return "the folder above that of the split is the class"
    return _FROM.get(source.layout, "the folder is the class")


def _places_of_splits(place: Place) -> set[int]:
    parts = ((f.split("/"), split) for f, split in place.tree.splits.items() if split is not None)
    return {folders.index(split) for folders, split in parts}


def _relative(file: Path, home: Path) -> str:
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name
