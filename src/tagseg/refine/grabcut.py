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
from tagseg.refine.arrays import narrowed

__all__ = [
    "FEWEST",
    "MOST_ITERATIONS",
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

MOST_ITERATIONS: Final = 100
"""Rounds after which GrabCut ends that was to go on until it converges."""

_SEED = 1  # of the k-means in which OpenCV begins its colour models
_FOREGROUND_BIT = 1  # GC_FGD and GC_PR_FGD are odd


@dataclass(frozen=True)
class GrabCutSettings:
    """Numbers of :func:`enhanced_mask`.

    Levels are of a map brought to 0 and 1 by :func:`levelled`; lengths are shares of the square
    root of the area where it reaches ``half``, so that the photo's size does not matter.

    The defaults were chosen on photos with ground truth, which no paper's numbers stand for here:
    levels and lengths on 59 training photos of MSRC v2 and 50 scenes, as what does well with coarse
    masks of four kinds; side and iterations on its val photos (benchmarks/grabcut.py).

    Attributes:
        side: GrabCut works at this longer side at most, pixels.
        iterations: rounds of GrabCut at that size, 1 or more; None for as many as it takes until
            one changes no pixel ("until it converges", section III-C), ``MOST_ITERATIONS`` at most,
            from the trimap on and without the rounds at ``start_side``.
        start_side: where the photo is larger, colours are learned at this longer side first; a
            smaller one has no other rounds.
        start_iterations: rounds of GrabCut at that size, 1 or more.
        half: level from which a pixel is foreground, probably.
        high: level from which a pixel of the foreground may be sure.
        low: level up to which a pixel of the background may be sure.
        depth: a pixel is sure foreground only if it lies deeper in the foreground than this.
        reach: a pixel is sure background only if it lies farther from the foreground than this.
        min_fraction: a result smaller than this share of the coarse mask has vanished.
        max_fraction: a coarse mask or a result above this share of the photo has flooded it.

    Raises:
        ConfigError: A number is out of its range.

    Examples:
        >>> from dataclasses import replace
        >>> from tagseg.refine import GrabCutSettings
        >>> thorough = replace(GrabCutSettings(), side=1000, iterations=5)
        >>> thorough.side, thorough.half
        (1000, 0.4)
    """

    side: int = 500
    iterations: int | None = 1
    start_side: int = 250
    start_iterations: int = 2
    half: float = 0.4
    high: float = 0.9
    low: float = 0.1
    depth: float = 0.12
    reach: float = 0.25
    min_fraction: float = 0.2
    max_fraction: float = 0.9

    def __post_init__(self) -> None:
        for name in ("side", "iterations", "start_side", "start_iterations"):
            value = getattr(self, name)
            if name == "iterations" and value is None:
                continue
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
        for name in ("min_fraction", "max_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="give a share, 0 to 1")


_DEFAULT = GrabCutSettings()


def enhanced_mask(
    image: Image, coarse: SaliencyMap | Mask, settings: GrabCutSettings = _DEFAULT
) -> Mask:
    """Cut the foreground of ``coarse`` out along the photo's edges (Jing et al., section III-C).

    The same arguments give the same mask, on any thread. The coarse mask itself,
    :func:`thresholded`, stands where GrabCut cannot help:

    * the map is empty, or covers more than ``max_fraction`` of the photo (a constant map does),
    * one side has too few pixels to learn its colours from,
    * the result has vanished (``min_fraction``) or flooded the photo (``max_fraction``).

    Args:
        image: RGB photo (H, W, 3), uint8.
        coarse: map (H, W) of any scale, float32 or float64, or a bool mask (H, W).
        settings: levels, lengths and rounds.

    Returns:
        The mask (H, W), bool.

    Raises:
        ShapeError: ``image`` or ``coarse`` is no such array, or they differ in size.

    Examples:
        A dark disc on a bright ground, and a square that says roughly where it is:

        >>> import numpy as np
        >>> from tagseg.refine import enhanced_mask
        >>> y, x = np.mgrid[:80, :80] - 40
        >>> disc = x**2 + y**2 < 24**2
        >>> image = np.where(disc[..., None], 50, 210).astype(np.uint8).repeat(3, axis=2)
        >>> square = (abs(x) < 20) & (abs(y) < 20)
        >>> found = enhanced_mask(image, square)
        >>> int((square != disc).sum()), int((found != disc).sum())
        (388, 0)
    """
    check_image(image)
    levels = _levelled(_checked(coarse, (image.shape[0], image.shape[1])))
    small = working_image(image, settings.side)
    found = _cut(small, _resized(levels, small, cv2.INTER_AREA), settings)
    if found is None:
        return levels >= settings.half
    return _resized(found.astype(np.float32), image, cv2.INTER_LINEAR) > 0.5


def thresholded(coarse: SaliencyMap | Mask, settings: GrabCutSettings = _DEFAULT) -> Mask:
    """Return a coarse mask as a hard one: where GrabCut takes its foreground from.

    Args:
        coarse: map (H, W) of any scale, float32 or float64, or a bool mask (H, W).
        settings: of which ``half`` counts.

    Returns:
        The mask (H, W), bool: where the map, :func:`levelled`, reaches ``half``.

    Raises:
        ShapeError: ``coarse`` is neither a finite map (H, W) nor a bool mask.

    Examples:
        >>> import numpy as np
        >>> from tagseg.refine import thresholded
        >>> thresholded(np.array([[3.0, 3.2, 8.5, 9.0]])).tolist()
        [[False, False, True, True]]
    """
    return levelled(coarse) >= settings.half


def levelled(coarse: SaliencyMap | Mask) -> SaliencyMap:
    """Bring the background of a map to 0 and its foreground to 1, on average.

    Which is which says Otsu's threshold (1979). Maps of different makers have their objects at very
    different shares of their maximum; what Otsu separates is there in all of them. A hard mask
    stays as it is. A constant map becomes ones, or zeros if there is nothing above 0.

    Args:
        coarse: map (H, W) of any scale, float32 or float64, or a bool mask (H, W).

    Returns:
        The map (H, W), float32; single values may lie below 0 or above 1.

    Raises:
        ShapeError: ``coarse`` is neither a finite map (H, W) nor a bool mask.

    Examples:
        >>> import numpy as np
        >>> from tagseg.refine import levelled
        >>> levels = levelled(np.array([[10.0, 14.0, 50.0, 54.0]]))
        >>> [round(float(level), 2) for level in levels[0]]
        [-0.05, 0.05, 0.95, 1.05]
    """
    return _levelled(_checked(coarse))


def _levelled(coarse: SaliencyMap) -> SaliencyMap:
    low, high = float(coarse.min()), float(coarse.max())
    if low == high:
        return np.full_like(coarse, high > 0)
    values = (coarse - np.float64(low)) / (high - low)
    steps = np.rint(values * 255).astype(np.uint8)
    inside = steps > cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)[0]
    dark, bright = values[~inside].mean(), values[inside].mean()
    return ((values - dark) / (bright - dark)).astype(np.float32)


def trimap(coarse: SaliencyMap | Mask, settings: GrabCutSettings = _DEFAULT) -> Labels:
    """Draw what GrabCut starts from, in OpenCV's four labels.

    Foreground is where ``coarse`` reaches ``half``. It is sure where the map is ``high`` and the
    edge is far, background where the map is ``low`` and the edge is far: the first says something
    of soft maps, the second of hard ones. All else is probable.

    Args:
        coarse: map (H, W), float32 or float64, as :func:`levelled` makes it, or a bool mask (H, W).
        settings: of which the levels and the lengths count.

    Returns:
        Labels (H, W), uint8: 0 background, 1 foreground, 2 and 3 the same, probably.

    Raises:
        ShapeError: ``coarse`` is neither a finite map (H, W) nor a bool mask.

    Examples:
        >>> import numpy as np
        >>> from tagseg.refine import trimap
        >>> coarse = np.zeros((15, 19))
        >>> coarse[3:12, 5:14] = 1.0
        >>> trimap(coarse)[7].tolist()
        [0, 0, 0, 2, 2, 3, 1, 1, 1, 1, 1, 1, 1, 3, 2, 2, 0, 0, 0]
    """
    return _trimap(_checked(coarse), settings)


def _trimap(coarse: SaliencyMap, settings: GrabCutSettings) -> Labels:
    inside = coarse >= settings.half
    unit = np.sqrt(np.count_nonzero(inside))
    labels = np.where(inside, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    labels[(coarse >= settings.high) & (_distance(inside) > settings.depth * unit)] = cv2.GC_FGD
    labels[(coarse <= settings.low) & (_distance(~inside) > settings.reach * unit)] = cv2.GC_BGD
    return labels


def grab(image: Image, labels: Labels, iterations: int | None) -> Mask:
    """Return the foreground that GrabCut (Rother et al. 2004) finds from its four labels.

    The random numbers in which OpenCV begins are the calling thread's own; they are set here, so
    that nothing that ran before matters.

    Args:
        image: RGB photo (H, W, 3), uint8.
        labels: uint8 (H, W) as :func:`trimap` makes them, which stay as they are. Foreground and
            background, sure or probable, need ``FEWEST`` pixels each.
        iterations: rounds, 1 or more; None for as many as it takes until one changes no pixel,
            ``MOST_ITERATIONS`` at most.

    Returns:
        The mask (H, W), bool.

    Raises:
        ShapeError: ``image`` or ``labels`` is no such array, or they differ in size.

    Examples:
        A red half, of which the labels know a part, and a blue half that they know nothing of:

        >>> import numpy as np
        >>> from tagseg.refine import grab
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> image[:, :15, 0] = image[:, 15:, 2] = 200
        >>> labels = np.full((20, 30), 2, np.uint8)
        >>> labels[5:15, 3:12] = 3
        >>> grab(image, labels, iterations=2)[10].nonzero()[0].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    """
    check_image(image)
    if labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
        raise ShapeError(
            f"labels is a {labels.dtype} array of shape {labels.shape}",
            do=f"give a uint8 array of shape {image.shape[:2]}, as the photo",
        )
    if iterations is None:
        return _until_converged(image, labels)
    return _run(image, labels, iterations, _models(), cv2.GC_INIT_WITH_MASK)


def _models() -> Models:
    return np.zeros((1, 65)), np.zeros((1, 65))


def _run(image: Image, labels: Labels, iterations: int, models: Models, mode: int) -> Mask:
    """Run GrabCut, which writes the colours it learns into ``models``."""
    labels = labels.copy()
    cv2.setRNGSeed(_SEED)
    cv2.grabCut(image, labels, None, *models, iterations, mode)  # type: ignore[call-overload]
    return _foreground(labels)


def _until_converged(image: Image, labels: Labels) -> Mask:
    """Run GrabCut round by round until one changes no pixel, or a side has no colours left."""
    found, models, mode = labels.copy(), _models(), cv2.GC_INIT_WITH_MASK
    cv2.setRNGSeed(_SEED)
    for _ in range(MOST_ITERATIONS):
        before = found.copy()
        cv2.grabCut(image, found, None, *models, 1, mode)  # type: ignore[call-overload]
        if np.array_equal(found, before) or not _both_sides(_foreground(found)):
            break
        mode = cv2.GC_EVAL
    return _foreground(found)


def _foreground(labels: Labels) -> Mask:
    """Return what OpenCV's labels say, surely or probably."""
    return (labels & _FOREGROUND_BIT).astype(bool)


def _checked(coarse: SaliencyMap | Mask, photo_shape: tuple[int, int] | None = None) -> SaliencyMap:
    values = np.asarray(narrowed(coarse))
    if values.dtype == np.bool_:
        values = values.astype(np.float32)
    if values.size == 0:
        raise ShapeError(f"coarse has shape {values.shape}", do="give a float32 array (H, W)")
    return check_maps(values[None], photo_shape or values.shape[:2], "coarse")[0]


def _cut(image: Image, coarse: SaliencyMap, settings: GrabCutSettings) -> Mask | None:
    """Return the foreground at GrabCut's working size, None if the coarse mask must stand."""
    inside = coarse >= settings.half
    area, limit = np.count_nonzero(inside), settings.max_fraction * inside.size
    if not _both_sides(inside) or area > limit:
        return None
    found = _twice(image, coarse, settings)
    return found if settings.min_fraction * area <= np.count_nonzero(found) <= limit else None


def _twice(image: Image, coarse: SaliencyMap, settings: GrabCutSettings) -> Mask:
    """Run GrabCut on a smaller photo, then on ``image`` from the colours and the mask found there.

    Most of OpenCV's time goes into the k-means that colours begin with; fewer pixels do as well.
    """
    labels = _trimap(coarse, settings)
    if settings.iterations is None:
        return grab(image, labels, None)
    small = working_image(image, settings.start_side)
    levels = _resized(coarse, small, cv2.INTER_AREA)
    if small is image or not _both_sides(levels >= settings.half):
        return grab(image, labels, settings.start_iterations)
    models = _models()
    start = _trimap(levels, settings)
    found = _run(small, start, settings.start_iterations, models, cv2.GC_INIT_WITH_MASK)
    foreground = _resized(found.astype(np.float32), image, cv2.INTER_LINEAR) > 0.5
    if not _both_sides(found):  # vanished or flooded: nothing to learn colours from
        return foreground
    unsure = (labels == cv2.GC_PR_FGD) | (labels == cv2.GC_PR_BGD)
    labels[unsure] = np.where(foreground[unsure], cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return _run(image, labels, settings.iterations, models, cv2.GC_EVAL)


def _both_sides(inside: Mask) -> bool:
    """Return whether colours can be learned on either side."""
    area = np.count_nonzero(inside)
    return bool(min(area, inside.size - area) >= FEWEST)


def _resized(values: SaliencyMap, image: Image, interpolation: int) -> SaliencyMap:
    """Return ``values`` (h, w) at the size of ``image``."""
    if values.shape == image.shape[:2]:
        return values
    return cv2.resize(values, image.shape[1::-1], interpolation=interpolation)  # type: ignore[return-value]


def _distance(inside: Mask) -> npt.NDArray[np.float32]:
    """Return the distance of each pixel in ``inside`` to the nearest one outside, 0 outside."""
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[return-value]
