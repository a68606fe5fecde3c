"""Saliency without training: what no even path joins to the photo's border is salient.

Zhang, Sclaroff, Lin, Shen, Price, Mech: "Minimum Barrier Salient Object Detection at 80 FPS"
(ICCV 2015), written MB+ there. The covariance's regularisation, the centre map, the order of the
post-processing and the middle of the contrast curve are those of the authors' released program.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit
from skimage.morphology import reconstruction

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import Image, SaliencyMap, check_image
from tagseg.priors.float_arrays import float_array

__all__ = [
    "MinimumBarrierSettings",
    "barrier_distance",
    "border_contrast",
    "minimum_barrier_saliency",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Lab = npt.NDArray[np.uint8]

_MIN_WIDTH = 3  # pixels of the smoothing's square: one pixel would change nothing


@dataclass(frozen=True)
class MinimumBarrierSettings:
    """Numbers of Zhang et al. 2015.

    Attributes:
        side: longest side in pixels that the map is computed at; smaller photos stay as they are.
        passes: raster scans K of Algorithm 1, forward and backward by turns; 1 or more.
        border_contrast: add the contrast to the four borders' colours (MB+), or go without (MB).
        margin: width of a border, as a fraction of the longer side, above 0 to 0.5.
        regularisation: added to the diagonal of a border's colour covariance, above 0; colours
            are Lab in 0..255.
        centred: weigh pixels down towards the corners, where photographers put few objects.
        smoothing: alpha of Eq. 9, 0 or more; the smoothing's square is alpha * sqrt(mean of the
            map) pixels wide in a photo of ``side`` pixels. 0 goes without.
        contrast: slope b of Eq. 11, above 0.

    Raises:
        ConfigError: a number is out of range.

    Examples:
        MB instead of MB+, for photos whose objects may be anywhere:

        >>> from tagseg.priors import MinimumBarrierSettings
        >>> settings = MinimumBarrierSettings(border_contrast=False, centred=False)
        >>> settings.side, settings.passes
        (300, 3)
    """

    side: int = 300
    passes: int = 3
    border_contrast: bool = True
    margin: float = 0.1
    regularisation: float = 50.0
    centred: bool = True
    smoothing: float = 50.0
    contrast: float = 10.0

    def __post_init__(self) -> None:
        for name in ("side", "passes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value}", do="give a whole number, 1 or more")
        if not 0 < self.margin <= 0.5:
            raise ConfigError(f"margin is {self.margin}", do="give a share above 0, up to 0.5")
        for name in ("regularisation", "contrast"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="give a value above 0")
        if not 0 <= self.smoothing < np.inf:
            raise ConfigError(f"smoothing is {self.smoothing}", do="give 0 or more")


def minimum_barrier_saliency(
    image: Image, settings: MinimumBarrierSettings | None = None
) -> SaliencyMap:
    """Map what stands out in a photo, from the photo alone: MB+ of Zhang et al. 2015.

    A pixel is salient if every path from it to the photo's border crosses a change of colour, and
    the more so, the more its colour differs from those of the borders.

    Args:
        image: uint8 (H, W, 3) RGB; floats are refused.
        settings: by default the paper's.

    Returns:
        The saliency map, float32 (H, W), from 0 to 1 unless the photo says nothing (one colour),
        which gives zeros.

    Raises:
        ShapeError: image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import minimum_barrier_saliency
        >>> image = np.full((60, 80, 3), 120, np.uint8)
        >>> image[20:40, 25:55] = (200, 60, 40)
        >>> saliency = minimum_barrier_saliency(image)
        >>> saliency[30, 40].item(), saliency[5, 5].item()
        (1.0, 0.0)
    """
    check_image(image)
    settings = settings or MinimumBarrierSettings()
    lab = _small_lab(image, settings.side)
    saliency = _distance_of_colours(lab, settings.passes)
    if settings.border_contrast:
        saliency = saliency + border_contrast(lab, settings.margin, settings.regularisation)
    if settings.centred:
        saliency = saliency * _nearness_to_centre(*saliency.shape)
    saliency = _stretched(saliency)
    if settings.smoothing:
        width = settings.smoothing * np.sqrt(saliency.mean()) * max(saliency.shape) / settings.side
        saliency = _stretched(_smoothed(saliency, int(width)))
    saliency = _stretched(_contrasted(saliency, settings.contrast))
    return _stretched(_resized(saliency, image.shape[:2])).astype(np.float32)


def barrier_distance(channel: npt.NDArray[np.floating], passes: int = 3) -> Float32:
    """Approximate the minimum barrier distance of each pixel to the border by raster scans.

    Zhang et al. 2015, Algorithm 1. The barrier of a path is the difference of its largest and its
    smallest value, both ends counted; a pixel's distance is the least barrier of the paths in
    4-neighbours from it to any pixel of the border. Algorithm 1 (FastMBD) keeps one path a pixel,
    so that what it finds is never below the distance.

    Args:
        channel: float (H, W), finite, of any unit.
        passes: scans, forward (rows down, columns right) and backward by turns, 1 or more.

    Returns:
        float32 (H, W) in the unit of ``channel``, finite, not negative, 0 at the border.

    Raises:
        ConfigError: passes is below 1.
        ShapeError: channel is no such array, is empty, or holds NaN or infinity.

    Examples:
        A pixel of 9 in a ground of 1 to 3 is 9 - 2 away from the border:

        >>> import numpy as np
        >>> from tagseg.priors import barrier_distance
        >>> channel = np.array([[1.0, 1.0, 3.0], [1.0, 9.0, 2.0], [1.0, 1.0, 1.0]])
        >>> barrier_distance(channel).tolist()
        [[0.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if passes < 1:
        raise ConfigError(f"passes is {passes}", do="give 1 or more")
    channel = float_array(channel, "channel", "(H, W)")
    if channel.ndim != 2 or channel.size == 0 or not np.isfinite(channel).all():
        raise ShapeError(
            f"channel of shape {channel.shape} is no finite map", do="give a float array (H, W)"
        )
    distance = np.zeros_like(channel)
    distance[1:-1, 1:-1] = np.inf
    highest, lowest = channel.copy(), channel.copy()
    for scan in range(passes):
        _scan(channel, distance, highest, lowest, 1 if scan % 2 == 0 else -1)
    return distance


def border_contrast(lab: Lab, margin: float, regularisation: float) -> Float64:
    """Measure how far colours are from those of the photo's borders, the farthest left out.

    What makes MB into MB+: the Mahalanobis distance to each of the four borders'
    mean colour, by the border's own covariance, over its maximum; the sum of the four less the
    largest, because one border may be the object's.

    Args:
        lab: uint8 (H, W, 3), CIE Lab as OpenCV scales it to 0..255.
        margin: width of a border, as a fraction of the longer side.
        regularisation: added to the covariance's diagonal.

    Returns:
        float64 (H, W) in [0, 1], over its maximum.
    """
    width = max(1, round(margin * max(lab.shape[:2])))
    colours = np.ascontiguousarray(lab.transpose(2, 0, 1), np.float64)
    borders = (
        colours[:, :width],
        colours[:, -width:],
        colours[:, :, :width],
        colours[:, :, -width:],
    )
    contrasts = [_colour_distance(colours, border, regularisation) for border in borders]
    return _over_maximum(np.sum(contrasts, axis=0) - np.max(contrasts, axis=0))


def _small_lab(image: Image, side: int) -> Lab:
    """Convert the photo, at most ``side`` long, to Lab with all three channels in 0..255."""
    height, width = image.shape[:2]
    if max(height, width) > side:
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.uint8)


def _distance_of_colours(lab: Lab, passes: int) -> Float64:
    """Add up the barrier distances of the three channels, over their maximum."""
    channels = (np.ascontiguousarray(lab[..., channel], np.float32) for channel in range(3))
    distances = [barrier_distance(channel, passes) for channel in channels]
    return _over_maximum(np.sum(distances, axis=0, dtype=np.float64))


def _resized(values: Float64, shape: tuple[int, int]) -> Float64:
    resized = cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float64)


@njit(nogil=True, cache=True, error_model="numpy")
def _scan(channel, distance, highest, lowest, step):  # type: ignore[no-untyped-def]
    """Let each inner pixel go on from the path of the pixel before it in its column or row.

    ``step`` is 1 for rows down and columns right, -1 for the way back.
    """
    height, width = channel.shape
    for i in range(1, height - 1):
        y = i if step > 0 else height - 1 - i
        for j in range(1, width - 1):
            x = j if step > 0 else width - 1 - j
            value, best = channel[y, x], distance[y, x]
            for v, u in ((y - step, x), (y, x - step)):
                high = max(highest[v, u], value)
                low = min(lowest[v, u], value)
                if high - low < best:
                    best = high - low
                    highest[y, x], lowest[y, x] = high, low
            distance[y, x] = best


def _colour_distance(colours: Float64, border: Float64, regularisation: float) -> Float64:
    """Measure colours' (3, H, W) Mahalanobis distance to the border's, over its maximum."""
    known = border.reshape(3, -1)
    mean = known.mean(1, keepdims=True)
    covariance = np.cov(known, bias=True) + regularisation * np.eye(3)
    # |L^T d| is the distance where L L^T is the inverse covariance.
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    projected = root.T @ (colours.reshape(3, -1) - mean)
    distance = np.sqrt(np.square(projected).sum(0))
    return _over_maximum(distance.reshape(colours.shape[1:]))


def _nearness_to_centre(height: int, width: int) -> Float64:
    """Draw a map that falls evenly from 1 in the middle to 0 at the corners, for any shape."""
    y = (np.arange(height) - (height - 1) / 2) / height
    x = (np.arange(width) - (width - 1) / 2) / width
    distance = np.hypot(y[:, None], x)
    return 1 - _over_maximum(distance)


def _smoothed(saliency: Float64, width: int) -> Float64:
    """Open, then close by reconstruction with a square: bumps and dents that are smaller go.

    The width is made odd, so that the square has a middle.
    """
    width = max(width, _MIN_WIDTH) // 2 * 2 + 1
    square = np.ones((width, width), np.uint8)
    opened = reconstruction(cv2.erode(saliency, square), saliency, "dilation")
    return reconstruction(cv2.dilate(opened, square), opened, "erosion")


def _contrasted(saliency: Float64, slope: float) -> Float64:
    """Apply Eq. 11, 1 / (1 + exp(-b (s - m))); m lies between the means of both halves."""
    upper = saliency >= saliency.max() / 2
    if upper.all():
        return saliency
    middle = (saliency[upper].mean() + saliency[~upper].mean()) / 2
    return 1 / (1 + np.exp(-slope * (saliency - middle)))


def _over_maximum(values: Float64) -> Float64:
    """Divide values that are not negative by their maximum; zeros stay."""
    highest = values.max()
    return values / highest if highest > 0 else values


def _stretched(values: Float64) -> Float64:
    """Bring values to 0..1, or to zeros if they are all alike."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
