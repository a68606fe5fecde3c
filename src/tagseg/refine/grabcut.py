"""Coarse masks made exact by colours: GrabCut from a soft mask.

Rother, Kolmogorov, Blake: "GrabCut" (SIGGRAPH 2004), by OpenCV; Jing, Chen, Tian: "Coarse-to-fine
semantic segmentation from image-level labels" (2018), section III-C, which names no numbers: the
trimap, the rules and the speed here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.working import working_image
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import Image, Labels, SaliencyMap, check_image, check_maps

__all__ = [
    "FEWEST",
    "GrabCutSettings",
    "Mask",
    "enhanced_mask",
    "grab",
    "levelled",
    "thresholded",
    "trimap",
]

Mask: TypeAlias = npt.NDArray[np.bool_]  # (H, W)
Models: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # OpenCV's, (1, 65)

FEWEST: Final = 30
"""Pixels from which OpenCV's five colours a side can be learned."""

_SEED = 1  # of the k-means in which OpenCV begins its colour models
_FOREGROUND_BIT = 1  # GC_FGD and GC_PR_FGD are odd


@dataclass(frozen=True)
class GrabCutSettings:
    """Numbers of :func:`enhanced_mask`. Raises ConfigError at a value out of range.

    Levels are of a map brought to 0 and 1 by :func:`levelled`; lengths are shares of the square
    root of the area where it reaches ``half``, so that the photo's size does not matter.

    The defaults were chosen on photos with ground truth, which no paper's numbers stand for here:
    levels and lengths on 59 training photos of MSRC v2 and 50 scenes, as what does well with coarse
    masks of four kinds; side and iterations on its val photos (benchmarks/grabcut.py).

    Attributes:
        side: GrabCut works at this longer side at most, pixels.
        iterations: rounds of GrabCut at that size, 1 or more.
        start_side: where the photo is larger, colours are learned at this longer side first; a
            smaller one has no other rounds.
        start_iterations: rounds of GrabCut at that size, 1 or more.
        half: level from which a pixel is foreground, probably.
        high: level from which a pixel of the foreground may be sure.
        low: level up to which a pixel of the background may be sure.
        depth: a pixel is sure foreground only if it lies deeper in the foreground than this.
        reach: a pixel is sure background only if it lies farther from the foreground than this.
        least: a result smaller than this share of the coarse mask has vanished.
        most: a coarse mask or a result above this share of the photo has flooded it.
    """

    side: int = 500
    iterations: int = 1
    start_side: int = 250
    start_iterations: int = 2
    half: float = 0.4
    high: float = 0.9
    low: float = 0.1
    depth: float = 0.12
    reach: float = 0.25
    least: float = 0.2
    most: float = 0.9

    def __post_init__(self) -> None:
        for name in ("side", "iterations", "start_side", "start_iterations"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value}", do="give a whole number, 1 or more")
        if not 0 <= self.low <= self.half <= self.high <= 1 or not 0 < self.half < 1:
            raise ConfigError(
                f"low, half, high are {self.low}, {self.half}, {self.high}",
                do="give levels that rise from 0 to 1, half between the two",
            )
        for name in ("depth", "reach"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="give 0 or more")
        for name in ("least", "most"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="give a share, 0 to 1")


_DEFAULT = GrabCutSettings()


def enhanced_mask(
    image: Image, coarse: SaliencyMap | Mask, settings: GrabCutSettings = _DEFAULT
) -> Mask:
    """The foreground of ``coarse``, cut out along the photo's edges: bool (H, W).

    Jing et al., section III-C. Same arguments, same mask, on any thread. The coarse mask itself,
    :func:`thresholded`, stands where GrabCut cannot help:

    * the map is empty, or covers more than ``most`` of the photo (a constant map does),
    * one side has too few pixels to learn its colours from,
    * the result has vanished (``least``) or flooded the photo (``most``).

    Args:
        image: uint8 (H, W, 3) RGB.
        coarse: float32 (H, W) of any scale, or a bool mask (H, W).
        settings: see there.

    Raises:
        ShapeError: image or coarse is no such array, or they differ in size.
    """
    check_image(image)
    levels = levelled(_checked(coarse, (image.shape[0], image.shape[1])))
    small = working_image(image, settings.side)
    found = _cut(small, _resized(levels, small, cv2.INTER_AREA), settings)
    if found is None:
        return levels >= settings.half
    return _resized(found.astype(np.float32), image, cv2.INTER_LINEAR) > 0.5


def thresholded(coarse: SaliencyMap | Mask, settings: GrabCutSettings = _DEFAULT) -> Mask:
    """The coarse mask (H, W) as a hard one, bool (H, W): where GrabCut takes its foreground from.

    Raises ShapeError if ``coarse`` is neither a finite float32 (H, W) nor a bool (H, W).
    """
    return levelled(_checked(coarse)) >= settings.half


def levelled(coarse: SaliencyMap) -> SaliencyMap:
    """A map (H, W) with its background at 0 and its foreground at 1, on average.

    Which is which says Otsu's threshold (1979). Maps of different makers have their objects at very
    different shares of their maximum; what Otsu separates is there in all of them. A hard mask
    stays as it is. A constant map becomes ones, or zeros if there is nothing above 0.
    """
    low, high = float(coarse.min()), float(coarse.max())
    if low == high:
        return np.full_like(coarse, high > 0)
    values = (coarse - np.float64(low)) / (high - low)
    steps = np.rint(values * 255).astype(np.uint8)
    inside = steps > cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)[0]
    dark, bright = values[~inside].mean(), values[inside].mean()
    return ((values - dark) / (bright - dark)).astype(np.float32)


def trimap(coarse: SaliencyMap, settings: GrabCutSettings = _DEFAULT) -> Labels:
    """What GrabCut starts from: OpenCV's four labels, uint8 (H, W).

    Foreground is where ``coarse`` (H, W), :func:`levelled`, reaches ``half``. It is sure where
    the map is ``high`` and the edge is far, background where the map is ``low`` and the edge is
    far: the first says something of soft maps, the second of hard ones. All else is probable.
    """
    inside = coarse >= settings.half
    unit = np.sqrt(np.count_nonzero(inside))
    labels = np.where(inside, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    labels[(coarse >= settings.high) & (_distance(inside) > settings.depth * unit)] = cv2.GC_FGD
    labels[(coarse <= settings.low) & (_distance(~inside) > settings.reach * unit)] = cv2.GC_BGD
    return labels


def grab(image: Image, labels: Labels, iterations: int) -> Mask:
    """GrabCut's foreground, bool (H, W), from its four ``labels`` (H, W), which stay as they are.

    Each side needs ``FEWEST`` pixels. The random numbers in which OpenCV begins are the calling
    thread's own; they are set here, so that nothing that ran before matters.
    """
    return _run(image, labels, iterations, _models(), cv2.GC_INIT_WITH_MASK)


def _models() -> Models:
    return np.zeros((1, 65)), np.zeros((1, 65))


def _run(image: Image, labels: Labels, iterations: int, models: Models, mode: int) -> Mask:
    """GrabCut, which writes the colours it learns into ``models``."""
    labels = labels.copy()
    cv2.setRNGSeed(_SEED)
    cv2.grabCut(image, labels, None, *models, iterations, mode)  # type: ignore[call-overload]
    return (labels & _FOREGROUND_BIT).astype(bool)


def _checked(coarse: SaliencyMap | Mask, photo_shape: tuple[int, int] | None = None) -> SaliencyMap:
    values = np.asarray(coarse)
    if values.dtype == np.bool_:
        values = values.astype(np.float32)
    if values.size == 0:
        raise ShapeError(f"coarse has shape {values.shape}", do="give a float32 array (H, W)")
    return check_maps(values[None], photo_shape or values.shape[:2], "coarse")[0]


def _cut(image: Image, coarse: SaliencyMap, settings: GrabCutSettings) -> Mask | None:
    """The foreground at the size at which GrabCut works, None if the coarse mask must stand."""
    inside = coarse >= settings.half
    area, limit = np.count_nonzero(inside), settings.most * inside.size
    if not _both_sides(inside) or area > limit:
        return None
    found = _twice(image, coarse, settings)
    return found if settings.least * area <= np.count_nonzero(found) <= limit else None


def _twice(image: Image, coarse: SaliencyMap, settings: GrabCutSettings) -> Mask:
    """GrabCut on a smaller photo, then on ``image`` from the colours and the mask found there.

    Most of OpenCV's time goes into the k-means that colours begin with; fewer pixels do as well.
    """
    labels = trimap(coarse, settings)
    small = working_image(image, settings.start_side)
    levels = _resized(coarse, small, cv2.INTER_AREA)
    if small is image or not _both_sides(levels >= settings.half):
        return grab(image, labels, settings.start_iterations)
    models = _models()
    start = trimap(levels, settings)
    found = _run(small, start, settings.start_iterations, models, cv2.GC_INIT_WITH_MASK)
    foreground = _resized(found.astype(np.float32), image, cv2.INTER_LINEAR) > 0.5
    if not _both_sides(found):  # vanished or flooded: nothing to learn colours from
        return foreground
    unsure = (labels == cv2.GC_PR_FGD) | (labels == cv2.GC_PR_BGD)
    labels[unsure] = np.where(foreground[unsure], cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return _run(image, labels, settings.iterations, models, cv2.GC_EVAL)


def _both_sides(inside: Mask) -> bool:
    """Whether colours can be learned on either side."""
    area = np.count_nonzero(inside)
    return bool(min(area, inside.size - area) >= FEWEST)


def _resized(values: SaliencyMap, image: Image, interpolation: int) -> SaliencyMap:
    """``values`` (h, w) at the size of ``image``."""
    if values.shape == image.shape[:2]:
        return values
    return cv2.resize(values, image.shape[1::-1], interpolation=interpolation)  # type: ignore[return-value]


def _distance(inside: Mask) -> npt.NDArray[np.float32]:
    """Distance of each pixel in ``inside`` to the nearest one outside, 0 outside."""
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[return-value]
