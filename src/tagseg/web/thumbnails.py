"""Small pictures of photos for the pages: made when asked for, kept, and not too many of them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import joblib
import numpy as np
import PIL
from PIL import Image as PilImage
from PIL import ImageOps

from tagseg.console import user_cache
from tagseg.data.images import decode_photo
from tagseg.data.pictures import MAX_PIXELS, load_picture, open_picture, read_bytes
from tagseg.data.working import working_image
from tagseg.errors import ImageError
from tagseg.tar_members import file_state

__all__ = ["SIDES", "Thumbnails", "small_jpeg"]

SIDES = {"small": 256, "large": 1600}
"""Longer sides, pixels: in the grid, and alone."""

_VERSION = f"1 {PIL.__version__}"
_QUALITY = {"small": 80, "large": 88}
_ROOM = 2 << 30  # bytes on disk
_LOOK = 500  # pictures after which the room is looked at again
_CLEARED = 0.8  # of the room, to which it is cleared


class Thumbnails:
    """Small JPEGs of photos, in a folder; several threads may ask at once.

    A folder that cannot be read or written does no harm: the pictures are made again.

    Args:
        folder: where they are kept.
        room: bytes that they may take; the oldest ones go.
        make: makes one of a file, for a key of ``SIDES``.
    """

    def __init__(
        self,
        folder: Path | None = None,
        room: int = _ROOM,
        make: Callable[[Path, str], bytes] | None = None,
    ) -> None:
        self._folder = folder if folder is not None else user_cache("thumbnails")
        self._room, self._make = room, make if make is not None else small_jpeg
        self._busy = threading.BoundedSemaphore(max(1, joblib.cpu_count()))
        self._made = _LOOK  # so that the room is looked at with the first one
        self._clearing = threading.Lock()

    def of(self, file: Path, size: str) -> bytes:
        """The picture of a photo; ImageError if it cannot be decoded whole."""
        kept = self._place(file, size)
        with suppress(OSError):
            return kept.read_bytes()
        with self._busy:
            picture = self._make(file, size)
        self._keep(kept, picture)
        return picture

    def _place(self, file: Path, size: str) -> Path:
        """Where the picture of a file is, as long as that does not change."""
        try:
            size_of_file, changed = file_state(file)
        except OSError as problem:
            raise ImageError(f"cannot be read: {problem.strerror}", where=file) from None
        what = f"{_VERSION} {size} {size_of_file} {changed} ".encode()
        name = blake2b(what + os.fsencode(file), digest_size=16).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.jpg"

    def _keep(self, place: Path, picture: bytes) -> None:
        temporary = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(picture)
            temporary.replace(place)
        self._made += 1
        if self._made >= _LOOK and self._clearing.acquire(blocking=False):
            try:
                self._made = 0
                _clear(self._folder, self._room)
            finally:
                self._clearing.release()


def small_jpeg(file: Path, size: str) -> bytes:
    """A JPEG of a photo, upright and without what a camera writes beside the pixels.

    Raises ImageError if the photo cannot be decoded whole.
    """
    side = SIDES[size]
    picture = _quickly(file, side)
    if picture is None:
        picture = PilImage.fromarray(working_image(np.ascontiguousarray(decode_photo(file)), side))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY[size])
    return content.getvalue()


def _quickly(file: Path, side: int) -> PilImage.Image | None:
    """A JPEG of plain colours or greys, decoded at the least size; None for any other photo."""
    data = read_bytes(file)
    kind, picture = open_picture(data, file, MAX_PIXELS)
    if kind != "JPEG" or picture.mode not in ("RGB", "L"):
        return None
    picture.draft(picture.mode, (side, side))
    load_picture(kind, picture, data, file)
    small: PilImage.Image = picture
    small.thumbnail((side, side), PilImage.Resampling.BOX)
    with suppress(Exception):  # broken metadata; the pixels still count
        small = ImageOps.exif_transpose(small)
    return small


def _clear(folder: Path, room: int) -> None:
    """Remove the oldest pictures if they take more than ``room`` bytes."""
    found = []
    for path in folder.glob("??/*"):
        with suppress(OSError):
            about = path.stat()
            found.append((about.st_mtime_ns, about.st_size, path))
    taken = sum(size for _, size, _ in found)
    if taken <= room:
        return
    for _, size, path in sorted(found, key=lambda each: each[0]):
        with suppress(OSError):
            path.unlink()
        taken -= size
        if taken <= _CLEARED * room:
            return
