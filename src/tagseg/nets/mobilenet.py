"""MobileNetV2 (Sandler et al., 2018) as a dense feature extractor."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Literal, cast

from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, PyramidLevel, dilates
from tagseg.nets.depthwise import DepthwiseConv2d
from tagseg.nets.folding import FoldingSequential
from tagseg.nets.same_padding import SameConv2d, maps_of_moved_photo

__all__ = ["MobileNetV2", "Stride2Padding"]

Stride2Padding = Literal["symmetric", "same_bottom_right"]

# Expansion, channels, blocks and first stride of each stage (Sandler et al., Table 2).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_BLOCK4 = 14  # the first block of the 160-channel stage, index in ``features``
_EDGES = (0, 2, 4, 7, _BLOCK4, 19)  # where the stride doubles, as indices in ``features``


class MobileNetV2(Backbone):
    """MobileNetV2 1.0 without its classifier; parameter names are torchvision's.

    Beyond the output stride, strides become 1 and what follows is dilated; those layers pad
    symmetrically, so the dense grid refines the strided one. ``dilated=False`` leaves the kernels
    as they are: each sees less of the photo than in training. Output position i is centred on
    input pixel ``output_stride * i`` with either padding, and H pixels give
    ``ceil(H / output_stride)`` positions.

    ``block4`` is the expansion inside ``features.14`` after its ReLU6 (576 channels, the richest
    non-negative map at native stride 16); ``block5`` is ``features.18`` after its ReLU6 (1280).
    Both lie at the output stride, but block4 at 16 where that is 32.

    Args:
        output_stride: 8, 16 or 32 input pixels per output position; 32 is the network as it was
            trained.
        stride2_padding: how layers of stride 2 pad. ``"symmetric"``: 1 pixel on every side, as in
            torchvision. ``"same_bottom_right"``: 1 pixel at the bottom and right only, as in
            TensorFlow. There each layer looks half a stride further right and down, in all
            ``output_stride - 1`` pixels; the photo is moved by as much, its border repeated, so
            that the two kinds of map lie alike over the photo.
        dilated: whether to dilate what follows a stride that is left out; None is True at output
            strides 8 and 16.

    Raises:
        ConfigError: for any other output stride or padding, or if it is to be dilated at 32.
    """

    name = "mobilenet_v2"
    out_channels = 1280
    block4_channels = 576
    pyramid_channels = 64
    usual_stride = pyramid_stride = 16
    freezes_statistics = True

    def __init__(
        self,
        output_stride: int = 8,
        stride2_padding: Stride2Padding = "symmetric",
        *,
        dilated: bool | None = None,
    ) -> None:
        super().__init__(output_stride, dilated=dilates(self.name, output_stride, dilated))
        self.features = nn.Sequential(*_layers(output_stride, self.dilated))
        self.set_stride2_padding(stride2_padding)
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def set_stride2_padding(self, stride2_padding: Stride2Padding) -> None:
        """Pad layers of stride 2 as the loaded weights were trained; ConfigError if unknown."""
        if stride2_padding not in ("symmetric", "same_bottom_right"):
            raise ConfigError(
                f"mobilenet_v2 has no stride2_padding {stride2_padding!r}",
                do="use symmetric or same_bottom_right",
            )
        self.stride2_padding = stride2_padding
        for module in self.features.modules():
            if isinstance(module, SameConv2d):
                module.bottom_right = stride2_padding == "same_bottom_right"

    def activations(self, x: Tensor) -> Activations:
        """block4 (B, 576, h, w) and block5 (B, 1280, h, w) for RGB in [0, 1], (B, 3, H, W)."""
        if self.stride2_padding == "symmetric":
            return self._activations(x)
        strides = (min(16, self.output_stride), self.output_stride)
        return Activations(*maps_of_moved_photo(self._activations, x, strides, self.output_stride))

    def _activations(self, x: Tensor) -> Activations:
        """All positions of a photo that has been moved where it must be."""
        inner = cast(_InvertedResidual, self.features[_BLOCK4]).conv
        block4 = inner[0](self.features[:_BLOCK4](self.normalise(x)))
        return Activations(block4, self.features[_BLOCK4 + 1 :](inner[1:](block4)))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """Feature maps by stride before dilation: the filtered (depthwise) ones of each block.

        Only these and the first and last layer end in a ReLU6.
        """
        blocks = []
        for i, (start, stop) in enumerate(itertools.pairwise(_EDGES), start=1):
            names = tuple(self._filtered(index) for index in range(start, stop))
            stride = min(2**i, self.output_stride)
            moved = self.stride2_padding == "same_bottom_right"  # see photo_moved
            blocks.append(FeatureBlock(names, stride, stride - self.output_stride if moved else 0))
        return tuple(blocks)

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The five blocks of :meth:`feature_blocks`."""
        layers = list(self.features)
        return tuple(tuple(layers[a:b]) for a, b in itertools.pairwise(_EDGES))

    def pyramid(self, x: Tensor, finest: int = 4) -> tuple[Tensor, ...]:
        """A map (B, channels, h, w) of each level; the inner ones are linear."""
        if self.stride2_padding == "symmetric":
            return super().pyramid(x, finest)
        strides = [level.stride for level in self.pyramid_levels(finest)]
        maps_of = partial(super().pyramid, finest=finest)
        return maps_of_moved_photo(maps_of, x, strides, self.output_stride)

    def _sections(self) -> tuple[PyramidLevel, ...]:
        """Where ``features.1``, ``.3``, ``.6``, ``.13`` and ``.18`` end."""
        return (
            PyramidLevel((self.features[:2],), 2, 16),
            PyramidLevel((self.features[2:4],), 4, 24),
            PyramidLevel((self.features[4:7],), 8, 32),
            PyramidLevel((self.features[7:_BLOCK4],), 16, 96),
            PyramidLevel((self.features[_BLOCK4:],), 32, self.out_channels),
        )

    def _filtered(self, index: int) -> str:
        layer = self.features[index]
        if not isinstance(layer, _InvertedResidual):
            return f"features.{index}"
        return f"features.{index}.conv.{len(layer.conv) - 3}"


class _InvertedResidual(nn.Module):
    """Expand (1x1), filter (3x3, depthwise), project (1x1, linear)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int):
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv_bn_relu(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = FoldingSequential(
            *expand,
            _conv_bn_relu(hidden, hidden, 3, stride, dilation, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> FoldingSequential:
    plain = nn.Conv2d if groups == 1 else DepthwiseConv2d
    convolution = SameConv2d if stride == 2 else plain
    return FoldingSequential(
        convolution(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _layers(output_stride: int, dilated: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [_conv_bn_relu(3, 32, 3, stride=2)]
    inputs, reached, dilation = 32, 2, 1
    for expansion, outputs, count, first_stride in _STAGES:
        for block in range(count):
            stride = first_stride if block == 0 else 1
            here = dilation
            if stride == 2 and reached == output_stride:
                # This layer keeps its own dilation: the stride that it loses falls to the next.
                stride, dilation = 1, dilation * 2 if dilated else 1
            reached *= stride
            layers.append(_InvertedResidual(inputs, outputs, expansion, stride, here))
            inputs = outputs
    layers.append(_conv_bn_relu(inputs, MobileNetV2.out_channels, 1))
    return layers
