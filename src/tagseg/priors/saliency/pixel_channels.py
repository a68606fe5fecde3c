"""Measures that DRFI takes of every pixel, once a photo: colours, texture, bins of histograms.

Jiang, Wang, Yuan, Wu, Zheng, Li: "Salient Object Detection: A Discriminative Regional Feature
Integration Approach" (CVPR 2013). The blur, the sizes of the histograms and the 15 filters of
19 x 19 pixels are those of the authors' released program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2

from tagseg.maps import Image, check_image

__all__ = [
    "CHANNEL_NAMES",
    "HISTOGRAM_NAMES",
    "HISTOGRAM_STARTS",
    "PixelChannels",
    "leung_malik_filters",
    "pixel_channels",
]

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

_ANGLES = tuple(range(0, 180, 30))  # degrees
_TEXTURE_NAMES = (
    *(f"bar {angle}" for angle in _ANGLES),
    *(f"edge {angle}" for angle in _ANGLES),
    "blob",
    "small spot",
    "large spot",
)
CHANNEL_NAMES = (
    *("red", "green", "blue", "lightness", "a", "b", "hue", "saturation", "value"),
    *_TEXTURE_NAMES,
    "local binary pattern",
)
HISTOGRAM_NAMES = ("RGB", "Lab", "HSV", "textons", "local binary patterns")

_LEVELS = 8  # of each of a colour's three channels
_SIZES = (_LEVELS**3, _LEVELS**3, _LEVELS**3, len(_TEXTURE_NAMES), 256)
HISTOGRAM_STARTS = (0, *(int(end) for end in np.cumsum(_SIZES)))

_BLUR = 5  # pixels of the square
_REACH = 9  # pixels from a filter's middle to its rim: 19 x 19
_SIGMA = np.sqrt(2)  # pixels, across bars and edges
_ELONGATION = 3
_SILENCE = 1e-5  # responses below are rounding errors: a flat place is to have one texton
# Lab of what sRGB can show. Neutral colours lie well inside a bin, not on the edge of two.
_LAB_LOW = np.array([0, -86.2, -107.9], np.float32)
_LAB_HIGH = np.array([100, 98.3, 94.5], np.float32)
_HSV_HIGH = np.array([360, 1, 1], np.float32)
# Neighbours of a pixel clockwise from its upper left, as (y, x) in a photo padded by one.
_RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


@dataclass(frozen=True)
class PixelChannels:
    """Everything that region features need to know of a photo, whatever its regions.

    Attributes:
        values: float32 (H, W, 25), by CHANNEL_NAMES: RGB, Lab and HSV, each scaled to [0, 1],
            the absolute responses of 15 filters to grey in [0, 1], and local binary patterns
            over 255.
        bins: int16 (H, W, 5), by HISTOGRAM_NAMES: the bin that a pixel counts in. All five
            histograms share one row of bins; histogram i has those from HISTOGRAM_STARTS[i] up
            to HISTOGRAM_STARTS[i + 1].
    """

    values: Float32
    bins: npt.NDArray[np.int16]


def pixel_channels(image: Image) -> PixelChannels:
    """Measure colours, texture and histogram bins of a photo's pixels, after a blur of 5 x 5.

    A pixel's texton is the filter of the strongest response; its local binary pattern has a bit
    for each of its 8 neighbours that is not darker. Outside, the photo goes on mirrored.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        The pixel channels.

    Raises:
        ShapeError: image is not uint8 (H, W, 3).
    """
    check_image(image)
    blurred = cv2.GaussianBlur(image, (_BLUR, _BLUR), 0).astype(np.uint8)
    grey = cv2.cvtColor(blurred, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    rgb = blurred.astype(np.float32) / np.float32(255)
    lab = (cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB) - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV) / _HSV_HIGH
    texture, patterns = _texture(grey), _binary_patterns(grey)
    values = (rgb, lab, hsv, texture, patterns[..., None] / np.float32(255))
    bins = (_colour_bins(rgb), _colour_bins(lab), _colour_bins(hsv), texture.argmax(2), patterns)
    return PixelChannels(
        np.concatenate(values, axis=2, dtype=np.float32),
        np.stack(bins, axis=2, dtype=np.int16) + np.array(HISTOGRAM_STARTS[:-1], np.int16),
    )


@cache
def leung_malik_filters() -> Float32:
    """Draw the filters of Leung and Malik's bank at one scale: 6 bars, 6 edges, a blob, 2 spots.

    Bars and edges are the second and the first derivative of a Gaussian that is three times as
    long as wide, every 30 degrees; spots are Laplacians of Gaussians. Each has a mean of 0 and
    absolute values that sum to 1, so that responses compare.

    Returns:
        float32 (15, 19, 19).
    """
    y, x = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].astype(np.float64)
    bars, edges = [], []
    for angle in np.deg2rad(_ANGLES):
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        ridge = np.exp(-(np.square(along / _ELONGATION) + np.square(across)) / (2 * _SIGMA**2))
        bars.append(ridge * (np.square(across) - _SIGMA**2))
        edges.append(-ridge * across)
    square = np.square(x) + np.square(y)
    blob = np.exp(-square / (2 * _SIGMA**2))
    spots = [(square - 2 * s**2) * np.exp(-square / (2 * s**2)) for s in (_SIGMA, 3 * _SIGMA)]
    bank = np.stack((*bars, *edges, blob, *spots))
    bank -= bank.mean((1, 2), keepdims=True)
    return (bank / np.abs(bank).sum((1, 2), keepdims=True)).astype(np.float32)


def _texture(grey: UInt8) -> Float32:
    """Compute the filters' absolute responses (H, W, 15) to grey in [0, 1], by Fourier."""
    height, width = grey.shape
    light = grey.astype(np.float32) / np.float32(255)
    padded = cv2.copyMakeBorder(light, *4 * (_REACH,), cv2.BORDER_REFLECT_101)
    shape = [next_fast_len(side, real=True) for side in padded.shape]
    spectrum = rfft2(padded, shape)
    # Products of spectra turn the filters by 180 degrees, which changes no more than their sign.
    spectra = rfft2(leung_malik_filters(), shape)
    rim = 2 * _REACH  # what the product puts before the first whole window
    responses = [
        irfft2(spectrum * each, shape)[rim : rim + height, rim : rim + width] for each in spectra
    ]
    strengths = np.abs(np.stack(responses, axis=2))
    strengths[strengths < _SILENCE] = 0
    return strengths


def _binary_patterns(grey: UInt8) -> UInt8:
    """Set bit b of a pixel where its neighbour b, clockwise from the upper left, is not darker."""
    height, width = grey.shape
    padded = cv2.copyMakeBorder(grey, 1, 1, 1, 1, cv2.BORDER_REFLECT_101)
    patterns = np.zeros_like(grey)
    for bit, (y, x) in enumerate(_RING):
        not_darker = padded[y : y + height, x : x + width] >= grey
        patterns |= not_darker.astype(np.uint8) << np.uint8(bit)
    return patterns


def _colour_bins(colours: Float32) -> npt.NDArray[np.int16]:
    """Find the bin (H, W) of colours (H, W, 3) in [0, 1]: 8 a channel, the last one slowest."""
    levels = np.clip((colours * _LEVELS).astype(np.int16), 0, _LEVELS - 1)
    return levels @ np.array([1, _LEVELS, _LEVELS**2], np.int16)
