"""Where a shot's objects are, from what its principal components cannot show.

Stretcu, Leordeanu: "Multiple Frames Matching for Object Discovery in Video" (BMVC 2015), the
method they call VideoPCA; Jing et al. 2018, section III-B, names it among the sources of coarse
masks. A few principal components show the background and its slow change; what moves before it is
left over as error. Where the error is large, colours are counted as the object's, elsewhere as the
background's, and each pixel is masked by its colour.

Relative to the shot are the errors (least and largest of all its frames) and, by default, the
threshold on the evidence they give; so no unit of brightness counts, and a shot that moves at all
has some foreground. Absolute are the two thresholds on colour shares, which compare histograms that
each sum to 1, and the centre Gaussian, which is 1 in the middle: beyond 1.18 sigma from there (0.39
of the shorter side) no pixel reaches 0.5, and what stays near the rim is not found.

Numbers that the paper's text leaves open are marked "assumed" in :class:`VideoPcaSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, reduce
from tempfile import SpooledTemporaryFile
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import scipy.linalg
from skimage.filters import apply_hysteresis_threshold

from tagseg.errors import ConfigError, DataError, ShapeError
from tagseg.maps import Image, SaliencyMap, check_image

__all__ = [
    "Components",
    "SmallShot",
    "VideoPcaSettings",
    "centre_map",
    "colour_bins",
    "error_maps",
    "evidence_maps",
    "foreground_maps",
    "foreground_shares",
    "principal_components",
    "soft_mask",
    "videopca_masks",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Bins: TypeAlias = npt.NDArray[np.intp]

_IN_MEMORY = 2**28  # bytes of small frames before they go to a file
_BLOCK = 2**24  # numbers of a block of frames: 64 MB as float32


@dataclass(frozen=True)
class VideoPcaSettings:
    """Numbers of VideoPCA (Stretcu & Leordeanu 2015).

    Attributes:
        components: principal components that show the background; the paper has 3 to 8.
        side: longer side in pixels, 8 or more, at which all is computed, masks being brought back
            to the frames' size; smaller frames stay as they are, None takes the frames' size.
            Assumed.
        blur: sigma of the errors' Gaussian blur, as a fraction of the shorter side. Assumed.
        centre: sigma of the centre Gaussian, as a fraction of the shorter side.
        relative: divide the blurred and centred errors by their maximum over the shot before
            ``foreground``, or take them as they are. Assumed: see :func:`foreground_maps`.
        foreground: blurred and centred errors above it are the object's, above 0 to below 1.
        bins: of the joint colour histograms, along each of three axes, 2 to 64; an odd number
            has grey in the middle of a bin, not at the corner of four. Assumed.
        strong: centred colour shares above it are masked.
        weak: so are those above it that join, through 4-neighbours above it, one above ``strong``.
        min_error: a shot whose largest error (grey levels, over RGB) is not above it stands
            still, and its masks are empty. Assumed: half a level, which rounding explains.
        oversampling: directions that the search for components keeps beyond them.
        iterations: of the subspace iteration for the components, 1 or more.
        seed: of the subspace that it starts from.

    Raises:
        ConfigError: a number is out of range.

    Examples:
        Frames at their own size, and fewer components, for short shots:

        >>> from tagseg.priors import VideoPcaSettings
        >>> settings = VideoPcaSettings(components=3, side=None)
        >>> settings.strong, settings.weak
        (0.8, 0.5)
    """

    components: int = 5
    side: int | None = 240
    blur: float = 0.05
    centre: float = 1 / 3
    relative: bool = True
    foreground: float = 0.5
    bins: int = 15
    strong: float = 0.8
    weak: float = 0.5
    min_error: float = 0.5
    oversampling: int = 10
    iterations: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"components": 1, "oversampling": 0, "iterations": 1, "seed": 0, "bins": 2}
        for name, minimum in lowest.items():
            _check_whole(name, getattr(self, name), minimum)
        if self.side is not None:
            _check_whole("side", self.side, 8)
        if self.bins > 64:
            raise ConfigError(f"bins is {self.bins}", where="VideoPCA", do="give 64 or fewer")
        for name in ("blur", "min_error"):
            if not 0 <= getattr(self, name) < np.inf:
                raise _wrong(name, getattr(self, name), "give 0 or more")
        if not 0 < self.centre < np.inf:
            raise _wrong("centre", self.centre, "give a value above 0")
        if not 0 < self.foreground < 1:
            raise _wrong("foreground", self.foreground, "give a value between 0 and 1")
        if not 0 <= self.weak <= self.strong < 1:
            raise ConfigError(
                f"weak is {self.weak}, strong {self.strong}",
                where="VideoPCA",
                do="give 0 <= weak <= strong < 1",
            )


@dataclass(frozen=True)
class Components:
    """A shot's principal components, which show its background, and their weights.

    Attributes:
        basis: float32 (h * w * 3, K), orthonormal columns, the strongest first.
        weights: float32 (T, K), how much of each component is in each frame.
    """

    basis: Float32
    weights: Float32


class SmallShot:
    """A shot's frames at working size, kept in a temporary file if they are many.

    Reading the shot once and keeping it small makes the passes over it cheap: decoding takes
    longer than the rest. At most a block of frames is in memory as numbers. A context manager,
    which deletes the file.

    Attributes:
        size: height and width of the shot's own frames.
        shape: (h, w, 3) at working size.
        count: frames T.
        mean: float32 (h * w * 3,), mean frame.

    Raises:
        DataError: the shot has no frames, or the file cannot be written.
        ShapeError: a frame is not uint8 (H, W, 3), or they differ in size.
    """

    size: tuple[int, int]
    shape: tuple[int, int, int]

    def __init__(self, frames: Iterator[Image], side: int | None) -> None:
        self.count = 0
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed in __exit__)
        try:
            self._keep(frames, side)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SmallShot:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[tuple[slice, Image]]:
        """Yield block after block: which frames they are, and uint8 (B, h, w, 3)."""
        values = int(np.prod(self.shape))
        step = max(1, _BLOCK // values)
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            self._file.seek(start * values)
            block = np.frombuffer(self._file.read((stop - start) * values), np.uint8)
            yield slice(start, stop), block.reshape(-1, *self.shape)

    def centred_blocks(self) -> Iterator[tuple[slice, Float32]]:
        """Yield block after block: which frames, and float32 (B, h * w * 3) less the mean."""
        for which, block in self.blocks():
            yield which, np.subtract(block.reshape(len(block), -1), self.mean, dtype=np.float32)

    def _keep(self, frames: Iterator[Image], side: int | None) -> None:
        total: Any = 0
        for frame in frames:
            self._check(frame)
            small = _small(frame, side)
            total = total + small.astype(np.uint64)
            self._write(small)
            self.shape = small.shape
            self.count += 1
        if not self.count:
            raise DataError("a shot has no frames", do="give one or leave it out")
        self.mean = (total / self.count).astype(np.float32).ravel()

    def _write(self, small: Image) -> None:
        try:
            self._file.write(small.tobytes())
        except OSError as error:
            raise DataError(
                f"frame {self.count} of a shot finds no room in the temporary folder: {error}",
                do="set TMPDIR to a folder with more room",
            ) from error

    def _check(self, frame: Image) -> None:
        check_image(frame, "frame")
        size = frame.shape[:2]
        if not self.count:
            self.size = size
        if size != self.size:
            raise ShapeError(
                f"frame {self.count} of a shot is {size[0]} x {size[1]}, the first is "
                f"{self.size[0]} x {self.size[1]}",
                do="give frames of one size",
            )


def videopca_masks(
    frames: Callable[[], Iterator[Image]], settings: VideoPcaSettings | None = None
) -> Iterator[SaliencyMap]:
    """Find a soft mask of what moves in each frame of a shot: VideoPCA.

    Stretcu & Leordeanu 2015. The shot is read once, whatever its length, and never held as a whole:
    frames at working size go to a temporary file if they are many. All is found out, and every
    error raised, when the first mask is asked for.

    Args:
        frames: a function that gives the shot's frames from the first to the last, uint8 (H, W, 3)
            RGB.
        settings: by default the paper's.

    Yields:
        For each frame a saliency map, float32 (H, W) in [0, 1]: the share of the foreground in a
        pixel's colour, above ``weak``, or 0 outside of the mask; all zeros in a shot that stands
        still or has no foreground.

    Raises:
        DataError: the shot has fewer frames than components and one more.
        ShapeError: a frame is not uint8 (H, W, 3), or they differ in size.

    Examples:
        A red square moves over grey noise, three pixels a frame:

        >>> import numpy as np
        >>> from tagseg.priors import VideoPcaSettings, videopca_masks
        >>> ground = np.random.default_rng(0).integers(90, 130, (40, 60, 1))
        >>> shot = np.repeat(ground, 3, 2)[None].repeat(10, 0).astype(np.uint8)
        >>> for t, frame in enumerate(shot):
        ...     frame[15:25, 10 + 3 * t : 20 + 3 * t] = (220, 30, 30)
        >>> masks = list(videopca_masks(lambda: iter(shot), VideoPcaSettings(components=3)))
        >>> mask = masks[5] > 0.5
        >>> mask[15:25, 25:35].mean().item(), int(mask.sum())
        (1.0, 100)
    """
    settings = settings or VideoPcaSettings()
    with SmallShot(frames(), settings.side) as shot:
        if shot.count <= settings.components:
            raise DataError(
                f"a shot has {shot.count} frames, VideoPCA needs {settings.components + 1}",
                do="leave it out or take fewer components",
            )
        components = principal_components(shot, settings)
        foreground = foreground_maps(evidence_maps(shot, components, settings), settings)
        shares = foreground_shares(shot, foreground, settings)
        centre = centre_map(*shot.shape[:2], settings.centre)
        for _, block in shot.blocks():
            for frame in block:
                of_pixels = shares[colour_bins(frame, settings.bins)]
                yield _resized(soft_mask(of_pixels, centre, settings), shot.size)


def principal_components(shot: SmallShot, settings: VideoPcaSettings) -> Components:
    """Find the shot's strongest principal components, by subspace iteration from a random start.

    Halko, Martinsson, Tropp, "Finding structure with randomness" (SIAM Review 2011), algorithms
    4.4 and 5.1: one pass over the shot an iteration, two besides. Exact, but for rounding, where
    the frames are not more than components and oversampling.
    """
    width = min(settings.components + settings.oversampling, shot.count)
    start = np.random.default_rng(settings.seed).standard_normal((shot.count, width), np.float32)
    basis = _orthonormal(_spanned(shot, lambda which, _: start[which]))
    for _ in range(settings.iterations):
        previous = basis
        basis = _orthonormal(_spanned(shot, lambda _, block: block @ previous))  # noqa: B023
    weights = np.concatenate([block @ basis for _, block in shot.centred_blocks()])
    turn = np.linalg.svd(weights.astype(np.float64), full_matrices=False)[2]
    turn = turn[: settings.components].T.astype(np.float32)
    return Components(basis @ turn, weights @ turn)


def error_maps(shot: SmallShot, components: Components) -> Iterator[Float32]:
    """Measure what the components leave over of each frame: ||f - reconstruction|| over RGB.

    Yields:
        For each frame float32 (h, w), grey levels, 0 to sqrt(3) * 255 or little more.
    """
    for which, block in shot.centred_blocks():
        block -= components.weights[which] @ components.basis.T
        np.square(block, out=block)
        yield from np.sqrt(block.reshape(-1, *shot.shape).sum(-1))


def evidence_maps(
    shot: SmallShot, components: Components, settings: VideoPcaSettings
) -> Callable[[], Iterator[Float32]]:
    """Weigh how much the components' errors speak for an object: float32 (h, w) for each frame.

    What is returned gives the maps of all frames again at each call. Errors are brought from
    between the least and the largest of the whole shot to 0 to 1, blurred, and multiplied by the
    centre Gaussian. All zeros where the shot stands still.
    """
    ranges = [(float(one.min()), float(one.max())) for one in error_maps(shot, components)]
    low, high = min(one[0] for one in ranges), max(one[1] for one in ranges)
    if high <= settings.min_error:
        return lambda: (np.zeros(shot.shape[:2], np.float32) for _ in range(shot.count))
    centre = centre_map(*shot.shape[:2], settings.centre)

    def maps() -> Iterator[Float32]:
        for error in error_maps(shot, components):
            yield _blurred((error - low) / (high - low), settings.blur) * centre

    return maps


def foreground_maps(
    evidence: Callable[[], Iterator[Float32]], settings: VideoPcaSettings
) -> Iterator[Mask]:
    """Find where the evidence is above ``foreground``: bool (h, w) for each frame.

    ``relative`` makes that a share of the shot's strongest evidence. The text has 0.5 of the errors
    after min-max; but the largest error is that of a single pixel, which the blur takes away: the
    strongest evidence of 30 generated clips is 0.18 to 0.44, and none has a pixel above 0.5.
    """
    largest = max(float(one.max()) for one in evidence()) if settings.relative else 1.0
    for one in evidence():
        yield one > settings.foreground * largest


def foreground_shares(
    shot: SmallShot,
    foreground: Iterator[Mask],
    settings: VideoPcaSettings,
) -> Float32:
    """Count the share of the foreground in each colour, p = h_f / (h_f + h_b).

    h_f and h_b are the histograms of all frames' pixels in and outside of the foreground, each
    summing to 1, so that a small object weighs as much as a large background.

    Returns:
        float32 (bins ** 3,), indexed by :func:`colour_bins`; 0 for colours that do not occur, and
        all 0 without foreground.
    """
    counts = np.zeros((2, settings.bins**3))
    for _, block in shot.blocks():
        for frame in block:
            bins = colour_bins(frame, settings.bins)
            total = np.bincount(bins.ravel(), minlength=counts.shape[1])
            of_object = np.bincount(bins[next(foreground)], minlength=counts.shape[1])
            counts += total - of_object, of_object
    background, object_ = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    both = background + object_
    return np.divide(object_, both, out=np.zeros_like(both), where=both > 0).astype(np.float32)


def soft_mask(shares: Float32, centre: Float32, settings: VideoPcaSettings) -> Float32:
    """Keep the shares (h, w) of pixels whose centred shares are high, or that join such pixels.

    Thresholds with hysteresis on ``shares * centre``; the mask holds the shares themselves.
    """
    inside = apply_hysteresis_threshold(shares * centre, settings.weak, settings.strong)
    return np.where(inside, shares, np.float32(0))


def centre_map(height: int, width: int, sigma: float) -> Float32:
    """Draw a Gaussian of the distance to the middle, 1 there, as float32 (height, width).

    ``sigma`` is a fraction of the shorter side.
    """
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    square = (y[:, None] ** 2 + x**2) / (sigma * min(height, width)) ** 2
    return np.exp(-square / 2).astype(np.float32)


def colour_bins(image: Image, bins: int) -> Bins:
    """Find each pixel's bin (H, W) by its colour ((s cos h + 1) / 2, (s sin h + 1) / 2, v).

    Hue, saturation and value are taken to 8 bits; each axis is 0 to 1 in ``bins`` equal bins.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    of_hue_saturation, of_value = _bin_tables(bins)
    return of_hue_saturation[hsv[..., 0], hsv[..., 1]] + of_value[hsv[..., 2]]


@cache
def _bin_tables(bins: int) -> tuple[Bins, Bins]:
    """Tabulate what 8-bit hue and saturation (256, 256), and value (256,), add to the bin."""
    levels = np.arange(256)
    hue, saturation = 2 * np.pi * levels[:, None] / 256, levels / 255
    across, up = (
        _bin((saturation * np.cos(hue) + 1) / 2, bins),
        _bin((saturation * np.sin(hue) + 1) / 2, bins),
    )
    return (across * bins + up) * bins, _bin(levels / 255, bins)


def _bin(values: Float64, bins: int) -> Bins:
    """Find the bin of values in [0, 1]; 1 is in the last one."""
    return np.clip((values * bins).astype(np.intp), 0, bins - 1)


def _spanned(shot: SmallShot, weights: Callable[[slice, Float32], Float32]) -> Float32:
    """Sum the centred frames by the ``weights`` (B, N) of each block: (h * w * 3, N)."""
    parts = (block.T @ weights(which, block) for which, block in shot.centred_blocks())
    return reduce(np.add, parts)


def _orthonormal(columns: Float32) -> Float32:
    # NumPy's would compute in float64, at many times the time.
    found = scipy.linalg.qr(columns, overwrite_a=True, mode="economic", check_finite=False)
    return np.asarray(found[0], np.float32)


def _small(frame: Image, side: int | None) -> Image:
    height, width = frame.shape[:2]
    if side is None or max(height, width) <= side:
        return frame
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _blurred(error: Float32, fraction: float) -> Float32:
    sigma = fraction * min(error.shape)
    return np.asarray(cv2.GaussianBlur(error, (0, 0), sigma)) if sigma else error


def _resized(mask: Float32, size: tuple[int, int]) -> SaliencyMap:
    resized = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _check_whole(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise _wrong(name, value, f"give a whole number, {minimum} or more")


def _wrong(name: str, value: object, do: str) -> ConfigError:
    return ConfigError(f"{name} is {value}", where="VideoPCA", do=do)
