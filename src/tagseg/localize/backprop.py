"""Class saliency by back-propagation: plain, guided and excitation, of many classes at once.

One forward pass is recorded, then the signals of all classes go back through it as one batch. The
network may be any ``torch.nn.Module``. It is not touched: what runs is a private copy of its
structure that shares its weights, and the record belongs to the call, so threads may use one
network, or one :class:`ClassSaliency`, at the same time.

How an operation is gone back through stands in :mod:`tagseg.localize.backward_rules`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.backward_rules import Method, TurnedKernels
from tagseg.localize.networks import (
    INPUT,
    Layer,
    Scores,
    first_tensor,
    layer_names,
    private_copy,
    scorer,
    weight_type,
)
from tagseg.localize.tape import Tape, no_part

__all__ = ["INPUT", "ClassSaliency", "Method", "Record", "channel_maximum"]

_PRECISIONS = (torch.float32, torch.bfloat16)
_METHODS = ("plain", "guided", "excitation")
_MOST_BYTES = 1 << 28  # of the largest gradient that is alive for a part of the classes


class ClassSaliency:
    """Gradients of class scores with respect to feature maps, all classes in one backward pass.

    The network is any ``torch.nn.Module``, and a layer any module in it. There are three methods.

    * ``plain`` is the derivative (Simonyan et al., 2014; Eq. 3 of Shimoda & Yanai, 2016).
    * ``guided`` lets a gradient back through a ReLU where its activation and the gradient are > 0
      (Springenberg et al., 2015). ReLUs are ``relu``, ``relu6``, ``hardtanh``, and ``clamp`` and
      ``threshold`` at 0, as modules or functions; other activations have their own derivative.
    * ``excitation`` lets a layer share each neuron's probability among its inputs in proportion to
      their excitation, activation times positive weight (Zhang et al., 2016, Eq. 1 to 5). Batch
      norms belong to the convolution before them, and biases take no part. The photo, which has no
      natural zero, counts from its darkest value. Activations must be 0 or more (section 3.2 of
      the paper): where a convolution or linear layer is given less, the network is refused, except
      for one with ``class_maps``, where inputs below 0 excite nothing. In a sum of two branches
      the part below 0 excites nothing anywhere.

    The score of a class is the sum of its map over positions: the backward pass starts with 1 at
    every position (Shimoda & Yanai, 3.3). Excitation starts with the map's positive part, scaled
    to sum 1. Where a network gives one number per class, the pass starts with 1 there.

    Args:
        net: The network, in evaluation mode. It takes float (B, 3, H, W), or as many channels as
            it was made for, normalised as it wants them. Its weights must not change while this
            object is in use. Hooks do not run.
        method: One of "plain", "guided" and "excitation".
        layers: Dotted names as in ``net.named_modules()``, the modules themselves, or "input" for
            the photo; the gradient is taken at the module's output. A module that is called
            several times counts with its last call.
        scores: Makes class scores (B, C) or class maps (B, C, h, w) of what the network gives, as
            ``lambda output: output["out"]``. If None, they are the network's ``class_maps(x)``
            where it has such a method, or else its output, or the ``logits`` of its output as in
            ``transformers``.
        reshape: Makes maps (B, C_l, h_l, w_l) of what a layer gives, for layers that do not give
            such: for a vision transformer with a class token and 14 x 14 patches
            ``lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))``. It is used
            on the gradients of all layers but the photo.
        precision: Type of convolutions, float32 or bfloat16; with the latter a copy of the weights
            is kept.

    Raises:
        ConfigError: There is no such method, layer or precision, or the network is in training
            mode or cannot be copied.

    Examples:
        A network of one's own, its class scores, and a layer by name:

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        ...                     nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
        >>> with torch.no_grad():
        ...     for layer, weight in ((net[0], torch.eye(2, 3)), (net[4], torch.eye(2))):
        ...         _ = layer.weight.copy_(weight.view_as(layer.weight))
        ...     _ = net[0].bias.zero_()
        >>> photo = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]]]])  # red, then green
        >>> record = ClassSaliency(net, "guided", layers=["input", "1"]).forward(photo)
        >>> record.class_maps.flatten().tolist()
        [0.5, 1.0]
        >>> record.saliency([0, 1])["input"][0].tolist()  # where each class is seen
        [[[0.5, 0.0]], [[0.0, 0.5]]]
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method = "guided",
        layers: Sequence[Layer] = (INPUT,),
        *,
        scores: Scores | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        if method not in _METHODS:
            raise ConfigError(f"no back-propagation {method!r}", do=f"use {', '.join(_METHODS)}")
        if any(module.training for module in net.modules()):
            raise ConfigError("the network is in training mode", do="call its eval() before")
        if precision not in _PRECISIONS:
            raise ConfigError(f"precision {precision}", do="use float32 or bfloat16")
        self.method, self.layers, self.precision = method, layer_names(net, layers), precision
        self._score, self._reshape = scorer(net, scores), reshape
        # Our own networks never rely on the order of values in memory; others call view().
        self._ours = scores is None and hasattr(net, "class_maps")
        self._format = torch.channels_last if self._ours else torch.contiguous_format
        self._dtype = weight_type(net)
        self._net = private_copy(net, precision, memory_format=self._format)
        self._kernels = TurnedKernels(self._net.parameters())
        self._recording = threading.local()
        self._made_of = (net, method, layers, scores, reshape, precision)
        for name, module in self._net.named_modules(remove_duplicate=False):
            if name in self.layers:
                module.register_forward_hook(self._note(name))

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, self._made_of  # in another process

    @torch.inference_mode(False)  # where operations would not come in their parts
    @torch.no_grad()
    def forward(self, images: Tensor) -> Record:
        """Record a forward pass of photos.

        Args:
            images: Floats (B, 3, H, W), RGB in [0, 1] for the networks of tagseg; for others of the
                channels and values that they were made for. They are brought to the type of the
                network's weights.

        Returns:
            The record, which gives gradients of any classes.

        Raises:
            ShapeError: The photos or the network's scores are of another shape.
            ConfigError: A layer does not lead to the scores, or gives no tensor; or the method
                cannot hold on this network: guided back-propagation without any ReLU to guide,
                excitation of an operation without a rule or of activations below 0.
        """
        channels = (3,) if self._ours else range(1, images.shape[1] + 1) if images.ndim > 1 else ()
        if images.ndim != 4 or images.shape[1] not in channels or 0 in images.shape:
            raise ShapeError(f"images have shape {tuple(images.shape)}", do="give (B, 3, H, W)")
        if not images.is_floating_point():
            raise ShapeError(f"images are {images.dtype}", do="give floats, RGB in [0, 1]")
        images = images.detach().to(
            self._dtype or images.dtype, memory_format=self._format, copy=True
        )
        tape = Tape(self.method, self._kernels, strict=not self._ours)
        if INPUT in self.layers:
            tape.watch(INPUT, images)
        self._recording.tape = tape
        low = self.precision != torch.float32
        try:
            # The last mode keeps attention from taking a way of its own that has no derivative.
            autocast = torch.autocast(images.device.type, self.precision, enabled=low)
            with autocast, tape, BaseTorchFunctionMode():
                maps = self._score(self._net, images)
        finally:
            del self._recording.tape
        end = tape.node_of(maps)
        for layer in self.layers:
            if layer not in tape.layers or end is None:
                raise no_part(layer)
        if self.method == "guided" and end is not None:
            tape.check_guided(end)
        return Record(tape, maps, self._reshape)

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                raise ConfigError(
                    f"layer {name!r} gives {type(output).__name__}", do="name one in it"
                )
            self._recording.tape.watch(name, tensor)

        return hook


def _made_again(
    net: nn.Module,
    method: Method,
    layers: Sequence[Layer],
    scores: Scores | None,
    reshape: Callable[[Tensor], Tensor] | None,
    precision: torch.dtype,
) -> ClassSaliency:
    return ClassSaliency(net, method, layers, scores=scores, reshape=reshape, precision=precision)


class Record:
    """A recorded forward pass of B photos, as :meth:`ClassSaliency.forward` makes it.

    Attributes:
        class_maps: Floats (B, C, h, w), the network's score per class and position; h and w are 1
            where it gives one score per class.

    Examples:
        One forward pass serves all classes:

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Conv2d(3, 2, 1, bias=False).eval()
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0, -3], [0, 2, 0]]).view(2, 3, 1, 1))
        >>> record = ClassSaliency(net, "plain").forward(torch.rand(1, 3, 1, 2))
        >>> record.gradients([0])["input"][0, 0, :, 0, 0].tolist()  # of each channel
        [1.0, 0.0, -3.0]
        >>> record.saliency([0, 1])["input"][0].tolist()
        [[[3.0, 3.0]], [[2.0, 2.0]]]
    """

    def __init__(
        self, tape: Tape, maps: Tensor, reshape: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._tape, self._maps, self._reshape = tape, maps, reshape
        self._end: int = tape.node_of(maps)  # type: ignore[assignment]
        self.class_maps = _at_least_single(maps if maps.ndim == 4 else maps[:, :, None, None])

    def gradients(self, classes: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Gradient of each class at each layer.

        Args:
            classes: Indices (K,) for all photos, or (B, K) for each.

        Returns:
            Floats (B, K, C_l, h_l, w_l) by layer; without a ``reshape``, where the layer gives
            something else than maps, (B, K) before what it gives for a photo.

        Raises:
            ShapeError: The indices do not fit.
            ConfigError: A layer does not give photos along its first axis.
        """
        return self.reduced(classes, _at_least_single)

    def saliency(self, classes: Tensor | Sequence[int]) -> dict[str, Tensor]:
        """Largest absolute gradient over channels, by layer.

        It is M of Eq. 3 of Shimoda & Yanai, at the layer's own size; with excitation it is the sum
        over channels, the marginal probability of a position.

        Args:
            classes: Indices (K,) for all photos, or (B, K) for each.

        Returns:
            Floats (B, K, h_l, w_l) by layer.

        Raises:
            ShapeError: The indices do not fit.
            ConfigError: A layer does not give maps, as in a transformer, and ``reshape`` does not
                make any of what it gives.
        """
        reduce = _channel_sum if self._tape.method == "excitation" else channel_maximum

        def of_maps(gradient: Tensor) -> Tensor:
            if gradient.ndim != 4:
                raise ConfigError(
                    f"a layer gives {tuple(gradient.shape[1:])} for a photo, which is no map",
                    do="give reshape= to make (B, C, h, w) of it",
                )
            return reduce(gradient)

        return self.reduced(classes, of_maps)

    @torch.inference_mode(False)  # where PyTorch has no derivatives
    @torch.no_grad()
    def reduced(
        self, classes: Tensor | Sequence[int], reduce: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Gradients as of :meth:`gradients`, each put through ``reduce`` at once.

        So a layer's gradients need not be kept. Classes go back in parts where memory asks for it.

        Args:
            classes: Indices (K,) for all photos, or (B, K) for each.
            reduce: Makes anything (N, ...) of gradients (N, C_l, h_l, w_l).

        Returns:
            What ``reduce`` gives, as (B, K, ...), by layer.

        Raises:
            ShapeError: The indices do not fit.
            ConfigError: A layer does not give photos along its first axis.
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
        photos, count = classes.shape
        signal = _start(self._maps, classes, excitation=self._tape.method == "excitation")

        def of_layer(name: str, gradient: Tensor) -> Tensor:
            if self._reshape is not None and name != INPUT:
                shape = self._tape.shapes[name]
                gradient = torch.cat([self._reshape(g) for g in gradient.view(count, *shape)])
            if len(gradient) != count * photos:
                raise ConfigError(
                    f"layer {name!r} gives {self._tape.shapes[name]}, not {photos} photos first",
                    do="give reshape= to make (B, C, h, w) of it",
                )
            return reduce(gradient)

        with torch.autocast(signal.device.type, enabled=False):
            return self._tape.backward(self._end, signal, count, of_layer)


def channel_maximum(gradient: Tensor) -> Tensor:
    """Largest absolute value over channels (Shimoda & Yanai 2016, the maximum of Eq. 3).

    Args:
        gradient: Floats (N, C, h, w).

    Returns:
        Float32 (N, h, w), or float64 where the gradient is.

    Examples:
        >>> import torch
        >>> channel_maximum(torch.tensor([[[[1.0, 0.0]], [[-3.0, 0.5]]]])).tolist()
        [[[3.0, 0.5]]]
    """
    # Two passes: torch.aminmax over channels is many times slower on the CPU.
    return _at_least_single(torch.maximum(gradient.amax(1), gradient.amin(1).neg_()))


def _at_least_single(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _channel_sum(gradient: Tensor) -> Tensor:
    return _at_least_single(gradient).sum(1)


def _start(maps: Tensor, classes: Tensor, *, excitation: bool) -> Tensor:
    """Signals (K * B, C, h, w) of classes (B, K) that set out from class maps (B, C, h, w)."""
    photos, count = classes.shape
    signal = maps.new_zeros(count, *maps.shape)
    own = torch.arange(photos, device=maps.device)
    by_place = excitation and maps.ndim == 4  # a score alone is all of the probability
    for k in range(count):
        chosen = maps[own, classes[:, k]]
        if by_place:
            chosen = chosen.clamp(min=0)
            total = chosen.sum((1, 2), keepdim=True).clamp(min=1e-30)
        signal[k, own, classes[:, k]] = chosen / total if by_place else torch.ones_like(chosen)
    whole = signal.view(count * photos, *maps.shape[1:])
    return whole.to(memory_format=torch.channels_last) if maps.ndim == 4 else whole
