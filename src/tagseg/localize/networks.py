"""What localization asks of a network: scores, layers by name, and a copy to work with."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError

__all__ = [
    "INPUT",
    "Layer",
    "Scores",
    "first_tensor",
    "in_type_of",
    "layer_names",
    "logits",
    "private_copy",
    "scorer",
    "weight_type",
]

INPUT = "input"  # the layer that is the photo itself

Layer = str | nn.Module
"""A dotted name as in ``net.named_modules()``, or that module itself."""

Scores = Callable[[Any], Tensor]
"""What a network gives -> class scores (B, C) or class maps (B, C, h, w)."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def weight_type(net: nn.Module) -> torch.dtype | None:
    """The floating-point type of the network's weights; None if it has none."""
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), None)


def in_type_of(net: nn.Module, image_batch: Tensor) -> Tensor:
    """The batch in the floating-point type of the network's weights, if it has any."""
    return image_batch.to(weight_type(net) or image_batch.dtype)


def layer_names(net: nn.Module, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The dotted names of ``layers``, each given by its name or as the module itself.

    Raises:
        ConfigError: The network has no such layer, or none is given.
    """
    if not layers:
        raise ConfigError("no layer is given", do="name one, or give 'input'")
    return tuple(_name(net, layer) for layer in layers)


def _name(net: nn.Module, layer: Layer) -> str:
    modules = dict(net.named_modules(remove_duplicate=False))
    if isinstance(layer, nn.Module):
        found = [name for name, module in modules.items() if name and module is layer]
        if not found:
            raise ConfigError(
                f"the network has no layer {type(layer).__name__}", do="give a module of this one"
            )
        return found[0]
    if layer != INPUT and (not layer or layer not in modules):
        raise ConfigError(
            f"the network has no layer {layer!r}", do="give a name of named_modules()"
        )
    return layer


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a layer gives: alone, first of a tuple, or as ``last_hidden_state``."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    output = getattr(output, "last_hidden_state", output)
    return output if isinstance(output, Tensor) else None


def scorer(net: nn.Module, scores: Scores | None) -> Callable[[nn.Module, Tensor], Tensor]:
    """How class scores are got from ``net``, or a copy of it, and a batch of photos.

    With ``scores`` they are made of what the network gives. Without, they are its ``class_maps``
    where it has such a method, or else what it gives: a tensor, or an object with ``logits``.
    """
    if scores is None and hasattr(net, "class_maps"):
        return lambda copied, images: copied.class_maps(images)  # type: ignore[operator]
    chosen = logits if scores is None else scores

    def score(copied: nn.Module, images: Tensor) -> Tensor:
        found = chosen(copied(images))
        if not isinstance(found, Tensor) or found.ndim not in (2, 4):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"the network's scores are {shape}", do="make them (B, C) by scores=")
        return found

    return score


def logits(output: Any) -> Tensor:
    """Class scores among what a network gives: a tensor, or the ``logits`` of it.

    Raises:
        ConfigError: There are none.
    """
    found = output.get("logits") if isinstance(output, Mapping) else output
    found = getattr(found, "logits", found)
    if isinstance(found, Tensor):
        return found
    raise ConfigError(
        f"the network gives {type(output).__name__}, not class scores",
        do="say how to take them, as scores=lambda output: output[0]",
    )


@torch.inference_mode(False)
def private_copy(
    net: nn.Module, precision: torch.dtype, *, memory_format: torch.memory_format
) -> nn.Module:
    """The same modules without hooks, with the same tensors, or copies that are faster.

    Raises:
        ConfigError: The network holds something that cannot be copied.
    """
    copies: dict[int, Any] = {}
    low = set(map(id, _arithmetic(net))) if precision != torch.float32 else set()
    for tensor in (*net.parameters(), *net.buffers()):
        shared = tensor.detach()
        if id(tensor) in low:
            shared = shared.to(precision)
        if shared.ndim == 4:
            shared = shared.contiguous(memory_format=memory_format)
        copies[id(tensor)] = (
            nn.Parameter(shared, False) if isinstance(tensor, nn.Parameter) else shared
        )
    for module in net.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):  # as torch.nn.utils leaves it, with a graph
                copies.setdefault(id(value), value.detach())
        # Left out, not copied: a hook may hold what cannot be copied, a gradient's graph or a lock.
        copies |= {id(getattr(module, hooks)): _kept(getattr(module, hooks)) for hooks in _HOOKS}
    try:
        return copy.deepcopy(net, copies)
    except Exception as error:
        raise ConfigError(
            f"the network cannot be copied: {error}", do="leave out what copy.deepcopy refuses"
        ) from error


def _kept(hooks: Mapping[int, Any]) -> OrderedDict[int, Any]:
    """The hooks that make a module's weights, as those of ``torch.nn.utils.spectral_norm`` do."""
    return OrderedDict(
        (key, hook)
        for key, hook in hooks.items()
        if type(hook).__module__.startswith("torch.nn.utils.")
    )


def _arithmetic(net: nn.Module) -> list[Tensor]:
    """Parameters of convolutions and linear layers."""
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return [p for m in net.modules() if isinstance(m, layers) for p in m.parameters(recurse=False)]
