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
    """Compute the channel means of a backbone's 4th and 5th block for a batch of photos.

    They are all that :func:`foreground_probability` needs, and much smaller than the activations.

    Args:
        backbone: a network in evaluation mode, such as ``tagseg.nets.catalog.build_backbone``
            gives; what it was pre-trained on decides what counts as an object.
        x: float (B, 3, H, W), RGB in [0, 1], of the type and on the device of the network.

    Returns:
        Two float32 tensors, (B, h4, w4) and (B, h5, w5), also where the network computes in half
        precision.

    Examples:
        Eight pixels of the photo for each position of either block:

        >>> import torch
        >>> from tagseg.nets.catalog import build_backbone
        >>> from tagseg.priors import channel_means
        >>> backbone = build_backbone("tiny").eval()
        >>> block4, block5 = channel_means(backbone, torch.rand(2, 3, 32, 48))
        >>> tuple(block4.shape), tuple(block5.shape)
        ((2, 4, 6), (2, 4, 6))
    """
    block4, block5 = backbone.activations(x)
    return block4.mean(1, dtype=torch.float32), block5.mean(1, dtype=torch.float32)


def foreground_probability(
    block4: npt.ArrayLike | Tensor,
    block5: npt.ArrayLike | Tensor,
    shape: tuple[int, int],
    *,
    scale_each: bool = False,
    saturate: float = 0.0,
    strides: tuple[int, int] | None = None,
) -> SaliencyMap:
    """Compute the foreground probability P_f: two blocks' channel means, summed and scaled.

    Saleh et al. 2017, section 3.1.1. Where a network that was pre-trained on objects responds
    strongly, whatever the channel, an object is likely. The mean over channels commutes with the
    bilinear resizing, so channel means give the same map as the full activations. Scaling is by
    minimum and maximum; a constant map says nothing and becomes zeros.

    Args:
        block4: activations (C4, h4, w4) or their channel mean (h4, w4), an array or a tensor.
        block5: activations (C5, h5, w5) or their channel mean (h5, w5), an array or a tensor.
        shape: height and width of the photo in pixels.
        scale_each: bring each block's map to [0, 1] before the sum, so that the block with the
            larger activations does not decide alone. The paper sums the means as they are.
        saturate: fraction of pixels at either end of the range that become 0 and 1, below 0.5; 0 is
            the paper's. A few extreme activations, as at the zero-padded corners of some networks,
            otherwise press all else towards 0.
        strides: pixels for each position of the two blocks; None spreads them from edge to edge,
            see :func:`tagseg.nets.backbone.upsample_grid`.

    Returns:
        The saliency map, float32 (H, W) in [0, 1].

    Raises:
        ConfigError: saturate or shape is out of range.
        ShapeError: a block is neither 2-D nor 3-D, is empty, or holds NaN or infinity.

    Examples:
        The finer block sees a part of the object, the coarser one roughly where it is:

        >>> import numpy as np
        >>> from tagseg.priors import foreground_probability
        >>> block4 = np.zeros((8, 2, 4))  # 8 channels
        >>> block4[:, 0, 1] = 1.0
        >>> block5 = np.array([[0.0, 1.0], [0.0, 0.0]])  # a channel mean
        >>> saliency = foreground_probability(block4, block5, (2, 4))
        >>> [round(float(value), 2) for value in saliency[0]]
        [0.0, 1.0, 0.6, 0.8]
    """
    if not 0 <= saturate < 0.5:
        raise ConfigError(f"saturate is {saturate}", do="give a share from 0 to below 0.5")
    if min(shape) < 1:
        raise ConfigError(f"shape is {shape}", do="give the photo's height and width, 1 or more")
    stride4, stride5 = strides or (None, None)
    maps = [
        _resized_mean(block4, shape, stride4, "block4"),
        _resized_mean(block5, shape, stride5, "block5"),
    ]
    if scale_each:
        maps = [_scaled(part, saturate) for part in maps]
    return _scaled(maps[0] + maps[1], saturate)


def _resized_mean(
    block: npt.ArrayLike | Tensor, shape: tuple[int, int], stride: int | None, name: str
) -> SaliencyMap:
    """Average a block over its channels, and resize the mean to the photo's size."""
    if isinstance(block, Tensor):
        block = block.detach().float().cpu().numpy()
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
    """Scale to [0, 1] between two quantiles; zeros if the range is no more than rounding."""
    low, high = np.quantile(values, (saturate, 1 - saturate)).astype(np.float32)
    rounding = 16 * np.finfo(np.float32).eps * max(abs(low), abs(high))
    if high - low <= rounding:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)
