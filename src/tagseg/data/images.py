"""Photos from files, decoded whole or refused.

Photos come out as uint8 (H, W, 3) RGB in display orientation, whatever the file holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from tagseg.data.depth import WHITE, Levels, scaled
from tagseg.data.high_values import values_of_16_bits
from tagseg.data.pictures import MAX_PIXELS, damaged, load_picture, open_picture, read_bytes
from tagseg.errors import ImageError
from tagseg.maps import Image
from tagseg.memory import Room

__all__ = ["Seen", "decode_photo", "decode_with_levels", "look_at_photo"]

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
_LYING = (5, 6, 7, 8)  # orientations that exchange height and width
_PLAIN = ("RGB", "L")
_LARGE = 8_000_000  # pixels
_BYTES_A_PIXEL = 20  # at most, while a photo is decoded, turned and made RGB
_ROOM = Room()


class Seen(NamedTuple):
    """What a look at a photo found.

    Attributes:
        height, width: in display orientation.
        more: whether it is animated or has several pages; the first picture counts.
        levels: of its values, if it has 16 bits.
    """

    height: int
    width: int
    more: bool
    levels: Levels | None


def decode_photo(
    source: Path | bytes, *, max_pixels: int = MAX_PIXELS, white: int = WHITE
) -> Image:
    """Decode a photo from a file or its bytes: uint8 (H, W, 3) RGB, in display orientation.

    Greyscale, palette, CMYK and alpha (over white) become RGB; in 16-bit files, ``white`` becomes
    255. The first frame of an animation or multi-page file counts. Raises ImageError if the file
    is not a picture, is cut short or damaged, has no fixed range of values (floating-point pixels,
    negative ones), or has more than ``max_pixels`` pixels; the limit is checked on the header,
    before anything is decoded.
    """
    with _opened(source, max_pixels) as (data, picture):
        return np.array(_upright(picture, _to_rgb(picture, data, white)))


def decode_with_levels(source: Path, *, white: int = WHITE) -> tuple[Image, Levels | None]:
    """A photo as :func:`decode_photo` gives it, and how its values are spread if it has 16 bits."""
    with _opened(source, MAX_PIXELS) as (data, picture):
        image = np.array(_upright(picture, _to_rgb(picture, data, white)))
        return image, _levels(values_of_16_bits(picture, data))


def look_at_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Seen:
    """What a photo is, after it was decoded whole; ImageError as of :func:`decode_photo`."""
    with _opened(source, max_pixels) as (data, picture):
        if picture.mode not in _PLAIN or "transparency" in picture.info:
            _to_rgb(picture, data, WHITE)
        levels = _levels(values_of_16_bits(picture, data))
        width, height = picture.size
        if _orientation(picture) in _LYING:
            width, height = height, width
        return Seen(height, width, _has_more(picture), levels)


@contextmanager
def _one_line(picture: ImageFile.ImageFile, where: Path | None) -> Iterator[None]:
    """Whatever goes wrong with the pixels of a picture becomes an ImageError with its place."""
    try:
        yield
    except ImageError as problem:
        raise ImageError(problem.what, where=where, do=problem.do) from None
    except Exception as problem:
        raise damaged(picture.format or "picture", problem, where) from None


@contextmanager
def _opened(source: Path | bytes, max_pixels: int) -> Iterator[tuple[bytes, ImageFile.ImageFile]]:
    """A picture's file and its pixels; large ones wait until there is memory for them."""
    where = source if isinstance(source, Path) else None
    data = read_bytes(source) if isinstance(source, Path) else source
    kind, picture = open_picture(data, where, max_pixels)
    pixels = picture.size[0] * picture.size[1]
    with _ROOM.taken(_BYTES_A_PIXEL * pixels) if pixels > _LARGE else nullcontext():
        load_picture(kind, picture, data, where)
        with _one_line(picture, where):
            yield data, picture


def _to_rgb(picture: ImageFile.ImageFile, data: bytes, white: int) -> PilImage.Image:
    layer: PilImage.Image = picture
    if picture.mode == "F":
        raise ImageError(
            "it has floating-point pixels, which have no fixed range: convert it to 8 or 16 bits"
        )
    # At 65535, colour is as Pillow gives it (the higher byte), which differs by rounding.
    if picture.mode.startswith("I") or white != WHITE:
        values = values_of_16_bits(picture, data)
        layer = picture if values is None else _from_16_bit(values, white)
    if layer.mode in ("LA", "PA", "RGBA") or "transparency" in layer.info:
        layer = layer.convert("RGBA")
        paper = PilImage.new("RGBA", layer.size, (255, 255, 255, 255))
        return PilImage.alpha_composite(paper, layer).convert("RGB")
    return layer.convert("RGB")


def _from_16_bit(values: npt.NDArray[np.uint16], white: int) -> PilImage.Image:
    """Grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4) in 8 bits; opacity is always of 65535."""
    small = scaled(values, white)
    if values.ndim == 3 and values.shape[2] == 4:
        small[..., 3] = scaled(values[..., 3], WHITE)
    return PilImage.fromarray(small)


def _levels(values: npt.NDArray[np.uint16] | None) -> Levels | None:
    if values is None:
        return None
    return Levels.of(values if values.ndim == 2 else values[..., :3])  # opacity does not count


def _has_more(picture: ImageFile.ImageFile) -> bool:
    """Whether the file has a second picture of the same kind; a JPEG's are listed in its header."""
    try:
        if isinstance(picture, JpegImageFile):
            listed = picture._getmp() if "mpoffset" in picture.info else None
            return listed is not None and int(listed.get(0xB001, 1)) > 1
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # broken behind the first picture, which is all that counts
        return False


def _orientation(picture: PilImage.Image) -> int:
    """The EXIF orientation, 1 if there is none that can be read."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
        return value if value in _TRANSPOSES else 1
    except Exception:  # broken metadata; the pixels still count
        return 1


def _upright(picture: PilImage.Image, rgb: PilImage.Image) -> PilImage.Image:
    """``rgb`` turned as the EXIF orientation of ``picture`` says, if that can be read."""
    transpose = _TRANSPOSES.get(_orientation(picture))
    return rgb if transpose is None else rgb.transpose(transpose)
