"""Class activation maps: where a tag classifier sees each class (Saleh et al., 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tagseg.data.transforms import resize_batch
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import ScoreMap, Tags
from tagseg.nets.backbone import upsample_grid

__all__ = ["ClassMapper", "class_activation_maps", "normalised_maps"]


class ClassMapper(Protocol):
    """A tag classifier that can say where its evidence lies."""

    def class_maps(self, x: Tensor, /) -> Tensor:
        """M_c of Eq. 1, (B, C, h, w), for RGB in [0, 1], (B, 3, H, W)."""


@torch.no_grad()
def class_activation_maps(
    classifier: ClassMapper,
    image_batch: Tensor,
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Class activation maps M_c (Saleh et al. 2017, Eq. 1), averaged over views of each photo.

    The average is over the raw evidence, on the grid that the classifier gives at scale 1.

    Args:
        classifier: in evaluation mode.
        image_batch: (B, 3, H, W) float, RGB in [0, 1].
        flip: use the mirrored photo too.
        scales: factors on height and width; 1 must be among them. The paper uses 1 alone.

    Returns:
        float32 (B, C, h, w), unclipped.

    Raises:
        ConfigError: a scale is not positive, or 1 is missing.
    """
    if 1.0 not in scales or min(scales) <= 0:
        raise ConfigError(f"scales are {tuple(scales)}", do="give positive factors, 1 among them")
    total = _views(classifier, image_batch, flip)
    others = [scale for scale in scales if scale != 1.0]
    for scale in others:
        maps = _views(classifier, resize_batch(image_batch, scale), flip)
        total = total + _on_grid(maps, total.shape[2:], scale)
    return total / (1 + len(others))


def normalised_maps(
    class_maps: npt.ArrayLike,
    tags: Tags,
    shape: tuple[int, int],
    *,
    stride: int | None = None,
    seen: tuple[int, int] | None = None,
) -> ScoreMap:
    """Class activation maps of one photo as scores in [0, 1] at the photo's size.

    Negative evidence is clipped at 0, the maps are brought to the photo's size bilinearly, and each
    present class is divided by its own maximum: the M_c that Eq. 2 to 4 of Saleh et al. 2017 need.

    Args:
        class_maps: (C, h, w) raw evidence.
        tags: (C,) bool, the classes in the photo.
        shape: height and width of the photo.
        stride: of the network, see :func:`tagseg.nets.backbone.upsample_grid`.
        seen: height and width at which it was given the photo, if not ``shape``.

    Returns:
        score_map float32 (C, H, W); zero for absent classes and for those without any evidence.

    Raises:
        ShapeError: class_maps is not (C, h, w) for C tags, or holds NaN or infinity.
    """
    raw = np.asarray(class_maps, dtype=np.float32)
    if raw.ndim != 3 or raw.shape[0] != len(tags) or 0 in raw.shape[1:]:
        raise ShapeError(
            f"class_maps has shape {raw.shape} for {len(tags)} tags", do="give (C, h, w)"
        )
    if not np.isfinite(raw).all():
        raise ShapeError("class_maps holds NaN or infinity", do="check the classifier's weights")
    score_map = np.zeros((len(tags), *shape), dtype=np.float32)
    if tags.any():
        evidence = torch.from_numpy(raw[tags]).clamp(min=0)
        present = upsample_grid(evidence[None], shape, stride, seen=seen)[0].numpy()
        peak = present.max((1, 2), keepdims=True)
        score_map[tags] = present / np.where(peak > 0, peak, 1)
    return score_map


def _views(classifier: ClassMapper, images: Tensor, flip: bool) -> Tensor:
    maps = classifier.class_maps(images).float()
    if not flip:
        return maps
    return (maps + classifier.class_maps(images.flip(3)).float().flip(3)) / 2


def _on_grid(maps: Tensor, shape: Sequence[int], scale: float) -> Tensor:
    """Maps of a photo that was scaled by ``scale``, at the positions of the unscaled photo's grid.

    Position i lies on pixel stride * i in both, so position j of the one is j * scale of the other.
    """
    axes = []
    for size, scaled in zip(shape, maps.shape[2:], strict=True):
        place = torch.arange(size, device=maps.device, dtype=maps.dtype) * scale
        axes.append(place / max(scaled - 1, 1) * 2 - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), dim=-1).expand(len(maps), -1, -1, -1)
    return functional.grid_sample(maps, grid, padding_mode="border", align_corners=True)
