"""VGG-16 (Simonyan & Zisserman, 2015), dense, in DeepLab's geometry or in its own."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, PyramidLevel, dilates

__all__ = ["Vgg16"]

# Convolutions per block and their channels; a block ends with a pool.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_POOL2, _POOL3, _POOL4, _POOL5 = 9, 16, 23, 30  # indices in torchvision's ``features``
_CONV5 = (24, 26, 28)


class Vgg16(Backbone):
    """VGG-16 without its classifier; parameter names are torchvision's (``features.0.weight``...).

    ``dilated=True`` is the geometry of DeepLab (Chen et al., 2015; used by Saleh et al., section
    4.2.1), at output strides 8 and 16: every pool is 3x3 with padding 1, pool5 has stride 1, and
    with ``output_stride=8`` so has pool4, after which conv5 is dilated by 2. Output position i is
    centred on input pixel ``output_stride * i``: 321 pixels give 41 positions at stride 8.

    ``dilated=False`` is the original geometry: every pool is 2x2 with stride 2, nothing is dilated,
    and position i is centred on the middle of its cell, ``output_stride * (i + 0.5) - 0.5``
    (``grid_stride`` is None). Odd sizes round up in every pool, as in Caffe; torchvision drops the
    last row there. Output stride 32 is the whole of it, of which Shimoda & Yanai (section 3.2) make
    a fully convolutional classifier; at 16 pool5 is left out, and at 8 pool4 too, as the seeders of
    Oh et al. (Table 6) have it.

    An input of H pixels, at least 1, gives ``ceil(H / output_stride)`` positions.

    ``activations`` are conv4_3 and conv5_3 after their ReLU, before the pools (Saleh et al.,
    section 3.1.1). ``forward`` adds pool5 where there is one, the input that ImageNet's fc6 was
    trained on.

    Args:
        output_stride: 8, 16 or 32 input pixels per output position.
        dilated: the geometry; None is DeepLab's at strides 8 and 16, the original one at 32.

    Raises:
        ConfigError: for any other output stride, or for DeepLab's geometry at 32.
    """

    name = "vgg16"
    out_channels = 512
    block4_channels = 512

    def __init__(self, output_stride: int = 8, *, dilated: bool | None = None) -> None:
        super().__init__(output_stride, dilated=dilates(self.name, output_stride, dilated))
        if not self.dilated:
            self.grid_stride = None
        self.features = nn.Sequential(*_layers(output_stride, self.dilated))
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def activations(self, x: Tensor) -> Activations:
        """conv4_3 and conv5_3 after ReLU, each (B, 512, h, w), for RGB in [0, 1], (B, 3, H, W).

        conv4_3 lies before pool4: stride 8 in all forms. conv5_3 lies at the output stride, but
        at 16, before pool5, where that is 32.
        """
        block4 = self.features[:_POOL4](self.normalise(x))
        return Activations(block4, self.features[_POOL4:_POOL5](block4))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """Outputs of the ReLUs of conv1_1 ... conv5_3."""
        blocks, index, stride = [], 0, 1
        for count, _ in _BLOCKS:
            relus = tuple(f"features.{index + 2 * i + 1}" for i in range(count))
            blocks.append(FeatureBlock(relus, min(stride, self.output_stride)))
            index += 2 * count + 1
            stride *= 2
        return tuple(blocks)

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """conv1 to conv5, each with its pool."""
        layers = list(self.features)
        ends = itertools.accumulate((2 * count + 1 for count, _ in _BLOCKS), initial=0)
        return tuple(tuple(layers[a:b]) for a, b in itertools.pairwise(ends))

    def forward(self, x: Tensor) -> Tensor:
        """pool5 or, where it is left out, conv5_3: what the heads take, (B, 512, h, w)."""
        return self.features[_POOL5](self.activations(x).block5)

    def _sections(self) -> tuple[PyramidLevel, ...]:
        """conv2_2, conv3_3, conv4_3 and conv5_3 after ReLU, and pool5."""
        return (
            PyramidLevel((self.features[:_POOL2],), 2, 128),
            PyramidLevel((self.features[_POOL2:_POOL3],), 4, 256),
            PyramidLevel((self.features[_POOL3:_POOL4],), 8, 512),
            PyramidLevel((self.features[_POOL4:_POOL5],), 16, 512),
            PyramidLevel((self.features[_POOL5:],), 32, 512),
        )


def _layers(output_stride: int, dilated: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for count, width in _BLOCKS:
        for _ in range(count):
            dilation = 2 if dilated and output_stride == 8 and len(layers) in _CONV5 else 1
            layers.append(nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation))
            # Not in place: gradient-based maps hook the convolutions' outputs.
            layers.append(nn.ReLU())
            channels = width
        layers.append(_pool(len(layers), output_stride, dilated))
    return layers


def _pool(index: int, output_stride: int, dilated: bool) -> nn.Module:
    without_stride = (index == _POOL4 and output_stride == 8) or (
        index == _POOL5 and output_stride < 32
    )
    if dilated:
        return nn.MaxPool2d(3, stride=1 if without_stride else 2, padding=1)
    # Left out, but for its place: the names of the layers stay torchvision's.
    return nn.Identity() if without_stride else nn.MaxPool2d(2, stride=2, ceil_mode=True)
