"""Grad-CAM: where gradients say that feature maps speak for a class (Selvaraju et al., 2017)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.networks import (
    INPUT,
    Layer,
    Scores,
    first_tensor,
    in_type_of,
    layer_names,
    logits,
    private_copy,
    scorer,
)

__all__ = ["GradCam", "grad_cam", "wanted_classes"]


def grad_cam(
    net: nn.Module,
    image_batch: Tensor,
    *,
    layer: Layer,
    wanted: Tensor | None = None,
    scores: Scores | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Grad-CAM of each class (Selvaraju et al., ICCV 2017, Eqs. 1 and 2).

    The weight of a feature map A^k for class c is the mean of d y^c / d A^k over positions, and the
    map of the class is ReLU(sum_k w_k^c A^k). At the feature maps before a mean and a linear layer
    that is :func:`class_activation_maps` without evidence against the class, up to a factor.

    Args:
        net: Any ``torch.nn.Module``, in evaluation mode. It is not touched: what runs is a copy of
            its structure that shares its weights.
        image_batch: Floats (B, 3, H, W), RGB in [0, 1], or as a network of others wants them.
        layer: The module that gives the feature maps A^k (B, K, h, w), as its dotted name in
            ``named_modules()`` or itself: usually the last with positions.
        wanted: Booleans (B, C), the classes to look at in each photo; maps of others are 0. None is
            all of them.
        scores: Makes class scores y^c (B, C), or (B, C, h, w) to be summed, of what the network
            gives; None is what it gives, or the ``logits`` of it.
        reshape: Makes (B, K, h, w) of what ``layer`` gives, as the tokens of a transformer:
            ``lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))``. It is used on
            their gradients too.

    Returns:
        Floats (B, C, h, w), 0 or more.

    Raises:
        ConfigError: The network is in training mode or has no such layer; or the layer gives no
            maps or does not lead to the scores.
        ShapeError: The scores are no class scores, or ``wanted`` is not of their shape.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        ...                     nn.Flatten(), nn.Linear(2, 2)).eval()
        >>> with torch.no_grad():
        ...     _ = net[0].weight.copy_(torch.eye(2, 3).view(2, 3, 1, 1)), net[0].bias.zero_()
        ...     _ = net[4].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 2.0]]))
        >>> photo = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])  # red, then green
        >>> grad_cam(net, photo, layer="1")[0].tolist()
        [[[0.5, 0.0]], [[0.0, 1.0]]]
    """
    maps = GradCam(net, layer, scores=scores, reshape=reshape)
    return maps.class_maps(in_type_of(net, image_batch), wanted)


class GradCam:
    """Grad-CAM of one network and layer; arguments and errors are those of :func:`grad_cam`.

    Threads may share one. The network's weights must not change while it is in use.
    """

    def __init__(
        self,
        net: nn.Module,
        layer: Layer,
        *,
        scores: Scores | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if any(module.training for module in net.modules()):
            raise ConfigError("the network is in training mode", do="call its eval() before")
        (self._name,) = layer_names(net, (layer,))
        if self._name == INPUT:
            raise ConfigError("the photo is no layer of features", do="name a module")
        # Not class_maps, which scorer would take: a score need not be the sum of such.
        self._score, self._reshape = scorer(net, logits if scores is None else scores), reshape
        self._net = private_copy(net, torch.float32, memory_format=torch.contiguous_format)
        self._seen = threading.local()
        self._net.get_submodule(self._name).register_forward_hook(self._cut)

    def of(self, wanted: Tensor | None) -> ClassMapsOf:
        """Maps over their maximum, as ``class_activation_maps`` averages views of them."""
        return ClassMapsOf(self.class_maps, wanted)

    def class_maps(self, x: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Eq. 2, (B, C, h, w), for photos (B, 3, H, W) and ``wanted`` (B, C) as in the function."""
        with torch.inference_mode(False), torch.enable_grad():
            self._seen.features = None
            found = self._score(self._net, x.detach().clone())
            scores = found if found.ndim == 2 else found.sum((2, 3))
            features = self._features(self._seen.features, len(x))
            asked = wanted_classes(scores, wanted)
            maps = features.new_zeros((*scores.shape, *features.shape[2:]))
            for c in asked.any(0).nonzero().flatten().tolist():
                gradient = self._gradient(scores[:, c].sum()).to(features.dtype)
                evidence = self._evidence(gradient, features)
                maps[:, c] = evidence.clamp(min=0) * asked[:, c, None, None]  # Eq. 2
        return maps

    def _evidence(self, gradient: Tensor, features: Tensor) -> Tensor:
        """Eq. 2 before the ReLU, (B, h, w), with the weights of Eq. 1."""
        return torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), features)

    def _cut(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Begin the graph at what the layer gives: nothing before it needs a derivative."""
        tensor = first_tensor(output)
        if tensor is None:
            raise ConfigError(f"layer {self._name!r} gives no tensor", do="name another")
        self._seen.features = leaf = tensor.detach().requires_grad_()
        after = leaf.clone()  # which what follows may write over
        if isinstance(output, Tensor):
            return after
        if isinstance(output, tuple | list):
            return type(output)([after, *output[1:]])
        raise ConfigError(f"layer {self._name!r} gives {type(output).__name__}", do="name another")

    def _features(self, given: Tensor | None, photos: int) -> Tensor:
        if given is None:
            raise self._no_part()
        maps = self._as_maps(given.detach())
        if maps.ndim != 4 or len(maps) != photos:
            raise ConfigError(
                f"layer {self._name!r} gives {tuple(maps.shape)}, which are no maps",
                do="name another, or give reshape= to make (B, C, h, w) of it",
            )
        return maps

    def _gradient(self, score: Tensor) -> Tensor:
        found: Tensor | None = None
        if score.requires_grad:
            (found,) = torch.autograd.grad(
                score, self._seen.features, retain_graph=True, allow_unused=True
            )
        if found is None:
            raise self._no_part()
        return self._as_maps(found)

    def _as_maps(self, tensor: Tensor) -> Tensor:
        return tensor if self._reshape is None else self._reshape(tensor)

    def _no_part(self) -> ConfigError:
        return ConfigError(
            f"layer {self._name!r} does not lead to the scores", do="name a layer that does"
        )


class ClassMapsOf:
    """Maps of wanted classes as ``class_activation_maps`` asks for them, each over its maximum.

    Gradients fall with the number of positions, so that views of several sizes would not count
    alike, and half precision, in which maps are kept, holds nothing so small.
    """

    def __init__(self, maps: Callable[[Tensor, Tensor | None], Tensor], wanted: Tensor | None):
        self._maps, self._wanted = maps, wanted

    def class_maps(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) in [0, 1] for photos (B, 3, H, W)."""
        maps = self._maps(x, self._wanted)
        peaks = maps.amax((2, 3), keepdim=True)
        return maps / torch.where(peaks > 0, peaks, 1)


def wanted_classes(scores: Tensor, wanted: Tensor | None) -> Tensor:
    """Booleans (B, C), all True for None; ShapeError if they are not of the shape of ``scores``."""
    if wanted is None:
        return torch.ones_like(scores, dtype=torch.bool)
    if wanted.shape != scores.shape:
        raise ShapeError(
            f"wanted is {tuple(wanted.shape)} for scores {tuple(scores.shape)}", do="give (B, C)"
        )
    return wanted.to(scores.device, torch.bool)
