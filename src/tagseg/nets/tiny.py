"""``tiny``: a small residual network in five blocks, for generated scenes, tests and CPUs."""

from __future__ import annotations

from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, PyramidLevel
from tagseg.nets.folding import in_turn

__all__ = ["Tiny"]

_WIDTHS = (32, 48, 96, 160, 192)


class Tiny(Backbone):
    """1.1 M parameters in five blocks, of total stride 8; at output stride 16 block4 strides too.

    Each block is one convolution that changes the width (and stride) and one residual convolution,
    with batch norm, ending in a ReLU: so the block activations are non-negative, as VGG's are.

    Args:
        output_stride: 8 or 16 input pixels per output position.
        dilated: dilate both convolutions of block5 by 2, as DeepLab does with VGG's conv5. None is
            False: on pictures of 128 pixels it blurs the activations over whole objects and more.

    Raises:
        ConfigError: for any other output stride.
    """

    name = "tiny"
    block4_channels = _WIDTHS[3]
    out_channels = _WIDTHS[4]
    pyramid_channels = 64
    pyramid_stride = native_stride = 16
    native_side = 128

    def __init__(self, output_stride: int = 8, *, dilated: bool | None = None) -> None:
        super().__init__(output_stride, dilated=bool(dilated))
        if output_stride not in (8, 16):
            raise ConfigError(f"output stride {output_stride}", do="use 8 or 16")
        self.block1 = _Block(3, _WIDTHS[0], stride=2)
        self.block2 = _Block(_WIDTHS[0], _WIDTHS[1], stride=2)
        self.block3 = _Block(_WIDTHS[1], _WIDTHS[2], stride=2)
        self.block4 = _Block(_WIDTHS[2], _WIDTHS[3], stride=output_stride // 8)
        self.block5 = _Block(_WIDTHS[3], _WIDTHS[4], stride=1, dilation=2 if dilated else 1)

    def activations(self, x: Tensor) -> Activations:
        """Activations of block4 (B, 160, h, w) and block5 (B, 192, h, w)."""
        x = self.block3(self.block2(self.block1(self.normalise(x))))
        block4 = self.block4(x)
        return Activations(block4, self.block5(block4))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """The output of each block."""
        strides = (2, 4, 8, self.output_stride, self.output_stride)
        return tuple(FeatureBlock((f"block{i}",), s) for i, s in enumerate(strides, start=1))

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The five blocks."""
        return tuple((self.get_submodule(f"block{i}"),) for i in range(1, 6))

    def _sections(self) -> tuple[PyramidLevel, ...]:
        """block1, block2, block3 and block5."""
        return (
            PyramidLevel((self.block1,), 2, _WIDTHS[0]),
            PyramidLevel((self.block2,), 4, _WIDTHS[1]),
            PyramidLevel((self.block3,), 8, _WIDTHS[2]),
            PyramidLevel((self.block4, self.block5), 16, _WIDTHS[4]),
        )


class _Block(nn.Module):
    """conv - norm - relu, then a residual conv - norm, then relu."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = in_turn((self.conv1, self.norm1, self.relu), x)
        return self.relu(x + in_turn((self.conv2, self.norm2), x))
