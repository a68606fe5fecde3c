"""Photos and masks from files, decoded whole or refused, and masks to files.

Photos come out as uint8 (H, W, 3) RGB in display orientation, whatever the file holds. Masks are
palettised PNG files with the VOC palette: 0 background, k + 1 class k, 255 ignore.
"""

from __future__ import annotations

import io
import os
import re
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tagseg.data.jpeg import NotWholeError, padded_copy
from tagseg.errors import DataError, ImageError, MaskError
from tagseg.maps import MAX_CLASSES, Image, Labels, check_labels

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "decode_mask",
    "decode_photo",
    "encode_mask",
    "find_masks",
    "find_photos",
    "read_bytes",
    "read_mask",
    "visible_folders",
    "voc_palette",
    "without_suffix",
    "write_mask",
]

MAX_PIXELS = 100_000_000
PHOTO_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"],
)
_MASK_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".bmp", ".gif"))
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


class _Format(NamedTuple):
    name: str
    start: re.Pattern[bytes]
    reader: type[ImageFile.ImageFile]


# The readers are called directly: Image.open would try forty formats (PostScript among them) and
# warn at a pixel limit of its own.
_FORMATS = (
    _Format("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    _Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    _Format("GIF", re.compile(rb"GIF8[79]a"), GifImageFile),
    _Format("BMP", re.compile(rb"BM"), BmpImageFile),
    _Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    _Format("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    _Format("PPM", re.compile(rb"P[1-6]\s"), PpmImageFile),
)


def decode_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a photo from a file or its bytes: uint8 (H, W, 3) RGB, in display orientation.

    Greyscale, palette, CMYK and alpha (over white) become RGB; 16-bit grey is divided by 257.
    The first frame of an animation or multi-page file counts. Raises ImageError if the file is
    not a picture, is cut short or damaged, or has more than ``max_pixels`` pixels; the limit is
    checked on the header, before anything is decoded.
    """
    where = source if isinstance(source, Path) else None
    data = read_bytes(source) if isinstance(source, Path) else source
    picture = _decode(data, where, max_pixels)
    try:
        rgb = _upright(picture, _to_rgb(picture))
    except Exception as problem:
        raise _damaged(picture.format or "picture", problem, where) from None
    return np.array(rgb)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; ImageError if it is missing, empty, not a file or not readable."""
    if path.is_dir():
        raise ImageError("this is a folder, not a picture", where=path, do="remove or rename it")
    if not path.exists():
        raise ImageError("the file does not exist", where=path, do="check the name")
    if not path.is_file():
        raise ImageError("this is not a file", where=path, do="remove it")
    try:
        return path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise ImageError(f"cannot be read: {reason}", where=path, do="check the file") from None


def read_mask(path: Path) -> Labels:
    """Read a mask of class ids, uint8 (H, W); MaskError if the file does not hold one.

    Palette, grey, 1-bit and 16-bit files hold the ids themselves (at most 255); in RGB files the
    colours must all be of the VOC palette.
    """
    path = Path(path)
    try:
        return _mask_of(_decode(read_bytes(path), path, MAX_PIXELS), path)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None


def write_mask(path: Path, labels: Labels) -> None:
    """Write ``labels``, uint8 (H, W), as a palettised PNG, atomically: whole or not at all."""
    path = Path(path)
    data = encode_mask(labels)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
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
        return _mask_of(_decode(data, None, MAX_PIXELS), None)
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


def find_photos(folder: Path) -> dict[str, Path]:
    """All photos under ``folder``: name (relative posix path without suffix) -> path, sorted.

    Hidden files and folders are left out; links are followed. Raises DataError if two files
    differ only in their suffix, because both would have the same name.
    """
    return _find(Path(folder), PHOTO_SUFFIXES)


def find_masks(folder: Path) -> dict[str, Path]:
    """All mask files under ``folder``, as :func:`find_photos` finds photos."""
    return _find(Path(folder), _MASK_SUFFIXES)


def without_suffix(name: str) -> str:
    """``name`` without its suffix if that is a photo's; other dots belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in PHOTO_SUFFIXES else name


def _find(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError("this folder does not exist", where=folder, do="check the path")
    found: dict[str, Path] = {}
    for path in _walk(folder):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            both = " and ".join(sorted((found[name].name, path.name)))
            raise DataError(f"{both} have the same name", where=path.parent, do="rename one")
        found[name] = path
    return dict(sorted(found.items()))


def visible_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder that is not hidden and its files, through links, each real folder once."""
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), [name for name in names if not name.startswith(".")]


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden."""
    for place, names in visible_folders(folder):
        yield from (place / name for name in names)


def _decode(data: bytes, where: Path | None, max_pixels: int) -> ImageFile.ImageFile:
    """The picture, loaded whole, in the file's own mode; else ImageError."""
    if not data:
        raise ImageError("the file is empty", where=where, do="replace or remove it")
    kind = next((f for f in _FORMATS if f.start.match(data)), None)
    if kind is None:
        raise ImageError(
            "not a picture of a known format (JPEG, PNG, GIF, BMP, TIFF, WebP, PPM)",
            where=where,
            do="convert or remove it",
        )
    _silence_pillow()
    try:
        padded = padded_copy(data) if kind.name == "JPEG" else None
        picture = kind.reader(io.BytesIO(data))
        width, height = picture.size
        if width * height <= max_pixels:
            if kind.name == "PNG":
                kind.reader(io.BytesIO(data)).verify()  # all chunks, with their checksums
            picture.load()
            if padded is not None:
                _check_same(picture, kind.reader(io.BytesIO(padded)))
            return picture
    except Exception as problem:  # Pillow's readers raise anything on broken files
        raise _damaged(kind.name, problem, where) from None
    raise ImageError(
        f"{width} x {height} pixels are more than the limit of {max_pixels}",
        where=where,
        do="shrink or remove it",
    )


def _check_same(picture: PilImage.Image, padded: PilImage.Image) -> None:
    if ImageChops.difference(picture, padded).getbbox() is not None:
        raise NotWholeError("part of the picture is missing")


def _damaged(kind: str, problem: Exception, where: Path | None) -> ImageError:
    reason = str(problem) or type(problem).__name__
    return ImageError(
        f"the {kind} file is cut short or damaged ({reason})",
        where=where,
        do="replace or remove it",
    )


def _silence_pillow() -> None:
    """Let no warning of Pillow's about odd metadata through.

    ``warnings.catch_warnings`` is not safe in threads, which the audit uses; a filter is.
    """
    for category in (UserWarning, PilImage.DecompressionBombWarning):
        wanted = ("ignore", None, category, re.compile(r"PIL\."), 0)
        if wanted not in warnings.filters:
            warnings.filterwarnings("ignore", category=category, module=r"PIL\.")


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
