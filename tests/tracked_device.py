"""A device that is none: its tensors say that they are on it, and compute on the CPU.

An operation whose arguments are on different devices stops, as on any device that is not the CPU;
so do ``numpy()`` and factories that forget the device. What the CPU's kernels are for is not found.
It has the name of torch's lazy device, whose gradients the engine computes without a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "lazy"
DEVICE = torch.device(NAME, 0)

_aten = torch.ops.aten
_MOVES = {_aten._to_copy, _aten.copy_, _aten.copy}  # which are there for several devices
_INDEXES = {
    _aten.index,
    _aten.index_put,
    _aten.index_put_,
    _aten._index_put_impl_,
}  # take the CPU's


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner!r})"

    def tolist(self) -> Any:
        """A copy for Python, which torch refuses to subclasses."""
        return self.inner.tolist()

    def untyped_storage(self) -> Any:
        """The memory, by whose address tensors that share it are known."""
        return self.inner.untyped_storage()

    def new_tensor(self, data: Any, *args: Any, **named: Any) -> torch.Tensor:
        """What makes tensors of lists hides the move to the device from modes."""
        return self.inner.new_tensor(data, *args, **named).to(DEVICE)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Mixed(AssertionError):
    """An operation whose arguments are on different devices."""


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """What the operation gives, on the device of its arguments or the one that is asked for."""
    flat = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    ours = [a for a in flat if isinstance(a, OnDevice)]
    asked = kwargs.get("device")
    packet = func.overloadpacket
    if ours and packet not in _MOVES:
        considered = tree_flatten(args[0])[0] if packet in _INDEXES else flat
        for other in considered:
            if not isinstance(other, OnDevice) and isinstance(other, torch.Tensor) and other.ndim:
                raise Mixed(f"{func} of tensors on {DEVICE} and one of {other.shape} on the CPU")
    if packet in _INDEXES and not isinstance(args[0], OnDevice) and ours:
        raise Mixed(f"{func} of a tensor on the CPU by one on {DEVICE}")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    of_inner = {id(a.inner): a for a in ours}
    plain = tree_map(lambda a: a.inner if isinstance(a, OnDevice) else a, (args, kwargs))
    found = func(*plain[0], **plain[1])
    on_device = bool(ours) if asked is None else torch.device(asked).type == NAME
    if packet in (_aten.copy_, _aten.copy):
        on_device = isinstance(args[0], OnDevice)

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in of_inner:
            same = of_inner[id(value)]
            assert same.shape == value.shape, f"{func} changes a tensor's form in place"
            return same
        return OnDevice(value) if on_device else value

    return tree_map(wrapped, found)


class Tracking(TorchDispatchMode):
    """Operations without a tensor that are to make one on the device, and those that move one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


@contextmanager
def tracked() -> Iterator[None]:
    """The device is there in the block; in this thread."""
    autocast = torch.autocast

    def of_cpu(kind: str, *args: Any, **named: Any) -> Any:
        return autocast("cpu" if kind == NAME else kind, *args, **named)

    def moved(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def made(data: Any, *args: Any, device: Any = None, **named: Any) -> torch.Tensor:
            if device is None or torch.device(device).type != NAME:
                return make(data, *args, device=device, **named)
            return make(data, *args, **named).to(device)

        return made

    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # as moved in place, objects stay
    try:
        with pytest.MonkeyPatch.context() as patch, Tracking():
            patch.setattr(torch, "autocast", of_cpu)
            for name in ("tensor", "as_tensor"):
                patch.setattr(torch, name, moved(getattr(torch, name)))
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
