"""What tests of decoders share: a backbone of given maps, and layers written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, PyramidLevel

Weights = Callable[[float, list[float]], list[float]]


class GivenMaps(Backbone):
    """Gives the maps that it was given, whatever the photo: one of each stride, finest first.

    Args:
        widths: channels of each map.
        finest: stride of the first.
        middles: positions are the middles of cells, and not pixels stride * i.
    """

    name = "given"

    def __init__(self, widths: Sequence[int], finest: int = 4, *, middles: bool = False) -> None:
        self.strides = tuple(finest * 2**i for i in range(len(widths)))
        self.widths = tuple(widths)
        super().__init__(self.strides[-1])
        self.out_channels = self.block4_channels = self.widths[-1]
        if middles:
            self.grid_stride = None
        self.maps: tuple[Tensor, ...] = ()

    def draw(self, height: int, width: int) -> None:
        """Random maps in float64, for one photo."""
        self.maps = tuple(
            torch.randn(1, w, -(-height // s), -(-width // s), dtype=torch.float64)
            for w, s in zip(self.widths, self.strides, strict=True)
        )

    def activations(self, x: Tensor) -> Activations:
        return Activations(self.maps[-1], self.maps[-1])

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()

    def _sections(self) -> tuple[PyramidLevel, ...]:
        pairs = zip(self.strides, self.widths, strict=True)
        return tuple(PyramidLevel((), stride, width) for stride, width in pairs)

    def pyramid(self, x: Tensor, finest: int = 4) -> tuple[Tensor, ...]:
        return self.maps


class WithoutLevels(GivenMaps):
    """A backbone that gives no pyramid."""

    def _sections(self) -> tuple[PyramidLevel, ...]:
        return Backbone._sections(self)


def pixel(position: int, stride: int, middles: bool) -> float:
    return stride * (position + 0.5) - 0.5 if middles else float(stride * position)


def nearest_weights(at: float, places: list[float]) -> list[float]:
    """All of the nearest place; of two that are equally near, half each."""
    near = min(abs(at - place) for place in places)
    found = [float(abs(at - place) == near) for place in places]
    return [f / sum(found) for f in found]


def bilinear_weights(at: float, places: list[float]) -> list[float]:
    step = 1.0 if len(places) == 1 else places[1] - places[0]
    inside = min(max(at, places[0]), places[-1])
    return [max(0.0, 1 - abs(inside - place) / step) for place in places]


def upsampled(
    maps: Tensor, shape: tuple[int, int], weights: Weights, strides: tuple[int, int], middles: bool
) -> Tensor:
    """Maps (C, h, w) of the first of two strides at the positions (C, *shape) of the second."""
    out = torch.zeros(maps.shape[0], *shape, dtype=torch.float64)
    coarse, fine = strides
    rows, columns = ([pixel(i, coarse, middles) for i in range(n)] for n in maps.shape[1:])
    for y in range(shape[0]):
        for x in range(shape[1]):
            down = weights(pixel(y, fine, middles), rows)
            right = weights(pixel(x, fine, middles), columns)
            for i, a in enumerate(down):
                for j, b in enumerate(right):
                    if a * b:
                        out[:, y, x] += a * b * maps[:, i, j]
    return out


def convolved(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Tap by tap, zeros beyond the borders: (C, h, w) -> (outputs, h, w)."""
    _, height, width = x.shape
    reach, step = layer.kernel_size[0] // 2, layer.dilation[0]
    out = torch.zeros(layer.out_channels, height, width, dtype=torch.float64)
    if layer.bias is not None:
        out += layer.bias.detach()[:, None, None]
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            tap, down, right = layer.weight.detach()[..., i + reach, j + reach], step * i, step * j
            for y in range(max(0, -down), min(height, height - down)):
                for z in range(max(0, -right), min(width, width - right)):
                    seen = x[:, y + down, z + right]
                    out[:, y, z] += tap @ seen if layer.groups == 1 else tap[:, 0] * seen
    return out


def group_normed(x: Tensor, norm: nn.GroupNorm, channels: int) -> Tensor:
    """Groups of so many channels: (C, h, w), each group less its mean, over its spread."""
    out = torch.empty_like(x)
    for first in range(0, x.shape[0], channels):
        group = x[first : first + channels]
        spread = ((group - group.mean()) ** 2).mean()
        out[first : first + channels] = (group - group.mean()) / (spread + 1e-5).sqrt()
    return out * norm.weight.detach()[:, None, None] + norm.bias.detach()[:, None, None]
