"""Masks from files and to files.

Masks are palettised PNG files with the VOC palette: 0 background, k + 1 class k, 255 ignore.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFile

from tagseg.data.legends import (
    VOC_NUMBERS,
    Colour,
    Legend,
    MaskContent,
    Reading,
    lists_own_colours,
    voc_palette,
)
from tagseg.data.pictures import MAX_PIXELS, decode_picture, read_bytes
from tagseg.errors import ImageError, MaskError
from tagseg.maps import MAX_CLASSES, Labels, check_labels

__all__ = [
    "RawMask",
    "check_reading",
    "decode_mask",
    "encode_mask",
    "open_mask",
    "read_mask",
    "voc_palette",
    "write_mask",
]

_ANY_ID = Legend(255, by="number")
_MOST_COLOURS = 256
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask file's values, before anything is said about their meaning.

    Attributes:
        values: uint8 (H, W), numbers of the file, or of the colours of an RGB file.
        palette: value -> colour, empty for a file without colours.
        numbered, orientation: as of :class:`MaskContent`.
    """

    values: npt.NDArray[np.uint8]
    palette: Mapping[int, Colour]
    numbered: bool
    orientation: int

    @cached_property
    def content(self) -> MaskContent:
        """Which values occur, and how often."""
        counts = np.bincount(self.values.ravel(), minlength=256)
        used = np.flatnonzero(counts).tolist()
        return MaskContent(
            (self.values.shape[0], self.values.shape[1]),
            {value: int(counts[value]) for value in used},
            {value: self.palette.get(value, (0, 0, 0)) for value in used if self.palette},
            numbered=self.numbered,
            own_palette=self.numbered and lists_own_colours(self.palette, used),
            orientation=self.orientation,
        )


def open_mask(path: Path) -> RawMask:
    """Read a mask file's values; MaskError if it is no mask, damaged, or of numbers over 255."""
    path = Path(path)
    try:
        return _raw(decode_picture(read_bytes(path), path, MAX_PIXELS), path)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None


def read_mask(path: Path) -> Labels:
    """Read a mask of class ids, uint8 (H, W); MaskError if the file does not hold one.

    Palette, grey, 1-bit and 16-bit files hold the ids themselves (at most 255); in RGB files the
    colours must all be of the VOC palette.
    """
    return _labels(open_mask(path), Path(path))


def check_reading(reading: Reading, content: MaskContent, legend: Legend, where: object) -> None:
    """Raise MaskError if values of a file stand for nothing; it names one."""
    if not reading.strange:
        return
    value = reading.strange[0]
    number = value if content.numbered else content.colours[value][0]
    if reading.by == "colour":
        number = VOC_NUMBERS.get(content.colours[value], -1)
    if number < 0 or (reading.by == "colour" and legend.colours is not None):
        known = legend.source if legend.colours is not None else ""
        raise MaskError(
            f"colour {content.colours[value]} is not of {known or 'the VOC palette'}",
            where=where,
            do="save class ids as a palette or grey PNG, or say which colour is which class: "
            "--colours FILE",
        )
    if legend.numbers is not None:
        raise MaskError(
            f"holds number {number}, which {legend.source or 'the class list'} does not have",
            where=where,
            do="add it there, or mark such pixels 255",
        )
    raise MaskError(
        f"holds class id {number}, but there are {legend.n_classes} classes",
        where=where,
        do="check the class list, or mark such pixels 255",
    )


def write_mask(path: Path, labels: Labels) -> None:
    """Write ``labels``, uint8 (H, W), as a palettised PNG, atomically: whole or not at all."""
    path = Path(path)
    data = encode_mask(labels)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")  # no part of a name that may be long
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as problem:
        reason = problem.strerror or "writing failed"
        raise MaskError(f"cannot be written: {reason}", where=path, do="check the folder") from None
    finally:
        temporary.unlink(missing_ok=True)


def encode_mask(labels: Labels) -> bytes:
    """``labels``, uint8 (H, W), as the bytes of a PNG file with the VOC palette."""
    picture = PilImage.fromarray(check_labels(labels, MAX_CLASSES))
    picture.putpalette(voc_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def decode_mask(data: bytes) -> Labels:
    """The labels, uint8 (H, W), in the bytes of a mask file; MaskError if there are none."""
    try:
        return _labels(_raw(decode_picture(data, None, MAX_PIXELS), None), None)
    except ImageError as problem:
        raise MaskError(problem.what, do=problem.do) from None


def _labels(mask: RawMask, where: Path | None) -> Labels:
    if mask.numbered:
        return mask.values
    reading = _ANY_ID.read(mask.content)
    check_reading(reading, mask.content, _ANY_ID, where)
    return reading.table()[mask.values]


def _raw(picture: ImageFile.ImageFile, where: Path | None) -> RawMask:
    if picture.format == "JPEG":
        raise MaskError("JPEG changes class ids", where=where, do="save masks as PNG")
    orientation = _orientation(picture)
    if picture.mode in ("P", "L", "1"):
        values = np.array(picture).astype(np.uint8)
        palette = _palette(picture) if picture.mode == "P" else {}
        return RawMask(values, palette, True, orientation)
    if picture.mode.startswith("I"):
        return RawMask(_small_ids(np.asarray(picture), where), {}, True, orientation)
    if picture.mode == "LA" and _is_opaque(picture):
        return RawMask(np.array(picture.getchannel("L")), {}, True, orientation)
    if picture.mode == "RGB" or (picture.mode == "RGBA" and _is_opaque(picture)):
        return _coloured(np.asarray(picture.convert("RGB")), orientation, where)
    raise MaskError(
        f"pixels of kind {picture.mode} are not class ids",
        where=where,
        do="save the mask as a palette or grey PNG",
    )


def _orientation(picture: ImageFile.ImageFile) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata; the pixels still count
        return 1


def _palette(picture: PilImage.Image) -> dict[int, Colour]:
    flat = picture.getpalette("RGB") or []
    return {i: (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]) for i in range(len(flat) // 3)}


def _coloured(rgb: npt.NDArray[np.uint8], orientation: int, where: Path | None) -> RawMask:
    codes = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    found, values = np.unique(codes, return_inverse=True)
    if len(found) > _MOST_COLOURS:
        one = _colour(int(found[len(found) // 2]))
        raise MaskError(
            f"colour {one} is one of {len(found)}: a photo, or a smoothed mask",
            where=where,
            do="give masks without blended colours, saved as PNG",
        )
    small = values.reshape(codes.shape).astype(np.uint8)
    palette = {value: _colour(int(code)) for value, code in enumerate(found)}
    return RawMask(small, palette, False, orientation)


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _is_opaque(picture: PilImage.Image) -> bool:
    return picture.getchannel("A").getextrema() == (255, 255)


def _small_ids(values: npt.NDArray, where: Path | None) -> Labels:
    worst = values.max() if values.max() > 255 else values.min()
    if not 0 <= worst <= 255:
        raise MaskError(f"holds class id {worst}", where=where, do="use ids from 0 to 255")
    return values.astype(np.uint8)
