"""Random crops, flips and scales of a photo and the label maps that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.maps import IGNORE, Image, Labels

__all__ = ["Augmentation", "augment", "crop_size"]

_GREY = 118  # padding, near the mean of natural photos


@dataclass(frozen=True)
class Augmentation:
    """How a training sample is cut from a photo.

    Attributes:
        size: height and width of the sample, pixels.
        stretch: resize the whole photo to ``size`` (as for a 224 x 224 classifier) before the rest.
        scale: range of a random factor on the photo's size.
        flip: mirror every second sample.
        jitter: range of a random factor on brightness and contrast, 0.2 means 0.8 to 1.2.
    """

    size: tuple[int, int]
    stretch: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    jitter: float = 0.0


def crop_size(shapes: Sequence[tuple[int, int]], limit: int, multiple: int = 8) -> tuple[int, int]:
    """Height and width of training crops: the median photo, at most ``limit``, rounded down."""
    medians = np.median(np.asarray(shapes), axis=0)
    height, width = (max(multiple, int(min(m, limit)) // multiple * multiple) for m in medians)
    return height, width


def augment(
    image: Image, maps: Sequence[Labels], how: Augmentation, rng: np.random.Generator
) -> tuple[Image, list[Labels]]:
    """Cut one sample: image (h, w, 3) and each label map (h, w); padding is grey and 255."""
    height, width = how.size if how.stretch else image.shape[:2]
    factor = rng.uniform(*how.scale)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    mirrored = how.flip and rng.random() < 0.5
    if target != (image.shape[1], image.shape[0]):
        shrinks = target[0] < image.shape[1]
        image = cv2.resize(  # type: ignore[assignment]
            image, target, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        # Not INTER_NEAREST, which rounds down and so moves labels by up to half a pixel.
        nearest = cv2.INTER_NEAREST_EXACT
        maps = [cv2.resize(m, target, interpolation=nearest) for m in maps]  # type: ignore[misc]
    if mirrored:
        image, maps = image[:, ::-1], [m[:, ::-1] for m in maps]
    window = _window(image.shape[0], image.shape[1], how.size, rng)
    cut = [_cut(m, window, how.size, IGNORE) for m in maps]
    return _jitter(_cut(image, window, how.size, _GREY), how.jitter, rng), cut


def _window(
    height: int, width: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Offset of the crop in the photo; negative where the photo is smaller than the crop."""
    top, left = (
        int(rng.integers(min(0, free), max(0, free) + 1))
        for free in (height - size[0], width - size[1])
    )
    return top, left


def _cut(
    array: npt.NDArray[np.uint8], offset: tuple[int, int], size: tuple[int, int], fill: int
) -> npt.NDArray[np.uint8]:
    (top, left), (height, width) = offset, size
    out = np.full((height, width, *array.shape[2:]), fill, np.uint8)
    part = array[max(0, top) : top + height, max(0, left) : left + width]
    out[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]] = part
    return out


def _jitter(image: Image, amount: float, rng: np.random.Generator) -> Image:
    if amount == 0.0:
        return image
    contrast, brightness = rng.uniform(1 - amount, 1 + amount, 2)
    mean = float(image.mean())
    table = (np.arange(256) - mean) * contrast + mean * brightness
    return np.clip(table, 0, 255).astype(np.uint8)[image]
