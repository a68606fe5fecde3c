"""Class saliency by back-propagation: plain, guided and excitation, of many classes at once.

One forward pass is recorded, then the signals of all classes go back through it as one batch. The
network is not touched: what runs is a private copy of its structure that shares its weights, and
the record belongs to the call, so threads may use one network, or one :class:`ClassSaliency`, at
the same time.

How an operation is gone back through stands in :mod:`tagseg.localize.backward_rules`.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.backward_rules import (
    Call,
    Method,
    Step,
    TurnedKernels,
    is_constant,
    is_convolution,
    overwrites,
    step_of,
)

__all__ = ["INPUT", "ClassSaliency", "Method", "Record", "channel_maximum"]

INPUT = "input"  # the layer that is the photo itself
_PRECISIONS = (torch.float32, torch.bfloat16)
_METHODS = ("plain", "guided", "excitation")
_MOST_BYTES = 1 << 28  # of the largest gradient that is alive for a part of the classes


class ClassSaliency:
    """Gradients of class scores with respect to feature maps, all classes in one backward pass.

    * ``plain``: the derivative (Simonyan et al., 2014; Eq. 3 of Shimoda & Yanai, 2016).
    * ``guided``: a ReLU lets a gradient back where its activation and the gradient are > 0
      (Springenberg et al., 2015).
    * ``excitation``: a layer shares each neuron's probability among its inputs in proportion to
      their excitation, activation times positive weight (Zhang et al., 2016, Eq. 1 to 5). Batch
      norms belong to the convolution before them, biases take no part, inputs below 0 excite
      nothing; the photo, which has no natural zero, counts from its darkest value.

    The score of a class is the sum of its map over positions: the backward pass starts with 1 at
    every position (Shimoda & Yanai, 3.3). Excitation starts with the map's positive part, scaled
    to sum 1.

    Args:
        net: in evaluation mode, with ``class_maps`` (B, 3, H, W) -> (B, C, h, w). Its weights must
            not change while this object is in use.
        method: "plain", "guided" or "excitation".
        layers: module names as in ``net.named_modules()``, or "input"; the gradient is taken at
            the module's output. A module that is called several times counts with its last call.
        precision: of convolutions, float32 or bfloat16; with the latter a copy of the weights is
            kept.

    Raises:
        ConfigError: no such method, layer or precision, or the network is in training mode.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method = "guided",
        layers: Sequence[str] = (INPUT,),
        *,
        precision: torch.dtype = torch.float32,
    ) -> None:
        if method not in _METHODS:
            raise ConfigError(f"no back-propagation {method!r}", do=f"use {', '.join(_METHODS)}")
        if any(module.training for module in net.modules()):
            raise ConfigError("the network is in training mode", do="call its eval() before")
        names = {name for name, _ in net.named_modules() if name}
        for layer in layers:
            if layer != INPUT and layer not in names:
                raise ConfigError(
                    f"the network has no layer {layer!r}", do="give a name of named_modules()"
                )
        if not layers:
            raise ConfigError("no layer is given", do="name one, or give 'input'")
        if precision not in _PRECISIONS:
            raise ConfigError(f"precision {precision}", do="use float32 or bfloat16")
        self.method, self.layers, self.precision = method, tuple(layers), precision
        self._net = _private_copy(net, precision)
        self._kernels = TurnedKernels(self._net.parameters())
        self._recording = threading.local()
        for name, module in self._net.named_modules():
            if name in self.layers:
                module.register_forward_hook(self._note(name))

    @torch.inference_mode(False)  # where operations would not come in their parts
    @torch.no_grad()
    def forward(self, images: Tensor) -> Record:
        """Record a forward pass of photos (B, 3, H, W), RGB in [0, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ShapeError(f"images have shape {tuple(images.shape)}", do="give (B, 3, H, W)")
        images = images.detach().to(memory_format=torch.channels_last, copy=True)
        tape = _Tape(self.method, self._kernels)
        if INPUT in self.layers:
            tape.watch(INPUT, images)
        self._recording.tape = tape
        low = self.precision != torch.float32
        try:
            with torch.autocast(images.device.type, self.precision, enabled=low), tape:
                maps: Tensor = self._net.class_maps(images)  # type: ignore[operator]
        finally:
            del self._recording.tape
        for layer in self.layers:
            if layer not in tape.layers or tape.node_of(maps) is None:
                raise _no_part(layer)
        return Record(tape, maps)

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._recording.tape.watch(name, output)

        return hook


class Record:
    """A recorded forward pass of B photos.

    Attributes:
        class_maps: float32 (B, C, h, w), the network's score per class and position.
    """

    def __init__(self, tape: _Tape, maps: Tensor) -> None:
        self._tape, self._maps = tape, maps
        self._end: int = tape.node_of(maps)  # type: ignore[assignment]
        self.class_maps = _at_least_single(maps)

    def gradients(self, classes: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Gradient of each class at each layer.

        Args:
            classes: indices (K,) for all photos, or (B, K) for each.

        Returns:
            by layer: float32 (B, K, C_l, h_l, w_l).

        Raises:
            ShapeError: the indices do not fit.
        """
        return self.reduced(classes, _at_least_single)

    def saliency(self, classes: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Largest absolute gradient over channels, by layer: float32 (B, K, h_l, w_l).

        M of Eq. 3 of Shimoda & Yanai, at the layer's own size; with excitation it is the sum over
        channels, the marginal probability of a position.
        """
        excitation = self._tape.method == "excitation"
        return self.reduced(classes, _channel_sum if excitation else channel_maximum)

    @torch.inference_mode(False)  # where PyTorch has no derivatives
    @torch.no_grad()
    def reduced(
        self, classes: Tensor | Sequence[int], reduce: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`gradients`, each (N, C_l, h_l, w_l) put through ``reduce`` (N, ...) at once.

        So a layer's gradients need not be kept. Classes go back in parts where memory asks for it.
        """
        wanted = self._check(classes)
        photos = len(wanted)
        at_once = max(1, _MOST_BYTES // max(1, self._tape.largest))
        parts: dict[str, list[Tensor]] = {name: [] for name in self._tape.layers}
        for part in wanted.split(at_once, dim=1):
            for name, gradient in self._backward(part, reduce).items():
                shaped = gradient.view(part.shape[1], photos, *gradient.shape[1:])
                parts[name].append(shaped.transpose(0, 1))
        return {name: torch.cat(found, dim=1) for name, found in parts.items()}

    def _check(self, classes: Tensor | Sequence[int]) -> Tensor:
        wanted = torch.as_tensor(classes, dtype=torch.long, device=self._maps.device)
        if wanted.ndim == 1:
            wanted = wanted.expand(len(self._maps), -1)
        n_classes = self._maps.shape[1]
        if wanted.ndim != 2 or len(wanted) != len(self._maps) or wanted.numel() == 0:
            raise ShapeError(
                f"classes have shape {tuple(wanted.shape)} for {len(self._maps)} photos",
                do="give indices (K,) or (B, K)",
            )
        if int(wanted.min()) < 0 or int(wanted.max()) >= n_classes:
            raise ShapeError(f"a class is not in 0..{n_classes - 1}", do="check the indices")
        return wanted

    def _backward(self, classes: Tensor, reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        signal = _start(self._maps, classes, excitation=self._tape.method == "excitation")
        with torch.autocast(signal.device.type, enabled=False):
            return self._tape.backward(self._end, signal, classes.shape[1], reduce)


class _Tape(TorchDispatchMode):
    """Records the operations that follow from watched tensors; the mode is of one thread."""

    def __init__(self, method: Method, kernels: TurnedKernels) -> None:
        super().__init__()
        self.method: Method = method
        self._kernels = kernels
        self.layers: dict[str, int] = {}
        self.largest = 1  # bytes of the largest gradient of one class
        self._nodes: Any = WeakIdKeyDictionary()
        self._steps: list[Step] = []
        self._makers: dict[int, Step] = {}
        self._photo: set[int] = set()  # nodes that hold the photo, at any scale
        self._count = 0

    def watch(self, name: str, tensor: Tensor) -> None:
        """Let ``tensor`` be the layer ``name``."""
        known = self.node_of(tensor)
        self.layers[name] = self._new(tensor) if known is None else known
        if name == INPUT:
            self._photo.add(self.layers[name])

    def node_of(self, tensor: Tensor) -> int | None:
        """The node that ``tensor`` holds the value of."""
        node: int | None = self._nodes.get(tensor)
        return node

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(value, list | tuple) and self._tracks(value) for value in args):
            func, args = _spread(func, args)
        places = tuple(place for place, value in enumerate(args) if self._tracks((value,)))
        if not places or is_constant(func):
            return func(*args, **kwargs)
        nodes = tuple(self._nodes[args[place]] for place in places)
        saved = args
        if overwrites(func, self.method):
            saved = [a.clone() if place in places else a for place, a in enumerate(args)]
        result = func(*args, **kwargs)
        call = Call(func, tuple(saved), kwargs, result, places)
        if isinstance(result, list):
            raise ConfigError(
                f"{func.overloadpacket} gives several tensors, which has no rule", do="use slices"
            )
        if call.output.is_floating_point():
            self._record(call, nodes)
        return result

    def _tracks(self, values: Sequence[Any]) -> bool:
        return any(isinstance(v, Tensor) and v in self._nodes for v in values)

    def _record(self, call: Call, nodes: tuple[int, ...]) -> None:
        of_photo = nodes[0] in self._photo
        output = self._new(call.output)
        before = self._makers.get(nodes[0])
        step = step_of(
            call,
            nodes,
            output,
            self.method,
            kernels=self._kernels,
            before=before,
            of_photo=of_photo,
        )
        self._steps.append(step)
        self._makers[output] = step
        if of_photo and not is_convolution(call):
            self._photo.add(output)

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._nodes[tensor] = self._count
        self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return self._count

    def backward(
        self, end: int, signal: Tensor, count: int, reduce: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Reduced gradients of the layers, (count * B, ...), class by class."""
        gradients = {end: signal}
        layers = set(self.layers.values())
        found: dict[int, Tensor] = {}
        clampable = _clampable(self._steps, layers)
        cut: set[int] = set()
        for step in reversed(self._steps):
            gradient = gradients.pop(step.output, None)
            if gradient is None:
                continue
            if step.output in layers:
                found[step.output] = _apart_from(gradient, reduce(gradient))
            first = step.inputs[0]
            if (step.cuts and first in clampable) or (step.keeps_sign and step.output in cut):
                cut.add(first)
            flag = step.output in cut if step.clamps else step.cuts and first in cut
            for node, part in zip(step.inputs, step.back(gradient, count, flag), strict=True):
                gradients[node] = part if node not in gradients else gradients[node].add_(part)
        found |= {node: reduce(g) for node, g in gradients.items() if node in layers}
        for name, node in self.layers.items():
            if node not in found:
                raise _no_part(name)
        return {name: found[node] for name, node in self.layers.items()}


def channel_maximum(gradient: Tensor) -> Tensor:
    """Largest absolute value over channels, float32 (N, h, w), of gradients (N, C, h, w)."""
    # Two passes: torch.aminmax over channels is many times slower on the CPU.
    return _at_least_single(torch.maximum(gradient.amax(1), gradient.amin(1).neg_()))


def _apart_from(gradient: Tensor, reduced: Tensor) -> Tensor:
    """What was made of a gradient, in memory of its own: the gradient is written over."""
    shared = reduced.untyped_storage().data_ptr() == gradient.untyped_storage().data_ptr()
    return reduced.clone() if shared else reduced


def _no_part(layer: str) -> ConfigError:
    return ConfigError(
        f"layer {layer!r} has no part in the class maps", do="name a layer that they are made from"
    )


def _at_least_single(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _channel_sum(gradient: Tensor) -> Tensor:
    return _at_least_single(gradient).sum(1)


def _start(maps: Tensor, classes: Tensor, *, excitation: bool) -> Tensor:
    """Signals (K * B, C, h, w) of classes (B, K) that set out from class maps (B, C, h, w)."""
    photos, count = classes.shape
    signal = maps.new_zeros(count, *maps.shape)
    own = torch.arange(photos, device=maps.device)
    for k in range(count):
        chosen = maps[own, classes[:, k]].clamp(min=0)
        total = chosen.sum((1, 2), keepdim=True).clamp(min=1e-30)
        signal[k, own, classes[:, k]] = chosen / total if excitation else torch.ones_like(chosen)
    return signal.view(count * photos, *maps.shape[1:]).to(memory_format=torch.channels_last)


def _clampable(steps: Sequence[Step], layers: set[int]) -> set[int]:
    """Nodes whose gradient a guided ReLU cuts at 0 anyway, so that what makes it may do so."""
    uses: dict[int, int] = {}
    for step in steps:
        for node in step.inputs:
            uses[node] = uses.get(node, 0) + 1
    clampable: set[int] = set()
    for step in steps:
        single = uses.get(step.output) == 1 and step.output not in layers
        through = step.keeps_sign and step.inputs[0] in clampable
        if single and (step.clamps or through):
            clampable.add(step.output)
    return clampable


@torch.inference_mode(False)
def _private_copy(net: nn.Module, precision: torch.dtype) -> nn.Module:
    """The same modules without hooks, with the same tensors, or copies that are faster."""
    copies: dict[int, Any] = {}
    low = set(map(id, _arithmetic(net))) if precision != torch.float32 else set()
    for tensor in (*net.parameters(), *net.buffers()):
        shared = tensor.detach()
        if id(tensor) in low:
            shared = shared.to(precision)
        if shared.ndim == 4:
            shared = shared.contiguous(memory_format=torch.channels_last)
        copies[id(tensor)] = (
            nn.Parameter(shared, False) if isinstance(tensor, nn.Parameter) else shared
        )
    for module in net.modules():
        # Left out, not copied: a hook may hold what cannot be copied, a gradient's graph or a lock.
        copies |= {id(getattr(module, hooks)): OrderedDict() for hooks in _HOOKS}
    return copy.deepcopy(net, copies)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _arithmetic(net: nn.Module) -> list[Tensor]:
    """Parameters of convolutions and linear layers."""
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return [p for m in net.modules() if isinstance(m, layers) for p in m.parameters(recurse=False)]


class _Spread:
    """An operation on lists of tensors, called with all its tensors in one row."""

    def __init__(self, func: Any, structure: Any) -> None:
        self._func, self._structure = func, structure
        self.overloadpacket, self._schema = func.overloadpacket, func._schema

    def __call__(self, *flat: Any, **kwargs: Any) -> Any:
        return self._func(*tree_unflatten(flat, self._structure), **kwargs)


def _spread(func: Any, args: Any) -> tuple[_Spread, list[Any]]:
    flat, structure = tree_flatten(args)
    return _Spread(func, structure), flat
