"""Values of 16-bit pictures, all 16 bits of them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from tagseg.data.depth import WHITE
from tagseg.errors import ImageError

__all__ = ["values_of_16_bits"]

_TIFF_BITS = 258
_COLOUR = ("RGB", "RGBA", "RGBX", "LA")


def values_of_16_bits(picture: ImageFile.ImageFile, data: bytes) -> npt.NDArray[np.uint16] | None:
    """Grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4); None if the picture does not have 16 bits.

    ``picture`` was read from ``data``. Raises ImageError for values that are negative or greater.
    """
    if picture.mode.startswith("I"):
        return _grey_values(np.asarray(picture))
    if not _has_16_bit_colour(picture, data):
        return None
    # Pillow keeps the higher byte of a colour only; OpenCV reads both.
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != picture.size[::-1]:
        return None
    if values.ndim == 2:
        return values  # type: ignore[return-value]
    return cv2.cvtColor(  # type: ignore[return-value]
        values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
    )


def _grey_values(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
    if values.dtype.byteorder != "=":
        values = values.astype(values.dtype.newbyteorder("="))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > WHITE:
        raise ImageError(
            f"it has values from {low} to {high}, which is no fixed range: convert it to 8 or 16 "
            "bits without sign"
        )
    return values.astype(np.uint16)


def _has_16_bit_colour(picture: ImageFile.ImageFile, data: bytes) -> bool:
    if picture.mode not in _COLOUR:
        return False
    if picture.format == "PNG":
        return data[24] == 16  # the bit depth in the header, which is always there
    tags = getattr(picture, "tag_v2", None) if picture.format == "TIFF" else None
    return tags is not None and max(tags.get(_TIFF_BITS, (8,))) == 16
