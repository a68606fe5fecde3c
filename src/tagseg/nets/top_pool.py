"""A tag classifier that looks at its strongest positions as much as at all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone

__all__ = ["TopPoolClassifier"]

_RARE = -2.0  # first bias: most classes are in few photos


class TopPoolClassifier(nn.Module):
    """Class maps by a 1x1 convolution; a class's score is half their mean and half their top.

    The mean over all positions alone (global average pooling) rewards maps that spread over what
    comes with a class; the maximum alone shows a position of it. The mean of the ``fraction`` of
    strongest positions lies between (Durand, Thome, Cord: WELDON, CVPR 2016, section 3, Eq. 2,
    positive part), and half of each keeps a gradient everywhere.

    Args:
        backbone: the pre-trained network.
        n_classes: C, foreground classes.
        fraction: of the positions that are the top, at least one.
        dropout: probability of a channel, in training.

    Raises:
        ConfigError: if a number cannot be meant.
    """

    def __init__(
        self, backbone: Backbone, n_classes: int, *, fraction: float = 0.2, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if n_classes < 1:
            raise ConfigError(f"a classifier of {n_classes} classes", do="give at least one class")
        if not 0 < fraction <= 1:
            raise ConfigError(f"fraction is {fraction}", do="use over 0, up to 1")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout}", do="use 0 or more, below 1")
        self.backbone, self.fraction = backbone, fraction
        self.dropout = nn.Dropout2d(dropout)
        self.scores = nn.Conv2d(backbone.out_channels, n_classes, 1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.constant_(self.scores.bias, _RARE)  # type: ignore[arg-type]

    def class_maps(self, x: Tensor) -> Tensor:
        """Evidence of each class at each position, (B, C, h, w), any sign; for RGB in [0, 1].

        Positions are those of ``backbone.grid_stride``.
        """
        return self.scores(self.dropout(self.backbone(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the sigmoid, (B, C), for RGB in [0, 1], (B, 3, H, W)."""
        return pooled(self.class_maps(x), self.fraction)

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone`` and ``score``, for a learning rate each."""
        return [
            *self.backbone.parameter_groups(),
            {"name": "score", "params": list(self.scores.parameters())},
        ]


def pooled(maps: Tensor, fraction: float) -> Tensor:
    """Half the mean over positions and half that of the ``fraction`` strongest, (B, C)."""
    flat = torch.flatten(maps, 2)
    count = max(1, math.floor(fraction * flat.shape[2]))
    top = flat.topk(count, dim=2).values
    return 0.5 * (flat.mean(2) + top.mean(2))
