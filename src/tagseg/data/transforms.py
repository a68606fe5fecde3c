"""Crops, flips, scales and square canvases of a photo and the label maps that go with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tagseg.data.working import labels_at, resized
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import IGNORE, Image, check_image

__all__ = [
    "GREY",
    "Augmentation",
    "Box",
    "augment",
    "augment_apart",
    "colour_change",
    "crop_size",
    "factor_to",
    "letterbox",
    "recoloured",
    "resize_batch",
    "resized_shape",
    "unletterbox",
]

Box = tuple[int, int, int, int]
"""Top, left, height and width of a photo on its canvas, pixels."""

Colour = tuple[int, int, int]
Map = npt.NDArray[Any]
Maps = TypeVar("Maps", Tensor, npt.NDArray[np.float32])

GREY = 118  # padding, near the mean of natural photos


@dataclass(frozen=True)
class Augmentation:
    """How a training sample is cut from a photo.

    Attributes:
        size: height and width of the sample, pixels; None for the photo's own, whole.
        stretch: resize the whole photo to ``size`` (as for a 224 x 224 classifier) before the rest.
        scale: range of a random factor on the photo's size.
        flip: mirror every second sample.
        jitter: range of a random factor on brightness and contrast, 0.2 means 0.8 to 1.2.
        letterbox: colour of the canvas on which the whole photo is centred, in place of ``stretch``
            and ``scale`` (:func:`letterbox`), or "reflect" for a border that mirrors the photo;
            None for none.
        edges: largest part of the photo's height and width that is cut off at each edge, before
            the rest.

    Raises:
        ConfigError: a letterbox that is not square, or together with ``stretch`` or ``scale``;
            edges that leave nothing; either of the first two without a size.
    """

    size: tuple[int, int] | None
    stretch: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    jitter: float = 0.0
    letterbox: Colour | Literal["reflect"] | None = None
    edges: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.edges < 0.5:
            raise ConfigError(f"edges is {self.edges}", do="use 0 to below 0.5")
        if self.size is None and (self.stretch or self.letterbox is not None):
            raise ConfigError("a letterbox or stretch of no size", do="give size")
        if self.letterbox is None or self.size is None:
            return
        if self.size[0] != self.size[1]:
            raise ConfigError(
                f"a letterbox of {self.size[0]} x {self.size[1]} pixels", do="use a square size"
            )
        if self.stretch or self.scale != (1.0, 1.0):
            raise ConfigError(
                "a letterbox together with stretch or scale", do="leave stretch and scale out"
            )


def crop_size(shapes: Sequence[tuple[int, int]], limit: int, multiple: int = 8) -> tuple[int, int]:
    """Height and width of training crops: the median photo, at most ``limit``, rounded down."""
    medians = np.median(np.asarray(shapes), axis=0)
    height, width = (max(multiple, int(min(m, limit)) // multiple * multiple) for m in medians)
    return height, width


def augment(
    image: Image, maps: Sequence[Map], how: Augmentation, rng: np.random.Generator
) -> tuple[Image, list[Map]]:
    """Cut one sample: image (h, w, 3) and each label map (h, w); padding is grey and 255.

    Maps are uint8 or int32 and stay so. On a letterbox the padding is as the letterbox says.
    """
    if how.edges > 0:
        image, maps = _without_edges(image, maps, how.edges, rng)
    if how.letterbox is not None:
        return _boxed_sample(image, maps, how, how.letterbox, rng)
    height, width = how.size if how.stretch and how.size is not None else image.shape[:2]
    factor = rng.uniform(*how.scale)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    mirrored = how.flip and rng.random() < 0.5
    if target != (image.shape[1], image.shape[0]):
        image = resized(image, target)
        # Not INTER_NEAREST, which rounds down and so moves labels by up to half a pixel.
        nearest = cv2.INTER_NEAREST_EXACT
        maps = [cv2.resize(m, target, interpolation=nearest) for m in maps]  # type: ignore[misc]
    if mirrored:
        image, maps = _mirrored(image), [_mirrored(m) for m in maps]
    size = image.shape[:2] if how.size is None else how.size
    window = _window(image.shape[0], image.shape[1], size, rng)
    cut = [_cut(m, window, size, IGNORE) for m in maps]
    return _jitter(_cut(image, window, size, GREY), how.jitter, rng), cut


def augment_apart(
    image: Image, maps: Sequence[Map], how: Augmentation, rng: np.random.Generator, *, apart: bool
) -> tuple[Image, list[Map], dict[str, npt.NDArray[np.float32]]]:
    """:func:`augment`, of which a device that works apart from the CPU does its share.

    Where it can, the change of colours is drawn here and left to :func:`recoloured`: it is in the
    third value, which is a part of the sample. Canvases and photos of their own sizes are coloured
    here, as what is put around them has the same colour in all.
    """
    later = apart and how.jitter > 0 and how.letterbox is None and how.size is not None
    image, cut = augment(image, maps, replace(how, jitter=0.0) if later else how, rng)
    if not later:
        return image, cut, {}
    contrast, brightness = _jitter_draw(how.jitter, rng)
    mean = np.full((3, 3), 1 / 3)
    return image, cut, colour_change(contrast * np.eye(3), (brightness - contrast) * mean, 0.0)


def colour_change(
    matrix: npt.NDArray[np.float64], of_mean: npt.NDArray[np.float64], constant: float
) -> dict[str, npt.NDArray[np.float32]]:
    """What a sample says of a change of its colours c, for :func:`recoloured`.

    They become ``matrix`` c + ``of_mean`` m + ``constant``, rounded down, with m the mean colour.
    """
    columns = (matrix, of_mean, np.full((3, 1), constant))
    return {"colour": np.concatenate(columns, axis=1).astype(np.float32)}


def recoloured(images: Tensor, changes: Tensor) -> Tensor:
    """Photos uint8 (B, 3, H, W) with the changes (B, 3, 7) of :func:`colour_change`, uint8."""
    values = images.float()
    mean = values.mean((2, 3))[..., None]
    offset = changes[..., 3:6] @ mean + changes[..., 6:]
    changed = torch.einsum("bij,bjhw->bihw", changes[..., :3], values) + offset[..., None]
    return changed.floor().clamp(0, 255).to(torch.uint8)


def letterbox(image: Image, side: int, fill: Colour) -> tuple[Image, Box]:
    """A photo as large as fits on a square canvas, centred (Shimoda & Yanai 2016, 3.2).

    Args:
        image: uint8 (H, W, 3).
        side: of the canvas, to which the photo's longer side is brought, bilinearly up and by area
            down; pixels.
        fill: the canvas's colour, RGB. The paper pads with zeros behind the subtraction of the
            mean: :attr:`tagseg.nets.backbone.Preprocessing.mean_colour` is nearest to that.

    Returns:
        The canvas, uint8 (side, side, 3), and where the photo lies on it. Where the border's width
        is odd, its larger part is at the bottom or right.

    Raises:
        ShapeError: ``image`` is not uint8 (H, W, 3).
        ConfigError: ``side`` is below 1.
    """
    height, width = check_image(image).shape[:2]
    top, left, *inner = box = _box((height, width), side)
    if (height, width) != tuple(inner):
        way = cv2.INTER_AREA if max(inner) < max(height, width) else cv2.INTER_LINEAR
        image = cv2.resize(image, inner[::-1], interpolation=way)  # type: ignore[assignment]
    return _cut(image, (-top, -left), (side, side), fill), box


def unletterbox(maps: Maps, shape: tuple[int, int], side: int | None = None) -> Maps:
    """Maps of a letterboxed photo at the photo's own place and size: undoes :func:`letterbox`.

    Bilinear between the pixels that belong to the photo as a whole: the canvas's border stays out.

    Args:
        maps: float (C, s, s), of a canvas of any size.
        shape: height and width of the photo, pixels.
        side: of the canvas that the photo was put on, where the network saw it at another scale;
            None is s. Without it the place is off by up to a pixel, as boxes are whole pixels.

    Returns:
        float32 (C, H, W), of the type of ``maps``.

    Raises:
        ShapeError: ``maps`` is not (C, s, s), or ``shape`` is empty.
    """
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or 0 in maps.shape[1:]:
        raise ShapeError(f"maps has shape {tuple(maps.shape)}", do="give (C, s, s)")
    if not isinstance(maps, Tensor):
        writable = np.require(maps, np.float32, ("C", "W"))
        return unletterbox(torch.from_numpy(writable), shape, side).numpy()
    size = maps.shape[1]
    side = size if side is None else side
    top, left, height, width = _box(shape, side)
    y, x = (
        _places(count, first * size / side, (first + extent) * size / side, size).to(maps.device)
        for count, first, extent in ((shape[0], top, height), (shape[1], left, width))
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    placed = functional.grid_sample(
        maps.float()[None], grid, padding_mode="border", align_corners=True
    )
    return placed[0]


def resize_batch(images: Tensor, factor: float) -> Tensor:
    """Photos (B, 3, H, W), float, with sides ``factor`` times as long: bilinear, smooth down."""
    if factor == 1.0:
        return images
    shape = resized_shape((images.shape[2], images.shape[3]), factor)
    return functional.interpolate(
        images, shape, mode="bilinear", align_corners=False, antialias=factor < 1
    )


def factor_to(side: int | None, shape: Sequence[int]) -> float:
    """What brings the longer side of a photo of ``shape`` to ``side``; 1 for None."""
    return 1.0 if side is None else side / max(shape)


def resized_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of a photo of ``shape`` whose sides are ``factor`` times as long."""
    height, width = (max(1, round(side * factor)) for side in shape)
    return height, width


def _box(shape: tuple[int, int], side: int) -> Box:
    """Where a photo of ``shape`` lies on a canvas of ``side`` pixels."""
    if min(shape) < 1:
        raise ShapeError(f"a photo of {shape[0]} x {shape[1]} pixels", do="give at least 1 x 1")
    if side < 1:
        raise ConfigError(f"a canvas of {side} pixels", do="use at least 1")
    height, width = (max(1, round(length * side / max(shape))) for length in shape)
    return (side - height) // 2, (side - width) // 2, height, width


def _places(count: int, start: float, end: float, size: int) -> Tensor:
    """Middles of ``count`` pixels that share ``start`` to ``end`` of ``size``, as -1 to 1.

    They keep to the pixels that lie in that range as a whole, if there are any.
    """
    place = start + (torch.arange(count, dtype=torch.float64) + 0.5) * (end - start) / count - 0.5
    first, last = math.ceil(start), math.floor(end) - 1
    if first <= last:
        place = place.clamp(first, last)
    return (place / max(size - 1, 1) * 2 - 1).float()


def _without_edges(
    image: Image, maps: Sequence[Map], most: float, rng: np.random.Generator
) -> tuple[Image, list[Map]]:
    """The photo less a random part of up to ``most`` at each of its four edges."""
    height, width = image.shape[:2]
    top, bottom = (int(height * part) for part in rng.uniform(0, most, 2))
    left, right = (int(width * part) for part in rng.uniform(0, most, 2))
    inner = (slice(top, height - bottom), slice(left, width - right))
    return np.ascontiguousarray(image[inner]), [m[inner] for m in maps]


def _boxed_sample(
    image: Image,
    maps: Sequence[Map],
    how: Augmentation,
    fill: Colour | Literal["reflect"],
    rng: np.random.Generator,
) -> tuple[Image, list[Map]]:
    assert how.size is not None  # which a letterbox has
    side = how.size[0]
    if how.flip and rng.random() < 0.5:
        image, maps = _mirrored(image), [_mirrored(m) for m in maps]
    image = _jitter(image, how.jitter, rng)
    canvas, box = letterbox(image, side, (0, 0, 0) if fill == "reflect" else fill)
    if fill == "reflect":
        canvas = _mirrored_border(canvas, box)
    top, left, height, width = box
    resized = [labels_at(np.ascontiguousarray(m), (height, width)) for m in maps]
    return canvas, [_cut(m, (-top, -left), (side, side), IGNORE) for m in resized]


def _mirrored_border(canvas: Image, box: Box) -> Image:
    """The photo at ``box`` of a square canvas, and its mirror images where the canvas is free."""
    side = len(canvas)
    top, left, height, width = box
    photo = canvas[top : top + height, left : left + width]
    borders = (top, side - top - height, left, side - left - width)
    mirrored = cv2.copyMakeBorder(photo, *borders, borderType=cv2.BORDER_REFLECT_101)
    return mirrored  # type: ignore[return-value]


def _window(
    height: int, width: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Offset of the crop in the photo; negative where the photo is smaller than the crop."""
    top, left = (
        int(rng.integers(min(0, free), max(0, free) + 1))
        for free in (height - size[0], width - size[1])
    )
    return top, left


def _cut(array: Map, offset: tuple[int, int], size: tuple[int, int], fill: int | Colour) -> Map:
    (top, left), (height, width) = offset, size
    out = np.full((height, width, *array.shape[2:]), fill, array.dtype)
    part = array[max(0, top) : top + height, max(0, left) : left + width]
    out[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]] = part
    return out


def _mirrored(array: Map) -> Map:
    """Left for right; NumPy's copies of a mirrored view take twenty times as long."""
    return cv2.flip(array, 1)  # type: ignore[return-value]


def _jitter_draw(amount: float, rng: np.random.Generator) -> tuple[float, float]:
    """Factors on contrast and brightness."""
    contrast, brightness = rng.uniform(1 - amount, 1 + amount, 2)
    return contrast, brightness


def _jitter(image: Image, amount: float, rng: np.random.Generator) -> Image:
    if amount == 0.0:
        return image
    contrast, brightness = _jitter_draw(amount, rng)
    mean = float(image.mean())
    table = (np.arange(256) - mean) * contrast + mean * brightness
    return np.clip(table, 0, 255).astype(np.uint8)[image]
