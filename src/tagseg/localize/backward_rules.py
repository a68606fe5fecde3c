"""How each operation is gone back through: the rules of plain, guided and excitation backprop.

A rule is made while the forward pass runs and keeps only what going back needs. Gradients are
(K * B, C, H, W), the B photos of the first class first; a rule may overwrite the one it is given.
What has no rule goes back by PyTorch's own derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from tagseg.errors import ConfigError
from tagseg.threads import in_threads

__all__ = [
    "ByAutograd",
    "Call",
    "Method",
    "Step",
    "TurnedKernels",
    "is_constant",
    "is_convolution",
    "is_relu",
    "overwrites",
    "step_of",
]

Method = Literal["plain", "guided", "excitation"]
Back = Callable[[Tensor, int, bool], tuple[Tensor, ...]]
"""(gradient of the output, classes K, flag) -> gradients of the inputs.

The flag tells a guided ReLU that the gradient was cut at 0, and a convolution to cut it.
"""

_aten = torch.ops.aten
_SMALL = 1e-30
_LARGE = 1 << 22  # entries of a kernel that does not fit into a cache
_SMALL_MAP = 1 << 10  # positions


@dataclass(frozen=True)
class Call:
    """An operation as it was called: ``places`` are the arguments that gradients are wanted of."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    places: tuple[int, ...]

    @property
    def output(self) -> Tensor:
        """The result, the first of several."""
        output: Tensor = self.result[0] if isinstance(self.result, tuple) else self.result
        return output


@dataclass(frozen=True)
class Step:
    """A recorded operation.

    Attributes:
        inputs, output: nodes.
        clamps: the output's gradient is cut at 0 first (a guided ReLU).
        keeps_sign: the input's gradient is the output's, moved: cutting may come before or after.
        cuts: can cut its input's gradient at 0 at no cost.
        bends: is an activation function other than a ReLU.
    """

    inputs: tuple[int, ...]
    output: int
    back: Back
    clamps: bool = False
    keeps_sign: bool = False
    cuts: bool = False
    bends: bool = False


def step_of(
    call: Call,
    inputs: tuple[int, ...],
    output: int,
    method: Method,
    *,
    kernels: TurnedKernels,
    before: Step | None = None,
    of_photo: bool = False,
    strict: bool = False,
) -> Step:
    """The step that goes back through ``call``.

    Args:
        kernels: of the network, for the way back.
        before: the step that made the first input.
        of_photo: that input is the photo, brought to another scale at most.
        strict: whether excitation refuses a layer with inputs below 0.

    Raises:
        ConfigError: excitation is not defined for this operation, or not for its inputs.
    """
    kind = call.func.overloadpacket
    if method == "excitation":
        if strict and kind in _WEIGHTED and not of_photo:
            _check_excitable(call, kind)
        return Step(inputs, output, _excited(call, kind, kernels, before, of_photo))
    if kind in _RELU:
        return Step(inputs, output, _relu(call, method), clamps=method == "guided")
    if kind in _HARDTANH:
        return Step(inputs, output, _hardtanh(call, method), clamps=method == "guided")
    if method == "guided" and is_relu(call.func, call.args, call.kwargs):
        return Step(inputs, output, _clipped(call), clamps=True)
    if kind is _aten.convolution and call.output.ndim == 4:
        return Step(inputs, output, _convolution(call, kernels), cuts=True)
    if kind is _aten.max_pool2d_with_indices and call.output.ndim == 4:
        return Step(inputs, output, _max_pool(call), keeps_sign=_apart(call))
    return Step(inputs, output, _linear(call, kind), bends=kind in _BENDING)


def is_convolution(call: Call) -> bool:
    """Whether the output is more than its input at another scale."""
    return call.func.overloadpacket in (_aten.convolution, _aten.addmm, _aten.mm)


def is_relu(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether it cuts at 0, and perhaps at a number above."""
    kind = func.overloadpacket
    if kind in (*_RELU, *_HARDTANH):
        return True
    if kind in _CLAMP:
        given = dict(zip(("min", "max"), args[1:], strict=False)) | dict(kwargs)
        return _is_number(given.get("min"), 0)
    return kind in _THRESHOLD and all(_is_number(number, 0) for number in args[1:])


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def is_constant(func: Any) -> bool:
    """Whether the output takes no more than shape and type from the inputs."""
    name: str = func._schema.name.removeprefix("aten::")
    return name.startswith("new_") or name.endswith("_like")


def overwrites(func: Any, method: Method) -> bool:
    """Whether a rule needs the inputs that ``func`` would write over."""
    kinds = (*_RELU, *_HARDTANH, *(() if method == "excitation" else _ADD))
    return bool(func._schema.is_mutable) and func.overloadpacket not in kinds


_RELU = (_aten.relu, _aten.relu_)
_HARDTANH = (_aten.hardtanh, _aten.hardtanh_)  # ReLU6 among them
_CLAMP = (_aten.clamp, _aten.clamp_, _aten.clamp_min, _aten.clamp_min_)
_THRESHOLD = (_aten.threshold, _aten.threshold_)
_WEIGHTED = (_aten.convolution, _aten.addmm, _aten.mm)
_ATTENTION = (
    *(_aten._scaled_dot_product_efficient_attention, _aten._scaled_dot_product_cudnn_attention),
)
_BENDING = tuple(
    getattr(_aten, name + ending)
    for name in (
        *("gelu", "silu", "mish", "elu", "celu", "leaky_relu", "hardswish", "hardsigmoid"),
        *("sigmoid", "tanh"),
    )
    for ending in ("", "_")
) + (_aten.softplus, _aten._prelu_kernel, _aten.rrelu_with_noise)
_BATCH_NORM = (_aten.native_batch_norm, _aten._native_batch_norm_legit_no_training)
_ADD = (_aten.add, _aten.add_)
# They change nothing where they keep the shape.
_COPYING = (
    *(_aten.slice, _aten.view, _aten._unsafe_view, _aten.expand, _aten.squeeze, _aten.unsqueeze),
    *(_aten.cat, _aten.clone, _aten._to_copy, _aten.alias, _aten.detach),
)
# They move values, so that a signal for the one is a signal for the other.
_ROUTING = (
    *(*_COPYING, _aten.select, _aten.permute, _aten.transpose, _aten.constant_pad_nd),
    *(_aten.replication_pad2d, _aten.reflection_pad2d, _aten.max_unpool2d),
    *(_aten.split, _aten.split_with_sizes, _aten.unbind, _aten.stack, _aten.flip, _aten.roll),
    *(_aten.t, _aten.pixel_shuffle, _aten.channel_shuffle),
)
_SCALING = (_aten.sub, _aten.div, _aten.mul, _aten.sub_, _aten.div_, _aten.mul_)
_AVERAGING = (
    *(_aten.mean, _aten.sum, _aten.avg_pool2d, _aten._adaptive_avg_pool2d, *_ADD),
    *(_aten.upsample_bilinear2d, _aten.upsample_nearest2d),
)
_BY_SHAPE = (*_ROUTING, *_AVERAGING)  # what their inputs hold does not matter on the way back


def _relu(call: Call, method: Method) -> Back:
    output = call.output

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        if method == "guided" and not cut:
            gradient.clamp_(min=0)
        by_class = _by_class(gradient, count)
        _aten.threshold_backward.grad_input(
            by_class, output.expand(by_class.shape), 0, grad_input=by_class
        )
        return (gradient,)

    return back


def _hardtanh(call: Call, method: Method) -> Back:
    # As autograd, by the input where there still is one: what follows may write over the output.
    kept = call.args[0]
    given, usual = list(call.args[1:]), [-1.0, 1.0]
    low, high = given + usual[len(given) :]

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        if method == "guided" and not cut:
            gradient.clamp_(min=0)
        by_class = _by_class(gradient, count)
        _aten.hardtanh_backward.grad_input(
            by_class, kept.expand(by_class.shape), low, high, grad_input=by_class
        )
        return (gradient,)

    return back


def _clipped(call: Call) -> Back:
    """A guided ReLU that is written as a clamp or threshold."""
    positive, derivative = call.args[0] > 0, ByAutograd(call)

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        if not cut:
            gradient.clamp_(min=0)
        _by_class(gradient, count).mul_(positive)
        return derivative(gradient, count, False)

    return back


def _convolution(call: Call, kernels: TurnedKernels) -> Back:
    x, weight = call.args[:2]
    geometry = _Geometry(*call.args[3:9])
    shape = x.shape[1:]

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        return (geometry.transposed(gradient, weight, shape, kernels, cut=cut),)

    return back


def _has_fused_relu(gradient: Tensor) -> bool:
    if gradient.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    low = gradient.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return low or gradient.dtype == torch.float32


class TurnedKernels:
    """Kernels for the way back, where those of ``lasting`` weights are made once."""

    def __init__(self, lasting: Iterable[Tensor] = ()) -> None:
        self._lasting = {id(weight): weight for weight in lasting}
        self._made: dict[tuple[int, str], Tensor] = {}

    def turned(self, weight: Tensor, groups: int) -> Tensor:
        """By 180 degrees, inputs and outputs exchanged, for a convolution of stride 1."""

        def make() -> Tensor:
            turned = weight.flip(2, 3)
            if groups == 1:
                turned = turned.transpose(0, 1)
            return turned.contiguous(memory_format=torch.channels_last)

        return self._once("turned", weight, make)

    def matrix(self, weight: Tensor) -> Tensor:
        """One row for each place of the kernel and input, (h * w * inputs, outputs)."""
        return self._once(
            "matrix", weight, lambda: weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()
        )

    def _once(self, form: str, weight: Tensor, make: Callable[[], Tensor]) -> Tensor:
        made = self._made.get((id(weight), form))
        if made is None:
            made = make()
            if self._lasting.get(id(weight)) is weight:
                # Two threads may both make it, which does no harm.
                self._made[id(weight), form] = made
        return made


@dataclass(frozen=True)
class _Geometry:
    """How a convolution lies."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    turned_round: bool  # a transposed convolution
    output_padding: list[int]
    groups: int

    def by_output(self, weight: Tensor, factors: Tensor) -> Tensor:
        """The weight times a factor (C,) of each output channel."""
        if not self.turned_round:
            return weight * factors[:, None, None, None]
        grouped = weight.unflatten(0, (self.groups, -1))
        return (grouped * factors.view(self.groups, 1, -1, 1, 1)).flatten(0, 1)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution without bias."""
        parts = (self.stride, self.padding, self.dilation, self.turned_round)
        result: Tensor = _aten.convolution(
            x, weight, None, *parts, self.output_padding, self.groups
        )
        return result

    def transposed(
        self,
        gradient: Tensor,
        weight: Tensor,
        shape: torch.Size,
        kernels: TurnedKernels,
        *,
        cut: bool = False,
    ) -> Tensor:
        """Gradient of an input (N, *shape), with ``cut`` its positive part.

        With stride 1 that is a convolution with the kernel turned, which runs faster forward. A
        large kernel on a small map (VGG's fc6) is read more often than it is used there; a matrix
        product reads it once.
        """
        if self._is_large(weight, gradient):
            back = self._through_matrix(gradient, kernels.matrix(weight), weight.shape[2:])
            return back.clamp_(min=0) if cut else back
        if not self._runs_forward(weight):
            x = gradient.new_empty(len(gradient), *shape)
            x = x.to(memory_format=torch.channels_last)
            back = _aten.convolution_backward(
                *(gradient, x, weight, None, self.stride, self.padding, self.dilation),
                *(self.turned_round, self.output_padding, self.groups, [True, False, False]),
            )[0]
            return back.clamp_(min=0) if cut else back
        turned = kernels.turned(weight, self.groups)
        padding = [
            d * (k - 1) - p
            for d, k, p in zip(self.dilation, weight.shape[2:], self.padding, strict=True)
        ]
        one = [1, 1]
        if cut and _has_fused_relu(gradient):
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
                *(gradient, turned, None, padding, one, self.dilation, self.groups),
                *("relu", [], ""),
            )
            return fused
        parts = (one, padding, self.dilation, False, [0, 0], self.groups)
        result: Tensor = _aten.convolution(gradient, turned, None, *parts)
        return result.clamp_(min=0) if cut else result

    def _is_large(self, weight: Tensor, gradient: Tensor) -> bool:
        area = gradient.shape[2] * gradient.shape[3]
        unit = list(self.stride) == list(self.dilation) == [1, 1]
        fits = unit and self.groups == 1 and not self.turned_round
        return (
            fits and _has_fused_relu(gradient) and weight.numel() >= _LARGE and area <= _SMALL_MAP
        )

    def _through_matrix(self, gradient: Tensor, matrix: Tensor, kernel: torch.Size) -> Tensor:
        photos, _, height, width = gradient.shape
        tall, wide = kernel
        rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        products: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
        parts = products.view(photos, height, width, tall, wide, -1)
        shape = (photos, height + tall - 1, width + wide - 1, parts.shape[-1])
        result = gradient.new_zeros(shape)
        for y in range(tall):
            for x in range(wide):
                result[:, y : y + height, x : x + width] += parts[:, :, :, y, x]
        top, left = self.padding
        inner = result[:, top : shape[1] - top, left : shape[2] - left]
        return inner.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _runs_forward(self, weight: Tensor) -> bool:
        depthwise = weight.shape[1] == 1 and self.groups == len(weight)
        return (
            not self.turned_round
            and list(self.stride) == [1, 1]
            and (self.groups == 1 or depthwise)
            and all(
                d * (k - 1) >= p
                for d, k, p in zip(self.dilation, weight.shape[2:], self.padding, strict=True)
            )
        )


def _max_pool(call: Call) -> Back:
    x, (output, indices), geometry = call.args[0], call.result, _pool_geometry(call)
    fast = _apart(call) and x.device.type == "cpu" and x.dtype in _SAME_SIZE
    kept = None if fast else indices  # 64 bits a position
    version = output._version

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        if fast:
            written_over = output._version != version  # by what follows, as autograd allows
            maxima = _aten.max_pool2d_with_indices(x, *geometry)[0] if written_over else output
            return (_unpooled(gradient, x, maxima, geometry[1]),)
        by_class = _by_class(gradient, count)
        parts = [
            _aten.max_pool2d_with_indices_backward(part, x, *geometry, kept) for part in by_class
        ]
        return (torch.cat(parts),)

    return back


def _pool_geometry(call: Call) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """Kernel, stride, padding, dilation and whether a window may hang over the end."""
    given = list(call.args[1:])
    kernel = given[0]
    rest = [kernel, [0, 0], [1, 1], False]
    stride, padding, dilation, ceil_mode = [*given[1:], *rest[len(given) - 1 :]]
    pairs = [list(p) * (3 - len(p)) for p in (kernel, stride or kernel, padding, dilation)]
    return pairs[0], pairs[1], pairs[2], pairs[3], bool(ceil_mode)


def _apart(call: Call) -> bool:
    """Whether the windows of a pool tile its input."""
    kernel, stride, padding, dilation, _ = _pool_geometry(call)
    return kernel == stride and padding == [0, 0] and dilation == [1, 1]


# Bit patterns are enough to find a maximum again; numba knows no bfloat16.
_SAME_SIZE = {torch.float32: torch.float32, torch.bfloat16: torch.int16}


def _unpooled(gradient: Tensor, x: Tensor, output: Tensor, window: list[int]) -> Tensor:
    """Gradients (N, C, h, w) at the first maximum of their windows in x (B, C, H, W)."""
    arrays = [_rows(t) for t in (gradient, x, output)]
    result = torch.empty(
        len(gradient), *x.shape[1:], dtype=x.dtype, memory_format=torch.channels_last
    )
    whole = _rows(result)
    threads = torch.get_num_threads()
    blocks = np.array_split(np.arange(output.shape[2]), threads)
    jobs = [(n, rows[0], rows[-1] + 1) for rows in blocks if rows.size for n in range(len(whole))]

    def one(job: tuple[int, int, int]) -> None:
        n, start, stop = job
        b = n % len(x)
        _unpool(arrays[0][n], arrays[1][b], arrays[2][b], *window, start, stop, whole[n])  # type: ignore[call-arg]

    in_threads(one, jobs, threads)
    return result


def _rows(tensor: Tensor) -> npt.NDArray[Any]:
    """(N, C, H, W) as an array (N, H, W, C), contiguous."""
    rows = tensor.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return rows.view(_SAME_SIZE[tensor.dtype]).numpy()


@njit(nogil=True, cache=True, error_model="numpy")
def _unpool(gradient, x, output, tall, wide, start, stop, result):  # type: ignore[no-untyped-def]
    """Rows start..stop of a gradient (h, w, C), into the rows of ``result`` below their windows."""
    height, width, channels = x.shape
    free = np.empty(channels, np.bool_)
    last_row = height if stop == output.shape[0] else stop * tall
    result[start * tall : last_row] = 0
    for i in range(start, stop):
        for j in range(output.shape[1]):
            free[:] = True
            for y in range(i * tall, min((i + 1) * tall, height)):
                for z in range(j * wide, min((j + 1) * wide, width)):
                    for c in range(channels):
                        here = free[c] & (x[y, z, c] == output[i, j, c])
                        result[y, z, c] = gradient[i, j, c] if here else 0
                        free[c] = free[c] & (not here)


def _linear(call: Call, kind: Any) -> Back:
    """Rules of operations that plain and guided back-propagation treat alike."""
    if kind in _BATCH_NORM and not _in_training(call) and call.output.ndim == 4:
        scale = _batch_norm_scale(call)

        def normed(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
            return (gradient.mul_(scale.to(gradient.dtype)),)

        return normed
    if kind in _ADD and _adds_alike(call):
        return _both
    if kind in _COPYING and len(call.places) == 1 and call.args[0].shape == call.output.shape:
        dtype = call.args[0].dtype
        return lambda gradient, count, cut: (gradient.to(dtype),)
    return ByAutograd(call)


def _in_training(call: Call) -> bool:
    return call.func.overloadpacket is _aten.native_batch_norm and bool(call.args[5])


def _batch_norm_scale(call: Call) -> Tensor:
    """What each channel is multiplied by, (C, 1, 1)."""
    _, weight, _, _, variance = call.args[:5]
    scale = torch.rsqrt(variance + call.args[-1])
    return (scale if weight is None else scale * weight)[:, None, None]


def _adds_alike(call: Call) -> bool:
    parts, total = [call.args[place] for place in call.places], call.output
    alike = all(p.shape == total.shape and p.dtype == total.dtype for p in parts)
    return len(parts) == 2 and call.kwargs.get("alpha", 1) == 1 and alike


def _both(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
    return gradient, gradient.clone()


class ByAutograd:
    """PyTorch's own derivative, class by class.

    Attributes:
        held: The arguments; a tape puts copies of them here before they are written over.
        by_value: Whether the derivative depends on them at all.
    """

    def __init__(self, call: Call) -> None:
        self.held = list(call.args)
        self.by_value = call.func.overloadpacket not in _BY_SHAPE
        self._call = call
        if call.func.overloadpacket in _ATTENTION:
            self.held[4] = True  # a forward pass without gradients left out what they need

    def __call__(self, gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        """Gradients of the inputs, (K * B, ...) each."""
        call = self._call
        with torch.enable_grad():
            args = [_leaf(a) if place in call.places else a for place, a in enumerate(self.held)]
            # An operation in place may not work on a leaf, nor on what the forward pass holds.
            given = [a.clone() if isinstance(a, Tensor) and a.requires_grad else a for a in args]
            if call.func._schema.is_mutable and 0 not in call.places:
                given[0] = given[0].clone()
            result = call.func(*given, **call.kwargs)
            output = result[0] if isinstance(result, tuple) else result
        if not output.requires_grad:
            raise ConfigError(f"{call.func.overloadpacket} has no derivative")
        leaves = [args[place] for place in call.places]
        parts = [
            torch.autograd.grad(output, leaves, part, retain_graph=True)
            for part in gradient.view(count, *output.shape)
        ]
        return tuple(_together(column) for column in zip(*parts, strict=True))


def _together(parts: tuple[Tensor, ...]) -> Tensor:
    """Gradients of each class as (K * B, ...), of a number as (K,)."""
    return torch.cat(parts) if parts[0].ndim else torch.stack(parts)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _by_class(gradient: Tensor, count: int) -> Tensor:
    """(K * B, ...) as (K, B, ...)."""
    return gradient.view(count, -1, *gradient.shape[1:])


def _excited(
    call: Call, kind: Any, kernels: TurnedKernels, before: Step | None, of_photo: bool
) -> Back:
    """Rules of excitation back-propagation (Zhang et al., 2016, Eq. 1 to 5)."""
    relu = is_relu(call.func, call.args, call.kwargs)
    if relu or (kind in _SCALING and len(call.places) == 1):
        return lambda gradient, count, cut: (gradient,)
    if kind in _ADD and not isinstance(call.args[1], Tensor):
        return lambda gradient, count, cut: (gradient,)  # a bias
    if kind is _aten.max_pool2d_with_indices:
        return _max_pool(call)
    if kind in _BATCH_NORM and not _in_training(call):
        if before is not None and isinstance(before.back, _ExcitedConvolution):
            before.back.signs = _batch_norm_scale(call).sign()
        return lambda gradient, count, cut: (gradient,)
    if kind is _aten.convolution and call.output.ndim == 4:
        return _ExcitedConvolution(call, kernels, of_photo=of_photo)
    if kind in (_aten.addmm, _aten.mm):
        return _excited_matrix(call)
    if kind in _ROUTING:
        return ByAutograd(call)
    if kind in _AVERAGING:
        return _by_share(call)
    raise ConfigError(f"excitation has no rule for {kind}", do="use plain or guided")


def _check_excitable(call: Call, kind: Any) -> None:
    x = call.args[-2] if kind in (_aten.addmm, _aten.mm) else call.args[0]
    if bool((x < 0).any()):
        raise ConfigError(
            f"excitation needs activations of 0 or more, and {kind} of shape {tuple(x.shape)} "
            f"has {float(x.min()):.3g} among its inputs",
            do="use plain or guided",
        )


class _ExcitedConvolution:
    """P(a_j) = a_j sum_i w_ij^+ P(a_i) / Z_i with Z_i = sum_j w_ij^+ a_j (Eq. 3).

    Attributes:
        signs: of the scales of the batch norm that follows, (C, 1, 1): with its convolution it is
            one layer, whose weights are positive where both have one sign.
    """

    def __init__(self, call: Call, kernels: TurnedKernels, *, of_photo: bool) -> None:
        x, weight = call.args[:2]
        self.activation = x - x.amin((1, 2, 3), keepdim=True) if of_photo else x.clamp(min=0)
        self.geometry = _Geometry(*call.args[3:9])
        self.signs: Tensor | None = None
        self._weight, self._kernels = weight, kernels

    def __call__(self, gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        weight = self._weight
        if self.signs is not None:
            weight = self.geometry.by_output(weight, self.signs.flatten().to(weight.dtype))
        weight = weight.clamp(min=0)
        total = self.geometry.forward(self.activation, weight)
        share = _shared(_by_class(gradient, count), total).flatten(0, 1)
        shape = self.activation.shape[1:]
        back = self.geometry.transposed(share, weight, shape, self._kernels)
        return (_by_class(back, count).mul_(self.activation).flatten(0, 1),)


def _excited_matrix(call: Call) -> Back:
    """A linear layer, likewise."""
    x, matrix = call.args[-2:]
    activation, matrix = x.clamp(min=0), matrix.clamp(min=0)

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        share = _shared(_by_class(gradient, count), activation @ matrix)
        return ((activation * (share @ matrix.t())).flatten(0, 1),)

    return back


def _by_share(call: Call) -> Back:
    """What adds up its inputs with positive weights: each gets the part that it brought in."""
    # Maps that lie beside the layers take their part, too.
    positive = [a.clamp(min=0) if isinstance(a, Tensor) else a for a in call.args]
    raised = Call(call.func, tuple(positive), call.kwargs, None, call.places)
    # Of copies, as it may work in place.
    total = call.func(*(p.clone() if isinstance(p, Tensor) else p for p in positive), **call.kwargs)
    transposed = ByAutograd(raised)

    def back(gradient: Tensor, count: int, cut: bool) -> tuple[Tensor, ...]:
        share = _shared(_by_class(gradient, count), total).flatten(0, 1)
        parts = transposed(share, count, False)
        return tuple(
            _by_class(part, count).mul(positive[place]).flatten(0, 1)
            for place, part in zip(call.places, parts, strict=True)
        )

    return back


def _shared(gradient: Tensor, total: Tensor) -> Tensor:
    """P / Z; 0 where nothing excites."""
    return torch.where(total > _SMALL, gradient / total.clamp(min=_SMALL), 0)
