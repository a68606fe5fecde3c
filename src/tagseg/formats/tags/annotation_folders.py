"""Annotations in a file a photo: Pascal VOC's XML, labelme's JSON, YOLO's text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagseg.data.text import read_text
from tagseg.errors import TagError
from tagseg.formats.tags.json_tags import parse_json
from tagseg.formats.tags.labelme import is_labelme, row_of_labelme
from tagseg.formats.tags.tag_rows import TagFile, TagRow, listed
from tagseg.formats.tags.voc import row_of_annotation
from tagseg.formats.tags.xml_files import read_xml
from tagseg.formats.tags.yolo import NAME_FILES, find_names, row_of_labels

__all__ = ["KINDS", "annotation_folders", "read_annotation_folders"]

KINDS = {".xml": "Pascal VOC", ".json": "labelme", ".txt": "YOLO"}
"""Suffix of the files, and whose they are."""

_PHOTO_FOLDERS = ("images", "image", "JPEGImages", "photos", "imgs", "img")
_OTHER_FOLDERS = ("labels", "annotations", "Annotations", "xmls", "annotation", "label", "ann")
_LOOKED_AT = 3  # files of which one must be of the kind


@dataclass(frozen=True)
class _Pairs:
    """Photo's name -> its annotation, all with one suffix."""

    suffix: str
    files: Mapping[str, Path]


def annotation_folders(photos: Mapping[str, Path], root: Path) -> dict[str, tuple[Path, ...]]:
    """Suffix of a kind -> the folders that hold such files of ``photos`` (name -> path).

    They lie beside the photos, or in ``labels``, ``annotations`` or the like in place of or beside
    ``images``, and within ``root``'s parent.
    """
    near = _near(photos, root)
    found = {}
    for suffix in KINDS:
        pairs = _pair(photos, near, suffix)
        if pairs.files and _is_of_kind(pairs):
            found[suffix] = tuple(dict.fromkeys(path.parent for path in pairs.files.values()))
    return found


def read_annotation_folders(
    folders: Sequence[Path], photos: Mapping[str, Path], root: Path
) -> TagFile:
    """Tags of ``photos`` from their files in ``folders``; unknown where there is none.

    The kind that has most files counts. Raises TagError if no photo has one, and for a file that
    is malformed or, of YOLO, for numbers without names.
    """
    allowed = set(folders)
    near = {
        parent: [f for f in candidates if f in allowed] or list(folders)
        for parent, candidates in _near(photos, root).items()
    }
    pairs = max((_pair(photos, near, suffix) for suffix in KINDS), key=lambda p: len(p.files))
    where = folders[0]
    if not pairs.files:
        raise TagError(
            f"no file here is called as a photo ({listed(photos, 2)}) with .xml, .json or .txt",
            where=where,
            do="give a tag file, or the folder of the photos' annotations",
        )
    row_of, classes, notes = _reader(pairs.suffix, folders, root)
    rows = tuple(
        row_of(pairs.files[name], name) if name in pairs.files else TagRow(name, (), str(where))
        for name in photos
    )
    note = f"tags are read from {len(pairs.files)} files of {KINDS[pairs.suffix]} "
    note += f"({listed([f'{folder.name}/*{pairs.suffix}' for folder in folders], 3)})"
    empty = sum(row.complete and not row.tags for row in rows)
    if empty:
        notes = (*notes, f"{empty} photos whose file has no object hold none of the classes")
    return TagFile(rows, classes, (note, *notes))


_RowOf = Callable[[Path, str], TagRow]


def _reader(
    suffix: str, folders: Sequence[Path], root: Path
) -> tuple[_RowOf, tuple[str, ...] | None, tuple[str, ...]]:
    if suffix == ".xml":
        return (lambda path, name: row_of_annotation(read_xml(path), name, path)), None, ()
    if suffix == ".json":
        return (lambda path, name: row_of_labelme(_json(path), path, name)), None, ()
    named = find_names(_places_of_names(folders, root))
    if named is None:
        raise TagError(
            "classes are numbers here, and nothing names them",
            where=folders[0],
            do=f"put {listed(NAME_FILES[:1])} or classes.txt, one name a line, beside the labels",
        )
    file, names = named
    note = f"classes in the order of {file.name}: {listed(names)}"
    return (
        (lambda path, name: row_of_labels(path, name, names)),
        tuple(dict.fromkeys(names)),
        (note,),
    )


def _json(path: Path) -> object:
    return parse_json(read_text(path, TagError), path)


def _places_of_names(folders: Iterable[Path], root: Path) -> Iterator[Path]:
    """The label folders and those above them, up to the one around the photos."""
    for folder in folders:
        yield folder
        for above in list(folder.parents)[:3]:
            yield above
            if above in (root.parent, root):
                break
    yield root
    yield root.parent


def _near(photos: Mapping[str, Path], root: Path) -> dict[Path, list[Path]]:
    """Folder of photos -> folders in which their annotations may lie."""
    parents = dict.fromkeys(path.parent for path in photos.values())
    return {parent: _candidates(parent, root) for parent in parents}


def _candidates(parent: Path, root: Path) -> list[Path]:
    found = [parent]
    relative = parent.relative_to(root).parts if parent.is_relative_to(root) else ()
    base = root.parent if root.name in _PHOTO_FOLDERS else root
    parts = (root.name, *relative) if base != root else relative
    for i in reversed(range(len(parts))):
        if parts[i] in _PHOTO_FOLDERS:
            found += [base.joinpath(*parts[:i], other, *parts[i + 1 :]) for other in _OTHER_FOLDERS]
    found += [root.joinpath(other, *relative) for other in _OTHER_FOLDERS]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _pair(photos: Mapping[str, Path], near: Mapping[Path, Sequence[Path]], suffix: str) -> _Pairs:
    every = {folder for folders in near.values() for folder in folders}
    inside = {folder: _stems(folder, suffix) for folder in every}
    files: dict[str, Path] = {}
    for name, photo in photos.items() if any(inside.values()) else ():
        for folder in near[photo.parent]:
            if photo.stem in inside[folder]:
                files[name] = folder / inside[folder][photo.stem]
                break
    return _Pairs(suffix, files)


def _stems(folder: Path, suffix: str) -> dict[str, str]:
    """Name without suffix -> name, of the files in a folder with ``suffix``."""
    parts = (os.path.splitext(name) for name in os.listdir(folder))
    return {stem: stem + end for stem, end in parts if end.lower() == suffix}


def _is_of_kind(pairs: _Pairs) -> bool:
    """Whether one of the first files reads as its suffix's kind."""
    for path in list(pairs.files.values())[:_LOOKED_AT]:
        try:
            if pairs.suffix == ".xml":
                return read_xml(path).tag == "annotation"
            if pairs.suffix == ".json":
                return is_labelme(_json(path))
            if any(row_of_labels(path, "", tuple(map(str, range(1000)))).tags):
                return True
        except TagError:
            return False
    return False
