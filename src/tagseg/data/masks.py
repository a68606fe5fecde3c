"""Masks from files and to files.

Masks are palettised PNG files with the VOC palette: 0 background, k + 1 class k, 255 ignore.
"""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFile

from tagseg.data.pictures import MAX_PIXELS, decode_picture, read_bytes
from tagseg.errors import ImageError, MaskError
from tagseg.maps import MAX_CLASSES, Labels, check_labels

__all__ = ["decode_mask", "encode_mask", "read_mask", "voc_palette", "write_mask"]


def read_mask(path: Path) -> Labels:
    """Read a mask of class ids, uint8 (H, W); MaskError if the file does not hold one.

    Palette, grey, 1-bit and 16-bit files hold the ids themselves (at most 255); in RGB files the
    colours must all be of the VOC palette.
    """
    path = Path(path)
    try:
        return _mask_of(decode_picture(read_bytes(path), path, MAX_PIXELS), path)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None


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
        return _mask_of(decode_picture(data, None, MAX_PIXELS), None)
    except ImageError as problem:
        raise MaskError(problem.what, do=problem.do) from None


def voc_palette() -> npt.NDArray[np.uint8]:
    """The PASCAL VOC colours, uint8 (256, 3): bits 0-2 of the id fill R, G, B from the top."""
    ids = np.arange(256, dtype=np.uint16)
    palette = np.zeros((256, 3), np.uint16)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> channel) & 1) << (7 - step)
        ids >>= 3
    return palette.astype(np.uint8)


def _mask_of(picture: ImageFile.ImageFile, where: Path | None) -> Labels:
    if picture.format == "JPEG":
        raise MaskError("JPEG changes class ids", where=where, do="save masks as PNG")
    if picture.mode in ("P", "L", "1"):
        return np.array(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        return _small_ids(np.asarray(picture), where)
    if picture.mode == "RGB" or (picture.mode == "RGBA" and _is_opaque(picture)):
        return _ids_of_colours(np.asarray(picture.convert("RGB")), where)
    raise MaskError(
        f"pixels of kind {picture.mode} are not class ids",
        where=where,
        do="save the mask as a palette or grey PNG",
    )


def _is_opaque(picture: PilImage.Image) -> bool:
    return picture.getchannel("A").getextrema() == (255, 255)


def _small_ids(values: npt.NDArray, where: Path | None) -> Labels:
    worst = values.max() if values.max() > 255 else values.min()
    if not 0 <= worst <= 255:
        raise MaskError(f"holds class id {worst}", where=where, do="use ids from 0 to 255")
    return values.astype(np.uint8)


def _ids_of_colours(rgb: npt.NDArray[np.uint8], where: Path | None) -> Labels:
    weights = np.array([65536, 256, 1])
    colours = voc_palette() @ weights
    order = np.argsort(colours)
    codes = rgb @ weights
    ids = order[np.searchsorted(colours[order], codes).clip(max=255)]
    wrong = np.argwhere(colours[ids] != codes)
    if wrong.size:
        row, column = wrong[0]
        raise MaskError(
            f"colour {tuple(int(v) for v in rgb[row, column])} is not of the VOC palette",
            where=where,
            do="save class ids as a palette or grey PNG",
        )
    return ids.astype(np.uint8)
