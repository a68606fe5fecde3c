"""``torch.compile`` for a network in training, which goes on without where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

__all__ = ["compiled_network"]

# Dropout as without: it is drawn by PyTorch's own generator.
_OPTIONS: dict[str, Any] = {"fallback_random": True}


def compiled_network(net: nn.Module, say: Callable[[str], None]) -> nn.Module:
    """``net``, compiled when it is first called.

    It shares its parameters with ``net``, and methods other than the call are ``net``'s. Where
    compiling fails, as without a C++ compiler, ``say`` is told so in one line, and ``net`` is
    called as it is from then on.
    """
    return cast(nn.Module, _Compiled(net, say))


class _Compiled:
    def __init__(self, net: nn.Module, say: Callable[[str], None]) -> None:
        self._net, self._say = net, say
        self._call: Callable[..., Any] = torch.compile(net, options=_OPTIONS)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if self._call is self._net:
            return self._net(*inputs)
        state = torch.get_rng_state()
        try:
            return self._call(*inputs)
        except (
            Exception
        ) as error:  # of any kind; if the network itself fails, it does so below, too
            self._call = self._net
            torch.set_rng_state(state)
            found = self._net(*inputs)
            self._say(f"torch.compile failed, going on without it: {_first_line(error)}")
            return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


def _first_line(error: Exception) -> str:
    """The line of a long message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
