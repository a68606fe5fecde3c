"""Distinct class saliency maps: what sets each class apart in gradients (Shimoda & Yanai 2016).

From the gradients of class scores with respect to feature maps to one map per target class, and to
the unary of a CRF: Eq. 3 (its maximum over channels), 4, 5, 6 (its unary) and 7. The gradients come
from :mod:`tagseg.localize.backprop`. On the CPU, Eq. 4 and 5 are two passes over the pixels in
numba; elsewhere they are torch operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.backprop import channel_maximum
from tagseg.maps import Tags
from tagseg.nets.backbone import upsample_grid

__all__ = [
    "LEAST_SALIENCY",
    "CandidateClasses",
    "DcsmSettings",
    "aggregate",
    "at_photo_size",
    "candidate_classes",
    "distinct_maps",
    "layer_saliency",
    "score_map",
    "unary",
    "with_background",
]

LEAST_SALIENCY = 1e-20  # a class without a chance: what the authors' code puts in place of 0

Normalise = Literal["map", "none"]
Variant = Literal["paper", "code"]
Rows = npt.NDArray[np.intp]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class DcsmSettings:
    """Numbers of the method (Shimoda & Yanai 2016, 3.3; table in docs/dcsm.md).

    Args:
        alpha: Contrast of Eq. 5.
        scales: Factors on the photo's height and width; S of Eq. 5.
        min_candidates: Least number of classes that take part in Eq. 4; 0 turns it off
            (Table 4).
        threshold: Probability over which a class is detected.
        normalise: "map" divides each map of Eq. 4 by its maximum over the photo before tanh, as
            gradients have no scale of their own; "none" is Eq. 5 to the letter.
        variant: "paper" is Eq. 4 and 5; "code" scales and saturates each difference of two maps on
            its own, as the authors' program does.

    Raises:
        ConfigError: A value does not fit, or "code" is asked for without normalisation.

    Examples:
        >>> DcsmSettings(scales=(0.5, 1.0)).alpha
        3.0
        >>> DcsmSettings(scales=())
        Traceback (most recent call last):
        tagseg.errors.ConfigError: DCSM: scales is (); give one factor over 0 or more
    """

    alpha: float = 3.0
    scales: tuple[float, ...] = (0.8, 1.0, 1.2)
    min_candidates: int = 3
    threshold: float = 0.5
    normalise: Normalise = "map"
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        _check("alpha", self.alpha, _is_positive(self.alpha), "give a number over 0")
        valid = len(self.scales) > 0 and all(map(_is_positive, self.scales))
        _check("scales", self.scales, valid, "give one factor over 0 or more")
        least = self.min_candidates
        valid = isinstance(least, int) and not isinstance(least, bool) and least >= 0
        _check("min_candidates", least, valid, "give a whole number, 0 or more")
        _check("threshold", self.threshold, 0 <= self.threshold <= 1, "give a probability")
        valid = self.normalise in get_args(Normalise)
        _check("normalise", self.normalise, valid, "use map or none")
        _check("variant", self.variant, self.variant in get_args(Variant), "use paper or code")
        valid = self.variant == "paper" or self.normalise == "map"
        _check("normalise", self.normalise, valid, "the variant code always normalises: use map")


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _check(name: str, value: object, valid: bool, advice: str) -> None:
    if not valid:
        raise ConfigError(f"{name} is {value!r}", where="DCSM", do=advice)


class CandidateClasses(NamedTuple):
    """Which classes of a photo get a map, and which are subtracted from each other.

    Attributes:
        targets: Booleans (C,) of the classes that get a map.
        candidates: Ascending indices of the classes of Eq. 4, empty where nothing is subtracted.
        detected: Booleans (S, C), whether a class is over the threshold at each scale.

    Examples:
        >>> import numpy as np
        >>> found = CandidateClasses(
        ...     np.array([False, True, False]), np.array([1, 2]), np.zeros((1, 3), bool))
        >>> found.classes.tolist(), found.target_rows.tolist(), found.candidate_rows.tolist()
        ([1, 2], [0], [0, 1])
    """

    targets: Tags
    candidates: Rows
    detected: npt.NDArray[np.bool_]

    @property
    def classes(self) -> Rows:
        """The K classes whose gradients are needed, ascending."""
        return np.union1d(np.flatnonzero(self.targets), self.candidates)

    @property
    def target_rows(self) -> Rows:
        """Where the targets stand in ``classes``."""
        return np.searchsorted(self.classes, np.flatnonzero(self.targets))

    @property
    def candidate_rows(self) -> Rows:
        """Where the candidates stand in ``classes``."""
        return np.searchsorted(self.classes, self.candidates)


def candidate_classes(
    probabilities: npt.ArrayLike, settings: DcsmSettings, tags: npt.ArrayLike | None = None
) -> CandidateClasses:
    """Targets and candidates of a photo (Shimoda & Yanai 2016, 3.3 and Table 4).

    Detected are the classes over the threshold at any scale. They are the targets, unless the tags
    are known, which then are. Candidates are targets and detected classes and, up to the minimum
    number, those with the highest probability summed over scales (the first ones of equals).

    Args:
        probabilities: Floats (S, C) of the classifier, in [0, 1], in the order of
            ``settings.scales``.
        settings: Threshold and minimum number; with a minimum of 0 there are no candidates.
        tags: Booleans (C,), the classes in the photo, where they are known.

    Returns:
        The classes.

    Raises:
        ShapeError: Probabilities or tags are of another shape or type, or not in [0, 1].

    Examples:
        >>> settings = DcsmSettings(scales=(1.0,), min_candidates=2)
        >>> found = candidate_classes([[0.1, 0.9, 0.3]], settings)
        >>> found.targets.tolist()
        [False, True, False]
        >>> found.candidates.tolist()  # the most probable of the others, too
        [1, 2]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or len(p) != len(settings.scales):
        raise ShapeError(
            f"probabilities have shape {p.shape} for {len(settings.scales)} scales",
            do="give (S, C)",
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ShapeError("probabilities are not all in [0, 1]", do="apply the sigmoid")
    tags = None if tags is None else np.asarray(tags)
    if tags is not None and (tags.shape != p.shape[1:] or tags.dtype != np.bool_):
        raise ShapeError(f"tags is {tags.dtype} {tags.shape}", do=f"give bool ({p.shape[1]},)")
    detected: Tags = p.max(axis=0) > settings.threshold
    targets = detected if tags is None else tags.copy()
    least = settings.min_candidates
    chosen = targets | detected
    likely = np.argsort(np.where(chosen, -np.inf, -p.sum(axis=0)), kind="stable")
    chosen[likely[:least]] = True  # chosen ones come first: only what is missing is added
    candidates = np.flatnonzero(chosen) if least > 0 else np.empty(0, np.intp)
    return CandidateClasses(targets, candidates, p > settings.threshold)


@torch.no_grad()
def layer_saliency(
    gradient: Tensor,
    shape: tuple[int, int],
    *,
    stride: int | None,
    input_shape: tuple[int, int] | None = None,
) -> Tensor:
    """Raw class saliency M_i^c of one layer at the photo's size (Shimoda & Yanai 2016, Eq. 3).

    It is the maximum over channels of the absolute gradient, brought to the photo's size
    bilinearly. The paper enlarges first and then takes the maximum; the authors' code does it in
    this order, which is as many times cheaper as there are channels, and never smaller
    (docs/dcsm.md).

    Args:
        gradient: Floats (K, C_l, h, w) v_i^c, of K class scores with respect to layer i.
        shape: Height and width of the photo, pixels.
        stride: See :func:`at_photo_size`.
        input_shape: See :func:`at_photo_size`.

    Returns:
        Float32 (K, H, W), not negative.

    Raises:
        ShapeError: The gradient is not (K, C_l, h, w), or holds NaN or infinity.

    Examples:
        >>> import torch
        >>> gradient = torch.tensor([[[[1.0, 0.0]], [[-2.0, 0.5]]]])
        >>> layer_saliency(gradient, (1, 4), stride=2).tolist()
        [[[2.0, 1.25, 0.5, 0.5]]]
    """
    if gradient.ndim != 4 or 0 in gradient.shape:
        raise ShapeError(f"gradient has shape {tuple(gradient.shape)}", do="give (K, C, h, w)")
    strongest = channel_maximum(gradient)
    return at_photo_size(strongest, shape, stride=stride, input_shape=input_shape)


@torch.no_grad()
def at_photo_size(
    maps: Tensor,
    shape: tuple[int, int],
    *,
    stride: int | None,
    first: int = 0,
    input_shape: tuple[int, int] | None = None,
) -> Tensor:
    """Maps of a layer brought to the photo's size, bilinearly (Shimoda & Yanai 2016, 3.3).

    It is meant for the maxima over channels that :meth:`Record.saliency` gives.

    Args:
        maps: Floats (K, h, w).
        shape: Height and width of the photo, pixels.
        stride: Input pixels per position of the layer, or None, see
            :func:`tagseg.nets.backbone.upsample_grid`.
        first: Input pixel that position 0 lies on, where there is a stride.
        input_shape: Height and width of the photo as the network saw it, at any scale; None is
            ``shape``.

    Returns:
        Float32 (K, H, W).

    Raises:
        ShapeError: The maps are not (K, h, w), or hold NaN or infinity.

    Examples:
        >>> import torch
        >>> at_photo_size(torch.tensor([[[0.0, 4.0]]]), (1, 5), stride=4).tolist()
        [[[0.0, 1.0, 2.0, 3.0, 4.0]]]
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise ShapeError(f"maps have shape {tuple(maps.shape)}", do="give (K, h, w)")
    if not torch.isfinite(maps).all():
        raise ShapeError("gradient holds NaN or infinity", do="check the classifier's weights")
    seen = input_shape or shape
    if stride is None or (seen == shape and first == 0):
        return upsample_grid(maps.float()[None], shape, stride)[0]
    return _from_scaled(maps.float(), shape, stride, first, seen)


def _from_scaled(
    maps: Tensor, shape: tuple[int, int], stride: int, first: int, input_shape: tuple[int, int]
) -> Tensor:
    """Maps (K, h, w) of a scaled photo, position i on its pixel first + stride * i, at shape."""
    axes = []
    for size, scaled, positions in zip(shape, input_shape, maps.shape[1:], strict=True):
        pixel = torch.arange(size, device=maps.device, dtype=torch.float32)
        in_scaled = (pixel + 0.5) * (scaled / size) - 0.5  # where resizing puts the pixel's centre
        axes.append((in_scaled - first) / stride * (2 / max(positions - 1, 1)) - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), dim=-1)
    return functional.grid_sample(
        maps[None], grid[None], padding_mode="border", align_corners=True
    )[0]


def distinct_maps(raw: Tensor, targets: npt.ArrayLike, candidates: npt.ArrayLike) -> Tensor:
    """Maps of the targets with those of the others subtracted (Shimoda & Yanai 2016, Eq. 4).

    M~^c = sum over candidates c' != c of max(M^c - M^c', 0). A target without another candidate
    keeps its map: that is the paper's N = 0 (Table 4).

    Args:
        raw: Floats (K, H, W) M, not negative.
        targets: Rows (T,) of ``raw``.
        candidates: Rows (M,) of ``raw``; each counts once.

    Returns:
        Float32 (T, H, W), not negative.

    Raises:
        ShapeError: The maps are not (K, H, W), or a row is not among them.

    Examples:
        >>> import torch
        >>> raw = torch.tensor([[[3.0, 1.0]], [[1.0, 2.0]]])
        >>> distinct_maps(raw, [0, 1], [0, 1]).tolist()
        [[[2.0, 0.0]], [[0.0, 1.0]]]
    """
    maps, _ = _subtracted(*_checked(raw, targets, candidates))
    return maps


def aggregate(
    steps: Iterable[tuple[int, Tensor]],
    classes: CandidateClasses,
    settings: DcsmSettings,
    *,
    photo: Window | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Distinct class saliency maps M^ of a photo (Shimoda & Yanai 2016, Eq. 4 and 5).

    M^ = mean over scales j and layers i of tanh(alpha M~_ji). Maps are added up as they come, so
    that ``steps`` may be a generator, and the maps of one step are all that is held. With
    ``weights`` of 1 over the number of its block's layers for each layer, it is the mean of blocks
    that are means of their layers, as in 4.4; where blocks have equally many, that is the same.

    Args:
        steps: For each scale and layer, the scale's index and the raw maps (K, H, W) of
            :func:`layer_saliency` or :func:`at_photo_size`, K in the order of ``classes.classes``.
        classes: The photo's targets and candidates.
        settings: Of these, alpha, normalise and variant.
        photo: Rows and columns that show the photo, where maps hold padding too. It takes no part
            in Eq. 5; the variant "code" takes it off at the end.
        weights: Of the layers in the mean, over 0, in the order in which they come at every scale;
            None for equal ones. The variant "code" has none.

    Returns:
        Float32 (T, H, W) in [0, 1], one for each target, ascending.

    Raises:
        ShapeError: There are no steps, or maps of another shape or of a scale that is not in
            ``classes``.

    Examples:
        >>> import torch
        >>> settings = DcsmSettings(scales=(1.0,), min_candidates=2)
        >>> classes = candidate_classes([[0.9, 0.2]], settings)
        >>> maps = aggregate([(0, torch.tensor([[[3.0, 2.0]], [[1.0, 2.0]]]))], classes, settings)
        >>> [[round(v, 3) for v in row] for row in maps[0].tolist()]  # tanh(3 * (1, 0))
        [[0.995, 0.0]]
    """
    window = photo or (slice(None), slice(None))
    whole = _checked_steps(steps, classes)
    if settings.variant == "code":
        return _as_in_the_code(whole, classes, settings.alpha, window)
    return _mean_of_equation_5(whole, classes, settings, window, weights or (1.0,))


def _mean_of_equation_5(
    steps: Iterable[tuple[int, Tensor]],
    classes: CandidateClasses,
    settings: DcsmSettings,
    window: Window,
    weights: Sequence[float],
) -> Tensor:
    total, weight_of_all = torch.empty(0), 0.0
    rows = classes.target_rows, classes.candidate_rows
    for count, (_, raw) in enumerate(steps):
        maps, peaks = _subtracted(*_checked(raw[:, *window], *rows))
        if count == 0:
            total = torch.zeros_like(maps)
        if settings.normalise == "none":
            peaks = torch.ones_like(peaks)
        weight = weights[count % len(weights)]
        _add_saturated(total, maps, peaks, settings.alpha, weight)
        weight_of_all += weight
    return total / weight_of_all


def _as_in_the_code(
    steps: Iterable[tuple[int, Tensor]], classes: CandidateClasses, alpha: float, window: Window
) -> Tensor:
    """The authors' program: every difference over its own maximum, saturated, then all their sum.

    A target adds up the scales at which it was detected, or all where it was at none.
    """
    detected = classes.detected[:, classes.targets]
    used = detected | ~detected.any(axis=0)
    total = torch.empty(0)
    for count, (scale, raw) in enumerate(steps):
        if count == 0:
            total = raw.new_zeros((len(classes.target_rows), *raw.shape[1:]), dtype=torch.float32)
        for place in np.flatnonzero(used[scale]):
            target, others = classes.target_rows[place], classes.candidate_rows
            differences = _differences(raw.float(), target, others[others != target])
            total[place] += _sum_of_saturated(differences, alpha)
    sums = total[:, *window]
    return _saturated(sums, _peaks(sums), alpha)


def _differences(raw: Tensor, target: int, others: Rows) -> Tensor:
    """The target's map (H, W) less each other one's, (M, H, W), or by itself."""
    own = raw[target]
    return own - raw[torch.from_numpy(others).to(raw.device)] if len(others) else own[None]


def _sum_of_saturated(differences: Tensor, alpha: float) -> Tensor:
    peaks = _peaks(differences)
    parts = torch.where(differences > 0, _saturated(differences, peaks, alpha), LEAST_SALIENCY)
    return parts[peaks > 0].sum(dim=0)


def score_map(maps: Tensor, targets: npt.ArrayLike) -> Tensor:
    """Score map of all classes from the maps of those that have one.

    Args:
        maps: Floats (T, H, W), of the targets in ascending order.
        targets: Booleans (C,), T of them true.

    Returns:
        (C, H, W) of the type of ``maps``, zero for all other classes.

    Examples:
        >>> import torch
        >>> score_map(torch.ones(1, 1, 2), [False, True]).tolist()
        [[[0.0, 0.0]], [[1.0, 1.0]]]
    """
    chosen = torch.as_tensor(np.asarray(targets, dtype=np.bool_), device=maps.device)
    scores = maps.new_zeros((len(chosen), *maps.shape[1:]))
    scores[chosen] = maps
    return scores


def with_background(maps: Tensor) -> Tensor:
    """Maps of the targets with that of the background first (Shimoda & Yanai 2016, Eq. 7).

    M^BG = 1 - max over targets of M^c: 1 everywhere without targets.

    Args:
        maps: Floats (T, H, W) in [0, 1].

    Returns:
        (T + 1, H, W) of the type of ``maps``, in the order of
        :func:`tagseg.maps.labels_of_tags`.

    Examples:
        >>> import torch
        >>> with_background(torch.tensor([[[1.0, 0.25]], [[0.5, 0.0]]])).tolist()
        [[[0.0, 0.75]], [[1.0, 0.25]], [[0.5, 0.0]]]
    """
    every = functional.pad(maps, (0, 0, 0, 0, 1, 0))
    every[0] = 1 - every.amax(dim=0)
    return every


def unary(maps: Tensor) -> Tensor:
    """Unary -log M^ of the CRF (Shimoda & Yanai 2016, Eq. 6).

    Saliency below 1e-20 counts as that, as in the authors' code: the cost of 46 is finite, and more
    than neighbours could ever make up for.

    Args:
        maps: Floats in [0, 1] of any shape, as :func:`with_background` gives them.

    Returns:
        Costs of the same shape and type, in nats.

    Examples:
        >>> import torch
        >>> [round(cost, 2) for cost in unary(torch.tensor([1.0, 0.5, 0.0])).tolist()]
        [-0.0, 0.69, 46.05]
    """
    return maps.clamp(min=LEAST_SALIENCY).log_().neg_()


def _checked_steps(
    steps: Iterable[tuple[int, Tensor]], classes: CandidateClasses
) -> Iterable[tuple[int, Tensor]]:
    """The steps, each as it is taken; ShapeError where one does not fit or there is none."""
    expected: tuple[int, ...] | None = None
    for scale, raw in steps:
        expected = expected or (len(classes.classes), *raw.shape[1:])
        if tuple(raw.shape) != expected or raw.ndim != 3:
            raise ShapeError(
                f"raw maps have shape {tuple(raw.shape)}", do=f"give {expected} at every step"
            )
        if not 0 <= scale < len(classes.detected):
            raise ShapeError(f"there is no scale {scale}", do="count the scales from 0")
        yield scale, raw.detach()
    if expected is None:
        raise ShapeError("there are no maps", do="give those of one scale and layer or more")


def _checked(
    raw: Tensor, targets: npt.ArrayLike, candidates: npt.ArrayLike
) -> tuple[Tensor, Rows, Rows]:
    if raw.ndim != 3 or 0 in raw.shape[1:]:
        raise ShapeError(f"raw has shape {tuple(raw.shape)}", do="give (K, H, W)")
    rows = [np.asarray(given, dtype=np.intp).reshape(-1) for given in (targets, candidates)]
    for given in rows:
        if given.size and not 0 <= given.min() <= given.max() < len(raw):
            raise ShapeError(f"rows {given.tolist()} are not all in 0..{len(raw) - 1}")
    return raw.detach().float().contiguous(), rows[0], np.unique(rows[1])


def _subtracted(raw: Tensor, targets: Rows, candidates: Rows) -> tuple[Tensor, Tensor]:
    """Eq. 4, and the maximum of each map (T,)."""
    if raw.device.type != "cpu":
        maps = _subtracted_by_torch(raw, targets, candidates)
        return maps, _peaks(maps)
    maps, peaks = raw.new_empty((len(targets), *raw.shape[1:])), raw.new_zeros(len(targets))
    _subtract(_pixels(raw), targets, candidates, _pixels(maps), peaks.numpy())
    return maps, peaks


def _subtracted_by_torch(raw: Tensor, targets: Rows, candidates: Rows) -> Tensor:
    own = raw[torch.from_numpy(targets).to(raw.device)]
    maps = torch.zeros_like(own)
    for candidate in candidates:
        maps += (own - raw[candidate]).clamp_(min=0)  # nothing where it is the target itself
    for place, target in enumerate(targets):
        if (candidates == target).all():
            maps[place] = own[place]
    return maps


def _add_saturated(total: Tensor, maps: Tensor, peaks: Tensor, alpha: float, weight: float) -> None:
    """A term of Eq. 5, tanh(alpha M~ / peak), with its weight into ``total``."""
    if total.device.type != "cpu":
        total += _saturated(maps, peaks, alpha) * weight
        return
    numbers = np.float32(alpha), np.float32(weight)
    _add_tanh(_pixels(maps), peaks.numpy(), *numbers, _pixels(total))


def _saturated(maps: Tensor, peaks: Tensor, alpha: float) -> Tensor:
    positive = torch.where(peaks > 0, peaks, 1)  # a map without any saliency stays zero
    return (maps / positive[:, None, None]).mul_(alpha).tanh_()


def _peaks(maps: Tensor) -> Tensor:
    return maps.flatten(1).amax(dim=1)


def _pixels(maps: Tensor) -> npt.NDArray[np.float32]:
    return maps.view(len(maps), maps[0].numel() if len(maps) else 0).numpy()


_BLOCK = 2048  # pixels that go through Eq. 4 together: those of 20 maps fit the second cache
# No reassociation and no reciprocals: the least maxima have none in float32.
_FAST = {"nnan", "nsz", "contract"}


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def _subtract(raw, targets, candidates, maps, peaks):  # type: ignore[no-untyped-def]
    """Eq. 4 of ``raw`` (K, N) into ``maps`` (T, N), and their maxima into ``peaks``."""
    for start in range(0, raw.shape[1], _BLOCK):
        stop = min(start + _BLOCK, raw.shape[1])
        for t in range(len(targets)):
            own, total = raw[targets[t], start:stop], maps[t, start:stop]
            alone = True
            total[:] = 0
            for candidate in candidates:
                if candidate != targets[t]:
                    alone = False
                    other = raw[candidate, start:stop]
                    for i in range(stop - start):
                        total[i] += max(own[i] - other[i], np.float32(0))
            if alone:
                total[:] = own
            for i in range(stop - start):
                peaks[t] = max(peaks[t], total[i])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def _add_tanh(maps, peaks, alpha, weight, total):  # type: ignore[no-untyped-def]
    for t in range(len(maps)):
        if peaks[t] > 0:
            into, of, peak = total[t], maps[t], peaks[t]
            for i in range(len(of)):
                into[i] += weight * _tanh(alpha * (of[i] / peak))


_N1, _N2, _N3 = (np.float32(a / 135135) for a in (17325, 378, 1))
_D1, _D2, _D3 = (np.float32(a / 135135) for a in (62370, 3150, 28))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
def _tanh(x):  # type: ignore[no-untyped-def]
    """Tanh of x >= 0 to 4e-7 of its value, in steps that LLVM turns into vectors.

    The continued fraction at x / 8 as n / d, and three times tanh 2y = 2 n d / (d^2 + n^2).
    """
    y = min(x, np.float32(9)) * np.float32(0.125)  # at 9 it is 1 in float32
    s = y * y
    n = y * (np.float32(1) + s * (_N1 + s * (_N2 + s * _N3)))
    d = np.float32(1) + s * (_D1 + s * (_D2 + s * _D3))
    for _ in range(3):
        n, d = np.float32(2) * n * d, d * d + n * n
    return min(n / d, np.float32(1))
