"""The files that tagging reads and writes: ``tags.csv`` and ``classes.txt``."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from tagseg.data.dataset import Dataset
from tagseg.data.text import read_text, split_lines, tidy_name
from tagseg.errors import TagError, TagsegError
from tagseg.formats.folders.layouts import TagSource
from tagseg.formats.lists.class_lists import read_class_list
from tagseg.formats.loading import OpenedPhotos
from tagseg.formats.tags.marks import ABSENT, UNSURE, marked
from tagseg.formats.tags.tag_files import read_tag_file
from tagseg.formats.tags.tag_rows import Hints
from tagseg.formats.tags.tag_sources import find_tag_files
from tagseg.run.files import atomic_write
from tagseg.web.photo_folder import TAGS, PhotoFolder

__all__ = [
    "ClassFile",
    "FileTags",
    "check_class",
    "check_classes",
    "digest_of",
    "other_source",
    "read_tags",
    "tags_csv",
]

_CLASSES = "classes.txt"
_JSON_LINES = "metadata.jsonl"
_LONGEST = 100  # letters of a class's name


@dataclass(frozen=True)
class FileTags:
    """What a tag file says.

    Attributes:
        classes: in label order.
        tags: photo -> its classes; none for a photo that holds none of them.
        marks: photo -> what is said of other classes, as ``?cat`` and ``-cat``
            (:mod:`tagseg.formats.tags.marks`); only of photos of which anything is.
        notes: how it was understood, a line each.
    """

    classes: tuple[str, ...] = ()
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_tags(
    photos: PhotoFolder, file: Path, classes: Sequence[str] = (), *, ours: bool
) -> FileTags:
    """What ``file`` says of the photos; those that are not here stay in it.

    Args:
        classes: the class list, if there is one.
        ours: it will be written again, so nothing else may be in it.

    Raises TagError if it cannot be read, or, if ``ours``, written without a loss.
    """
    if not file.is_file():
        raise TagError("no such tag file", where=file, do="check the path")
    if ours:
        _check_plain(file)
    source = TagSource("csv", file, file)
    opened = OpenedPhotos(photos.place, source, 1.0)
    found = opened.load(untagged="unknown", classes=list(classes) or None)
    names = found.classes
    tags = {
        name: tuple(c for c, is_there in zip(names, row, strict=True) if is_there)
        for name, row in zip(found.names, found.tags.tolist(), strict=True)
    }
    notes = tuple(note for note in found.notes if file.name in note)
    return FileTags(names, tags, _marks(found), notes)


def _marks(found: Dataset) -> dict[str, tuple[str, ...]]:
    words: dict[str, list[str]] = {}
    for sign, mark in ((UNSURE, found.unsure), (ABSENT, found.absent)):
        places = [] if mark is None else np.argwhere(mark).tolist()
        for photo, tag in places:
            words.setdefault(found.names[photo], []).append(marked(sign, found.classes[tag]))
    return {name: tuple(own) for name, own in words.items()}


def _check_plain(file: Path) -> None:
    """Raise TagError for a table that holds more than photos and tags."""
    rows = list(csv.reader(io.StringIO(read_text(file, TagError))))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    advice = (
        "it would be written again as image,tags: rename it, and begin with what it says: "
        "tagseg tag --tags FILE"
    )
    if header[:2] != ["image", "tags"]:
        raise TagError("does not begin with image,tags", where=file, do=advice)
    if len(header) > 2:
        more = ", ".join(header[2:])
        raise TagError(f"has columns beside image and tags ({more})", where=file, do=advice)


def other_source(photos: PhotoFolder) -> Path | None:
    """The file, or folder of annotations, that tells the tags of a folder without ``tags.csv``.

    Raises TagError if there are several, and for the only one if it cannot be read.
    """
    for folder in (photos.home, photos.root):
        if (folder / _JSON_LINES).is_file():
            return folder / _JSON_LINES
    place = photos.place
    found, _ = find_tag_files(place.folder, place.photos, place.name_of, lambda name: None)
    return found[0] if found else None


def tags_csv(rows: Iterable[tuple[str, Sequence[str]]]) -> bytes:
    """A tag file of photos and their tags, in the form that tagseg's own are in."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "tags"))
    writer.writerows((image, ";".join(tags)) for image, tags in rows)
    return text.getvalue().encode()


def digest_of(content: bytes) -> str:
    """A hash of a tag file, by which it is known again."""
    return blake2b(content, digest_size=16).hexdigest()


class ClassFile:
    """The class list beside the tags, or where it will be.

    Attributes:
        path: the file.
        names: the classes in it, in label order; none if it is not there.
    """

    def __init__(self, photos: PhotoFolder) -> None:
        folders = dict.fromkeys((photos.home, photos.root))
        found = (folder / _CLASSES for folder in folders if (folder / _CLASSES).is_file())
        self.path = next(found, photos.home / _CLASSES)
        self.names: tuple[str, ...] = ()
        self._head: tuple[str, ...] = ()
        self._plain = True
        if self.path.is_file():
            self.names = read_class_list(self.path).names
            lines = [line.strip() for line in split_lines(read_text(self.path, TagError))]
            lines = [line for line in lines if line]
            self._head = tuple(lines[:1]) if lines[0].lower() == "background" else ()
            self._plain = lines[len(self._head) :] == list(self.names)

    def check_takes(self, classes: Sequence[str]) -> None:
        """Raise TagError if this is not the list, and is in a form that cannot be written again."""
        if not self._plain and tuple(classes) != self.names:
            raise TagError(
                "is not one name a line, so it is not written to",
                where=self.path,
                do="add the class there, and start tagseg tag again",
            )

    def write(self, classes: Sequence[str]) -> None:
        """Write the list, unless that is what it holds."""
        if tuple(classes) != self.names and self._plain:
            lines = [*self._head, *classes]
            with atomic_write(self.path) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
            self.names = tuple(classes)


def check_class(name: str, classes: Sequence[str]) -> str:
    """The name of a new class, tidied.

    Raises TagError if there is one that is called so, or if files with it would be read otherwise
    than they were meant: the readers themselves are asked.
    """
    tidy = tidy_name(name)
    if not tidy or not tidy.isprintable() or len(tidy) > _LONGEST:
        raise TagError("no name of a class", do=f"give up to {_LONGEST} letters")
    same = next((known for known in classes if known.casefold() == tidy.casefold()), None)
    if same is not None:
        raise TagError(f"there is a class '{same}'", do="choose that one")
    check_classes((*classes, tidy), tidy)
    return tidy


def check_classes(classes: Sequence[str], doubtful: str) -> None:
    """Raise TagError if a list of these classes, or tags of them, would be read otherwise."""
    if classes and not _is_read_as_meant(tuple(classes)):
        raise TagError(
            f"'{doubtful}' would not be read as one class",
            do="use plain words, without ; , | or quotes",
        )


def _is_read_as_meant(classes: tuple[str, ...]) -> bool:
    rows = [("a.jpg", classes[-1:]), ("b.jpg", classes), ("c.jpg", ())]
    with tempfile.TemporaryDirectory(prefix="tagseg-") as folder:
        list_file, tag_file = Path(folder, _CLASSES), Path(folder, TAGS)
        list_file.write_bytes("".join(f"{name}\n" for name in classes).encode())
        tag_file.write_bytes(tags_csv(rows))
        try:
            read = read_tag_file(tag_file, Hints(classes=classes)).rows
            return read_class_list(list_file).names == classes and rows == [
                (row.image, row.tags) for row in read
            ]
        except TagsegError:
            return False
