"""YOLO's segments, as ultralytics reads them: a text file of polygons a photo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tagseg.formats.export.json_files import quoted
from tagseg.formats.export.masked_photos import Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import regions_of

__all__ = ["YOLO", "label_file"]

_PHOTOS = "images/train"


def label_file(image: str) -> str:
    """Where ultralytics looks for the labels of ``image``: the last folder images is labels.

    >>> label_file("images/train/images/a.b.jpg")
    'images/train/labels/a.b.txt'
    """
    folders = list(PurePosixPath(image).parts)
    last = max(place for place, folder in enumerate(folders[:-1]) if folder == "images")
    folders[last] = "labels"
    return str(PurePosixPath(*folders).with_suffix(".txt"))


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    size = np.array([photo.width, photo.height], np.float64)
    lines = [
        f"{region.label - 1} " + " ".join(map("{:.7f}".format, (polygon / size).ravel().tolist()))
        for region in regions_of(photo.labels, "region")
        for polygon in polygons_of(region)
    ]
    text = "".join(line + "\n" for line in lines)
    return Piece({label_file(f"{_PHOTOS}/{photo.file}"): text.encode()}, regions=len(lines))


def _whole(entries: Iterator[Any], export: Export) -> None:
    names = [f"  {k}: {quoted(n)}" for k, n in enumerate(export.classes.names)]
    lines = [
        f"train: {_PHOTOS}",
        f"val: {_PHOTOS}  # name photos that were not trained on here",
        "names:",
        *names,
        "colors:",
        *(f"  {k}: {quoted(c)}" for k, c in enumerate(export.classes.hex_colours())),
    ]
    (export.folder / "data.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")


YOLO = Format(
    "YOLO",
    _one,
    _whole,
    photos_in=_PHOTOS,
    photos_by=("copy", "link", "name"),
    annotations={"polygons": ("region",)},
    suffixes=frozenset(
        (".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg")
        + (".mpo", ".png", ".tif", ".tiff", ".webp")
    ),
)
