"""TensorFlow's "same" padding, and photos moved so that maps lie over them all the same.

A layer of stride 2 that pads in this way looks one pixel of its input further right and down than
one that pads symmetrically, with kernels of any odd size: at an even size it pads ``(k - 2) // 2``
pixels before and ``(k - 1) // 2`` behind. From the photo to a stride s this comes to s - 1 pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SameConv2d", "over_photo", "photo_moved"]


class SameConv2d(nn.Conv2d):
    """A convolution of stride 2 without bias, for inputs of even height and width.

    ``bottom_right`` False pads symmetrically instead, by the layer's own ``padding``.
    """

    bottom_right = True

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2)."""
        if not self.bottom_right:
            return super().forward(input)
        kernel = self.kernel_size[0]
        before, behind = (kernel - 2) // 2, (kernel - 1) // 2
        padded = F.pad(input, (before, behind, before, behind))
        return F.conv2d(padded, self.weight, None, self.stride, 0, self.dilation, self.groups)


def photo_moved(x: Tensor, stride: int) -> Tensor:
    """A photo (B, C, H, W) moved right and down to where such layers look for it.

    The result is a multiple of the output ``stride``, so that each layer pads exactly as in
    training, with room for one more position than ``ceil(H / stride)`` and ``ceil(W / stride)``.
    """
    height, width = (-(-size // stride) for size in x.shape[2:])
    before = stride - 1
    bottom = stride * (height + 1) - before - x.shape[2]
    right = stride * (width + 1) - before - x.shape[3]
    return F.pad(x, (before, right, before, bottom), mode="replicate")


def over_photo(maps: Tensor, stride: int, output_stride: int, shape: tuple[int, int]) -> Tensor:
    """The positions of ``maps`` at ``stride`` that lie over a photo of ``shape`` (H, W) that was
    moved for ``output_stride``: one for every ``stride`` pixels."""
    first = output_stride // stride - 1
    down, right = (first + -(-size // stride) for size in shape)
    return maps[..., first:down, first:right]
