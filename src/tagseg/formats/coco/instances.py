"""COCO's JSON in columns: images, categories and objects, whose outlines stay in the file.

The list of 118,000 photos holds 450 MB, nearly all of it outlines. They are not kept: of each
object only where its text stands in the file, from which :meth:`Instances.objects` reads it again.
"""

from __future__ import annotations

import io
import json
import mmap
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tagseg.data.digests import FileKey, file_key
from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.coco.members import LIST, Member, members
from tagseg.input_files import MOST_TEXT, check_plain

__all__ = ["Instances", "instances_in", "may_be_coco", "read_instances"]

_LISTS = ("images", "annotations", "categories")
_FILES_KEPT = 4  # of those read last


@dataclass(frozen=True, eq=False)
class Instances:
    """What a COCO file says of N images, with A objects (annotations) of K categories.

    Attributes:
        path: the file.
        key: its state when it was read.
        names: ``file_name`` of each image, in the file's order.
        shapes: int32 (N, 2), height and width; 0 where they are not given.
        categories: names, in the order of their ids.
        parents: ``supercategory`` of each; empty if there is none.
        images, classes: int32 (A,), image and category of each object, in the file's order.
        crowds: bool (A,), objects that stand for several which nobody has told apart.
        starts, sizes: int64 (A,), where each object's text is, in bytes of the file.
    """

    path: Path
    key: FileKey | None
    names: tuple[str, ...]
    shapes: npt.NDArray[np.int32]
    categories: tuple[str, ...]
    parents: tuple[str, ...]
    images: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int32]
    crowds: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    _order: npt.NDArray[np.intp] = field(init=False, repr=False)
    _ends: npt.NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        counts = np.bincount(self.images, minlength=len(self.names))
        object.__setattr__(self, "_order", np.argsort(self.images, kind="stable"))
        object.__setattr__(self, "_ends", np.cumsum(counts))

    def where(self, image: int) -> str:
        """The place of an image's entry, for messages."""
        return f"{self.path}, images[{image}]"

    def objects_of(self, image: int) -> npt.NDArray[np.intp]:
        """The objects of an image, in the file's order."""
        begin = self._ends[image - 1] if image else 0
        return self._order[begin : self._ends[image]]

    def objects(self, image: int) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """(place, object, entry) of an image's objects, read from the file again.

        Raises TagError if the file has changed since.
        """
        changed = TagError("has changed while it was used", where=self.path, do="start again")
        try:
            if file_key(self.path) != self.key:
                raise changed
            with self.path.open("rb") as file:
                for found in self.objects_of(image).tolist():
                    file.seek(self.starts[found])
                    entry = json.loads(file.read(self.sizes[found]))
                    yield f"{self.path}, annotations[{found}]", found, entry
        except (OSError, ValueError):
            raise changed from None


def may_be_coco(path: Path) -> bool:
    """Whether a file may hold COCO's lists: an object in which their names stand."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            start = bytes(text[:64]).removeprefix(b"\xef\xbb\xbf").lstrip()
            named = [text.find(f'"{name}"'.encode()) >= 0 for name in _LISTS]
    except (OSError, ValueError):  # not there, or empty
        return False
    return start.startswith(b"{") and named[0] and any(named[1:])


def read_instances(path: Path) -> Instances | None:
    """The content of a COCO file, None if it is another kind of JSON.

    The files read last are kept, and not read again while they stay as they are. Raises TagError,
    with the line or the entry, for what is not JSON or does not fit together.
    """
    check_plain(path, TagError, MOST_TEXT)
    try:
        key = file_key(path)
    except OSError:
        raise TagError("this file does not exist", where=path, do="check the path") from None
    return _read(path, key)


@lru_cache(_FILES_KEPT)
def _read(path: Path, key: FileKey) -> Instances | None:
    try:
        with path.open("rb") as file:
            return _built(file, path, key)
    except OSError as problem:
        raise TagError(f"cannot be read ({problem.strerror})", where=path) from None


def instances_in(text: str, path: Path) -> Instances | None:
    """The same of a text that was read from ``path``, without its objects' outlines."""
    return _built(io.BytesIO(text.encode("utf-8", "replace")), path, None)


def _built(file: BinaryIO, path: Path, key: FileKey | None) -> Instances | None:
    """Problems of entries count only once it is sure that these are COCO's lists."""
    builder, kinds = _Builder(path), dict[str, int]()
    problem: TagError | None = None
    for member in members(file, path):
        if member.key in _LISTS and member.place < 0:
            problem = problem or builder.begun(member, kinds)
            kinds[member.key] = member.place
        if problem is None and member.key in _LISTS and member.place >= 0:
            problem = builder.added(member)
    if kinds.get("images") != LIST or not {"annotations", "categories"} & kinds.keys():
        return None
    if problem is not None:
        raise problem
    return builder.instances(key)


class _Builder:
    """Columns that grow by an entry at a time; ids are numbered as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image_slots: dict[Any, int] = {}
        self._category_slots: dict[Any, int] = {}
        self._images: dict[int, int] = {}  # slot of the id -> place in the list
        self._names: list[str] = []
        self._shapes = array("i")
        self._categories: dict[int, tuple[Any, str, str]] = {}
        self._of_image, self._of_category = array("i"), array("i")
        self._crowds = array("b")
        self._starts, self._sizes = array("q"), array("q")

    def begun(self, member: Member, kinds: Mapping[str, int]) -> TagError | None:
        """What is wrong with one of the lists as such."""
        if member.key in kinds:
            return TagError(f"'{member.key}' is there twice", where=self._path, do="keep one")
        if member.place != LIST and member.key != "images":
            return TagError(
                f"'{member.key}' is not a list", where=self._path, do="give a COCO file"
            )
        return None

    def added(self, member: Member) -> TagError | None:
        """Take an entry of one of the lists; what is wrong with it."""
        where = f"{self._path}, {member.key}[{member.place}]"
        if not isinstance(member.value, dict):
            return TagError("not an entry of a COCO file", where=where, do="check the file")
        add = {"images": self._image, "categories": self._category}.get(member.key, self._object)
        try:
            add(member, where)
        except TagError as problem:
            return problem
        return None

    def _image(self, member: Member, where: str) -> None:
        entry = member.value
        slot = _slot(self._image_slots, entry, "id", where)
        name = entry.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise TagError("has no file_name", where=where, do="name the photo there")
        first = self._images.setdefault(slot, member.place)
        if first != member.place:
            what = f"has the id {entry['id']!r} of images[{first}]"
            raise TagError(what, where=where, do="give each image an id of its own")
        self._names.append(name.strip())
        self._shapes.extend((_side(entry.get("height")), _side(entry.get("width"))))

    def _category(self, member: Member, where: str) -> None:
        entry = member.value
        slot = _slot(self._category_slots, entry, "id", where)
        name, parent = entry.get("name"), entry.get("supercategory", "")
        if not isinstance(name, str) or not tidy_name(name):
            raise TagError("has no name", where=where, do="name the class there")
        if slot in self._categories:
            what = f"has the id {entry['id']!r} of '{self._categories[slot][1]}'"
            raise TagError(what, where=where, do="give each category an id of its own")
        self._categories[slot] = (entry["id"], tidy_name(name), tidy_name(str(parent)))

    def _object(self, member: Member, where: str) -> None:
        entry = member.value
        self._of_image.append(_slot(self._image_slots, entry, "image_id", where))
        self._of_category.append(_slot(self._category_slots, entry, "category_id", where))
        self._crowds.append(entry.get("iscrowd") in (1, True))
        self._starts.append(member.start)
        self._sizes.append(member.size)

    def instances(self, key: FileKey | None) -> Instances:
        """All of it; TagError for an object of no image or no category, or without categories."""
        if not self._categories:
            raise TagError(
                "there are no categories", where=self._path, do="export with annotations"
            )
        known = sorted(self._categories.items(), key=lambda one: _rank(one[1][0]))
        places = {slot: place for place, (slot, _) in enumerate(known)}
        names = [name for _, (_, name, _) in known]
        images = self._placed(self._of_image, self._image_slots, self._images, "image")
        classes = self._placed(self._of_category, self._category_slots, places, "category")
        return Instances(
            self._path,
            key,
            tuple(self._names),
            np.array(self._shapes, np.int32).reshape(-1, 2),
            tuple(names),
            tuple(parent for _, (_, _, parent) in known),
            images,
            classes,
            np.array(self._crowds, bool),
            np.array(self._starts, np.int64),
            np.array(self._sizes, np.int64),
        )

    def _placed(
        self, slots: array[int], ids: Mapping[Any, int], places: Mapping[int, int], kind: str
    ) -> npt.NDArray[np.int32]:
        """Places in the list of images, or categories, for the numbers that their ids have."""
        table = np.array([places.get(slot, -1) for slot in range(len(ids))], np.int32)
        found = table[np.array(slots, np.intp)] if slots else np.zeros(0, np.int32)
        if (found < 0).any():
            first = int(np.argmax(found < 0))
            absent = next(id_ for id_, slot in ids.items() if slot == slots[first])
            plural = "images" if kind == "image" else "categories"
            raise TagError(
                f"there is no {kind} {absent!r}",
                where=f"{self._path}, annotations[{first}]",
                do=f"add it to {plural}",
            )
        return found


def _slot(slots: dict[Any, int], entry: Mapping[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TagError(f"has no {name}", where=where, do="check that this is a COCO file")
    return slots.setdefault(value, len(slots))


def _side(value: Any) -> int:
    """A height or width; 0 for what is none."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return int(value) if whole and 0 < value < 1 << 31 and value == int(value) else 0


def _rank(value: Any) -> tuple[bool, Any]:
    """Ids in order: numbers before texts."""
    return isinstance(value, str), value
