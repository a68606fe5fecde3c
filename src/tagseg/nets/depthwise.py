"""Depthwise convolutions whose gradients are right and cost no ten forward passes on a CPU.

A depthwise convolution filters each channel by itself. oneDNN's forward pass is fast for all of
them, but its gradients of 5x5 and of dilated kernels are not: on one thread, of 8 maps of 1,152
channels at 12 x 14 and a 5x5 kernel at dilation 2, 2 ms, and 20 and 84 ms for the gradients. In
bfloat16 and channels-last memory its gradient of dilated kernels is wrong besides: it holds what
lay in memory before (oneDNN 3.12; docs/decisions/0018-gradients-of-dilated-kernels.md).

Here the gradient of the input is a forward pass with the kernel turned by half a turn. That of the
kernel is a loop over channels that lie side by side in memory, and in bfloat16 oneDNN's own of 3x3
kernels that are not dilated, in turn (benchmarks/depthwise.py).
"""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tagseg.threads import in_threads

__all__ = ["DepthwiseConv2d", "convolve", "is_dilated_depthwise"]

Pair = tuple[int, ...]  # of height and width

_BLOCK = 64  # channels at a time, so that their sums stay in the nearest cache
_CONTRACT = {"contract"}  # a product and a sum in one instruction
_WINDOW = 3  # side of the kernels whose gradient oneDNN computes fast and rightly in bfloat16
_TYPES = (torch.float32, torch.bfloat16)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """What ``torch.nn.functional.conv2d`` gives, (B, C, H, W) to (B, C', h, w).

    Where gradients are wanted of a depthwise convolution for which oneDNN has no fast ones, they
    come from here: equal up to rounding, and in float32 the same for any number of threads.
    """
    if weight.shape[2:] == (1, 1):
        dilation = (1, 1)  # means nothing here, and oneDNN's gradient would be wrong as of others
    kind = _computed_in(x, weight)
    if kind in _TYPES and _bad_gradients(kind, x, weight, stride, padding, dilation, groups):
        x, weight = x.to(kind), weight.to(kind)
        bias = bias.to(kind) if bias is not None else None
        result: Tensor = _Depthwise.apply(x, weight, bias, stride[0], padding[0], dilation[0])
        return result
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` by :func:`convolve`; for zero padding of stated width."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C, H, W) to (B, C, h, w), with the layer's own kernels or folded ones."""
        padding = cast(Pair, self.padding)  # no word such as "same"
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)


def is_dilated_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a dilated depthwise convolution."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == layer.in_channels == layer.out_channels
        and max(layer.dilation) > 1
    )


def _bad_gradients(
    kind: torch.dtype | None,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> bool:
    """Whether gradients are wanted, and oneDNN's would be slow or wrong, of a type from here."""
    kernel = (weight.shape[2], weight.shape[3])
    strided = max(stride) > 1 and kind == torch.bfloat16
    return (
        torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and groups == x.shape[1] == weight.shape[0]
        and (max(kernel) > 3 or (max(kernel) > 1 and (max(dilation) > 1 or strided)))
        and all(pair[0] == pair[1] for pair in (kernel, stride, padding, dilation))
        and kernel[0] % 2 == 1
        and padding[0] <= dilation[0] * (kernel[0] - 1)
        and x.device.type == weight.device.type == "cpu"
    )


def _computed_in(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type that a convolution of these computes in, autocast or not; None if they differ."""
    if torch.is_autocast_enabled("cpu") and x.dtype in _TYPES and weight.dtype in _TYPES:
        return torch.get_autocast_dtype("cpu")
    return x.dtype if x.dtype == weight.dtype else None


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of x (B, C, H, W) with kernels (C, 1, k, k), all sides alike."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        dilation: int,
    ) -> Tensor:
        ctx.form = stride, padding, dilation
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        kind = x.dtype
        if ctx.form[0] > 1:  # at strides oneDNN has nothing fast in bfloat16
            gradient, x, weight = (tensor.float() for tensor in (gradient, x, weight))
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        return (
            _of_input(gradient, x, weight, *ctx.form).to(kind) if of_input else None,
            _of_weight(gradient, x, weight, *ctx.form).to(kind) if of_weight else None,
            gradient.sum((0, 2, 3)).to(kind) if of_bias else None,
            None,
            None,
            None,
        )


def _of_input(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    channels, reach = x.shape[1], dilation * (weight.shape[2] - 1)
    if stride == 1:
        turned = weight.flip(2, 3)
        return F.conv2d(gradient, turned, None, 1, reach - padding, dilation, channels)
    return _of_onednn(gradient, x, weight, (stride, padding, dilation), which=0)


def _of_weight(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    channels, kernel = x.shape[1], weight.shape[2]
    if x.dtype == torch.bfloat16:
        return _by_windows(gradient, x, kernel, padding, dilation)
    given = gradient.permute(0, 2, 3, 1).numpy()
    seen = x.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
    total = np.zeros((kernel, kernel, channels), np.float32)
    starts = range(0, channels, _BLOCK)

    def run(start: int) -> None:
        _add_products(seen, given, stride, padding, dilation, start, total)

    in_threads(run, starts, min(torch.get_num_threads(), len(starts)))
    return torch.from_numpy(total).permute(2, 0, 1).unsqueeze(1).contiguous()


def _by_windows(gradient: Tensor, x: Tensor, kernel: int, padding: int, dilation: int) -> Tensor:
    """Gradient of kernels (C, 1, k, k) at stride 1, of 3x3 windows of theirs in turn.

    Positions that lie ``dilation`` apart see one another and no others, so that they make photos of
    their own, in which nothing is dilated.
    """
    height, width = gradient.shape[2:]
    down, right = -height % dilation, -width % dilation
    reach = dilation * (kernel - 1)
    gradient = F.pad(gradient, (0, right, 0, down))
    below, beside = height + down + reach - x.shape[2], width + right + reach - x.shape[3]
    x = F.pad(x, (padding, beside - padding, padding, below - padding))
    x, gradient = _parted(x, dilation), _parted(gradient, dilation)
    height, width = gradient.shape[2:]
    of_weight = x.new_empty(x.shape[1], 1, kernel, kernel)
    window = x.new_empty(x.shape[1], 1, _WINDOW, _WINDOW)  # of which the shape counts alone
    starts = {min(start, kernel - _WINDOW) for start in range(0, kernel, _WINDOW)}
    for i, j in itertools.product(starts, starts):
        seen = x[:, :, i : i + height + _WINDOW - 1, j : j + width + _WINDOW - 1]
        found = _of_onednn(gradient, seen, window, (1, 0, 1), which=1)
        of_weight[:, :, i : i + _WINDOW, j : j + _WINDOW] = found
    return of_weight


def _parted(maps: Tensor, step: int) -> Tensor:
    """(B, C, H, W) to (B step^2, C, H / step, W / step): positions that lie ``step`` apart."""
    photos, channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(
        photos, height // step, step, width // step, step, channels
    )
    size = photos * step**2, height // step, width // step, channels
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(size).permute(0, 3, 1, 2)


def _of_onednn(
    gradient: Tensor, x: Tensor, weight: Tensor, form: tuple[int, int, int], *, which: int
) -> Tensor:
    """oneDNN's gradient of the input (``which`` 0) or of the kernels (1)."""
    sides = [[side] * 2 for side in form]  # stride, padding and dilation
    x = x.contiguous(memory_format=torch.channels_last)
    wanted = [number == which for number in range(3)]
    back = torch.ops.aten.convolution_backward
    found: Tensor = back(gradient, x, weight, None, *sides, False, [0, 0], x.shape[1], wanted)[
        which
    ]
    return found


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_CONTRACT)
def _add_products(seen, given, stride, padding, dilation, start, total):  # type: ignore[no-untyped-def]
    """Sum input times gradient over photos and positions, for a block of channels.

    seen (B, H, W, C), given (B, h, w, C), float32; total (k, k, C), of which the channels from
    ``start`` on are set.
    """
    photos, height, width, channels = seen.shape
    kernel = total.shape[0]
    count = min(_BLOCK, channels - start)
    sums = np.zeros((kernel, kernel, _BLOCK), np.float32)
    for b in range(photos):
        for y in range(given.shape[1]):
            for row in range(kernel):
                at_y = y * stride + row * dilation - padding
                if at_y < 0 or at_y >= height:
                    continue
                for x in range(given.shape[2]):
                    slope = given[b, y, x, start : start + count]
                    for column in range(kernel):
                        at_x = x * stride + column * dilation - padding
                        if at_x < 0 or at_x >= width:
                            continue
                        values = seen[b, at_y, at_x, start : start + count]
                        into = sums[row, column]
                        for c in range(count):
                            into[c] += slope[c] * values[c]
    total[:, :, start : start + count] = sums[:, :, :count]
