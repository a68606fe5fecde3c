"""labelme's JSON, a file a photo beside it: polygons, or masks as small pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tagseg.formats.export.json_files import quoted, to_bytes
from tagseg.formats.export.masked_photos import Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.png import grey_png
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import Region, regions_of

__all__ = ["LABELME"]

_VERSION = "5.5.0"  # of labelme, from which on it has all that stands in these files


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    regions = list(regions_of(photo.labels, export.per))
    shapes = [
        shape
        for number, region in enumerate(regions, start=1)
        for shape in _shapes(region, number, export)
    ]
    about: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _image_path(photo, export),
        "imageData": None,
        "imageHeight": photo.height,
        "imageWidth": photo.width,
    }
    return Piece({f"{photo.name}.json": to_bytes(about)}, regions=len(regions))


def _shapes(region: Region, number: int, export: Export) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {
        "label": export.classes.name(region.label),
        "description": "",
        "flags": {},
    }
    if export.shapes == "masks":
        left, top, width, height = region.box
        corners = [[left, top], [left + width - 1, top + height - 1]]
        picture = base64.b64encode(grey_png(region.mask)).decode("ascii")
        yield {**about, "points": corners, "group_id": None, "shape_type": "mask", "mask": picture}
        return
    polygons = polygons_of(region)
    group = number if len(polygons) > 1 else None  # parts of one thing
    for polygon in polygons:
        points = polygon.tolist()
        yield {**about, "points": points, "group_id": group, "shape_type": "polygon", "mask": None}


def _image_path(photo: MaskedPhoto, export: Export) -> str:
    """The photo, from where the JSON file will lie."""
    if export.photos != "name" or photo.source is None:
        return PurePosixPath(photo.file).name
    home = (export.home / photo.name).parent
    path = Path(os.path.relpath(photo.source.absolute(), home.absolute()))
    return path.as_posix()


def _whole(entries: Iterator[Any], export: Export) -> None:
    names = ["__ignore__", "_background_", *export.classes.names]
    (export.folder / "labels.txt").write_text("\n".join([*names, ""]), encoding="utf-8")
    lines = [
        "shape_color: manual",
        "label_colors:",
        *(f"  {quoted(name)}: {list(colour)}" for name, colour in export.classes.coloured()),
        "",
    ]
    (export.folder / "labelme.yaml").write_text("\n".join(lines), encoding="utf-8")


LABELME = Format(
    "labelme",
    _one,
    _whole,
    photos_in=".",
    photos_by=("copy", "link", "name"),
    annotations={"polygons": ("region", "class"), "masks": ("region", "class")},
)
