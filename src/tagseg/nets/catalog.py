"""The backbones by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tagseg.errors import ConfigError, choose_from
from tagseg.nets.backbone import Backbone
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.nets.weights import LoadedWeights, load_into

__all__ = ["BACKBONES", "build_backbone"]

BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    "mobilenet_v2": MobileNetV2,
    "tiny": Tiny,
    "vgg16": Vgg16,
}


def build_backbone(
    name: str, weights: LoadedWeights | None = None, *, output_stride: int = 8
) -> Backbone:
    """A backbone, with ``weights`` if given.

    Raises:
        ConfigError: there is no backbone of that name.
        WeightsError: the weights belong to another network.
    """
    if name not in BACKBONES:
        raise ConfigError(f"there is no backbone {name!r}", do=choose_from(BACKBONES, name))
    backbone = BACKBONES[name](output_stride=output_stride)
    if weights is not None:
        load_into(backbone, weights)
    return backbone
