"""The backbones by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tagseg.errors import ConfigError, choose_from
from tagseg.nets.backbone import Backbone
from tagseg.nets.efficientnet_lite import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2
from tagseg.nets.hugging_face import PREFIX, HuggingFaceVit, build_vit, read_vit_config
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.resnet import ResNet50, ResNet101
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.nets.weights import LoadedWeights, load_into

__all__ = ["BACKBONES", "backbone_kind", "backbone_label", "build_backbone"]

BACKBONES: Mapping[str, type[Backbone]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_lite1": EfficientNetLite1,
    "efficientnet_lite2": EfficientNetLite2,
    "mobilenet_v2": MobileNetV2,
    "resnet101": ResNet101,
    "resnet50": ResNet50,
    "tiny": Tiny,
    "vgg16": Vgg16,
}


def backbone_kind(name: str) -> type[Backbone]:
    """The class behind a name that ``build_backbone`` takes; ConfigError if there is none."""
    if name.startswith(PREFIX):
        return HuggingFaceVit
    if name not in BACKBONES:
        known = [*BACKBONES, f"{PREFIX}FOLDER"]
        raise ConfigError(f"there is no backbone {name!r}", do=choose_from(known, name))
    return BACKBONES[name]


def backbone_label(name: str) -> str:
    """What says which network it is, wherever its files lie."""
    if not name.startswith(PREFIX):
        return name
    config, _ = read_vit_config(name)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return f"{PREFIX}{config['model_type']}-{digest[:8]}"


def build_backbone(
    name: str,
    weights: LoadedWeights | None = None,
    *,
    output_stride: int = 8,
    dilated: bool | None = None,
) -> Backbone:
    """A backbone, with ``weights`` if given.

    Args:
        name: key in :data:`BACKBONES`, or ``hf:FOLDER`` (:mod:`tagseg.nets.hugging_face`).
        weights: entries to copy into it.
        output_stride: input pixels per output position.
        dilated: whether what follows a stride that was taken out is dilated; None is the
            backbone's own default.

    Raises:
        ConfigError: there is no backbone of that name, or it has no such geometry.
        WeightsError: the weights belong to another network.
    """
    kind = backbone_kind(name)
    if name.startswith(PREFIX):
        backbone: Backbone = build_vit(name, output_stride, dilated=dilated)
    else:
        geometry = {} if dilated is None else {"dilated": dilated}
        backbone = kind(output_stride, **geometry)
    if weights is not None:
        load_into(backbone, weights)
    return backbone
