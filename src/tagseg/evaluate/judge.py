"""A judge of masks that needs no masks: how good is this one likely to be, told from tags alone.

Candidates for one class in one photo are looked at together. A classifier that learned from tags,
with regions hidden at random, says whether it still sees the class where only the mask is shown
(sufficiency) and where it is hidden (necessity); beside these stand what the mask covers (economy),
how its colours differ from those around it, and how far the candidates agree. The judge weighs
them as they went with true IoU on generated scenes, whose masks are known because they were drawn:
no person's mask decides anything, neither here nor when it is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Self

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import Image

__all__ = ["FEATURES", "Judge", "Views", "case_for", "mask_features", "shipped_judge"]

Float64 = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]  # (K, H, W)

_SEEN = (
    "seen",
    "shown",
    "hidden",
    "area",
    "area squared",
    "on edges",
    "colours",
    "agreement",
    "agreement of all",
    "spread of areas",
    "evidence inside",
    "evidence outside",
    "tags",
)
_BY_SIZE = ("both", "colours", "agreement", "evidence inside")
FEATURES = (
    *_SEEN,
    "both",
    "log area",
    "log area squared",
    *(f"{name} by log area" for name in _BY_SIZE),
)
"""What the judge weighs, in order: :func:`mask_features`.

"both" is sufficiency times necessity, what is seen where the mask alone is shown and not where it
is hidden. What each of four says of a mask differs with its size, so they stand there times the
logarithm of the area too.
"""

_LEAST_AREA = 0.002  # below which a mask is as small as can be
_LEVELS = 8  # of each channel, in histograms of colours
_RARE = 0.02  # fraction of the masks fitted to that may be smaller than what it judges
_ROUNDING = 1e-6  # on a mean, a deviation that is none


@dataclass(frozen=True)
class Views:
    """Probabilities of a class, by a classifier that learned from tags with regions hidden.

    Attributes:
        seen: in the photo.
        shown: in the photo outside of which all but the mask is hidden, of each mask (K,).
        hidden: in the photo in which the mask is hidden, likewise.
    """

    seen: float
    shown: Float64
    hidden: Float64


def mask_features(
    image: Image, masks: Masks, evidence: npt.NDArray[np.float32], views: Views, n_tags: int
) -> Float64:
    """What tells good candidates for a class in a photo from bad ones: (K, F), see ``FEATURES``.

    Args:
        image: RGB photo (H, W, 3), uint8.
        masks: the candidates (K, H, W), bool.
        evidence: score map of the class (H, W), in [0, 1].
        views: what the classifier sees.
        n_tags: of the photo.

    Raises:
        ShapeError: the arrays do not fit together.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate.judge import FEATURES, Views, mask_features
        >>> image = np.zeros((4, 4, 3), np.uint8)
        >>> image[1:3, 1:3] = 255
        >>> mask = image[None, :, :, 0] > 0
        >>> views = Views(0.9, np.array([0.8]), np.array([0.1]))
        >>> found = mask_features(image, mask, mask[0].astype(np.float32), views, 1)
        >>> dict(zip(FEATURES, found[0].tolist()))["colours"]
        1.0
    """
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2] or evidence.shape != image.shape[:2]:
        raise ShapeError(
            f"masks {masks.shape} and evidence {evidence.shape} in a photo of {image.shape[:2]}",
            do="bring them to its size",
        )
    count = len(masks)
    if not count == len(views.shown) == len(views.hidden) > 0:
        raise ShapeError(
            f"{count} masks, views of {len(views.shown)} alone and of {len(views.hidden)} hidden",
            do="give one mask or more, and both views of each",
        )
    areas = masks.mean((1, 2))
    median = masks.mean(0) > 0.5
    agreement = np.array([_iou(mask, median) for mask in masks])
    inside, outside = zip(*(_means(evidence, mask) for mask in masks), strict=True)
    colours = _colours(image)
    columns = (
        np.full(count, views.seen),
        views.shown,
        views.hidden,
        areas,
        areas**2,
        [_on_edges(mask) for mask in masks],
        [_difference(colours, mask) for mask in masks],
        agreement,
        np.full(count, agreement.mean()),
        np.full(count, np.log(areas + _LEAST_AREA).std()),
        inside,
        outside,
        np.full(count, n_tags),
    )
    return with_sizes(np.stack([np.asarray(column, np.float64) for column in columns], 1))


def with_sizes(seen: Float64) -> Float64:
    """All ``FEATURES`` (K, F) of those up to "tags", in order."""
    of = dict(zip(_SEEN, seen.T, strict=True))
    of["both"] = of["shown"] * (1 - of["hidden"])
    size = np.log(of["area"] + _LEAST_AREA)
    more = (of["both"], size, size**2, *(of[name] * size for name in _BY_SIZE))
    return np.column_stack((seen, *more))


def case_for(features: Float64) -> Float64:
    """How much speaks for masks with ``features`` (N, F), (N,) in [0, 1]; nothing for empty ones.

    The product of three: how much their colours differ from those outside, the evidence inside, and
    the root of what the classifier misses where they are hidden. A mask that spreads over the
    background loses by the first, one of an object that shows no evidence by the second, one of a
    part by the third. Nothing is fitted, so it holds for things of any size.
    """
    colours, inside, hidden, area = (
        features[:, FEATURES.index(name)]
        for name in ("colours", "evidence inside", "hidden", "area")
    )
    case = colours * inside * np.sqrt(np.clip(1 - hidden, 0, 1))
    return np.where(area > 0, case, 0.0)


@dataclass(frozen=True)
class Judge:
    """Expected IoU as a linear function of features.

    Attributes:
        means, scales, weights: of each of ``FEATURES``.
        level: the expected IoU where all features are at their means.
        spread: by how much the mean over a class's photos was off on scenes that it was not fitted
            to, as a root mean square.
        smallest: the area under which it has seen too few masks to say anything.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    level: float
    spread: float
    smallest: float = 0.0

    @classmethod
    def fitted(
        cls, features: Float64, quality: Float64, groups: Sequence[str], *, ridge: float = 10.0
    ) -> Self:
        """The judge that met ``quality`` (N,) best by ``features`` (N, F), by ridge regression.

        Args:
            groups: which rows belong together when the spread is measured, such as a class of one
                set of scenes: each is left out in turn. Empty masks teach nothing.
        """
        held = features[:, FEATURES.index("area")] > 0
        features, quality, names = features[held], quality[held], np.asarray(groups)[held]
        errors = []
        for name in np.unique(names):
            left_out = names == name
            if not (~left_out).any():
                continue
            other = cls._solved(features[~left_out], quality[~left_out], ridge, 0.0)
            errors.append(other.quality(features[left_out]).mean() - quality[left_out].mean())
        spread = float(np.sqrt(np.mean(np.square(errors)))) if errors else 1.0
        areas = features[:, FEATURES.index("area")]
        smallest = float(f"{np.quantile(areas, _RARE):.3g}") if len(areas) else 0.0
        return replace(cls._solved(features, quality, ridge, spread), smallest=smallest)

    @classmethod
    def _solved(cls, features: Float64, quality: Float64, ridge: float, spread: float) -> Self:
        means, scales = features.mean(0), features.std(0)
        # One value, whose rounding must not pass for a difference, is told from no other.
        scales = np.where(scales > _ROUNDING * np.abs(means), scales, 1.0)
        z = (features - means) / scales
        gram = z.T @ z + ridge * np.eye(z.shape[1])
        weights = np.linalg.solve(gram, z.T @ (quality - quality.mean()))
        level = float(quality.mean())
        return cls(_short(means), _short(scales), _short(weights), level=level, spread=spread)

    def quality(self, features: Float64) -> Float64:
        """Expected IoU (N,) in [0, 1] of masks with ``features`` (N, F).

        0 of an empty one, NaN of one that is smaller than those that the judge was fitted to.
        """
        z = (features - np.asarray(self.means)) / np.asarray(self.scales)
        quality = np.clip(self.level + z @ np.asarray(self.weights), 0.0, 1.0)
        area = features[:, FEATURES.index("area")]
        quality = np.where(area < self.smallest, np.nan, quality)
        return np.where(area > 0, quality, 0.0)

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it."""
        return json.dumps({"features": FEATURES, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The judge that ``text`` describes.

        Raises:
            ShapeError: it is for other features.
        """
        content = json.loads(text)
        if tuple(content.pop("features")) != FEATURES:
            raise ShapeError("the judge is for other features", do="run tools/calibrate_judge.py")
        means, scales, weights = (tuple(content[k]) for k in ("means", "scales", "weights"))
        rest = {k: content[k] for k in ("level", "spread", "smallest")}
        return cls(means, scales, weights, **rest)


@cache
def shipped_judge() -> Judge:
    """The judge that comes with tagseg, from generated scenes (``tools/calibrate_judge.py``)."""
    return Judge.from_json(files("tagseg.evaluate").joinpath("judge.json").read_text())


def _short(row: Float64) -> tuple[float, ...]:
    """Six digits of each, which is more than is known."""
    return tuple(float(f"{value:.6g}") for value in row)


def _iou(one: Masks, other: Masks) -> float:
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 0.0


def _means(values: npt.NDArray[np.float32], mask: Masks) -> tuple[float, float]:
    """Means inside and outside, 0 where there is nothing."""
    inside, outside = (float(values[m].mean()) if m.any() else 0.0 for m in (mask, ~mask))
    return inside, outside


def _on_edges(mask: Masks) -> float:
    """Fraction of the photo's four sides that the mask holds; a corner is of two of them."""
    return float(np.concatenate((mask[0], mask[-1], mask[:, 0], mask[:, -1])).mean())


def _colours(image: Image) -> npt.NDArray[np.int64]:
    """Cell of each pixel in a histogram of colours, (H, W)."""
    cells = image.astype(np.int64) * _LEVELS // 256
    return (cells[..., 0] * _LEVELS + cells[..., 1]) * _LEVELS + cells[..., 2]


def _difference(colours: npt.NDArray[np.int64], mask: Masks) -> float:
    """Chi-square distance of the histograms of colours inside and outside, 0 to 1."""
    if not mask.any() or mask.all():
        return 0.0
    inside, outside = (
        np.bincount(colours[m], minlength=_LEVELS**3) / m.sum() for m in (mask, ~mask)
    )
    total = inside + outside
    return float(0.5 * ((inside - outside) ** 2 / np.where(total > 0, total, 1)).sum())
