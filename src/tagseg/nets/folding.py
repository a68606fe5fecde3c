"""Batch norms in evaluation mode, folded into the convolutions before them.

There a norm is a factor and an offset for each channel, which the photo has no part in. The
convolution with its kernels times the factor and with the offset for a bias gives the same maps,
without a pass over them for the norm (Jacob et al., Quantization and Training of Neural Networks,
CVPR 2018, section 3.2, Eq. 14).

Kernels are multiplied anew in every pass, which costs little beside the maps, and parameters stay
those of the convolution and the norm: their names in files stay, and a training takes the same
steps. Why they are not merged once is in docs/decisions/0014-norms-folded-in-each-pass.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

__all__ = ["FoldingSequential", "in_turn"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FoldingSequential(nn.Sequential):
    """Layers one after another, see :func:`in_turn`; names and slices are nn.Sequential's."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps (B, C, H, W) of the first layer to those of the last."""
        return in_turn(self, input)


def in_turn(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Maps (B, C, H, W) through ``layers``, one after another.

    A batch norm right behind a convolution is folded into it where it takes its means and variances
    from those that it has learned. Layers with hooks are called as they are, so that these see
    what they are for.
    """
    convolution: nn.Conv2d | None = None  # not called yet, for a norm may follow
    for layer in layers:
        if convolution is not None:
            if _folds(layer, convolution):
                x, convolution = _normed(convolution, layer, x), None
                continue
            x, convolution = convolution(x), None
        if isinstance(layer, nn.Conv2d):
            convolution = layer
        else:
            x = layer(x)
    return x if convolution is None else convolution(x)


def _folds(layer: nn.Module, convolution: nn.Conv2d) -> TypeGuard[nn.BatchNorm2d]:
    return (
        isinstance(layer, nn.BatchNorm2d)
        and not layer.training
        and layer.running_var is not None
        and layer.num_features == convolution.out_channels
        and _plain(convolution, nn.Conv2d)
        and _plain(layer, nn.BatchNorm2d)
    )


def _plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling ``module`` does what its kind does and no more."""
    own = getattr(module.forward, "__func__", None) is kind.forward
    return own and not any(getattr(module, hooks) for hooks in _HOOKS)


def _normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(convolution(x))``, of learned means and variances."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = torch.rsqrt(variance + norm.eps)
    if convolution.bias is not None:
        mean = mean - convolution.bias
    if norm.affine:
        scale = scale * norm.weight
        bias = torch.addcmul(norm.bias, mean, scale, value=-1)
    else:
        bias = -mean * scale
    kernels = convolution.weight
    weight = (kernels * scale.view(-1, 1, 1, 1)).to(kernels.dtype)
    return convolution._conv_forward(x, weight, bias.to(kernels.dtype))
