"""How EXIF turns photos: stored pixels, and the photo as it is displayed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.tar_members import open_file

__all__ = ["Geometry", "read_geometries", "turned"]

_ORIENTATION_TAG = 0x0112
_FLIPS = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}


class Geometry(NamedTuple):
    """A photo's size and how it is turned.

    Attributes:
        shape: height and width as displayed, pixels.
        orientation: EXIF's, 1 (not turned) to 8; from 5 on height and width are swapped.
    """

    shape: tuple[int, int]
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of the stored pixels."""
        return self.shape[::-1] if self.orientation >= 5 else self.shape


def turned(values: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Stored pixels (H, W) as an EXIF orientation, 1 to 8, has them displayed."""
    if orientation >= 5:
        values = values.T
    return np.flip(values, _FLIPS.get(orientation, ()))


def read_geometries(sources: Iterable[Path | npt.NDArray]) -> list[Geometry | None]:
    """Sizes of photos, from the files' heads; None for a file that does not tell."""
    with warnings.catch_warnings():  # of odd metadata and of many pixels: others tell these
        warnings.simplefilter("ignore")
        return [_geometry(source) for source in sources]


def _geometry(source: Path | npt.NDArray) -> Geometry | None:
    if isinstance(source, np.ndarray):
        return Geometry((source.shape[0], source.shape[1]))
    try:
        with open_file(source) as file, PilImage.open(file) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
            is_turned = picture.format == "TIFF"  # Pillow turns it itself, and swaps the size
    except Exception:  # Pillow's readers raise anything on broken files
        return None
    if orientation not in range(1, 9):
        return Geometry((height, width))
    swaps = orientation >= 5 and not is_turned
    return Geometry((width, height) if swaps else (height, width), orientation)
