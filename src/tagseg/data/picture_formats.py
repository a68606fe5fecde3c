"""Formats of picture files: those that are read here, and those that are known by name only.

A file is told by its first bytes; suffixes only say which files of a folder are meant as photos.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import import_module
from typing import NamedTuple

from PIL import features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

__all__ = [
    "NAME_SUFFIXES",
    "PHOTO_SUFFIXES",
    "READ",
    "SPARE_SUFFIXES",
    "PictureFormat",
    "format_of",
    "unread_suffix",
]

_HEAD = 4096  # bytes in which a file says what it is


class PictureFormat(NamedTuple):
    """A format of picture files.

    Attributes:
        name: as messages call it.
        suffixes: of file names, in small letters.
        start: matches the beginning of a file; None where nothing tells it.
        reader: of Pillow's kind; None if such files cannot be read here.
        advice: what to do with files that cannot be read.
    """

    name: str
    suffixes: tuple[str, ...]
    start: re.Pattern[bytes] | None
    reader: type[ImageFile] | None
    advice: str


def _read(
    name: str, suffixes: str, start: bytes, reader: type[ImageFile] | None, advice: str = ""
) -> PictureFormat:
    """A format that is read, where its reader is installed."""
    pattern = re.compile(start, re.DOTALL)
    return PictureFormat(name, _dotted(suffixes), pattern, reader, advice)


def _known(
    name: str, suffixes: str, start: bytes | None, advice: str = "save as PNG or JPEG"
) -> PictureFormat:
    """A format that is not read, so that messages can name it."""
    pattern = None if start is None else re.compile(start, re.DOTALL)
    return PictureFormat(name, _dotted(suffixes), pattern, None, advice)


def _dotted(suffixes: str) -> tuple[str, ...]:
    return tuple(f".{suffix}" for suffix in suffixes.split())


def _if_there(module: str, reader: str) -> type[ImageFile] | None:
    """A reader that is not in every installation."""
    try:
        found = import_module(module)
    except Exception:  # an extra that is there and broken counts as one that is not
        return None
    # Pillow's module for AVIF is there, too, where Pillow was built without.
    return getattr(found, reader, None) if getattr(found, "SUPPORTED", True) else None


_UPDATE = "pip install -U pillow"
_EXTRA = "pip install 'tagseg[formats]'"
_DEVELOP = "export as JPEG or TIFF"
_WHOLE_NUMBERS = "save as PNG or TIFF of 8 or 16 bits"

# ISO media files name their kind, or, as "mif1", all kinds with which they are compatible.
_BRAND = rb"....ftyp(?:mif1.{4}(?:.{4}){0,14}?)?"

# The readers are called directly: Image.open would try forty formats (PostScript among them) and
# warn at a pixel limit of its own.
READ = (
    _read("JPEG", "jpg jpeg jpe jfif jfi jif pjpeg pjp mpo", rb"\xff\xd8\xff", JpegImageFile),
    _read("PNG", "png apng", rb"\x89PNG\r\n\x1a\n", PngImageFile),
    _read("GIF", "gif", rb"GIF8[79]a", GifImageFile),
    _read("BMP", "bmp dib", rb"BM", BmpImageFile),
    _read("TIFF", "tif tiff", rb"II[*+]\0|MM\0[*+]", TiffImageFile),
    _read("WebP", "webp", rb"RIFF....WEBP", WebPImageFile),
    _read("PPM", "ppm pgm pbm pnm", rb"P[1-6]\s", PpmImageFile),
    _read(
        "AVIF",
        "avif avifs",
        _BRAND + rb"avi[fs]",
        _if_there("PIL.AvifImagePlugin", "AvifImageFile"),
        _UPDATE,
    ),
    _read(
        "HEIC",
        "heic heif hif",
        _BRAND + rb"(?:he[iv][cxms]|mif1|msf1)",
        _if_there("pillow_heif", "HeifImageFile"),
        _EXTRA,
    ),
    _read(
        "JPEG 2000",
        "jp2 j2k jpx jpf j2c jpc",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        Jpeg2KImageFile if features.check_codec("jpg_2000") else None,
        _UPDATE,
    ),
)
"""All formats that can be read; ``reader`` is None for one whose decoder is not installed."""

_KNOWN = (
    _known(
        "camera raw",
        "dng nef nrw cr2 cr3 crw arw srf sr2 orf rw2 raf pef srw x3f raw 3fr fff erf mrw rwl iiq",
        rb"II\*\0\x10\0\0\0CR|....ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|IIU\0|FOVb",
        _DEVELOP,
    ),
    _known("DICOM", "dcm dicom", rb"(?!II|MM).{128}DICM"),  # some are TIFF files, too
    _known("medical volume", "nii nii.gz mha mhd nrrd", rb"NRRD\d"),
    _known("microscope", "czi lif nd2 lsm oib oif vsi svs ndpi mrxs", rb"ZISRAWFILE"),
    _known("Photoshop", "psd psb", rb"8BPS"),
    _known("drawing", "svg svgz eps ai wmf emf", rb"\s*(?:<\?xml[^>]*>\s*)?<svg|%!PS"),
    _known("floating-point", "exr hdr pfm", rb"\x76\x2f\x31\x01|#\?R|P[Ff]\s", _WHOLE_NUMBERS),
    _known("JPEG XL", "jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    _known("JPEG XR", "jxr wdp hdp", rb"II\xbc\x01"),
    _known("PDF", "", rb"%PDF"),
    _known("", "tga ico cur icns pcx sgi ras xbm xpm dds qoi fits fts jls bpg", None),
)


def _suffixes(formats: Iterable[PictureFormat]) -> frozenset[str]:
    return frozenset(suffix for one in formats for suffix in one.suffixes)


PHOTO_SUFFIXES = _suffixes(one for one in READ if one.reader is not None)
"""Suffixes of the photos that are read in this installation, in small letters."""

NAME_SUFFIXES = _suffixes(READ)
"""Those, and suffixes of photos whose decoder is not installed: no part of a photo's name."""

SPARE_SUFFIXES = NAME_SUFFIXES - frozenset(
    _dotted("jpg jpeg jpe png bmp gif tif tiff webp ppm pgm")
)
"""Of forms that phones, cameras and web sites put beside a common one: the common one counts."""

_ADVICE = {suffix: one.advice for one in (*READ, *_KNOWN) for suffix in one.suffixes}


def format_of(data: bytes) -> PictureFormat | None:
    """The format of a file that begins with ``data``; None if it is none of the known ones."""
    head = data[:_HEAD]
    for one in (*_KNOWN, *READ):
        if one.start is not None and one.start.match(head):
            return one
    return None


def unread_suffix(name: str) -> tuple[str, str] | None:
    """Suffix and advice for a file that is a picture by its name, and is not read here."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix == ".gz":
        suffix = os.path.splitext(stem)[1] + suffix
    if suffix in PHOTO_SUFFIXES or suffix not in _ADVICE:
        return None
    return suffix, _ADVICE[suffix]
