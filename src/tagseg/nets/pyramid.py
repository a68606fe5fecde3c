"""A segmenter whose decoder takes maps of all strides, for thin and small things."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone, PyramidLevel, upsample_grid, upsample_level
from tagseg.nets.depthwise import DepthwiseConv2d

__all__ = ["PyramidNet"]

_GROUP = 8  # channels normalised together
_WIDEST, _NARROWEST = 256, 32  # channels of the coarsest maps, and of the finest at least
_RATES = (6, 12, 18)  # of ASPP at output stride 16 (Chen et al., 2018, section 3.1)


class PyramidNet(nn.Module):
    """Scores per pixel and label from a decoder with skips, at stride 2 or 4.

    The maps of ``backbone.pyramid`` are joined from the coarsest to the finest, each
    time upsampled by 2, set beside the finer level's map and passed through two 3x3 convolutions
    (Ronneberger et al., MICCAI 2015, section 2). The paper's up-convolution is bilinear upsampling
    here, and the coarsest map first passes ASPP: the contracting path alone sees too little of the
    photo to tell classes apart.

    Beside the decoder, the backbone's own last map is scored by a 1x1 convolution, and both scores
    are added, as those of coarse and fine layers in FCN (Long et al., CVPR 2015, section 4.2): what
    pre-training knows of classes is at hand from the first step, and the decoder learns what is
    missing, edges and small things.

    Norms are of groups of channels, as batches of a few crops are too small for batch norm.
    Position i of each level lies on pixel stride * i (``grid_stride``), so nothing moves sideways.

    Args:
        backbone: the network below, at output stride 16 or 32. A vision transformer's one map is
            resized to all strides (:meth:`tagseg.nets.hugging_face.HuggingFaceVit.pyramid`).
        n_labels: C + 1, background first.
        channels: of the coarsest maps, a power of 2, halved with each stride, but 32 at least; None
            is the most that is not above the backbone's own, and 256 at most.
        finest: the stride of the logits, 2 or 4.
        view_scale: factor on ASPP's dilations, for photos smaller than the paper's 513 pixels.

    Raises:
        ConfigError: if a number cannot be meant, or the backbone has no inner maps to give.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_labels: int,
        *,
        channels: int | None = None,
        finest: int = 4,
        view_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if channels is None:
            channels = 1 << min(_WIDEST, backbone.out_channels).bit_length() - 1
        _check(n_labels, channels, view_scale)
        self.backbone, self.channels, self.view_scale = backbone, channels, view_scale
        levels = backbone.pyramid_levels(finest)
        self.finest, self.coarse_stride = finest, levels[0].stride
        self._factor = levels[-1].stride // levels[0].stride
        context = _Aspp(levels[-1], channels, view_scale)
        self.decoder = _Unet(levels, context, backbone.grid_stride)
        self.direct = nn.Conv2d(backbone.out_channels, n_labels, 1)
        self.score = nn.Conv2d(self.decoder.channels, n_labels, 1)
        # Logits of about 1/2 whatever the channels are: from DeepLab's 0.01, 16 channels need
        # twice as many steps before they show anything thin.
        nn.init.normal_(self.score.weight, std=0.5 * self.decoder.channels**-0.5)
        nn.init.normal_(self.direct.weight, std=0.01)
        for layer in (self.score, self.direct):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def coarse_grid_stride(self) -> int | None:
        """The ``stride`` with which :func:`upsample_grid` brings :meth:`coarse` to image size."""
        return None if self.backbone.grid_stride is None else self.coarse_stride

    def coarse(self, x: Tensor) -> Tensor:
        """Logits at the finest level's stride, (B, n_labels, h, w), for RGB in [0, 1]."""
        maps = self.backbone.pyramid(x, self.finest)
        fine, direct = self.score(self.decoder(maps)), self.direct(maps[-1])
        stride = self.backbone.grid_stride
        return fine + upsample_level(direct, _size(fine), self._factor, grid_stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input, (B, n_labels, H, W), bilinear, for any H and W."""
        return upsample_grid(self.coarse(x), _size(x), self.coarse_grid_stride)

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (the decoder and what is scored without it), ``score`` (behind the
        decoder) and ``score_bias``, for a rate each.
        """
        head = [*self.decoder.parameters(), *self.direct.parameters()]
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": head},
            {"name": "score", "params": [self.score.weight]},
            {"name": "score_bias", "params": [self.score.bias]},
        ]


class _Aspp(nn.Module):
    """Atrous spatial pyramid pooling with image features (Chen et al., 2017b, section 3.3).

    A 1x1 convolution, three 3x3 ones of different dilations, and the mean over the photo, each of
    ``channels``, side by side through a 1x1 convolution: (B, C, h, w) to (B, channels, h, w). The
    3x3 convolutions are depthwise separable, as in DeepLab v3+ (section 3.1). At other strides than
    16 the dilations scale so that the pixels stay the same.
    """

    def __init__(self, level: PyramidLevel, channels: int, view_scale: float) -> None:
        super().__init__()
        self.channels = channels
        scale = 16 / level.stride * view_scale
        self.dilations = tuple(max(1, round(rate * scale)) for rate in _RATES)
        self.reduce = _convolution(level.channels, channels, 1)
        self.branches = nn.ModuleList(_separable(channels, channels, d) for d in self.dilations)
        # Without a norm: of one position, group norm would leave little.
        self.image = nn.Conv2d(level.channels, channels, 1)
        self.project = _convolution((2 + len(_RATES)) * channels, channels, 1)
        nn.init.kaiming_normal_(self.image.weight, nonlinearity="relu")
        nn.init.zeros_(self.image.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        image = torch.relu(self.image(x.mean((2, 3), keepdim=True))).expand_as(reduced)
        views = [branch(reduced) for branch in self.branches]
        return self.project(torch.cat([reduced, *views, image], 1))


class _Unet(nn.Module):
    """From the coarsest map to the finest: upsample by 2, add the skip's channels, two 3x3."""

    def __init__(
        self, levels: Sequence[PyramidLevel], context: _Aspp, grid_stride: int | None
    ) -> None:
        super().__init__()
        self.context, self.grid_stride = context, grid_stride
        self.steps = nn.ModuleList()
        inputs = context.channels
        for level in reversed(levels[:-1]):
            outputs = max(_NARROWEST, inputs // 2)
            first = _convolution(inputs + level.channels, outputs, 3)
            self.steps.append(nn.Sequential(first, _convolution(outputs, outputs, 3)))
            inputs = outputs
        self.channels = inputs

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = self.context(maps[-1])
        for step, skip in zip(self.steps, reversed(maps[:-1]), strict=True):
            x = upsample_level(x, _size(skip), 2, grid_stride=self.grid_stride)
            x = step(torch.cat([x, skip], 1))
        return x


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.GroupNorm(outputs // _GROUP, outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """3x3 on each channel, and 1x1 between them (Chen et al., 2018, section 3.1)."""
    filters = DepthwiseConv2d(
        inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
    )
    nn.init.kaiming_normal_(filters.weight, nonlinearity="linear")
    return nn.Sequential(filters, *_convolution(inputs, outputs, 1))


def _check(n_labels: int, channels: int, view_scale: float) -> None:
    if n_labels < 2:
        raise ConfigError(f"{n_labels} labels", do="give background and at least one class")
    if channels < _NARROWEST or channels & (channels - 1):
        raise ConfigError(f"{channels} channels", do=f"use {_NARROWEST}, 64, 128 and so on")
    if view_scale <= 0:
        raise ConfigError(f"a view scale of {view_scale}", do="use a number over 0")


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
