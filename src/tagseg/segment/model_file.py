"""A trained segmenter as one safetensors file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, WeightsError
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.segment.predict import Refine, Segmenter
from tagseg.training import Execution

__all__ = [
    "damage_in_one_line",
    "pack_backbone",
    "pack_segmenter",
    "pack_tensors",
    "positive",
    "unpack_backbone",
    "unpack_segmenter",
]

_FORMAT = "tagseg-segmenter-1"

# What the parts of a segmenter raise when they are built from numbers that cannot be meant.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    ConfigError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def pack_segmenter(
    segmenter: Segmenter, refinement: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of ``segmenter``; ``refinement`` tells how to rebuild its ``refine``."""
    net = cast(SegmentationNet, segmenter.net)
    metadata = {
        "format": _FORMAT,
        "classes": json.dumps(segmenter.classes),
        "photo_side": str(segmenter.side),
        **pack_backbone(net.backbone),
        "field_of_view": net.field_of_view,
        "width": str(net.fc6.out_channels),
        "view_scale": str(net.view_scale),
        "margin": str(net.margin),
        "refinement": json.dumps(refinement),
    }
    return pack_tensors(net), metadata


def pack_tensors(net: nn.Module) -> dict[str, Tensor]:
    """All tensors of a network, on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}


def pack_backbone(backbone: Backbone) -> dict[str, str]:
    """What :func:`unpack_backbone` needs beside the tensors."""
    metadata = {
        "backbone": backbone.name,
        "output_stride": str(backbone.output_stride),
        "dilated": json.dumps(backbone.dilated),
        "preprocessing": json.dumps(backbone.preprocessing),
    }
    if isinstance(backbone, MobileNetV2):
        metadata["stride2_padding"] = backbone.stride2_padding
    return metadata


def unpack_backbone(metadata: Mapping[str, str]) -> Backbone:
    """The backbone of :func:`pack_backbone`, without its weights."""
    backbone = BACKBONES[metadata["backbone"]](
        output_stride=int(metadata["output_stride"]),
        dilated=json.loads(metadata.get("dilated", "null")),  # files of version 0.1 have none
    )
    backbone.set_preprocessing(Preprocessing(*map(tuple, json.loads(metadata["preprocessing"]))))
    if isinstance(backbone, MobileNetV2):
        backbone.set_stride2_padding(metadata["stride2_padding"])  # type: ignore[arg-type]
    return backbone


@contextmanager
def damage_in_one_line(where: object) -> Iterator[None]:
    """Whatever goes wrong while a segmenter is rebuilt becomes a WeightsError."""
    try:
        yield
    except _DAMAGE as error:
        raise WeightsError(
            f"holds a damaged segmenter ({type(error).__name__})", where=where, do="train it again"
        ) from error


def unpack_segmenter(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    execution: Execution,
    refinement: Callable[[Mapping[str, Any]], Refine],
    where: object = None,
) -> Segmenter:
    """The segmenter of :func:`pack_segmenter`; ``refinement`` rebuilds its last step.

    Raises:
        WeightsError: the tensors or metadata are not those of a segmenter.
    """
    if metadata.get("format") != _FORMAT:
        raise WeightsError(
            "holds no segmenter of tagseg", where=where, do="give a run folder or its segmenter"
        )
    with damage_in_one_line(where):
        stored = json.loads(metadata["refinement"])
        return Segmenter(
            _network(tensors, metadata),
            tuple(json.loads(metadata["classes"])),
            side=positive(metadata["photo_side"]),
            execution=execution,
            refine=None if stored is None else refinement(stored),
            refinement=stored,
        )


def _network(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> SegmentationNet:
    net = SegmentationNet(
        unpack_backbone(metadata),
        len(json.loads(metadata["classes"])) + 1,
        field_of_view=metadata["field_of_view"],  # type: ignore[arg-type]
        width=int(metadata["width"]),
        view_scale=float(metadata["view_scale"]),
        margin=int(metadata.get("margin", "0")),  # files of version 0.1 have none
    )
    net.load_state_dict(dict(tensors))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def positive(text: str) -> int:
    """A whole number over 0, else ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
