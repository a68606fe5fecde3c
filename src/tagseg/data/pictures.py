"""Picture files, decoded whole in their own mode or refused."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

from PIL import Image as PilImage
from PIL import ImageFile

from tagseg.data.jpeg import check_coded, check_markers
from tagseg.data.picture_formats import READ, PictureFormat, format_of
from tagseg.errors import ImageError
from tagseg.input_files import LIMITS
from tagseg.tar_members import member_at

__all__ = [
    "MAX_PIXELS",
    "damaged",
    "decode_picture",
    "load_picture",
    "open_picture",
    "read_bytes",
]

MAX_PIXELS = 100_000_000

_NO_SUCH_PIXELS = "unknown pixel mode"  # Pillow's words for a TIFF file's kind of pixels


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, or of a member of a tar, which is a path below it.

    Raises ImageError if it is missing, not a file or not readable. An OSError of
    :data:`tagseg.input_files.LIMITS` goes on: the file may be as good as any.
    """
    try:
        member = member_at(path)
        if member is None:
            _check_is_file(path)
        return path.read_bytes() if member is None else member.read()
    except OSError as problem:
        if problem.errno in LIMITS:
            raise
        reason = problem.strerror or "reading failed"
        raise ImageError(f"cannot be read: {reason}", where=path, do="check the file") from None


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError("this is a folder, not a picture", where=path, do="remove or rename it")
    if not path.exists():
        raise ImageError("the file does not exist", where=path, do="check the name")
    if not path.is_file():
        raise ImageError("this is not a file", where=path, do="remove it")


def decode_picture(data: bytes, where: Path | None, max_pixels: int) -> ImageFile.ImageFile:
    """The first picture, loaded whole, in the file's own mode; else ImageError."""
    kind, picture = open_picture(data, where, max_pixels)
    load_picture(kind, picture, data, where)
    return picture


def open_picture(
    data: bytes, where: Path | None, max_pixels: int
) -> tuple[str, ImageFile.ImageFile]:
    """Format and first picture by its header, of which nothing is decoded; else ImageError."""
    if not data:
        raise ImageError("the file is empty", where=where, do="replace or remove it")
    kind = format_of(data)
    if kind is None or kind.reader is None:
        raise _not_read(kind, where)
    _silence_pillow()
    try:
        if kind.name == "JPEG":
            check_markers(data)
        picture = kind.reader(io.BytesIO(data))
        width, height = picture.size
        if width * height <= max_pixels:
            return kind.name, picture
    except Exception as problem:  # Pillow's readers raise anything on broken files
        raise damaged(kind.name, problem, where) from None
    raise ImageError(
        f"{width} x {height} pixels are more than the limit of {max_pixels}",
        where=where,
        do="shrink or remove it",
    )


def load_picture(kind: str, picture: ImageFile.ImageFile, data: bytes, where: Path | None) -> None:
    """Decode an opened picture whole; ImageError if a part of it is missing or damaged."""
    try:
        if kind == "PNG":
            type(picture)(io.BytesIO(data)).verify()  # all chunks, with their checksums
        if kind == "JPEG":
            check_coded(data)
        picture.load()
    except Exception as problem:  # Pillow's readers raise anything on broken files
        raise damaged(kind, problem, where) from None


def damaged(kind: str, problem: Exception, where: Path | None) -> ImageError:
    """What is raised for a file that begins well and ends badly."""
    reason = str(problem) or type(problem).__name__
    if reason == _NO_SUCH_PIXELS:
        return ImageError(
            f"the {kind} file has pixels of a kind that is not read (floating-point, 32-bit "
            "colour, many channels): convert it to 8 or 16 bits",
            where=where,
        )
    return ImageError(
        f"the {kind} file is cut short or damaged ({reason})",
        where=where,
        do="replace or remove it",
    )


def _not_read(kind: PictureFormat | None, where: Path | None) -> ImageError:
    if kind is None:
        known = ", ".join(one.name for one in READ if one.reader is not None)
        what, do = f"not a picture of a known format ({known})", "convert or remove it"
    elif kind in READ:  # its decoder is an extra
        what, do = f"this is a {kind.name} picture, which needs a decoder: {kind.advice}", ""
    else:
        what, do = f"this is a {kind.name} file, which is not read: {kind.advice}", ""
    return ImageError(what, where=where, do=do)


def _silence_pillow() -> None:
    """Let no warning of Pillow's about odd metadata through.

    ``warnings.catch_warnings`` is not safe in threads, which the audit uses; a filter is.
    """
    for category in (UserWarning, PilImage.DecompressionBombWarning):
        wanted = ("ignore", None, category, re.compile(r"PIL\."), 0)
        if wanted not in warnings.filters:
            warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
