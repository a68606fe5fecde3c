"""Where any object is, read from the activations of a pre-trained network (Saleh et al., 3.1.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import SaliencyMap
from tagseg.nets.backbone import Backbone, upsample_grid

__all__ = ["channel_means", "foreground_probability"]


@torch.no_grad()
def channel_means(backbone: Backbone, x: Tensor) -> tuple[Tensor, Tensor]:
    """Channel means of the 4th and 5th block, all that :func:`foreground_probability` needs.

    Args:
        backbone: in evaluation mode; what it was pre-trained on decides what counts as an object.
        x: (B, 3, H, W) float, RGB in [0, 1].

    Returns:
        float32 (B, h4, w4) and (B, h5, w5), also where the network computes in half precision.
    """
    block4, block5 = backbone.activations(x)
    return block4.mean(1, dtype=torch.float32), block5.mean(1, dtype=torch.float32)


def foreground_probability(
    block4: npt.ArrayLike,
    block5: npt.ArrayLike,
    shape: tuple[int, int],
    *,
    scale_each: bool = False,
    saturate: float = 0.0,
    strides: tuple[int, int] | None = None,
) -> SaliencyMap:
    """Foreground probability P_f: channel means of two blocks, summed and scaled to [0, 1].

    Saleh et al. 2017, section 3.1.1. The mean over channels commutes with the bilinear resizing, so
    channel means give the same map as the full activations. Scaling is by minimum and maximum; a
    constant map says nothing and becomes zeros.

    Args:
        block4: activations (C4, h4, w4) or their channel mean (h4, w4).
        block5: activations (C5, h5, w5) or their channel mean (h5, w5).
        shape: height and width of the photo.
        scale_each: bring each block's map to [0, 1] before the sum, so that the block with the
            larger activations does not decide alone. The paper sums the means as they are.
        saturate: share of pixels at either end of the range that become 0 and 1, below 0.5; 0 is
            the paper's. A few extreme activations, as at the zero-padded corners of some networks,
            otherwise press all else towards 0.
        strides: of the two blocks, see :func:`tagseg.nets.backbone.upsample_grid`.

    Returns:
        saliency_map float32 (H, W) in [0, 1].

    Raises:
        ConfigError: saturate is out of range.
        ShapeError: a block is neither 2-D nor 3-D, is empty, or holds NaN or infinity.
    """
    if not 0 <= saturate < 0.5:
        raise ConfigError(f"saturate is {saturate}", do="give a share from 0 to below 0.5")
    stride4, stride5 = strides or (None, None)
    maps = [
        _resized_mean(block4, shape, stride4, "block4"),
        _resized_mean(block5, shape, stride5, "block5"),
    ]
    if scale_each:
        maps = [_scaled(part, saturate) for part in maps]
    return _scaled(maps[0] + maps[1], saturate)


def _resized_mean(
    block: npt.ArrayLike, shape: tuple[int, int], stride: int | None, name: str
) -> SaliencyMap:
    values = np.asarray(block, dtype=np.float32)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ShapeError(
            f"{name} has shape {values.shape}", do="give activations (C, h, w) or their mean (h, w)"
        )
    mean = values.mean(0) if values.ndim == 3 else values
    if not np.isfinite(mean).all():
        raise ShapeError(f"{name} holds NaN or infinity", do="check the backbone's weights")
    grid = torch.from_numpy(np.ascontiguousarray(mean))[None, None]
    return upsample_grid(grid, shape, stride)[0, 0].numpy()


def _scaled(values: SaliencyMap, saturate: float) -> SaliencyMap:
    """To [0, 1] between two quantiles; zeros where the range is no more than rounding."""
    low, high = np.quantile(values, (saturate, 1 - saturate)).astype(np.float32)
    rounding = 16 * np.finfo(np.float32).eps * max(abs(low), abs(high))
    if high - low <= rounding:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)
