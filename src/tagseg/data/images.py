"""Photos from files, decoded whole or refused.

Photos come out as uint8 (H, W, 3) RGB in display orientation, whatever the file holds. Who needs
one at much less than its own size says so, and a JPEG is then decoded to a half, a quarter or an
eighth, which its coding allows: all its coded data are read, and few pixels are made.
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
from tagseg.data.picture_formats import READ
from tagseg.data.pictures import MAX_PIXELS, damaged, load_picture, open_picture, read_bytes
from tagseg.errors import ImageError
from tagseg.maps import Image
from tagseg.memory import Room

__all__ = [
    "Decoded",
    "Seen",
    "decode_photo",
    "decode_reduced",
    "look_at_photo",
    "may_be_reduced",
]

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
_JPEG_SUFFIXES = frozenset(next(one.suffixes for one in READ if one.reader is JpegImageFile))
_LYING = (5, 6, 7, 8)  # orientations that exchange height and width
_PLAIN = ("RGB", "L")
_LARGE = 8_000_000  # pixels
_BYTES_A_PIXEL = 20  # at most, while a photo is decoded, turned and made RGB
_BYTES_OF_SCANS = 6  # a pixel of the file: a progressive JPEG's coefficients
_REDUCTIONS = (8, 4, 2)  # of a JPEG's sides
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


class Decoded(NamedTuple):
    """A photo, maybe smaller than in its file.

    Attributes:
        image: uint8 (h, w, 3).
        shape: height and width in the file, in display orientation.
        levels: of its values, if it has 16 bits.
    """

    image: Image
    shape: tuple[int, int]
    levels: Levels | None


class _Opened(NamedTuple):
    """A picture whose pixels are there.

    Attributes:
        data: of the file.
        shape: height and width in the file, as they are stored.
        inner: width and height of what shows the photo; a reduced one may have a part of a pixel
            beside that.
    """

    data: bytes
    picture: ImageFile.ImageFile
    shape: tuple[int, int]
    inner: tuple[int, int]

    def upright(self, white: int) -> Image:
        """The photo in display orientation."""
        rgb = _to_rgb(self.picture, self.data, white)
        if rgb.size != self.inner:
            rgb = rgb.crop((0, 0, *self.inner))
        return np.array(_upright(self.picture, rgb))

    def shown(self) -> tuple[int, int]:
        """Height and width in the file, in display orientation."""
        return self.shape[::-1] if _orientation(self.picture) in _LYING else self.shape

    def levels(self) -> Levels | None:
        """Of its values, if it has 16 bits."""
        return _levels(values_of_16_bits(self.picture, self.data))


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
    with _opened(source, max_pixels) as opened:
        return opened.upright(white)


def decode_reduced(
    source: Path | bytes,
    side: int | None,
    *,
    max_pixels: int = MAX_PIXELS,
    white: int = WHITE,
) -> Decoded:
    """A photo as :func:`decode_photo` gives it, or a smaller one that is made in less time.

    Of a JPEG whose longer side is at least twice ``side``, the sides are an eighth, a quarter or a
    half of the file's, whichever is the least that leaves ``side`` pixels or more. Where that is no
    whole number of pixels, it leaves twice as many: rounding then moves edges by a quarter of a
    pixel at ``side`` at most. Other photos, and all where ``side`` is None, come whole.
    """
    with _opened(source, max_pixels, side) as opened:
        return Decoded(opened.upright(white), opened.shown(), opened.levels())


def may_be_reduced(source: Path | Image, shape: tuple[int, int], side: int) -> bool:
    """Whether :func:`decode_reduced` may make less than the whole photo, told without reading it.

    True of files that are named as JPEGs and are large enough.
    """
    named = isinstance(source, Path) and source.suffix.lower() in _JPEG_SUFFIXES
    return named and _reduction(shape, side) > 1


def _reduction(shape: tuple[int, int], side: int) -> int:
    """What the sides of a JPEG are divided by for work at ``side`` pixels."""
    for factor in _REDUCTIONS:
        exact = all(length % factor == 0 for length in shape)
        if max(shape) >= factor * side * (1 if exact else 2):
            return factor
    return 1


def look_at_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Seen:
    """What a photo is, after it was decoded whole; ImageError as of :func:`decode_photo`."""
    with _opened(source, max_pixels, 1) as opened:
        picture = opened.picture
        if picture.mode not in _PLAIN or "transparency" in picture.info:
            _to_rgb(picture, opened.data, WHITE)
        return Seen(*opened.shown(), _has_more(picture), opened.levels())


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
def _opened(source: Path | bytes, max_pixels: int, side: int | None = None) -> Iterator[_Opened]:
    """A picture's file and its pixels; large ones wait until there is memory for them.

    A JPEG is reduced as far as ``side`` allows; None is for whole pixels.
    """
    where = source if isinstance(source, Path) else None
    data = read_bytes(source) if isinstance(source, Path) else source
    kind, picture = open_picture(data, where, max_pixels)
    width, height = picture.size
    inner = _reduced(picture, side) if side is not None else picture.size
    takes = _BYTES_A_PIXEL * picture.size[0] * picture.size[1]
    if picture.info.get("progressive"):
        takes += _BYTES_OF_SCANS * width * height
    with _ROOM.taken(takes) if takes > _BYTES_A_PIXEL * _LARGE else nullcontext():
        load_picture(kind, picture, data, where)
        with _one_line(picture, where):
            yield _Opened(data, picture, (height, width), inner)


def _reduced(picture: ImageFile.ImageFile, side: int) -> tuple[int, int]:
    """Let a picture be decoded to a part of its size; width and height of what shows the photo."""
    width, height = picture.size
    factor = _reduction((height, width), side)
    if factor == 1 or not isinstance(picture, JpegImageFile):
        return picture.size
    smaller = picture.draft(None, (max(1, width // factor), max(1, height // factor)))
    if smaller is None or picture.size == (width, height):
        return picture.size
    _, (_, _, inner_width, inner_height) = smaller
    return max(1, round(inner_width)), max(1, round(inner_height))


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
