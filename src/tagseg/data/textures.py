"""Materials and backgrounds of the generated scenes: colours, patterns and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["PATTERNS", "Material", "background", "random_material", "smooth_noise"]

Colour = npt.NDArray[np.float32]  # (3,) RGB, 0..255
Canvas = npt.NDArray[np.float32]  # (H, W, 3) RGB, 0..255

PATTERNS = ("plain", "stripes", "patches", "dots", "fur", "wool")
_BANK_SIDE = 512


@dataclass(frozen=True)
class Material:
    """A surface: two colours, a pattern of :data:`PATTERNS`, and the pattern's period in pixels."""

    first: Colour
    second: Colour
    pattern: str = "plain"
    period: float = 12.0
    angle: float = 0.0

    def paint(self, rng: np.random.Generator, height: int, width: int) -> Canvas:
        """The surface on a canvas (height, width, 3), RGB 0..255."""
        mix = self._mix(rng, height, width)[:, :, None]
        grain = smooth_noise(rng, height, width, 2)[:, :, None] * 9.0
        return self.first * (1.0 - mix) + self.second * mix + grain

    def _mix(self, rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
        if self.pattern == "plain":
            return np.zeros((height, width), np.float32)
        if self.pattern == "patches":
            noise = smooth_noise(rng, height, width, self.period)
            return np.clip(noise * 6.0 + 0.3, 0.0, 1.0)
        if self.pattern == "wool":
            noise = smooth_noise(rng, height, width, max(3.0, self.period / 3))
            return np.clip(noise * 0.6 + 0.4, 0.0, 1.0)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        c, s = math.cos(self.angle), math.sin(self.angle)  # NumPy's would be float64, and spread
        along = x * c + y * s
        if self.pattern == "fur":
            noise = smooth_noise(rng, height, width, 4)
            return np.clip(0.5 + 0.35 * np.sin(along * 1.7 + 5.0 * noise), 0.0, 1.0)
        wave = np.sin(along * (2 * np.pi / self.period))
        if self.pattern == "dots":
            across = y * c - x * s
            wave = wave * np.sin(across * (2 * np.pi / self.period)) - 0.35
        return np.clip(wave * 4.0 + 0.5, 0.0, 1.0)


def random_material(rng: np.random.Generator, *, patterns: tuple[str, ...] = PATTERNS) -> Material:
    """A material that any object's body may have: saturated colours and some pattern."""
    first = _hsv(rng.uniform(0, 1), rng.uniform(0.35, 0.95), rng.uniform(0.35, 0.95))
    second = _hsv(rng.uniform(0, 1), rng.uniform(0.0, 0.9), rng.uniform(0.1, 1.0))
    return Material(
        first,
        second,
        str(rng.choice(patterns)),
        float(rng.uniform(9, 26)),
        float(rng.uniform(0, np.pi)),
    )


def background(rng: np.random.Generator, height: int, width: int, surroundings: str) -> Canvas:
    """A background (height, width, 3): a far and a near surface that meet at a soft horizon.

    ``surroundings`` is "land", "water" (the near surface is water), "sky" (the far one fills most
    of the picture) or "wall" (one surface only).
    """
    horizon = {"sky": rng.uniform(0.75, 1.1), "wall": 1.2}.get(surroundings, rng.uniform(0.3, 0.7))
    far = _sky(rng, height, width) if surroundings != "wall" else _ground(rng, height, width)
    near = _water(rng, height, width) if surroundings == "water" else _ground(rng, height, width)
    line = horizon * height + smooth_noise(rng, 1, width, 40)[0] * height * 0.08
    rows = np.arange(height, dtype=np.float32)[:, None]
    blend = np.clip((rows - line[None]) / 3.0 + 0.5, 0.0, 1.0)[:, :, None]
    return far * (1.0 - blend) + near * blend


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, period: float
) -> npt.NDArray[np.float32]:
    """Noise (height, width) of unit variance whose features are about ``period`` pixels wide."""
    bank = _noise_bank()
    factor = max(1.0, period / 2.0)
    h, w = int(height / factor) + 2, int(width / factor) + 2
    top, left = rng.integers(0, max(1, _BANK_SIDE - h)), rng.integers(0, max(1, _BANK_SIDE - w))
    rows, columns = np.arange(top, top + h) % _BANK_SIDE, np.arange(left, left + w) % _BANK_SIDE
    crop = bank[np.ix_(rows, columns)]
    if factor == 1.0:
        return crop[:height, :width]
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _noise_bank() -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(20161).standard_normal((_BANK_SIDE, _BANK_SIDE))
    blurred = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 0.8)
    return blurred / blurred.std()


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    sector = (hue % 1.0) * 6.0 + np.array([5.0, 3.0, 1.0])
    sector = sector % 6.0
    ramp = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    return ((1.0 - saturation * ramp) * value * 255.0).astype(np.float32)


def _octaves(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    coarse = smooth_noise(rng, height, width, rng.uniform(40, 90))
    fine = smooth_noise(rng, height, width, rng.uniform(4, 20))
    return coarse * 0.7 + fine * 0.5


def _sky(rng: np.random.Generator, height: int, width: int) -> Canvas:
    blue = _hsv(rng.uniform(0.52, 0.64), rng.uniform(0.1, 0.6), rng.uniform(0.65, 1.0))
    cloud = np.clip(smooth_noise(rng, height, width, 60) * 0.4, 0.0, 0.8)[:, :, None]
    fade = np.linspace(0.0, 0.35, height, dtype=np.float32)[:, None, None]
    sky = blue * (1.0 - fade) + 245.0 * fade
    return sky * (1.0 - cloud) + 240.0 * cloud


def _water(rng: np.random.Generator, height: int, width: int) -> Canvas:
    colour = _hsv(rng.uniform(0.48, 0.62), rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.7))
    tall = smooth_noise(rng, height, max(2, width // 5), 5)
    waves = cv2.resize(tall, (width, height), interpolation=cv2.INTER_LINEAR)
    return colour + waves[:, :, None] * rng.uniform(8, 22)


def _ground(rng: np.random.Generator, height: int, width: int) -> Canvas:
    hue = rng.choice([rng.uniform(0.2, 0.36), rng.uniform(0.05, 0.14), rng.uniform(0, 1)])
    colour = _hsv(float(hue), rng.uniform(0.05, 0.55), rng.uniform(0.25, 0.85))
    noise = _octaves(rng, height, width)[:, :, None]
    ground = colour + noise * rng.uniform(8, 30) * rng.uniform(0.7, 1.3, 3).astype(np.float32)
    if rng.random() < 0.25:  # planks, bricks or furrows
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        angle = rng.uniform(0, np.pi)
        phase = (x * math.cos(angle) + y * math.sin(angle)) / rng.uniform(14, 34)
        gaps = (np.abs(phase % 1.0 - 0.5) > 0.45).astype(np.float32)
        ground = ground - gaps[:, :, None] * rng.uniform(15, 45)
    return ground
