"""Photos with boxes of their salient objects, drawn by several annotators.

What a saliency model learns from in Oh et al. 2017, section 6.1: MSRA's boxes (Liu et al.,
"Learning to detect a salient object", CVPR 2007), COCO's, or one's own in a CSV file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.finding import without_suffix
from tagseg.data.images import decode_photo
from tagseg.errors import DataError, ShapeError, first_few
from tagseg.formats.box_files import BoxRow, read_box_rows

__all__ = ["BoxSet", "BoxedPhoto", "Boxes", "average_box", "read_boxes"]

Boxes = npt.NDArray[np.float64]
"""Boxes (A, 4) in pixels: left, top, right, bottom, where right - left is the width."""

_MAX_MISSING = 0.01  # share of annotated photos that may be missing from the folder
_OTHER_SHAPE = 0.02  # by how much the sides' ratio of a resized photo may differ: rounding


@dataclass(frozen=True, eq=False)
class BoxedPhoto:
    """A photo and the boxes of its salient objects.

    Attributes:
        name: relative path without suffix, with slashes.
        path: the file.
        shape: height and width in which the boxes are given, pixels.
        objects: for each object the boxes (A, 4) of its A annotators, inside the photo.
        classes: the objects' classes, each once; empty if the annotations do not say.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    objects: tuple[Boxes, ...]
    classes: tuple[str, ...] = ()

    def boxes_at(self, shape: tuple[int, int]) -> Boxes:
        """The average box of each object, (O, 4), in pixels of this photo resized to ``shape``.

        Raises DataError if ``shape`` (height, width) has other proportions than ``self.shape``:
        then the annotations are not of this file.
        """
        scales = np.divide(shape, self.shape)
        side = max(min(shape), 1)
        if abs(scales[0] / scales[1] - 1) > _OTHER_SHAPE + 1 / side:
            raise DataError(
                f"the photo is {shape[1]} x {shape[0]}, "
                f"but was annotated at {self.shape[1]} x {self.shape[0]}",
                where=self.path,
                do="replace the photo or take it out of the annotations",
            )
        averages = np.stack([average_box(boxes) for boxes in self.objects])
        return averages * np.tile(scales[::-1], 2)


@dataclass(frozen=True, eq=False)
class BoxSet:
    """Photos with boxes.

    Attributes:
        photos: in the order of the annotations.
        skipped: annotated photos that are not in the folder (under 1 % of all).
        source: the file of annotations.
    """

    photos: tuple[BoxedPhoto, ...]
    skipped: tuple[str, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that are named, sorted; empty if the annotations name none (as MSRA's)."""
        return tuple(sorted({name for photo in self.photos for name in photo.classes}))

    @property
    def digest(self) -> str:
        """Hex sha256 of the annotations that are left; wherever the photos may lie."""
        entries = [
            [p.name, p.shape, [boxes.tolist() for boxes in p.objects], p.classes]
            for p in self.photos
        ]
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()

    def without_classes(self, names: Iterable[str]) -> BoxSet:
        """Without the photos of any class in ``names``; case, spaces, - and _ do not count.

        Photos whose classes are not known stay. DataError if no photo is left.
        """
        dropped = {_folded(name) for name in names}
        return self._keep(lambda photo: not dropped & {_folded(name) for name in photo.classes})

    def without_photos(self, names: Collection[str]) -> BoxSet:
        """Without the photos ``names`` (with suffix or not); DataError if no photo is left."""
        dropped = {_name_of(name) for name in names}
        return self._keep(lambda photo: photo.name not in dropped)

    def dataset(self) -> Dataset:
        """The photos as a dataset of the one class ``object``, which is in all of them."""
        n = len(self)
        return Dataset(
            classes=("object",),
            names=tuple(photo.name for photo in self.photos),
            tags=np.ones((n, 1), bool),
            known=np.ones(n, bool),
            sources=tuple(photo.path for photo in self.photos),
        )

    def _keep(self, wanted: Callable[[BoxedPhoto], bool]) -> BoxSet:
        photos = tuple(photo for photo in self.photos if wanted(photo))
        if not photos:
            raise DataError(
                f"none of the {len(self)} photos is left",
                where=self.source,
                do="leave out fewer, or give boxes of other things",
            )
        return replace(self, photos=photos)


def read_boxes(file: Path, photos: Path | None = None) -> BoxSet:
    """Photos with boxes from MSRA's text format, a COCO JSON or a CSV file.

    Boxes of one object are averaged later (:func:`average_box`), so it matters which belong
    together. MSRA: all of a photo, there is one salient object. COCO and CSV: those with the same
    ``object``; where none is said, those with an ``annotator``; a box with neither is an object of
    its own. Boxes are clipped to the photo. A CSV file without ``width`` and ``height`` makes it
    necessary to decode the photos for their size.

    Args:
        file: the annotations.
        photos: folder of the photos, or one whose ``JPEGImages`` holds them; by default the
            file's own.

    Raises DataError, with the line, for annotations that cannot be used, and if more than 1 % of
    the annotated photos are missing; ImageError if a photo must be decoded and cannot.
    """
    file = Path(file)
    folder = file.parent if photos is None else Path(photos)
    by_name: dict[str, list[BoxRow]] = {}
    for row in read_box_rows(file):
        by_name.setdefault(_checked_name(row), []).append(row)
    found = {name: path for name in by_name if (path := _file_of(by_name[name][0], folder))}
    skipped = tuple(name for name in by_name if name not in found)
    if len(skipped) > _MAX_MISSING * len(by_name):
        raise DataError(
            f"{len(skipped)} of {len(by_name)} annotated photos are not here: {first_few(skipped)}",
            where=folder,
            do="check the folder and the names",
        )
    boxed = tuple(_photo_of(name, path, by_name[name]) for name, path in found.items())
    return BoxSet(boxed, skipped, file)


def average_box(boxes: Boxes) -> Boxes:
    """The mean (4,) of the annotators' boxes (A, 4), edge by edge (Oh et al. 2017, section 6.1)."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ShapeError(f"boxes has shape {boxes.shape}", do="give an array (A, 4), A > 0")
    return boxes.mean(0)


def _photo_of(name: str, path: Path, rows: Sequence[BoxRow]) -> BoxedPhoto:
    said = next((row.shape for row in rows if row.shape), None)
    shape = said or decode_photo(path).shape[:2]
    other = next((row for row in rows if row.shape not in (None, said)), None)
    if other is not None:
        raise DataError(f"another size of '{name}'", where=other.where, do="write one size")
    groups: dict[str, list[BoxRow]] = {}
    for i, row in enumerate(rows):
        # No object's own name holds a NUL, so that what is made up here is not mistaken for one.
        key = row.object or ("\0main" if row.annotator else f"\0{i}")
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        _check_annotators(name, group)
    return BoxedPhoto(
        name,
        path,
        (shape[0], shape[1]),
        tuple(np.array([_clipped(row, shape) for row in group]) for group in groups.values()),
        tuple(dict.fromkeys(row.label for row in rows if row.label)),
    )


def _check_annotators(name: str, rows: Sequence[BoxRow]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.annotator and row.annotator in seen:
            raise DataError(
                f"annotator '{row.annotator}' boxed one object of '{name}' twice",
                where=row.where,
                do="say which object each box is of, or keep one",
            )
        seen.add(row.annotator)


def _clipped(row: BoxRow, shape: Sequence[int]) -> Boxes:
    height, width = shape[:2]
    box = np.clip(row.box, 0, (width, height, width, height))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(
            f"the box {' '.join(f'{edge:g}' for edge in row.box)} is outside the photo, "
            f"which is {width} x {height}",
            where=row.where,
            do="correct or remove it",
        )
    return box


def _checked_name(row: BoxRow) -> str:
    """The photo's name; it must lead to a place inside the folder."""
    path = PurePosixPath(row.image.replace("\\", "/"))
    name = _name_of(row.image)
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # half a letter, from JSON
        raise DataError("a name that is not Unicode text", where=row.where, do="correct it")
    if path.is_absolute() or ".." in path.parts or "\0" in name or name in ("", "."):
        raise DataError(
            f"'{row.image}' is not a place inside the photo folder",
            where=row.where,
            do="give relative paths",
        )
    return name


def _name_of(written: str) -> str:
    path = PurePosixPath(written.strip().replace("\\", "/"))
    return without_suffix(str(path).removeprefix("JPEGImages/"))


def _file_of(row: BoxRow, folder: Path) -> Path | None:
    inside = row.image.replace("\\", "/")
    places = (folder / inside, folder / "JPEGImages" / inside)
    # Path.is_file raises for names that no file system takes.
    return next((path for path in places if os.path.isfile(path)), None)


def _folded(name: str) -> str:
    return name.casefold().replace(" ", "").replace("-", "").replace("_", "")
