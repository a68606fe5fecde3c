"""The record of a forward pass, operation by operation, and the way back through it.

A module is never asked how it computes: what is recorded are PyTorch's own operations, whatever
network they come from. Writes in place count as autograd counts them, through slices too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from tagseg.errors import ConfigError
from tagseg.localize.backward_rules import (
    ByAutograd,
    Call,
    Method,
    Step,
    TurnedKernels,
    is_constant,
    is_convolution,
    is_relu,
    overwrites,
    step_of,
)
from tagseg.localize.networks import INPUT

__all__ = ["NoReLUError", "Tape", "no_part"]


class NoReLUError(ConfigError):
    """Guided back-propagation is asked of a network that has no ReLU to guide."""


class _Write(NamedTuple):
    """A tracked value that was written to memory which other tensors may share."""

    node: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    memory: StorageWeakRef  # held, so that no other memory gets its address


class Tape(TorchDispatchMode):
    """Records the operations that follow from watched tensors; the mode is of one thread.

    Args:
        method: How to go back.
        kernels: Of the network, for the way back.
        strict: Whether excitation refuses layers with inputs below 0, or lets them excite nothing.
    """

    def __init__(self, method: Method, kernels: TurnedKernels, *, strict: bool = False) -> None:
        super().__init__()
        self.method: Method = method
        self._kernels, self._strict = kernels, strict
        self.layers: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the layers
        self.largest = 1  # bytes of the largest gradient of one class
        self._nodes: Any = WeakIdKeyDictionary()
        self._waiting: Any = WeakIdKeyDictionary()  # of several outputs, those that none used yet
        self._writes: dict[int, list[_Write]] = {}  # by the address of the memory
        self._steps: list[Step] = []
        self._held: list[list[Any]] = []  # by steps whose way back depends on these values
        self._makers: dict[int, Step] = {}
        self._photo: set[int] = set()  # nodes that hold the photo, at any scale
        self._count = 0
        self._has_relu = False  # anywhere, also before the layers

    def watch(self, name: str, tensor: Tensor) -> None:
        """Let ``tensor`` be the layer ``name``."""
        known = self.node_of(tensor)
        self.layers[name] = self._new(tensor) if known is None else known
        self.shapes[name] = tuple(tensor.shape)
        if name == INPUT:
            self._photo.add(self.layers[name])

    def node_of(self, tensor: Tensor) -> int | None:
        """The node that ``tensor`` holds the value of."""
        node: int | None = self._nodes.get(tensor)
        if node is None and len(self._waiting) and tensor in self._waiting:
            node = self._record(*self._waiting.pop(tensor))
        if self._writes:
            before = node or 0
            for write in self._writes.get(tensor.untyped_storage()._cdata, ()):
                if write.node > before:
                    node = self._after(write, tensor, node)
        return node

    def check_guided(self, end: int) -> None:
        """NoReLUError where guided back-propagation would silently be the plain one."""
        way = list(self._way_to(end))
        if any(step.clamps for step in way):
            return
        if self._has_relu and not any(step.bends for step in way):
            return  # the layers lie behind the last ReLU
        raise NoReLUError(
            "guided back-propagation changes ReLUs, and none lies between layers and scores",
            do="use plain",
        )

    def _way_to(self, end: int) -> Iterator[Step]:
        """The steps that the node ``end`` follows from, the last first."""
        nodes = {end}
        for step in reversed(self._steps):
            if step.output in nodes:
                nodes.update(step.inputs)
                yield step

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self._has_relu = self._has_relu or is_relu(func, args, kwargs)
        if any(isinstance(value, list | tuple) and self._tracks(value) for value in args):
            func, args = _spread(func, args)
        places = tuple(place for place, value in enumerate(args) if self._tracks((value,)))
        if kwargs and self._tracks(tuple(kwargs.values())):
            raise ConfigError(f"{func.overloadpacket} takes a map by name, which has no rule")
        if not places or is_constant(func):
            return func(*args, **kwargs)
        nodes = tuple(self._nodes[args[place]] for place in places)
        saved = args
        if func._schema.is_mutable and isinstance(args[0], Tensor):
            self._preserve(args[0])
        if overwrites(func, self.method):
            saved = [a.clone() if place in places else a for place, a in enumerate(args)]
        result = func(*args, **kwargs)
        self._note(Call(func, tuple(saved), kwargs, result, places), nodes)
        return result

    def _tracks(self, values: Sequence[Any]) -> bool:
        return any(isinstance(v, Tensor) and self.node_of(v) is not None for v in values)

    def _note(self, call: Call, nodes: tuple[int, ...]) -> None:
        """Record the first output, and those that come with it once they are used."""
        several = isinstance(call.result, list)
        first = not several and call.output
        if isinstance(first, Tensor) and (first.is_floating_point() or first.is_complex()):
            node = self._record(call, nodes)
            if call.func._schema.is_mutable:
                self._written(first, node)
        others = call.result if isinstance(call.result, list | tuple) else ()
        for i, output in enumerate(others):
            if (several or i) and isinstance(output, Tensor) and output.is_floating_point():
                picked = Call(_Picked(call.func, i), call.args, call.kwargs, output, call.places)
                self._waiting[output] = picked, nodes

    def _record(self, call: Call, nodes: tuple[int, ...]) -> int:
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
            strict=self._strict,
        )
        self._steps.append(step)
        if isinstance(step.back, ByAutograd) and step.back.by_value:
            self._held.append(step.back.held)
        self._makers[output] = step
        if of_photo and not is_convolution(call):
            self._photo.add(output)
        return output

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._nodes[tensor] = self._count
        self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return self._count

    def _preserve(self, tensor: Tensor) -> None:
        """Keep what rules need of a tensor that is about to be written over."""
        address = tensor.untyped_storage()._cdata
        for held in self._held:
            for i, value in enumerate(held):
                if isinstance(value, Tensor) and value.untyped_storage()._cdata == address:
                    held[i] = value.clone()

    def _written(self, tensor: Tensor, node: int) -> None:
        memory = tensor.untyped_storage()
        write = _Write(
            *(node, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())),
            *(tensor.dtype, StorageWeakRef(memory)),
        )
        self._writes.setdefault(memory._cdata, []).append(write)

    def _after(self, write: _Write, tensor: Tensor, node: int | None) -> int | None:
        """The node of a tensor that another was written into, where they meet."""
        memory = tensor.untyped_storage()
        place = write.size, write.stride, write.offset
        if tensor.dtype == write.dtype:
            cells = torch.zeros(memory.nbytes() // tensor.element_size(), dtype=torch.bool)
            cells.as_strided(*place).fill_(True)
            meeting = cells.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            if not meeting.any():
                return node
            whole = int(meeting.sum()) == int(cells.sum())
            if whole and torch.empty_like(tensor).stride() == tensor.stride():  # without gaps
                inputs = (write.node,) if node is None else (write.node, node)
                output = self._new(tensor)
                self._steps.append(Step(inputs, output, _Scattered(write, tensor, len(inputs))))
                return output
        raise ConfigError("a map is written over in place by parts", do="write without in-place")

    def backward(
        self, end: int, signal: Tensor, count: int, reduce: Callable[[str, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Reduced gradients of the layers, (count * B, ...), class by class."""
        gradients = {end: signal}
        names = {node: name for name, node in self.layers.items()}
        found: dict[int, Tensor] = {}
        clampable = _clampable(self._steps, set(names))
        cut: set[int] = set()
        for step in reversed(self._steps):
            gradient = gradients.pop(step.output, None)
            if gradient is None:
                continue
            if step.output in names:
                found[step.output] = _apart_from(gradient, reduce(names[step.output], gradient))
            first = step.inputs[0]
            if (step.cuts and first in clampable) or (step.keeps_sign and step.output in cut):
                cut.add(first)
            flag = step.output in cut if step.clamps else step.cuts and first in cut
            for node, part in zip(step.inputs, step.back(gradient, count, flag), strict=True):
                gradients[node] = part if node not in gradients else gradients[node].add_(part)
        left = {node: g for node, g in gradients.items() if node in names}
        found |= {node: reduce(names[node], g) for node, g in left.items()}
        for name, node in self.layers.items():
            if node not in found:
                raise no_part(name)
        return {name: found[node] for name, node in self.layers.items()}


def no_part(layer: str) -> ConfigError:
    """What to raise where ``layer`` does not lead to the scores."""
    return ConfigError(
        f"layer {layer!r} has no part in the class maps", do="name a layer that they are made from"
    )


def _apart_from(gradient: Tensor, reduced: Tensor) -> Tensor:
    """What was made of a gradient, in memory of its own: the gradient is written over."""
    shared = reduced.untyped_storage().data_ptr() == gradient.untyped_storage().data_ptr()
    return reduced.clone() if shared else reduced


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


class _Scattered:
    """The way back from a tensor to what was written into it, and to what it held before."""

    def __init__(self, write: _Write, tensor: Tensor, inputs: int) -> None:
        self._layout = tensor.shape, tensor.stride()
        self._place = write.size, write.stride, write.offset - int(tensor.storage_offset())
        self._inputs = inputs

    def __call__(self, gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        parts = []
        for own in gradient.view(count, *self._layout[0]):
            before = own.new_empty_strided(*self._layout).copy_(own)
            inside = before.as_strided(*self._place)
            parts.append((inside.clone(), before))
            inside.zero_()
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))[: self._inputs]


class _Picked:
    """One output of an operation that has several."""

    def __init__(self, func: Any, index: int) -> None:
        self._func, self._index = func, index
        self.overloadpacket, self._schema = func.overloadpacket, func._schema

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._func(*args, **kwargs)[self._index]
