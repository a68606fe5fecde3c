"""How generated pictures are drawn: objects on a canvas, and the camera that takes the canvas.

Canvases are RGB float32 (H, W, 3), 0..255, at :data:`DRAW` times the size of the pictures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.shapes import Part
from tagseg.data.textures import smooth_noise

__all__ = [
    "DRAW",
    "NOBODY",
    "Light",
    "Placed",
    "draw_object",
    "exposed",
    "random_light",
    "random_stream",
    "random_surroundings",
]

DRAW = 2  # pictures are drawn at twice their size and averaged down
NOBODY = -1  # owner of background pixels


@dataclass(frozen=True)
class Placed:
    """An object of class ``tag`` (-1: a distractor) on a canvas, x and y its centre in pixels."""

    parts: list[Part]
    tag: int
    x: float
    y: float
    half: float  # half the object's width
    mirrored: bool
    turn: float  # radians


@dataclass(frozen=True)
class Light:
    """Brightness per pixel (H, W, 1), and exposure and colour cast (3,)."""

    uneven: npt.NDArray[np.float32]
    cast: npt.NDArray[np.float32]


def random_stream(name: str, *numbers: int) -> np.random.Generator:
    """The random numbers of (name, numbers), the same in every process."""
    return np.random.default_rng([int.from_bytes(name.encode(), "big") % (2**31), *numbers])


def random_surroundings(rng: np.random.Generator, present: Collection[str]) -> str:
    """Where objects of the classes ``present`` are met, for :func:`textures.background`."""
    if "boat" in present and rng.random() < 0.85:
        return "water"
    if "aeroplane" in present and rng.random() < 0.7:
        return "sky"
    return str(rng.choice(["land", "water", "sky", "wall"], p=[0.62, 0.08, 0.1, 0.2]))


def draw_object(
    rng: np.random.Generator,
    canvas: npt.NDArray[np.float32],
    owner: npt.NDArray[np.int16],
    number: int,
    item: Placed,
) -> int:
    """Draw an object and claim its pixels; returns how many it covers before any occlusion."""
    light = float(rng.uniform(-0.35, 0.35))
    covered = np.zeros(owner.shape, np.uint8)
    for part in item.parts:
        outline = _to_canvas(item, part.outline)
        left, top = np.maximum(outline.min(0) - 1, 0)
        right, bottom = np.minimum(outline.max(0) + 2, owner.shape[::-1])
        if right <= left or bottom <= top:
            continue
        window = (slice(top, bottom), slice(left, right))
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [outline - (left, top)], 1)
        surface = part.material.paint(rng, bottom - top, right - left)
        surface *= _shade(item, light, left, top, right, bottom)
        np.copyto(canvas[window], surface, where=inside[:, :, None] > 0)
        covered[window] |= inside
    owner[covered > 0] = number
    return int(covered.sum())


def random_light(rng: np.random.Generator, h: int, w: int) -> Light:
    """Uneven light on a canvas of h x w pixels, and how it is exposed."""
    uneven = 1.0 + 0.12 * smooth_noise(rng, h, w, 90)[:, :, None]
    return Light(uneven, rng.uniform(0.9, 1.1, 3).astype(np.float32) * rng.uniform(0.7, 1.15))


def exposed(
    canvas: npt.NDArray[np.float32], light: Light, softness: float
) -> npt.NDArray[np.float32]:
    """The picture of a canvas through a soft lens, float32 (H / DRAW, W / DRAW, 3)."""
    h, w = canvas.shape[:2]
    lit = canvas * light.uneven * light.cast
    small = cv2.resize(lit, (w // DRAW, h // DRAW), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), softness)  # type: ignore[return-value]


def _to_canvas(item: Placed, outline: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    points = outline * ((-1.0, 1.0) if item.mirrored else (1.0, 1.0))
    c, s = np.cos(item.turn), np.sin(item.turn)
    turned = points @ np.array([[c, s], [-s, c]])
    return np.rint(turned * item.half + (item.x, item.y)).astype(np.int32)


def _shade(
    item: Placed, light: float, left: int, top: int, right: int, bottom: int
) -> npt.NDArray[np.float32]:
    """Light from one side and from above over the whole object (h, w, 1)."""
    x = (np.arange(left, right, dtype=np.float32) - item.x) / item.half
    y = (np.arange(top, bottom, dtype=np.float32) - item.y) / item.half
    return np.clip(1.0 + light * x[None] - 0.12 * y[:, None], 0.45, 1.5)[:, :, None]
