"""ResNet-50 and ResNet-101 (He et al., 2016) as dense feature extractors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, PyramidLevel, dilates
from tagseg.nets.folding import FoldingSequential, in_turn

__all__ = ["ResNet", "ResNet50", "ResNet101"]

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class ResNet(Backbone):
    """A ResNet of bottlenecks without its classifier; parameter names are torchvision's.

    The bottlenecks are those of version 1.5: the 3x3 convolution strides, not the one before it.

    Beyond the output stride, strides become 1 and what follows is dilated, as in DeepLab (Chen et
    al., 2017, section 3.1): the dense grid refines the strided one. The first block of such a
    stage still has the dilation before it. Output position i is centred on input pixel
    ``output_stride * i``, and H pixels give ``ceil(H / output_stride)`` positions.

    ``block4`` is the output of ``layer3`` (1024 channels, native stride 16) and ``block5`` that of
    ``layer4`` (2048, native stride 32), both after the ReLU.

    Args:
        output_stride: 8, 16 or 32 input pixels per output position.
        dilated: False leaves the kernels as they are where strides become 1: each sees less of the
            photo than in training. None is True at output strides 8 and 16.

    Raises:
        ConfigError: for any other output stride, or if it is to be dilated at 32.
    """

    out_channels = _EXPANSION * _WIDTHS[3]
    block4_channels = _EXPANSION * _WIDTHS[2]
    freezes_statistics = True
    _counts: tuple[int, ...]  # bottlenecks of layer1 to layer4

    def __init__(self, output_stride: int = 8, *, dilated: bool | None = None) -> None:
        super().__init__(output_stride, dilated=dilates(self.name, output_stride, dilated))
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = _stages(self._counts, output_stride, self.dilated)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def activations(self, x: Tensor) -> Activations:
        """block4 (B, 1024, h, w) and block5 (B, 2048, h, w) for RGB in [0, 1], (B, 3, H, W)."""
        x = in_turn((self.conv1, self.bn1, self.relu), self.normalise(x))
        block4 = self.layer3(self.layer2(self.layer1(self.maxpool(x))))
        return Activations(block4, self.layer4(block4))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """Feature maps by stride before dilation: conv1 after its ReLU, and every bottleneck."""
        names: list[tuple[str, ...]] = [("relu",)]
        for layer, count in enumerate(self._counts, start=1):
            names.append(tuple(f"layer{layer}.{block}" for block in range(count)))
        return tuple(
            FeatureBlock(layers, min(2**i, self.output_stride))
            for i, layers in enumerate(names, start=1)
        )

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The first convolution, and layer1 to layer4."""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return ((self.conv1, self.bn1), *((layer,) for layer in layers))

    def _sections(self) -> tuple[PyramidLevel, ...]:
        """conv1 after its ReLU, and the outputs of layer1 to layer4: C1 to C5."""
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        first, *others = (
            PyramidLevel((layer,), 2**i, _EXPANSION * width)
            for i, (layer, width) in enumerate(zip(layers, _WIDTHS, strict=True), start=2)
        )
        stem = PyramidLevel((self.conv1, self.bn1, self.relu), 2, _WIDTHS[0])
        return (stem, first._replace(layers=(self.maxpool, *first.layers)), *others)


class ResNet50(ResNet):
    """ResNet-50: 3, 4, 6 and 3 bottlenecks."""

    name = "resnet50"
    _counts = (3, 4, 6, 3)


class ResNet101(ResNet):
    """ResNet-101: 3, 4, 23 and 3 bottlenecks."""

    name = "resnet101"
    _counts = (3, 4, 23, 3)


class _Bottleneck(nn.Module):
    """Reduce (1x1), filter (3x3), expand (1x1), add the input, ReLU."""

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, *, project: bool
    ) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        # In place: neither a convolution nor a batch norm goes back through its own output.
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if project:
            self.downsample = FoldingSequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = in_turn((self.conv1, self.bn1, self.relu), x)
        residual = in_turn((self.conv2, self.bn2, self.relu), residual)
        residual = in_turn((self.conv3, self.bn3), residual)
        residual += self.downsample(x)
        return self.relu(residual)


def _stages(counts: Sequence[int], output_stride: int, dilated: bool) -> list[nn.Sequential]:
    stages = []
    inputs, reached, dilation = _WIDTHS[0], 4, 1
    for width, count in zip(_WIDTHS, counts, strict=True):
        stride, first_dilation = (1 if width == _WIDTHS[0] else 2), dilation
        if stride == 2 and reached == output_stride:
            stride, dilation = 1, dilation * 2 if dilated else 1
        reached *= stride
        blocks = [_Bottleneck(inputs, width, stride, first_dilation, project=True)]
        inputs = _EXPANSION * width
        for _ in range(count - 1):
            blocks.append(_Bottleneck(inputs, width, 1, dilation, project=False))
        stages.append(nn.Sequential(*blocks))
    return stages
