"""A trained segmenter as one safetensors file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, WeightsError
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.fpn import FpnNet
from tagseg.nets.hugging_face import HuggingFaceVit
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.pyramid import PyramidNet
from tagseg.segment.predict import Refiner, Segmenter
from tagseg.segment.windowed import Sight, WindowedSegmenter
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


def pack_segmenter(segmenter: Segmenter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of ``segmenter``, with what its refiner was made from.

    Raises:
        ConfigError: its network is none of those that a file can hold.
    """
    net = segmenter.net
    form = _form_of(net)
    metadata = {
        "format": _FORMAT,
        "classes": json.dumps(segmenter.classes),
        "photo_side": str(segmenter.side),
        "form": form,
        **pack_backbone(net.backbone),  # type: ignore[arg-type]
        **_FORMS[form].notes(net),
        **_sight_of(segmenter),
        "refinement": json.dumps(segmenter.refinement),
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
    if isinstance(backbone, HuggingFaceVit):
        metadata["config"] = json.dumps(backbone.config)
    return metadata


def unpack_backbone(metadata: Mapping[str, str]) -> Backbone:
    """The backbone of :func:`pack_backbone`, without its weights."""
    stride = int(metadata["output_stride"])
    backbone: Backbone
    if "config" in metadata:
        config, name = json.loads(metadata["config"]), metadata["backbone"]
        backbone = HuggingFaceVit(stride, config=config, name=name)
    else:
        dilated = json.loads(metadata.get("dilated", "null"))  # files of version 0.1 have none
        backbone = BACKBONES[metadata["backbone"]](stride, dilated=dilated)
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
    refinement: Callable[[Mapping[str, Any]], Refiner],
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
        build: Callable[..., Segmenter] = Segmenter
        if "sight" in metadata:
            build = partial(WindowedSegmenter, sight=_sight(json.loads(metadata["sight"])))
        return build(
            _network(tensors, metadata),
            tuple(json.loads(metadata["classes"])),
            side=positive(metadata["photo_side"]),
            execution=execution,
            refiner=None if stored is None else refinement(stored),
            refinement=stored,
        )


def _sight_of(segmenter: Segmenter) -> dict[str, str]:
    """How it looks at photos, if that is its own affair."""
    if not isinstance(segmenter, WindowedSegmenter):
        return {}
    return {"sight": json.dumps(asdict(segmenter.sight))}


def _sight(stored: Mapping[str, Any]) -> Sight:
    return Sight(**{**stored, "scales": tuple(stored["scales"])})


def _network(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> nn.Module:
    form = _FORMS[metadata.get("form", "large_fov")]  # files of version 0.1 have none
    n_labels = len(json.loads(metadata["classes"])) + 1
    net = form.net(unpack_backbone(metadata), n_labels, **form.options(metadata))
    net.load_state_dict(dict(tensors))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Form(NamedTuple):
    """A kind of network, what is noted of one, and the arguments that come of the notes."""

    net: Callable[..., nn.Module]
    notes: Callable[[Any], dict[str, str]]
    options: Callable[[Mapping[str, str]], dict[str, Any]]


def _notes_of_large_fov(net: SegmentationNet) -> dict[str, str]:
    return {
        "field_of_view": net.field_of_view,
        "width": str(net.fc6.out_channels),
        "view_scale": str(net.view_scale),
        "margin": str(net.margin),
    }


def _options_of_large_fov(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        "field_of_view": metadata["field_of_view"],
        "width": int(metadata["width"]),
        "view_scale": float(metadata["view_scale"]),
        "margin": int(metadata.get("margin", "0")),  # files of version 0.1 have none
    }


def _notes_of_aspp(net: AsppNet) -> dict[str, str]:
    return {name: json.dumps(getattr(net, name)) for name in _ASPP_OPTIONS}


def _options_of_aspp(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {name: json.loads(metadata[name]) for name in _ASPP_OPTIONS}


def _notes_of_fpn(net: FpnNet) -> dict[str, str]:
    return {"channels": str(net.channels)}


def _options_of_fpn(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {"channels": int(metadata["channels"])}


def _notes_of_pyramid(net: PyramidNet) -> dict[str, str]:
    return {
        "decoder": _UNET,
        "channels": str(net.channels),
        "finest": str(net.finest),
        "view_scale": str(net.view_scale),
    }


def _options_of_pyramid(metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata["decoder"] != _UNET:
        raise ValueError(metadata["decoder"])
    return {
        "channels": int(metadata["channels"]),
        "finest": int(metadata["finest"]),
        "view_scale": float(metadata["view_scale"]),
    }


_UNET = "unet"  # the only form of the pyramid's decoder

_ASPP_OPTIONS = ("rates", "width", "dropout", "view_scale")

_FORMS: Mapping[str, _Form] = {
    "large_fov": _Form(SegmentationNet, _notes_of_large_fov, _options_of_large_fov),
    "aspp": _Form(AsppNet, _notes_of_aspp, _options_of_aspp),
    "fpn": _Form(FpnNet, _notes_of_fpn, _options_of_fpn),
    "pyramid": _Form(PyramidNet, _notes_of_pyramid, _options_of_pyramid),
}


def _form_of(net: nn.Module) -> str:
    for name, form in _FORMS.items():
        if type(net) is form.net:
            return name
    raise ConfigError(
        f"files hold no {type(net).__name__}", do=f"use a network of the forms {', '.join(_FORMS)}"
    )


def positive(text: str) -> int:
    """A whole number over 0, else ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
