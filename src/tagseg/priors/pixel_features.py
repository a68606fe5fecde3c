"""Colour and texture features of pixels for crisp boundaries, decorrelated within one photo.

Isola et al., "Crisp boundary detection using pointwise mutual information" (ECCV 2014), section 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.color import rgb2lab

from tagseg.maps import Image

__all__ = ["colour_features", "decorrelated", "texture_features"]

Float32 = npt.NDArray[np.float32]

_ROUNDING = 1e-4  # share of the largest standard deviation below which an axis says nothing


def colour_features(image: Image) -> Float32:
    """Convert a photo to CIE Lab, decorrelated: float32 (H, W, 3) in [0, 1/2]."""
    return decorrelated(rgb2lab(image.astype(np.float32) / 255))


def texture_features(image: Image, radius: int) -> Float32:
    """Measure how colours vary nearby, decorrelated: float32 (H, W, 3) in [0, 1/2].

    It is the root of the local standard deviation of the colours along their principal axes. The
    standard deviation is that of the pixels within ``radius``, mirrored at the border.
    """
    height, width, _ = image.shape
    colours = _rotated(image.reshape(-1, 3).astype(np.float64) / 255)
    padded = np.pad(
        colours.reshape(height, width, 3).astype(np.float32),
        ((radius, radius), (radius, radius), (0, 0)),
        mode="symmetric",
    )
    total = np.zeros((height, width, 3), np.float32)
    squares = np.zeros_like(total)
    steps = range(2 * radius + 1)
    disk = [(y, x) for y in steps for x in steps if np.hypot(y - radius, x - radius) <= radius]
    for y, x in disk:
        moved = padded[y : y + height, x : x + width]
        total += moved
        squares += moved * moved
    n = len(disk)
    variance = np.maximum(squares - total * total / n, 0) / (n - 1)
    return decorrelated(variance**0.25)


def decorrelated(features: npt.NDArray[np.floating]) -> Float32:
    """Scale features (H, W, C) to [0, 1], whiten, rotate back, scale again and halve them.

    Axes along which the photo does not vary, as the colours of a grey photo, become 0.
    """
    height, width, channels = features.shape
    values = _scaled(features.reshape(-1, channels).astype(np.float64))
    values -= values.mean(0)
    variances, axes = np.linalg.eigh(values.T @ values / len(values))
    deviations = np.sqrt(np.maximum(variances, 0))
    kept = deviations > _ROUNDING * max(deviations[-1], _ROUNDING)
    whiten = (axes[:, kept] / deviations[kept]) @ axes[:, kept].T
    return (_scaled(values @ whiten) / 2).reshape(height, width, channels).astype(np.float32)


def _rotated(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn the rows of ``values`` to their principal axes, centred."""
    centred = values - values.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes


def _scaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale each column to [0, 1]; a column that is constant but for rounding becomes 0."""
    low = values.min(0)
    spread = values.max(0) - low
    rounding = _ROUNDING * max(np.abs(values).max(), 1e-6)
    return np.where(spread > rounding, (values - low) / np.where(spread > 0, spread, 1), 0)
