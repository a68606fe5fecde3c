"""``torch.compile`` for a network in training, which goes on without where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

__all__ = ["CompiledNetwork"]

T = TypeVar("T")

# Dropout as without: it is drawn by PyTorch's own generator.
_OPTIONS: dict[str, Any] = {"fallback_random": True}


class CompiledNetwork:
    """A network that is compiled when it is first called, and given up where that fails.

    It shares its parameters with ``net``, and what else it has is ``net``'s.

    Args:
        net: as it is.
        say: told in one line that compiling failed, as without a C++ compiler.
    """

    def __init__(self, net: nn.Module, say: Callable[[str], None]) -> None:
        self._net, self._say = net, say
        self._call: Callable[..., Any] = torch.compile(net, options=_OPTIONS)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """What the network gives, compiled or not."""
        return self._call(*inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def attempt(self, step: Callable[[], T]) -> T:
        """What ``step`` gives, which calls this network and may fail in its gradients only.

        If it fails it is done again with the network as it is, and so it is called from then on.
        """
        if self._call is self._net:
            return step()
        try:
            return step()
        except Exception as error:  # of any kind; if it is the network's own, it comes again
            self._call = self._net
            found = step()
            self._say(f"torch.compile failed, going on without it: {_first_line(error)}")
            return found


def _first_line(error: Exception) -> str:
    """The line of a long message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
