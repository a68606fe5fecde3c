"""Crisp boundaries of a photo, and the regions between them.

Isola, Zoran, Krishnan, Adelson, "Crisp boundary detection using pointwise mutual information"
(ECCV 2014), the authors' `speedy` preset; regions by an ultrametric contour map. Saleh et al.
(2017) take such regions for the higher-order terms of their CRF (section 3.1.3).

    image -> features -> PMI of pixel pairs -> affinity -> eigenvectors -> oriented energy
          -> boundaries -> watershed -> merged regions

Each step is a module of its own beside this one; docs/crisp.md says what was chosen where the paper
is silent. A region here is what boundaries above a threshold enclose; its ids are those of this
photo and threshold alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from tagseg.errors import ConfigError
from tagseg.maps import Image, check_image
from tagseg.priors.contour_map import ContourMap, Regions, check_threshold
from tagseg.priors.oriented_energy import oriented_energy
from tagseg.priors.pair_forest import PairForest, fit_forest, kept_affinity
from tagseg.priors.pixel_features import colour_features, texture_features
from tagseg.priors.pointwise_information import pair_information, sample_pairs
from tagseg.priors.row_blocks import RowBlocks
from tagseg.priors.spectral import cut_eigenvectors, disk_offsets, whitened

__all__ = [
    "ContourMap",
    "CrispSettings",
    "boundaries",
    "contour_map",
    "crisp_boundaries",
    "crisp_contour_map",
    "crisp_regions",
    "regions",
]

Float32: TypeAlias = npt.NDArray[np.float32]

_MIN_SIDE = 16  # of the reduced photo; a smaller one is mirrored until it has it
_MAX_COARSENINGS = 3  # of which the smallest photo is left with 2 x 2 pixels


@dataclass(frozen=True)
class CrispSettings:
    """Numbers of Isola et al. 2014; the defaults are the authors' `speedy` preset.

    Reduced pixels are those of the photo after ``max_side`` and ``reduction``.

    Attributes:
        max_side: pixels of the longer side beyond which the work is done on a smaller copy.
        reduction: by how much the photo is made smaller for the features.
        texture_radius: of the disk in which the standard deviation is taken, reduced pixels.
        n_kernels: sampled pairs that make up the density.
        bandwidth: of their Epanechnikov kernels.
        sigma: variance of the noise on the distance of sampled pairs, reduced pixels squared.
        rho: exponent of the joint density.
        regulariser: density added to the joint one and to the product of the marginals.
        n_forest_pairs: pairs on which PMI is computed, for the forest to learn.
        n_trees: of the forest.
        min_leaf: smallest number of pairs in a leaf.
        max_depth: greatest depth of a tree.
        radius: pixels within which pixels are joined, reduced pixels.
        n_vectors: eigenvectors of the affinity that the boundaries are read from.
        n_coarsenings: how often the affinity is made smaller.
        filter_sigma: of the derivative filters, reduced pixels.
        filter_support: half the filters' width, in sigmas.
        n_orientations: of the filters.
        border: fraction of the height, at the photo's border, where boundaries are taken from
            inside.

    Raises:
        ConfigError: a number is out of range.

    Examples:
        Half of the eigenvectors, and no smaller copy below 1000 pixels:

        >>> from tagseg.priors import CrispSettings
        >>> settings = CrispSettings(n_vectors=50, max_side=1000)
        >>> settings.n_vectors, settings.reduction
        (50, 2)
    """

    max_side: int = 640
    reduction: int = 2
    texture_radius: int = 2
    n_kernels: int = 5000
    bandwidth: float = 0.05
    sigma: float = 0.25
    rho: float = 1.25
    regulariser: float = 100.0
    n_forest_pairs: int = 10_000
    n_trees: int = 4
    min_leaf: int = 5
    max_depth: int = 16
    radius: int = 5
    n_vectors: int = 100
    n_coarsenings: int = 2
    filter_sigma: float = 1.0
    filter_support: float = 3.0
    n_orientations: int = 8
    border: float = 0.03

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (int,) if isinstance(field.default, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < np.inf:
                _reject(field.name, value, f"a positive {kinds[-1].__name__}")
            if value == 0 and field.name != "border":
                _reject(field.name, value, f"a positive {kinds[-1].__name__}")
        if self.border >= 0.5:
            _reject("border", self.border, "a share from 0 to below 0.5")
        if self.n_coarsenings > _MAX_COARSENINGS:
            _reject("n_coarsenings", self.n_coarsenings, f"1 to {_MAX_COARSENINGS}")


def _reject(name: str, value: object, wanted: str) -> None:
    raise ConfigError(f"{name} is {value!r}", where="crisp boundaries", do=f"give {wanted}")


def crisp_contour_map(
    image: Image, *, settings: CrispSettings = CrispSettings(), seed: int = 0, threads: int = 1
) -> ContourMap:
    """Find the boundaries of a photo, and its crisp regions at every threshold.

    Isola et al. (2014). A photo that does not vary has no boundaries and one region.

    Args:
        image: uint8 (H, W, 3), RGB; floats are refused.
        settings: numbers of the method.
        seed: where the draws of pairs and the forest start, 0..2^32 - 1.
        threads: on how many the kernels run; results do not depend on it.

    Returns:
        The contour map: ``.boundaries`` float32 (H, W) in [0, 1] and ``.regions(threshold)``.

    Raises:
        ConfigError: seed or threads is out of range.
        ShapeError: image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import crisp_contour_map
        >>> image = np.full((48, 64, 3), 60, np.uint8)
        >>> image[12:36, 16:48] = (200, 120, 40)
        >>> whole = crisp_contour_map(image)
        >>> [int(whole.regions(threshold).max()) + 1 for threshold in (0.7, 1.0)]
        [2, 1]
    """
    check_image(image)
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed!r}", where="crisp boundaries", do="give 0..2^32 - 1")
    with RowBlocks(threads) as blocks:
        energy = _energy(_reduced(image, settings), settings, int(seed), blocks)
    oriented = _scaled(energy, settings.border)
    height, width = image.shape[:2]
    strength = Pictures.fromarray(oriented.max(0)).resize(
        (width, height), Pictures.Resampling.BICUBIC
    )
    return ContourMap.of(np.clip(np.asarray(strength), 0, 1), oriented)


def crisp_boundaries(
    image: Image, *, settings: CrispSettings = CrispSettings(), seed: int = 0, threads: int = 1
) -> Float32:
    """Find how strong the boundary through each pixel of a photo is.

    It is the ``boundaries`` of :func:`crisp_contour_map`, which takes the same arguments.

    Returns:
        float32 (H, W) in [0, 1].

    Raises:
        ConfigError: seed or threads is out of range.
        ShapeError: image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import crisp_boundaries
        >>> image = np.full((48, 64, 3), 60, np.uint8)
        >>> image[12:36, 16:48] = (200, 120, 40)
        >>> strengths = crisp_boundaries(image)
        >>> bool(strengths[24, 15] > 0.6), bool(strengths[24, 32] < 0.2)  # at the edge, inside
        (True, True)
    """
    return crisp_contour_map(image, settings=settings, seed=seed, threads=threads).boundaries


def crisp_regions(
    image: Image,
    threshold: float = 0.1,
    *,
    settings: CrispSettings = CrispSettings(),
    seed: int = 0,
    threads: int = 1,
) -> Regions:
    """Label the crisp regions of a photo: what boundaries stronger than ``threshold`` enclose.

    For several thresholds of one photo, call :func:`crisp_contour_map` once and its ``regions``
    often.

    Args:
        image: uint8 (H, W, 3), RGB; floats are refused.
        threshold: strength of a boundary, from 0 to 1; a higher one gives larger regions.
        settings: numbers of the method.
        seed: where the draws of pairs and the forest start, 0..2^32 - 1.
        threads: on how many the kernels run; results do not depend on it.

    Returns:
        int32 (H, W), ids 0..n-1; each region is connected in 4-neighbours.

    Raises:
        ConfigError: threshold is not in [0, 1], or seed or threads is out of range.
        ShapeError: image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import crisp_regions
        >>> image = np.full((48, 64, 3), 60, np.uint8)
        >>> image[12:36, 16:48] = (200, 120, 40)
        >>> ids = crisp_regions(image, threshold=0.7)
        >>> ids[4::20, 8::16].tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    check_threshold(threshold)
    whole = crisp_contour_map(image, settings=settings, seed=seed, threads=threads)
    return whole.regions(threshold)


# The same by their names within this module, for callers that write crisp.regions(image).
contour_map, boundaries, regions = crisp_contour_map, crisp_boundaries, crisp_regions


def _reduced(image: Image, settings: CrispSettings) -> Image:
    """Shrink the photo to the size on which features are computed.

    Each pixel is the mean of those that it covers: filters with a longer reach ring beside strong
    edges, and their rings, alike all along an edge, would become regions of their own.
    """
    height, width = image.shape[:2]
    factor = min(1, settings.max_side / max(height, width)) / settings.reduction
    size = (int(np.ceil(width * factor)), int(np.ceil(height * factor)))
    return np.asarray(Pictures.fromarray(image).resize(size, Pictures.Resampling.BOX))


def _energy(image: Image, settings: CrispSettings, seed: int, blocks: RowBlocks) -> Float32:
    """Compute the oriented boundary energy of a reduced photo: float32 (orientations, h, w)."""
    height, width = image.shape[:2]
    missing = [(0, max(0, _MIN_SIDE - side)) for side in (height, width)]
    padded = np.pad(image, (*missing, (0, 0)), mode="symmetric")
    sets = blocks.map(
        lambda compute: compute(),
        [
            lambda: colour_features(padded),
            lambda: texture_features(padded, settings.texture_radius),
        ],
    )
    if not any(features.any() for features in sets):
        return np.zeros((settings.n_orientations, height, width), np.float32)
    maps = _eigenvector_maps(sets, settings, seed, blocks)
    energy = oriented_energy(
        maps,
        sigma=settings.filter_sigma,
        support=settings.filter_support,
        n_orientations=settings.n_orientations,
        blocks=blocks,
    )
    return energy[:, :height, :width]


def _eigenvector_maps(
    sets: list[Float32], settings: CrispSettings, seed: int, blocks: RowBlocks
) -> Float32:
    """Compute eigenvectors of the cut, scaled to ranges of 1 / sqrt(eigenvalue): (h, w, K)."""
    chances = np.random.SeedSequence(seed).spawn(len(sets))
    numbers = range(len(sets))
    forests = blocks.map(lambda k: _forest(sets[k], k, chances[k], settings), numbers)
    features = np.concatenate(sets, axis=2)
    shape = features.shape[:2]
    offsets = disk_offsets(settings.radius)
    kept = kept_affinity(features, PairForest.joined(forests), offsets, blocks)
    values, vectors = cut_eigenvectors(
        kept,
        shape,
        offsets,
        n_vectors=settings.n_vectors,
        n_coarsenings=settings.n_coarsenings,
        blocks=blocks,
    )
    maps = whitened(vectors.reshape(-1, vectors.shape[2]))
    ranges = np.maximum(np.ptp(maps, axis=0), np.finfo(np.float32).tiny)
    maps /= (ranges * np.sqrt(values)).astype(np.float32)
    return maps.reshape(vectors.shape)


def _forest(
    features: Float32, number: int, chance: np.random.SeedSequence, settings: CrispSettings
) -> PairForest:
    """Fit trees that know the PMI of one of the two feature sets."""
    rng = np.random.default_rng(chance)
    kernels = sample_pairs(features, settings.n_kernels, settings.sigma, rng)
    pairs = sample_pairs(features, settings.n_forest_pairs, settings.sigma, rng)
    information = pair_information(
        pairs,
        kernels,
        bandwidth=settings.bandwidth,
        rho=settings.rho,
        regulariser=settings.regulariser,
    )
    return fit_forest(
        pairs,
        information,
        n_trees=settings.n_trees,
        min_leaf=settings.min_leaf,
        max_depth=settings.max_depth,
        seed=int(rng.integers(2**31)),
        first_feature=pairs.shape[1] * number,
    )


def _scaled(energy: Float32, border: float) -> Float32:
    """Scale energy (orientations, h, w) to [0, 1]; the border takes the values next to it inside.

    The strongest orientation's minimum and maximum become 0 and 1. Near the border the filters and
    the cuts see half of what they need, and what they find there means little.
    """
    height, width = energy.shape[1:]
    margin = int(np.ceil(border * height))
    margins = [min(margin, (side - 1) // 2) for side in (height, width)]
    inside = energy[:, margins[0] : height - margins[0], margins[1] : width - margins[1]]
    strongest = inside.max(0)
    low, spread = strongest.min(), np.ptp(strongest)
    if spread <= np.finfo(np.float32).eps * strongest.max():
        return np.zeros_like(energy)
    scaled = np.clip((inside - low) / spread, 0, 1)
    return np.pad(scaled, [(0, 0), *((margin, margin) for margin in margins)], mode="edge")
