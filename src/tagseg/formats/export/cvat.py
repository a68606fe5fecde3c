"""CVAT for images 1.1: one XML file, masks as run lengths or polygons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tagseg.formats.export.masked_photos import Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import Region, regions_of
from tagseg.formats.export.rle import runs

__all__ = ["CVAT"]


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    regions = list(regions_of(photo.labels, export.per))
    shapes = [
        shape
        for number, region in enumerate(regions, start=1)
        for shape in _shapes(region, number, export)
    ]
    head = f'name={quoteattr(photo.file)} width="{photo.width}" height="{photo.height}"'
    return Piece(entry=(head, "".join(f"    {shape}\n" for shape in shapes)), regions=len(regions))


def _shapes(region: Region, number: int, export: Export) -> Iterator[str]:
    common = f'label={quoteattr(export.classes.name(region.label))} source="auto" occluded="0"'
    if export.shapes == "masks":
        left, top, width, height = region.box
        lengths = ", ".join(map(str, runs(region.mask).tolist()))
        box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
        yield f'<mask {common} rle="{lengths}" {box} z_order="0"></mask>'
        return
    polygons = polygons_of(region)
    group = f' group_id="{number}"' if len(polygons) > 1 else ""
    for polygon in polygons:
        points = ";".join("{:.2f},{:.2f}".format(*point) for point in polygon.tolist())
        yield f'<polygon {common} points="{points}" z_order="0"{group}></polygon>'


def _whole(entries: Iterator[Any], export: Export) -> None:
    with (export.folder / "annotations.xml").open("wb") as file:

        def write(text: str) -> None:
            file.write(text.encode("utf-8", "xmlcharrefreplace"))

        # The number of images stands before them in CVAT's own files; nobody reads it.
        write(_HEAD.format(labels="".join(_label(n, c) for n, c in _labels(export))))
        for number, (head, shapes) in enumerate(entries):
            write(f'  <image id="{number}" {head}>\n{shapes}  </image>\n')
        write("</annotations>\n")


def _labels(export: Export) -> Iterator[tuple[str, str]]:
    return zip(export.classes.names, export.classes.hex_colours(), strict=True)


def _label(name: str, colour: str) -> str:
    return _LABEL.format(name=escape(name), colour=colour)


_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <name>tagseg</name>
      <mode>annotation</mode>
      <labels>
{labels}      </labels>
    </task>
  </meta>
"""

_LABEL = """        <label>
          <name>{name}</name>
          <color>{colour}</color>
          <type>any</type>
          <attributes></attributes>
        </label>
"""

CVAT = Format(
    "CVAT",
    _one,
    _whole,
    photos_in="images",
    photos_by=("name", "copy", "link"),
    annotations={"masks": ("region", "class"), "polygons": ("region", "class")},
)
