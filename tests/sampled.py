"""A backbone for tests of heads."""

from __future__ import annotations

from torch import Tensor, nn

from tagseg.nets.backbone import Activations, Backbone, FeatureBlock


class Sampled(Backbone):
    """Every eighth pixel through one 1x1 convolution."""

    name = "sampled"
    out_channels = 6
    block4_channels = 6

    def __init__(self) -> None:
        super().__init__(8)
        self.project = nn.Conv2d(3, 6, 1)

    def activations(self, x: Tensor) -> Activations:
        features = self.project(self.normalise(x)[..., ::8, ::8]).relu()
        return Activations(features, features)

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()
