"""Pascal VOC's folders: photos, class masks, object masks, boxes and a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from tagseg.formats.export.masked_photos import ClassTable, Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.png import palette_png
from tagseg.formats.export.regions import Region, regions_of
from tagseg.maps import IGNORE, Labels

__all__ = ["VOC"]

_MOST_OBJECTS = 254  # numbers between background and unknown


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    regions = list(regions_of(photo.labels, "region"))
    objects = _objects(photo.labels, regions)
    files = {
        f"SegmentationClass/{photo.name}.png": palette_png(photo.labels, export.classes),
        f"SegmentationObject/{photo.name}.png": palette_png(objects, ClassTable(())),
        f"Annotations/{photo.name}.xml": _annotation(photo, regions, export).encode(
            "utf-8", "xmlcharrefreplace"
        ),
    }
    return Piece(files, photo.name, len(regions))


def _objects(labels: Labels, regions: list[Region]) -> Labels:
    """Each region's number, uint8 (H, W); the smallest are unknown where numbers do not suffice."""
    numbers = np.where(labels == IGNORE, labels, 0).astype(np.uint8)
    by_size = sorted(range(len(regions)), key=lambda place: (-regions[place].area, place))
    for number, place in enumerate(sorted(by_size[:_MOST_OBJECTS]), start=1):
        _paint(numbers, regions[place], number)
    for place in by_size[_MOST_OBJECTS:]:
        _paint(numbers, regions[place], IGNORE)
    return numbers


def _paint(numbers: Labels, region: Region, number: int) -> None:
    left, top, width, height = region.box
    numbers[top : top + height, left : left + width][region.mask] = number


def _annotation(photo: MaskedPhoto, regions: list[Region], export: Export) -> str:
    path = PurePosixPath(photo.file)
    return _ANNOTATION.format(
        folder=escape(str(path.parent)) if path.parent.name else "JPEGImages",
        file=escape(path.name),
        width=photo.width,
        height=photo.height,
        objects="".join(_object(region, export) for region in regions),
    )


def _object(region: Region, export: Export) -> str:
    left, top, width, height = region.box  # VOC counts pixels from 1, and both ends are inside
    return _OBJECT.format(
        name=escape(export.classes.name(region.label)),
        xmin=left + 1,
        ymin=top + 1,
        xmax=left + width,
        ymax=top + height,
    )


def _whole(entries: Iterator[Any], export: Export) -> None:
    lists = export.folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name}\n" for name in entries)
    (lists / "train.txt").write_text(text, encoding="utf-8")
    label_map = export.classes.label_map(unknown=True)  # CVAT wants all colours that may occur
    (export.folder / "labelmap.txt").write_text(label_map, encoding="utf-8")


_ANNOTATION = """<annotation>
  <folder>{folder}</folder>
  <filename>{file}</filename>
  <source><database>tagseg</database></source>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>1</segmented>
{objects}</annotation>
"""

_OBJECT = """  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>0</difficult>
    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
  </object>
"""

VOC = Format(
    "Pascal VOC",
    _one,
    _whole,
    photos_in="JPEGImages",
    photos_by=("copy", "link", "name"),
    keeps_unknown=True,
    suffixes=frozenset((".jpg",)),
)
