"""A network whose batch several processes share: what comes out is the whole batch's.

Each process computes the outputs of its own photos, and all have the outputs of all: so a loss is
that of the whole batch, whatever it normalises over. Each takes the gradient of its own photos'
outputs, and the sum of the processes' gradients is that of one process with the whole batch.

Two kinds of layers are more than functions of one photo, and are made exact: dropout takes its part
of the draw for the whole batch, and batch norm in training the whole batch's statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tagseg.ranks.alone import Ranks

__all__ = ["shared_network"]

_OTHER_DRAWS = {
    *(functional.alpha_dropout, functional.feature_alpha_dropout, functional.dropout1d),
    *(functional.dropout3d, functional.rrelu, functional.gumbel_softmax),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.bernoulli, torch.multinomial),
    *(torch.rand_like, torch.randn_like, torch.randint_like, torch.normal),
    *(Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.exponential_),
}


def shared_network(net: nn.Module, ranks: Ranks) -> nn.Module:
    """``net`` for batches that ``ranks`` share; the same for one process.

    It is called, and methods of it are, with tensors whose first dimension is the photos of the
    whole batch. Tensors that come back have rows in the order of photos.
    """
    if ranks.size == 1:
        return net
    return cast(nn.Module, _Shared(net, ranks))


class _Shared:
    def __init__(self, net: nn.Module, ranks: Ranks) -> None:
        self._net, self._ranks = net, ranks

    def __call__(self, *inputs: Tensor) -> Any:
        return self._of_all(self._net, inputs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._net, name)
        return lambda *inputs: self._of_all(method, inputs)

    def _of_all(self, function: Callable[..., Any], inputs: Iterable[Tensor]) -> Any:
        parts = [tensor[self._ranks.part(len(tensor))] for tensor in inputs]
        empty = len(parts[0]) == 0
        if empty:  # layers need something to compute with; nothing is made of what comes out
            parts = [tensor[:1] for tensor in inputs]
        with _Whole(self._ranks, empty=empty):
            found = function(*parts)
        rows = (found,) if isinstance(found, Tensor) else found
        joined = [self._ranks.joined(one[:0] if empty else one) for one in rows]
        return joined[0] if isinstance(found, Tensor) else tuple(joined)


class _Whole(TorchFunctionMode):
    """Layers that are more than functions of one photo compute as if the batch were whole."""

    def __init__(self, ranks: Ranks, *, empty: bool) -> None:
        super().__init__()
        self._ranks, self._empty = ranks, empty

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func in (functional.dropout, functional.dropout2d):
            return self._dropout(func, *args, **named)
        if func is functional.batch_norm:
            return self._batch_norm(*args, **named)
        drops = func is functional.scaled_dot_product_attention and named.get("dropout_p")
        if func in _OTHER_DRAWS or drops:
            raise NotImplementedError(
                f"{func.__name__} draws random numbers within a network, which processes that "
                "share a batch would draw differently"
            )
        return func(*args, **named)

    def _dropout(
        self,
        func: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        """The part of the draw for all rows; drawn by PyTorch's own, from ones."""
        if not training or p == 0:
            return input
        lengths = self._ranks.lengths(0 if self._empty else len(input))
        shape = (sum(lengths), *input.shape[1:])
        if func is functional.dropout2d:
            shape = (*shape[:2], 1, 1)
        whole = input.detach().new_ones(shape)
        last = torch.channels_last
        if (
            input.ndim == 4
            and not input.is_contiguous()
            and input.is_contiguous(memory_format=last)
        ):
            whole = whole.contiguous(memory_format=last)  # as the draw goes through memory
        factors = func(whole, p, True)
        if self._empty:
            return input
        start = sum(lengths[: self._ranks.rank])
        return input * factors[start : start + len(input)]

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Ioffe and Szegedy 2015, Algorithm 1, with the whole batch's means and variances."""
        if not training:
            return functional.batch_norm(
                input, running_mean, running_var, weight, bias, False, momentum, eps
            )
        with torch.autocast(input.device.type, enabled=False):
            return self._normed(input, running_mean, running_var, weight, bias, momentum, eps)

    def _normed(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        over = [dim for dim in range(x.ndim) if dim != 1]
        counted = x[:0] if self._empty else x
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = sum(self._ranks.lengths(counted.numel() // x.shape[1]))
        mean = self._ranks.total(counted.sum(over)) / count
        centred = counted - mean.view(shape)
        variance = self._ranks.total(centred.square().sum(over)) / count
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                unbiased = variance * (count / max(1, count - 1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        out = (x - mean.view(shape)) * torch.rsqrt(variance + eps).view(shape)
        if weight is not None:
            out = out * weight.view(shape)
        if bias is not None:
            out = out + bias.view(shape)
        return out.to(input.dtype)
