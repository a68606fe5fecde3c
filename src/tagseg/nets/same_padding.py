"""TensorFlow's "same" padding, and photos moved so that maps lie over them all the same.

A layer of stride 2 that pads in this way looks one pixel of its input further right and down than
one that pads symmetrically, with kernels of any odd size: at an even size it pads ``(k - 2) // 2``
pixels before and ``(k - 1) // 2`` behind. From the photo to a stride s this comes to s - 1 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor

from tagseg.nets.depthwise import DepthwiseConv2d, convolve

__all__ = ["SameConv2d", "maps_of_moved_photo", "photo_moved"]


class SameConv2d(DepthwiseConv2d):
    """A convolution of stride 2, for inputs of even height and width.

    ``bottom_right`` False pads symmetrically instead, by the layer's own ``padding``.
    """

    bottom_right = True

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2), with the layer's own kernels or folded ones."""
        if not self.bottom_right:
            return super()._conv_forward(input, weight, bias)
        kernel = self.kernel_size[0]
        before, behind = (kernel - 2) // 2, (kernel - 1) // 2
        padded = F.pad(input, (before, behind, before, behind))
        return convolve(padded, weight, bias, self.stride, (0, 0), self.dilation, self.groups)


def photo_moved(x: Tensor, stride: int) -> Tensor:
    """A photo (B, C, H, W) moved right and down to where such layers look for it.

    The result is a multiple of the output ``stride``, so that each layer pads exactly as in
    training, with room for one more position than ``ceil(H / stride)`` and ``ceil(W / stride)``.
    """
    height, width = ((size + stride - 1) // stride for size in x.shape[2:])
    before = stride - 1
    bottom = stride * (height + 1) - before - x.shape[2]
    right = stride * (width + 1) - before - x.shape[3]
    return F.pad(x, (before, right, before, bottom), mode="replicate")


def maps_of_moved_photo(
    maps_of: Callable[[Tensor], Iterable[Tensor]],
    x: Tensor,
    strides: Iterable[int],
    output_stride: int,
) -> tuple[Tensor, ...]:
    """What ``maps_of`` gives of a photo (B, C, H, W) that is moved for ``output_stride``.

    Of each map, at its stride, the positions that lie over the photo: one for every ``stride``
    pixels.
    """
    shape = (x.shape[2], x.shape[3])
    maps = maps_of(photo_moved(x, output_stride))
    return tuple(
        _over_photo(m, s, output_stride, shape) for m, s in zip(maps, strides, strict=True)
    )


def _over_photo(maps: Tensor, stride: int, output_stride: int, shape: tuple[int, int]) -> Tensor:
    first = output_stride // stride - 1
    down, right = (first + (size + stride - 1) // stride for size in shape)
    return maps[..., first:down, first:right]
