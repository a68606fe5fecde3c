"""Masks as palettised PNG files, and the classes beside them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.formats.export.masked_photos import (
    ClassTable,
    Export,
    Format,
    MaskedPhoto,
    Piece,
    used_labels,
)
from tagseg.maps import Labels

__all__ = ["PNG", "grey_png", "palette_png", "write_classes"]


def palette_png(labels: Labels, classes: ClassTable) -> bytes:
    """Labels, uint8 (H, W), as a PNG file with the classes' colours."""
    picture = PilImage.fromarray(labels)
    picture.putpalette([value for colour in classes.palette for value in colour])
    return _encoded(picture)


def grey_png(mask: npt.NDArray[np.bool_]) -> bytes:
    """A mask, bool (H, W), as a PNG file of 0 and 255."""
    return _encoded(PilImage.fromarray(mask.astype(np.uint8) * np.uint8(255)))


def write_classes(export: Export) -> None:
    """Write the classes' names in label order, and with their colours."""
    names = "".join(f"{name}\n" for name in export.classes.names)
    (export.folder / "classes.txt").write_text(names, encoding="utf-8")
    (export.folder / "labelmap.txt").write_text(export.classes.label_map(), encoding="utf-8")


def _encoded(picture: PilImage.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    content = palette_png(photo.labels, export.classes)
    return Piece({f"masks/{photo.name}.png": content}, regions=len(used_labels(photo.labels)))


def _whole(entries: Iterator[Any], export: Export) -> None:
    write_classes(export)


PNG = Format(
    "PNG",
    _one,
    _whole,
    photos_in="photos",
    photos_by=("name", "copy", "link"),
    keeps_unknown=True,
    needs_photos=False,
)
