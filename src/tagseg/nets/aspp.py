"""DeepLab-v2's segmentation network: branches of several dilations, summed (ASPP)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone, upsample_grid

__all__ = ["AsppNet"]

_VGG_WIDTH = 1024


class AsppNet(nn.Module):
    """Scores per pixel and label from several fields of view (Chen et al., 2017, section 3.2).

    Atrous spatial pyramid pooling: one branch per rate looks at the backbone's features through a
    3x3 convolution of that dilation, and the branches' scores are summed. On VGG-16 a branch is
    fc6 (3x3), fc7 (1x1) and fc8 (1x1), with ReLU and dropout after the first two (ASPP-L with the
    default rates); on the other backbones, as published for ResNet-101, it is the 3x3 convolution
    alone, straight to the labels.

    Args:
        backbone: the network below.
        n_labels: C + 1, background first.
        rates: dilation of each branch at output stride 8, in photos of about 500 pixels; at other
            strides they scale so that the pixels stay the same, rounded, at least 1.
        width: channels of fc6 and fc7 in every branch; None is 1024 on VGG-16, and on the other
            backbones branches without them.
        dropout: probability after fc6 and after fc7, in training.
        view_scale: factor on the rates, for photos smaller than the paper's 500 pixels.

    Raises:
        ConfigError: if a number cannot be meant.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_labels: int,
        *,
        rates: Sequence[int] = (6, 12, 18, 24),
        width: int | None = None,
        dropout: float = 0.5,
        view_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if width is None and backbone.name == "vgg16":
            width = _VGG_WIDTH
        _check(n_labels, rates, width, dropout, view_scale)
        self.backbone, self.view_scale = backbone, view_scale
        self.rates, self.width, self.dropout = tuple(rates), width, dropout
        scale = 8 / backbone.output_stride * view_scale
        self.dilations = tuple(max(1, round(rate * scale)) for rate in rates)
        self.branches = nn.ModuleList(
            _branch(backbone.out_channels, n_labels, dilation, width, dropout)
            for dilation in self.dilations
        )

    @property
    def coarse_stride(self) -> int:
        """Input pixels per position of :meth:`coarse`."""
        return self.backbone.output_stride

    @property
    def coarse_grid_stride(self) -> int | None:
        """The ``stride`` with which :func:`upsample_grid` brings :meth:`coarse` to image size."""
        return self.backbone.grid_stride

    def coarse(self, x: Tensor) -> Tensor:
        """Logits at the output stride, (B, n_labels, h, w), for RGB in [0, 1], (B, 3, H, W)."""
        features = self.backbone(x)
        first, *others = self.branches
        scores: Tensor = first(features)
        for branch in others:
            scores = scores + branch(features)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input, (B, n_labels, H, W), bilinear, for any H and W."""
        height, width = x.shape[2:]
        return upsample_grid(self.coarse(x), (height, width), self.coarse_grid_stride)

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (fc6, fc7), ``score`` and ``score_bias``, for a rate each.

        ``score`` holds the weights of the branches' last layers, ``score_bias`` their biases;
        ``head`` is empty where branches have one layer.
        """
        named = list(self.branches.named_parameters())
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": [p for name, p in named if ".fc8." not in name]},
            {"name": "score", "params": [p for name, p in named if name.endswith("fc8.weight")]},
            {"name": "score_bias", "params": [p for name, p in named if name.endswith("fc8.bias")]},
        ]


def _branch(
    inputs: int, n_labels: int, dilation: int, width: int | None, dropout: float
) -> nn.Sequential:
    def dilated(outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if width is None:
        score = dilated(n_labels)
    else:
        fc6, fc7 = dilated(width), nn.Conv2d(width, width, 1)
        score = nn.Conv2d(width, n_labels, 1)
        for layer in (fc6, fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layers |= {"fc6": fc6, "relu6": nn.ReLU(inplace=True), "dropout6": nn.Dropout(dropout)}
        layers |= {"fc7": fc7, "relu7": nn.ReLU(inplace=True), "dropout7": nn.Dropout(dropout)}
    nn.init.normal_(score.weight, std=0.01)
    nn.init.zeros_(score.bias)  # type: ignore[arg-type]
    layers["fc8"] = score
    return nn.Sequential(layers)


def _check(
    n_labels: int, rates: Sequence[int], width: int | None, dropout: float, view_scale: float
) -> None:
    if n_labels < 2:
        raise ConfigError(f"{n_labels} labels", do="give background and at least one class")
    if not rates or min(rates) < 1:
        raise ConfigError(f"rates {tuple(rates)}", do="give at least one, each at least 1")
    if width is not None and width < 1:
        raise ConfigError(f"a width of {width}", do="use at least 1")
    if not 0 <= dropout < 1:
        raise ConfigError(f"a dropout of {dropout}", do="use a probability from 0 to below 1")
    if view_scale <= 0:
        raise ConfigError(f"a view scale of {view_scale}", do="use a number over 0")
