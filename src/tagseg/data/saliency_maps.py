"""Saliency maps that were made elsewhere, from a folder of pictures or arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.finding import find_photos
from tagseg.data.images import decode_photo
from tagseg.data.pictures import MAX_PIXELS
from tagseg.data.text import readable
from tagseg.errors import DataError, ImageError
from tagseg.maps import BACKGROUND, IGNORE, SaliencyMap

__all__ = ["SaliencyFolder"]

_PICTURES = frozenset((".png", ".jpg", ".jpeg"))
_ARRAY = ".npy"
# The header is parsed as Python's literals, after Python's tokens have been gone through.
_BAD_HEADER = (SyntaxError, TokenError, TypeError, ArithmeticError, RecursionError, MemoryError)


class SaliencyFolder:
    """Saliency maps of photos by name, one file a photo, read when asked for.

    A map has its photo's name (relative path without suffix, ``train/cat.png`` for photo
    ``train/cat``) and is a grey PNG or JPEG of 8 or 16 bits, also written as RGB with equal
    channels, a mask of class ids as PNG with a palette of colours (all but 0 and 255 is salient),
    or a float .npy (H, W). Pictures are divided by their type's maximum, arrays by their own
    maximum where that is over 1.

    Raises DataError if the folder does not exist, has no maps, or has two for the same photo.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise DataError("this folder does not exist", where=self.folder, do="check the path")
        self._files = _find_maps(self.folder)
        if not self._files:
            raise DataError(
                "no saliency maps in this folder",
                where=self.folder,
                do="give a folder of PNG, JPEG or .npy files with the photos' names",
            )

    def has(self, name: str) -> bool:
        """Whether photo ``name`` has a map."""
        return name in self._files

    def names(self) -> tuple[str, ...]:
        """The photos that have a map."""
        return tuple(self._files)

    def check(self, names: Iterable[str]) -> None:
        """Raise DataError, with their number and the first, if photos of ``names`` have no map."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self._files]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(wanted)} photos have no saliency map, "
                f"the first is '{missing[0]}'",
                where=self.folder,
                do="add one file of each photo's name",
            )

    def map(self, name: str, shape: tuple[int, int]) -> SaliencyMap:
        """Saliency map of photo ``name``, float32 (H, W) in [0, 1].

        Args:
            name: of the photo.
            shape: (H, W) of the photo. A map of another size is resized bilinearly if its aspect
                ratio is the photo's, to within a pixel of rounding.

        Raises:
            DataError: there is none, it does not fit, or the file does not hold a map.
        """
        self.check([name])
        path = self._files[name]
        values = _array(path) if path.suffix.lower() == _ARRAY else _picture(path)
        if not _same_aspect(values.shape, shape):
            raise DataError(
                f"the saliency map is {values.shape[0]} x {values.shape[1]}, "
                f"the photo {shape[0]} x {shape[1]}",
                where=path,
                do="give a map of the photo's height and width, or of the same aspect ratio",
            )
        if values.shape != tuple(shape):
            size = shape[1], shape[0]
            values = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
        return np.clip(values, 0, 1)

    def digest(self, names: Iterable[str]) -> str:
        """sha256, in hex, of the maps of photos ``names``: of each name and its file's bytes.

        The order of ``names`` does not count. Raises DataError if a photo has no map.
        """
        wanted = sorted(set(names))
        self.check(wanted)
        whole = hashlib.sha256()
        for name in wanted:
            # Both parts have a fixed length, so that no two lists of files look alike.
            whole.update(hashlib.sha256(os.fsencode(name)).digest())
            whole.update(_digest_of_file(self._files[name]))
        return whole.hexdigest()


def _find_maps(folder: Path) -> dict[str, Path]:
    """Name -> file. Hidden files and folders are left out, as :func:`find_photos` does."""
    pictures = find_photos(folder, outputs=True)
    found = {name: path for name, path in pictures.items() if path.suffix.lower() in _PICTURES}
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.suffix.lower() != _ARRAY or any(part.startswith(".") for part in below.parts):
            continue
        name = readable(below.with_suffix("").as_posix())
        if name in found:
            both = " and ".join(sorted((found[name].name, path.name)))
            raise DataError(f"{both} have the same name", where=path.parent, do="remove one")
        found[name] = path
    return dict(sorted(found.items()))


def _picture(path: Path) -> npt.NDArray[np.float32]:
    """Grey values of a picture, (h, w), divided by the largest that its type can hold."""
    rgb = decode_photo(path)  # refuses files that are cut short, which Pillow alone does not
    with PilImage.open(path) as picture:
        if picture.mode.startswith("I"):
            return np.asarray(picture, np.float32) / np.float32(65535)
        if picture.mode == "P" and (rgb != rgb[..., :1]).any():
            ids = np.asarray(picture)
            return ((ids != BACKGROUND) & (ids != IGNORE)).astype(np.float32)
        if "transparency" in picture.info or "A" in picture.getbands():
            raise _not_grey("has transparent pixels", path)
    if (rgb != rgb[..., :1]).any():
        raise _not_grey("holds colours", path)
    return rgb[..., 0].astype(np.float32) / np.float32(255)


def _not_grey(what: str, path: Path) -> ImageError:
    return ImageError(f"the saliency map {what}", where=path, do="save it as a grey picture")


def _array(path: Path) -> npt.NDArray[np.float32]:
    """Values of a float .npy, (h, w), finite, not negative and brought to at most 1."""
    try:
        # Mapped, so that the header of a broken file cannot ask for any memory.
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, *_BAD_HEADER) as problem:
        reason = str(problem).partition("\n")[0] or "reading failed"
        raise _broken(f"the .npy file cannot be read ({reason})", path) from None
    if values.dtype.kind != "f" or values.ndim != 2 or not 0 < values.size <= MAX_PIXELS:
        raise _broken(f"the file holds a {values.dtype} array of shape {values.shape}", path)
    copied = values.astype(np.float64)
    if not np.isfinite(copied).all() or copied.min() < 0:
        raise _broken("the saliency map holds NaN, infinity or values below 0", path)
    return (copied / max(1.0, float(copied.max()))).astype(np.float32)


def _broken(what: str, path: Path) -> DataError:
    return DataError(what, where=path, do="save a float array (H, W) of values from 0 to 1")


def _same_aspect(found: tuple[int, ...], wanted: tuple[int, int]) -> bool:
    """Whether one scale brings both sides to within a pixel of what was found."""
    least = max((side - 1) / full for side, full in zip(found, wanted, strict=True))
    most = min((side + 1) / full for side, full in zip(found, wanted, strict=True))
    return least < most


def _digest_of_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise DataError(f"cannot be read: {reason}", where=path, do="check the file") from None
