"""Saliency from regions that look like objects: a forest's word on 93 features, over 15 levels.

Jiang, Wang, Yuan, Wu, Zheng, Li: "Salient Object Detection: A Discriminative Regional Feature
Integration Approach" (CVPR 2013), written DRFI there. The levels, the stretch of each and the
plain sum over them are those of the authors' released program.

A region is a superpixel here: one of a photo's segments at one of the levels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.working import labels_at, working_image
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    Image,
    Labels,
    SaliencyMap,
    check_image,
    check_labels,
)
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.region_features import pixel_channels, region_features
from tagseg.priors.superpixels import SuperpixelSettings, superpixel_levels, superpixel_neighbours

__all__ = [
    "DRFI_LEVELS",
    "DrfiSettings",
    "drfi_saliency",
    "drfi_training_rows",
    "shipped_forest",
    "training_rows",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Superpixels = npt.NDArray[np.int32]

_SHIPPED = "drfi_scenes.safetensors"

DRFI_LEVELS: tuple[SuperpixelSettings, ...] = tuple(
    SuperpixelSettings(scale=scale, sigma=sigma, min_size=size)
    for sigma, scale, size in (
        (0.8, 100.0, 150),
        (0.8, 400.0, 300),
        (0.9, 200.0, 200),
        (0.9, 100.0, 200),
        (0.8, 300.0, 150),
        (1.0, 200.0, 150),
        (0.9, 300.0, 300),
        (1.0, 100.0, 150),
        (1.0, 500.0, 300),
        (0.9, 200.0, 300),
        (0.8, 600.0, 200),
        (1.0, 600.0, 300),
        (0.8, 200.0, 150),
        (1.0, 500.0, 200),
        (0.8, 400.0, 150),
    )
)
"""The 15 segmentations of the authors' program, for photos whose longer side is 400 pixels."""


@dataclass(frozen=True)
class DrfiSettings:
    """Numbers of Jiang et al. 2013.

    Attributes:
        levels: the segmentations whose maps are summed; by default the 15 of the authors' program.
        reference_side: longer side, pixels, of the photos that the levels' numbers are meant for;
            they scale with the photo.
        side: longest side, pixels, that the map is computed at; smaller photos stay as they are.
        sharpness: a of exp(a p), by which each level favours regions that are surely salient.
        agreement: fraction of a region that must be object, or background, to train on it, above
            0.5.

    Raises:
        ConfigError: a number is out of range.

    Examples:
        A third of the levels, for a map in a third of the time:

        >>> from tagseg.priors import DrfiSettings
        >>> settings = DrfiSettings(levels=DrfiSettings().levels[::3])
        >>> len(settings.levels), settings.sharpness
        (5, 1.25)
    """

    levels: tuple[SuperpixelSettings, ...] = DRFI_LEVELS
    reference_side: int = 400
    side: int = 500
    sharpness: float = 1.25
    agreement: float = 0.75

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("levels is empty", do="give a segmentation or more")
        for name in ("reference_side", "side"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="give 1 or more")
        if not 0 < self.sharpness < 100:
            raise ConfigError(f"sharpness is {self.sharpness}", do="give a value above 0, as 1.25")
        if not 0.5 < self.agreement <= 1:
            raise ConfigError(f"agreement is {self.agreement}", do="give a share above 0.5")


def drfi_saliency(
    image: Image,
    forest: RegionForest,
    settings: DrfiSettings | None = None,
    *,
    threads: int = 1,
) -> SaliencyMap:
    """Map what stands out in a photo, by what a forest has learned of salient regions: DRFI.

    Jiang et al. 2013. Each level's regions get p from the forest; their values are brought to 0..1,
    sharpened by exp(a p) and brought to 0..1 again; the levels' maps are summed and brought to
    0..1.

    Args:
        image: uint8 (H, W, 3) RGB; floats are refused.
        forest: such as :func:`shipped_forest`.
        settings: by default the paper's.
        threads: levels at a time; where photos are mapped over threads, leave it at 1.

    Returns:
        The saliency map, float32 (H, W), from 0 to 1 unless all regions are alike, which gives
        zeros.

    Raises:
        ShapeError: image is not uint8 (H, W, 3).
        ConfigError: threads is below 1.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import drfi_saliency, shipped_forest
        >>> image = np.full((60, 80, 3), 120, np.uint8)
        >>> image[20:40, 25:55] = (200, 60, 40)
        >>> saliency = drfi_saliency(image, shipped_forest())
        >>> inside, outside = saliency[20:40, 25:55].mean(), saliency[:15].mean()
        >>> bool(inside > 0.5), bool(outside < 0.1)
        (True, True)
    """
    check_image(image)
    if threads < 1:
        raise ConfigError(f"threads is {threads}", do="give 1 or more")
    settings = settings or DrfiSettings()
    small = working_image(image, settings.side)
    levels = _levels(small, settings)
    features = _features(small, levels, threads)
    total = np.zeros(small.shape[:2])
    # One call for all levels: each of the forest's trees is then fetched once.
    answers = forest.predict(np.concatenate(features)).astype(np.float64)
    ends = np.cumsum([len(rows) for rows in features])[:-1]
    for superpixels, values in zip(levels, np.split(answers, ends), strict=True):
        total += _sharpened(values, settings.sharpness)[superpixels]
    return _at(_stretched(total), image.shape[:2])


@cache
def shipped_forest() -> RegionForest:
    """Load DRFI's small forest that comes with tagseg, trained on generated pictures alone.

    All calls give the same forest.

    Raises:
        WeightsError: its file is missing or damaged.

    Examples:
        >>> from tagseg.priors import shipped_forest
        >>> forest = shipped_forest()
        >>> len(forest.roots), len(forest.digest)  # trees; letters of a hash
        (80, 32)
    """
    with resources.as_file(resources.files("tagseg.priors.saliency") / _SHIPPED) as path:
        return RegionForest.load(path)


def drfi_training_rows(
    image: Image, mask: Labels, settings: DrfiSettings | None = None
) -> tuple[Float32, Float32]:
    """Describe the regions of a photo that a mask of salient objects decides on, to fit a forest.

    A region's target is 1, or 0, where at least ``agreement`` of it is object, or background;
    others are left out (Jiang et al. 2013, section 4.1). Regions of all levels, in their order.

    Args:
        image: uint8 (H, W, 3) RGB; floats are refused.
        mask: uint8 (H, W); 0 background, 255 not known, any other value object.
        settings: by default the paper's.

    Returns:
        Features float32 (n, 93) and targets float32 (n,), for :meth:`RegionForest.fit`.

    Raises:
        ShapeError: these are no such arrays of one size.

    Examples:
        The object is one region of all 15 levels, the ground is another:

        >>> import numpy as np
        >>> from tagseg.priors import drfi_training_rows
        >>> image = np.full((60, 80, 3), 120, np.uint8)
        >>> image[20:40, 25:55] = (200, 60, 40)
        >>> mask = (image[..., 0] == 200).astype(np.uint8)
        >>> features, targets = drfi_training_rows(image, mask)
        >>> features.shape[1], np.unique(targets).tolist()
        (93, [0.0, 1.0])
    """
    check_image(image)
    check_labels(mask, MAX_CLASSES, "mask")
    if mask.shape != image.shape[:2]:
        raise ShapeError(
            f"mask has shape {mask.shape}, the photo {image.shape[:2]}",
            do="give both the same height and width",
        )
    settings = settings or DrfiSettings()
    small = working_image(image, settings.side)
    mask = labels_at(mask, (small.shape[0], small.shape[1]))
    levels = _levels(small, settings)
    known, targets = [], []
    for superpixels in levels:
        decided, target = _targets(superpixels, mask, settings.agreement)
        known.append(decided)
        targets.append(target)
    features = _features(small, levels, 1)
    kept = np.concatenate(known)
    return np.concatenate(features)[kept], np.concatenate(targets)[kept]


training_rows = drfi_training_rows  # the short name, within this module


def _levels(image: Image, settings: DrfiSettings) -> list[Superpixels]:
    return superpixel_levels(image, settings.levels, reference_side=settings.reference_side)


def _features(image: Image, levels: list[Superpixels], threads: int) -> list[Float32]:
    """Compute the features (n, 93) of each level's regions."""
    channels = pixel_channels(image)

    def features(superpixels: Superpixels) -> Float32:
        return region_features(channels, superpixels, superpixel_neighbours(superpixels))

    if threads == 1:
        return [features(superpixels) for superpixels in levels]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(features, levels))


def _targets(
    superpixels: Superpixels, mask: Labels, agreement: float
) -> tuple[npt.NDArray[np.bool_], Float32]:
    """Tell which regions the mask decides on, bool (n,), and what it says, float32 (n,)."""
    areas = np.bincount(superpixels.ravel())
    background, objects = (
        np.bincount(superpixels[where], minlength=len(areas)) >= agreement * areas
        for where in (mask == BACKGROUND, (mask != BACKGROUND) & (mask != IGNORE))
    )
    return background | objects, objects.astype(np.float32)


def _sharpened(values: Float64, sharpness: float) -> Float64:
    return _stretched(np.exp(sharpness * _stretched(values)))


def _stretched(values: Float64) -> Float64:
    """Bring values to 0..1; they become zeros where they are all alike."""
    lowest, highest = values.min(), values.max()
    if highest <= lowest:
        return np.zeros_like(values)
    return (values - lowest) / (highest - lowest)


def _at(saliency: Float64, shape: tuple[int, ...]) -> SaliencyMap:
    if saliency.shape == shape:
        return saliency.astype(np.float32)
    resized = cv2.resize(saliency, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return _stretched(np.asarray(resized, np.float64)).astype(np.float32)
