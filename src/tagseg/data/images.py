"""Photos from files, decoded whole or refused.

Photos come out as uint8 (H, W, 3) RGB in display orientation, whatever the file holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from tagseg.data.pictures import MAX_PIXELS, damaged, decode_picture, read_bytes
from tagseg.maps import Image

__all__ = ["decode_photo"]

_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}


def decode_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a photo from a file or its bytes: uint8 (H, W, 3) RGB, in display orientation.

    Greyscale, palette, CMYK and alpha (over white) become RGB; 16-bit grey is divided by 257.
    The first frame of an animation or multi-page file counts. Raises ImageError if the file is
    not a picture, is cut short or damaged, or has more than ``max_pixels`` pixels; the limit is
    checked on the header, before anything is decoded.
    """
    where = source if isinstance(source, Path) else None
    data = read_bytes(source) if isinstance(source, Path) else source
    picture = decode_picture(data, where, max_pixels)
    try:
        rgb = _upright(picture, _to_rgb(picture))
    except Exception as problem:
        raise damaged(picture.format or "picture", problem, where) from None
    return np.array(rgb)


def _to_rgb(picture: PilImage.Image) -> PilImage.Image:
    if picture.mode.startswith("I"):
        return _from_16_bit(picture)
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = PilImage.new("RGBA", layer.size, (255, 255, 255, 255))
        return PilImage.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _from_16_bit(picture: PilImage.Image) -> PilImage.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels of more than 16 bits have no fixed range")
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    return PilImage.fromarray(grey).convert("RGB")


def _upright(picture: PilImage.Image, rgb: PilImage.Image) -> PilImage.Image:
    """``rgb`` turned as the EXIF orientation of ``picture`` says, if that can be read."""
    try:
        transpose = _TRANSPOSES.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata; the pixels still count
        return rgb
    return rgb if transpose is None else rgb.transpose(transpose)
