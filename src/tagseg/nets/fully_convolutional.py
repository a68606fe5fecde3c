"""The fully convolutional tag classifier: VGG-16's own layers as convolutions, global maximum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone

__all__ = ["FullyConvolutionalClassifier", "initialise_from_imagenet"]

_VGG_FORM = (4096, 7)  # channels of fc6 and fc7, kernel of fc6
_OTHER_FORM = (256, 3)
_FIRST_BIAS = -2.0  # a probability of 0.12


class FullyConvolutionalClassifier(nn.Module):
    """Multi-label classifier whose scores are maxima of a score map (Shimoda & Yanai 2016, 3.2).

    Backbone, fc6, ReLU, dropout, fc7 (1x1), ReLU, dropout, ``score`` (1x1, with a bias): a score
    map on the backbone's grid for photos of any size, and its maximum over positions.

    With ``side`` it is VGG-16 as a classifier of photos (Oh et al. 2017, Table 6): photos of any
    size are squeezed to ``side`` x ``side`` pixels, fc6 is as large as the grid and not padded, and
    the map has one position. Of VGG-16 at stride 32 and 224 pixels, fc6 is 7 x 7.

    ``score`` starts at N(0, 0.01) with bias -2: few classes are in a photo. From 0, every class
    that is not pushes its maximum down wherever that lies, until the ReLUs before it are dead; on
    generated scenes hardly anything was learned then.

    Args:
        backbone: the pre-trained network; the paper's is ``Vgg16(32)``.
        n_classes: C, foreground classes.
        hidden: channels of fc6 and fc7; None is 4096 on vgg16 and 256 on other backbones.
        kernel: odd kernel size of fc6; None is 7 on vgg16 and 3 on other backbones, or the grid's
            size where there is a ``side``.
        side: of the square that all photos are brought to, pixels; None for photos as they are.
        dropout: probability after fc6 and after fc7, in training, of whole channels: drawn anew at
            every position it would make the maximum over positions too high, and scores too low
            without it.

    Raises:
        ConfigError: if a number cannot be meant, or both kernel and side are given.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        hidden: int | None = None,
        kernel: int | None = None,
        dropout: float = 0.5,
        *,
        side: int | None = None,
    ) -> None:
        super().__init__()
        usual_hidden, usual_kernel = _VGG_FORM if backbone.name == "vgg16" else _OTHER_FORM
        hidden = usual_hidden if hidden is None else hidden
        if side is not None:
            kernel, padding = _as_the_grid(side, backbone.output_stride, kernel), 0
        else:
            kernel = usual_kernel if kernel is None else kernel
            padding = kernel // 2
        _check(n_classes, hidden, kernel, dropout, padded=side is None)
        self.backbone, self.side = backbone, side
        # Each ReLU is a module of its own and not in place, so that gradient rules can hook it.
        self.fc6 = nn.Conv2d(backbone.out_channels, hidden, kernel, padding=padding)
        self.relu6, self.dropout6 = nn.ReLU(), nn.Dropout2d(dropout)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.relu7, self.dropout7 = nn.ReLU(), nn.Dropout2d(dropout)
        self.score = nn.Conv2d(hidden, n_classes, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.constant_(self.score.bias, _FIRST_BIAS)  # type: ignore[arg-type]

    def class_maps(self, x: Tensor) -> Tensor:
        """Scores before the sigmoid by place, (B, C, h, w), for RGB in [0, 1], (B, 3, H, W)."""
        if self.side is not None and x.shape[2:] != (self.side, self.side):
            shape = (self.side, self.side)
            x = functional.interpolate(x, shape, mode="bilinear", antialias=True)
        x = self.dropout6(self.relu6(self.fc6(self.backbone(x))))
        x = self.dropout7(self.relu7(self.fc7(x)))
        return self.score(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores f_n before the sigmoid (Eq. 2), (B, C): maxima of ``class_maps``."""
        # amax shares the gradient among equal maxima: the same on every device.
        return self.class_maps(x).amax((2, 3))

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone`` and ``head`` (fc6, fc7, score) parameters, for a learning rate each."""
        head = [p for layer in (self.fc6, self.fc7, self.score) for p in layer.parameters()]
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": head},
        ]


def initialise_from_imagenet(
    net: FullyConvolutionalClassifier, state: Mapping[str, Tensor]
) -> bool:
    """Start fc6 and fc7 from VGG-16's classifier, in place (Shimoda & Yanai 2016, 3.2).

    A unit of a fully connected layer becomes a filter as large as the layer's input.

    Args:
        net: the network to initialise.
        state: the weights file's entries (``classifier.{0,3}.{weight,bias}`` are used).

    Returns:
        Whether ``state`` held such layers that fit ``net``; if not, nothing changes.
    """
    with torch.no_grad():
        sources = {
            net.fc6: (state.get("classifier.0.weight"), state.get("classifier.0.bias")),
            net.fc7: (state.get("classifier.3.weight"), state.get("classifier.3.bias")),
        }
        if not all(_fits(layer, *source) for layer, source in sources.items()):
            return False
        for layer, (weight, bias) in sources.items():
            layer.weight.copy_(weight.view_as(layer.weight))  # type: ignore[union-attr]
            layer.bias.copy_(bias)  # type: ignore[union-attr, arg-type]
    return True


def _fits(layer: nn.Conv2d, weight: Tensor | None, bias: Tensor | None) -> bool:
    if weight is None or bias is None:
        return False
    outputs = layer.out_channels
    flat = (outputs, layer.weight.numel() // outputs)
    return tuple(weight.shape) == flat and tuple(bias.shape) == (outputs,)


def _as_the_grid(side: int, stride: int, kernel: int | None) -> int:
    """Size of an fc6 that sees the whole of a square photo."""
    if side < 1 or kernel is not None:
        raise ConfigError(
            f"an input of {side} pixels and a kernel of {kernel}",
            do="give a side of at least 1 alone: the kernel follows",
        )
    return -(-side // stride)


def _check(n_classes: int, hidden: int, kernel: int, dropout: float, *, padded: bool) -> None:
    if n_classes < 1:
        raise ConfigError(f"a classifier of {n_classes} classes", do="give at least one class")
    if hidden < 1:
        raise ConfigError(f"fc6 and fc7 of {hidden} channels", do="use at least 1")
    if padded and (kernel < 1 or kernel % 2 == 0):
        raise ConfigError(f"a kernel of {kernel}", do="use an odd kernel, so that maps keep place")
    if not 0 <= dropout < 1:
        raise ConfigError(f"a dropout of {dropout}", do="use a probability from 0 to below 1")
