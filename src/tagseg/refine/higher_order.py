"""P^n-Potts terms of a dense CRF: all pixels of a region want one label (Saleh et al., Eq. 6, 8).

A region c costs gamma_l where all of its pixels have label l, and gamma_max where they do not
agree. The mean field of that (Vineet et al. 2014) adds to the energy of pixel i and label l

    weight * (gamma_l R_i(l) + gamma_max (1 - R_i(l))),    R_i(l) = product of Q_j(l), j != i in c.

The product vanishes as soon as a few pixels disagree, so a public implementation adds the region's
costs to each of its pixels as well, in proportion to its size: area_weight * |c| * gamma_l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError

__all__ = [
    "HigherOrder",
    "Layers",
    "check_regions",
    "costs_of_means",
    "number_regions",
    "region_costs",
]

_DENSE = 10_000_000  # ids up to which a table of them is small

Float32 = npt.NDArray[np.float32]
Layers = npt.NDArray[np.integer] | Sequence[npt.NDArray[np.integer]]


@dataclass(frozen=True)
class HigherOrder:
    """Strengths of the P^n-Potts terms.

    ``weight`` multiplies the term of a region, ``gamma_max`` is its cost where the pixels disagree
    and the most that any label can cost, ``area_weight`` the share of a region's costs that each of
    its pixels takes on, per pixel of the region.

    Raises:
        ConfigError: A number is negative or not finite.

    Examples:
        Pixels of a region take the label that most of it has, in a photo that says nothing else:

        >>> import numpy as np
        >>> from tagseg.refine import HigherOrder, dense_crf
        >>> image = np.zeros((2, 4, 3), np.uint8)
        >>> unary = np.zeros((2, 2, 4), np.float32)
        >>> unary[1] = 0.5
        >>> unary[:, 0, 0] = 0.5, 0.0
        >>> regions = np.zeros((2, 4), np.int32)
        >>> alone = {"bilateral": None, "smoothness": None, "regions": regions}
        >>> for area_weight in (0.0, 1.0):
        ...     strengths = HigherOrder(weight=0.0, area_weight=area_weight)
        ...     probs = dense_crf(image, unary, higher_order=strengths, **alone)
        ...     print(probs.argmax(axis=0)[0].tolist())
        [1, 0, 0, 0]
        [0, 0, 0, 0]
    """

    weight: float = 1.0
    gamma_max: float = 5.0
    area_weight: float = 0.00018

    def __post_init__(self) -> None:
        for name in ("weight", "gamma_max", "area_weight"):
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not np.isfinite(value) or value < 0:
                raise ConfigError(
                    f"{name} is {value!r}", where="higher-order terms", do="give 0 or more"
                )


def check_regions(regions: Any, shape: tuple[int, ...]) -> list[npt.NDArray[np.integer]]:
    """Return the layers of ``regions``, integer (H, W) or several; raise ShapeError otherwise."""
    layers = [regions] if isinstance(regions, np.ndarray) and regions.ndim == 2 else regions
    if not isinstance(layers, Sequence | np.ndarray):
        layers = [layers]
    for layer in layers:
        fits = isinstance(layer, np.ndarray) and np.issubdtype(layer.dtype, np.integer)
        if not fits or layer.shape != shape:
            height, width = shape
            raise ShapeError(
                "regions do not fit the photo",
                do=f"give integer ids ({height}, {width}), or a list of such layers",
            )
    return list(layers)


def number_regions(
    regions: npt.NDArray[np.integer],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return ids (H, W) 0..n-1, n for negative ones, and the sizes (n,) of the regions."""
    regions = np.maximum(regions, -1)
    if regions.max() > _DENSE:  # numbers too large to index a table get smaller ones
        known, ids = np.unique(regions, return_inverse=True)
        regions = ids.reshape(regions.shape) - int(known[0] < 0)
    counts = np.bincount(regions.ravel() + 1)
    sizes = counts[1:][counts[1:] > 0]
    numbers = np.cumsum(counts > 0) - 1 - int(counts[0] > 0)
    numbers[0] = len(sizes)  # no region
    return numbers[regions + 1].astype(np.int32), sizes


def region_costs(
    ids: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64], maps: Float32, gamma_max: float
) -> Float32:
    """Return the costs gamma_l (n, L) of regions in the maps P (L, H, W): Eq. 8."""
    flat, n = ids.ravel(), len(sizes)
    sums = [np.bincount(flat, channel.ravel(), minlength=n + 1)[:n] for channel in maps]
    return costs_of_means(np.stack(sums, axis=1) / sizes[:, None], gamma_max)


def costs_of_means(means: npt.NDArray[np.floating], gamma_max: float) -> Float32:
    """Return gamma_l = min(-log mean P(l), gamma_max) of Saleh et al., Eq. 8; never below 0."""
    costs: Float32 = -np.log(np.clip(means, np.exp(-gamma_max), 1.0)).astype(np.float32)
    return costs
