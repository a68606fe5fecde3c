"""Exact mean field of the dense CRF on batches of tensors: every pair of pixels, no lattice.

The model and its update are those of ``tagseg.refine.dense_crf``. With features f (position and
colour over their sigmas) the bilateral kernel is

    k_ij = exp(-|f_i - f_j|^2 / 2) = exp(f_i . f_j - |f_j|^2 / 2) exp(-|f_i|^2 / 2),

so a softmax over j of the first exponent is k_ij / n_i: attention with queries (f_i, 1) and keys
(f_j, -|f_j|^2 / 2). The message for the symmetric normalisation follows from it as

    m_i(l) = sum_j k_ij Q_j(l) / sqrt(n_i n_j) = sqrt(n_i) sum_j softmax_j(...) Q_j(l) / sqrt(n_j).

The normaliser comes from attention too. One more key, the anchor, has the exponent
|f_i|^2 / 2 + log 2 at query i. Its share of the softmax is 2 / (2 + n_i), whatever f_i is.

A fused attention kernel forms no N x N matrix. On cuda such kernels want half precision, in which
the features are split: a float16 of the value and a float16 of what is left of it. The products of
these parts, summed in float32, give the exponents to 22 bits; |f|^2 / 2 takes three parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import MAX_CLASSES
from tagseg.refine.dense_crf import CrfParameters, refine
from tagseg.refine.higher_order import HigherOrder

__all__ = ["EXACT_PIXELS_CPU", "EXACT_PIXELS_CUDA", "dense_crf_batch", "exact_dense_crf"]

EXACT_PIXELS_CPU = 192  # above, the fine filter is quicker: benchmarks/seed_expand_constrain.py
EXACT_PIXELS_CUDA = 512 * 512

_MID_LEVEL = 127.5
_LARGEST_EXPONENT = 4096.0  # of |f|^2 / 2; 22 bits of it leave an error of 0.001
_ANCHOR_WEIGHT = 2.0  # above any k_ij, so that a half-precision softmax has the anchor as its 1
_HEAD = 24  # operands' components: 5 features and |f|^2 / 2 twice, three parts each, and padding
_LABELS_PER_HEAD = 128  # fused kernels want values as wide as queries, and slow down above
_LEAST_LOG = -80.0  # a probability of 1e-35 counts as that in a region's product

Message = Callable[[Tensor], Tensor]
Regions = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class _Precision:
    """Type of the attention's operands, and of everything else."""

    operand: torch.dtype
    state: torch.dtype


_DOUBLE = _Precision(torch.float64, torch.float64)
_HALF = _Precision(torch.float16, torch.float32)


def dense_crf_batch(
    images: Tensor,
    unary: Tensor,
    parameters: CrfParameters,
    *,
    regions: Regions | None = None,
    higher_order: HigherOrder | None = None,
) -> Tensor:
    """Infer the dense CRFs of a batch: exactly where that is quick, by filters elsewhere.

    Photos of at most ``EXACT_PIXELS_CUDA`` pixels on cuda, and ``EXACT_PIXELS_CPU`` on the CPU, go
    to :func:`exact_dense_crf`. Larger ones go through :func:`tagseg.refine.refine` on the CPU, one
    by one in ``torch.get_num_threads()`` threads, and so do photos on cuda whose sigmas are too
    small for the precision of the exact path.

    Args:
        images: RGB photos (B, H, W, 3), uint8.
        unary: -log p (B, L, H, W), float32 or float64, on the device of ``images``.
        parameters: weights, sigmas and iterations of the CRF.
        regions: ids (B, H, W), int32, or several such layers; a negative id is no region.
        higher_order: strengths of the terms over ``regions``; None for the defaults.

    Returns:
        Probabilities (B, L, H, W), float32, on the device of the arguments.

    Raises:
        ShapeError: Tensors do not fit, or ``unary`` holds NaN or infinity.

    Examples:
        Two grey photos, whose classes nothing tells apart but the unary:

        >>> import torch
        >>> from tagseg.refine import CrfParameters, dense_crf_batch
        >>> images = torch.full((2, 4, 6, 3), 128, dtype=torch.uint8)
        >>> unary = torch.zeros(2, 3, 4, 6)
        >>> unary[0, 1], unary[1, 2] = -1, -1
        >>> probs = dense_crf_batch(images, unary, CrfParameters(iterations=2))
        >>> probs.shape, probs.argmax(dim=1)[:, 0, 0].tolist()
        (torch.Size([2, 3, 4, 6]), [1, 2])
    """
    unary = _narrowed(unary)
    layers = _check(images, unary, regions)
    height, width = images.shape[1:3]
    limit = EXACT_PIXELS_CUDA if images.is_cuda else EXACT_PIXELS_CPU
    if height * width <= limit and _is_precise(images, parameters):
        return _exact(images, unary, parameters, layers, higher_order, _precision(images))
    return _filtered(images, unary, parameters, layers, higher_order)


def exact_dense_crf(
    images: Tensor,
    unary: Tensor,
    parameters: CrfParameters,
    *,
    regions: Regions | None = None,
    higher_order: HigherOrder | None = None,
) -> Tensor:
    """Run the exact mean field of dense CRFs (Saleh et al. Eq. 6 and 7, with ``regions`` Eq. 8).

    Time grows with the square of the pixels, memory with the pixels where PyTorch has a fused
    attention kernel. The CPU works in float64, cuda with float16 operands and float32 sums.

    Args:
        images: RGB photos (B, H, W, 3), uint8.
        unary: -log p (B, L, H, W), float32 or float64, on the device of ``images``; 1 to 255
            labels. It is read as float32.
        parameters: weights, sigmas and iterations of the CRF.
        regions: ids (B, H, W), int32, or several such layers; a negative id is no region.
        higher_order: strengths of the terms over ``regions``; None for the defaults.

    Returns:
        Probabilities (B, L, H, W), float32, that sum to 1 over labels.

    Raises:
        ShapeError: Tensors do not fit, or ``unary`` holds NaN or infinity.
        ConfigError: On cuda, sigmas are so small that |f|^2 / 2 passes 4096 in a corner of the
            photo or of the colour cube.

    Examples:
        The left half is dark, the right half bright. One pixel on the left has the wrong label:

        >>> import torch
        >>> from tagseg.refine import CrfParameters, exact_dense_crf
        >>> images = torch.full((1, 4, 8, 3), 40, dtype=torch.uint8)
        >>> images[:, :, 4:] = 200
        >>> unary = torch.zeros(1, 2, 4, 8)
        >>> unary[:, 1, :, :4] = unary[:, 0, :, 4:] = 1.0
        >>> unary[:, :, 2, 1] = torch.tensor([1.0, 0.0])
        >>> probs = exact_dense_crf(images, unary, CrfParameters())
        >>> unary.argmin(dim=1)[0, 2].tolist(), probs.argmax(dim=1)[0, 2].tolist()
        ([0, 1, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])
    """
    unary = _narrowed(unary)
    layers = _check(images, unary, regions)
    if not _is_precise(images, parameters):
        raise ConfigError(
            f"sigmas of {parameters.bilateral} are too small for half precision",
            where="exact dense CRF",
            do="give larger ones, or tensors on the CPU",
        )
    return _exact(images, unary, parameters, layers, higher_order, _precision(images))


def _narrowed(unary: Any) -> Any:
    """Return a float64 tensor as float32, and all else as it is."""
    return unary.float() if isinstance(unary, Tensor) and unary.dtype == torch.float64 else unary


def _check(images: Any, unary: Any, regions: Any) -> tuple[Tensor, ...]:
    """Raise ShapeError for arguments that do not fit; return the region layers."""
    if not _is_tensor(images, torch.uint8, 4) or images.shape[3] != 3 or 0 in images.shape:
        raise ShapeError(f"images is {_describe(images)}", do="give a uint8 tensor (B, H, W, 3)")
    photos, height, width, _ = images.shape
    if not _is_tensor(unary, torch.float32, 4):
        raise ShapeError(f"unary is {_describe(unary)}", do="give a float32 tensor (B, L, H, W)")
    if unary.shape != (photos, unary.shape[1], height, width) or unary.device != images.device:
        raise ShapeError(
            f"unary is {_describe(unary)}, images is {_describe(images)}",
            do="bring both to the same photos, height, width and device",
        )
    if not 1 <= unary.shape[1] <= MAX_CLASSES + 1:
        raise ShapeError(f"unary has {unary.shape[1]} labels", do=f"give 1 to {MAX_CLASSES + 1}")
    if not bool(torch.isfinite(unary).all()):
        raise ShapeError("unary holds NaN or infinity", do="check what produced it")
    return _check_regions(images, regions)


def _check_regions(images: Tensor, regions: Any) -> tuple[Tensor, ...]:
    if regions is None:
        return ()
    layers = (regions,) if isinstance(regions, Tensor) else tuple(regions)
    for layer in layers:
        fits = _is_tensor(layer, torch.int32, 3) and layer.shape == images.shape[:3]
        if not fits or layer.device != images.device:
            raise ShapeError(
                f"regions is {_describe(layer)}, images is {_describe(images)}",
                do="give int32 tensors (B, H, W) on the device of the images",
            )
    return layers


def _is_tensor(value: Any, dtype: torch.dtype, ndim: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.ndim == ndim


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a {kind} tensor of shape {tuple(value.shape)} on {value.device}"
    return f"a {type(value).__name__}"


def _precision(images: Tensor) -> _Precision:
    return _HALF if images.is_cuda else _DOUBLE


def _is_precise(images: Tensor, parameters: CrfParameters) -> bool:
    """Return whether the attention's exponents fit their precision on the device of ``images``."""
    height, width = images.shape[1:3]
    bilateral = parameters.at(height, width).bilateral
    if bilateral is None or _precision(images) is _DOUBLE:
        return True
    _, sigma_pixels, sigma_levels = bilateral
    position = math.hypot(height, width) / 2 / sigma_pixels
    colour = math.sqrt(3) * _MID_LEVEL / sigma_levels
    return math.hypot(position, colour) ** 2 / 2 <= _LARGEST_EXPONENT


@torch.no_grad()
def _exact(
    images: Tensor,
    unary: Tensor,
    parameters: CrfParameters,
    layers: Sequence[Tensor],
    higher_order: HigherOrder | None,
    precision: _Precision,
) -> Tensor:
    """Run the mean field. Autocast would coarsen the operands, so it is off."""
    with torch.autocast(images.device.type, enabled=False):
        theta = unary.to(precision.state)
        terms = _kernel_messages(images, parameters, precision)
        strengths = higher_order or HigherOrder()
        terms += [_region_message(theta, layer, strengths) for layer in layers]
        log_probs = functional.log_softmax(-theta, dim=1)
        for _ in range(parameters.iterations):
            energy = sum((term(log_probs) for term in terms), -theta)
            log_probs = functional.log_softmax(energy, dim=1)
        return log_probs.exp().float()


def _kernel_messages(
    images: Tensor, parameters: CrfParameters, precision: _Precision
) -> list[Message]:
    """Return the weighted messages of the Gaussian kernels, functions of log Q (B, L, H, W)."""
    at_size = parameters.at(*images.shape[1:3])
    messages = []
    if at_size.bilateral is not None and at_size.bilateral[0] > 0:
        messages.append(_bilateral_message(images, at_size.bilateral, precision))
    if at_size.smoothness is not None and at_size.smoothness[0] > 0:
        messages.append(_smoothness_message(images, at_size.smoothness, precision.state))
    return messages


def _bilateral_message(
    images: Tensor, bilateral: tuple[float, float, float], precision: _Precision
) -> Message:
    """Build the bilateral kernel as attention, its values scaled to the range of float16."""
    weight, sigma_pixels, sigma_levels = bilateral
    queries, keys = _operands(_features(images, sigma_pixels, sigma_levels), precision.operand)
    n = _normalisers(queries, keys, precision.state)
    keys = keys[:, :-1]  # the anchor was for the normalisers alone
    root = (n / n.mean(dim=1, keepdim=True)).sqrt()

    def message(log_probs: Tensor) -> Tensor:
        values = log_probs.exp().flatten(2).mT / root
        sums = _attend(queries, keys, values.to(precision.operand))
        return (weight * root * sums.to(precision.state)).mT.reshape(log_probs.shape)

    return message


def _features(images: Tensor, sigma_pixels: float, sigma_levels: float) -> Tensor:
    """Return positions and colours around their middles, in sigmas: float64 (B, N, 5)."""
    photos, height, width, _ = images.shape
    y = torch.arange(height, dtype=torch.float64, device=images.device) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64, device=images.device) - (width - 1) / 2
    position = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(1, -1, 2)
    colour = images.reshape(photos, -1, 3).double() - _MID_LEVEL
    position = position.expand(photos, -1, -1) / sigma_pixels
    return torch.cat([position, colour / sigma_levels], dim=-1)


def _operands(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return queries (B, N, 24) and keys (B, N + 1, 24), the anchor last, in parts of ``dtype``.

    The product of query i and key j is f_i . f_j - |f_j|^2 / 2, with the anchor it is
    |f_i|^2 / 2 + log 2. The product of two low parts is left out.
    """
    norms = features.square().sum(dim=-1, keepdim=True) / 2
    high, low = _parts(features, dtype, 2)
    norm = torch.cat(_parts(norms, dtype, 3), dim=-1)
    anchor = torch.cat(_parts(norms + math.log(_ANCHOR_WEIGHT), dtype, 3), dim=-1)
    ones, none = torch.ones_like(norm), torch.zeros_like(norm)
    queries = torch.cat([high, high, low, ones, anchor], dim=-1)
    keys = torch.cat([high, low, high, -norm, none], dim=-1)
    last = torch.zeros_like(keys[:, :1])
    last[..., -3:] = 1
    return _widen(queries, _HEAD), _widen(torch.cat([keys, last], dim=1), _HEAD)


def _parts(values: Tensor, dtype: torch.dtype, count: int) -> list[Tensor]:
    """Split ``values`` into ``count`` tensors of ``dtype``, each what the others left."""
    parts = []
    for _ in range(count):
        parts.append(values.to(dtype))
        values = values - parts[-1].double()
    return parts


def _widen(operand: Tensor, width: int) -> Tensor:
    return functional.pad(operand, (0, width - operand.shape[-1]))


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(queries keys^T) values (B, N, L), as many labels at once as a head takes."""
    chunks = values.split(_LABELS_PER_HEAD, dim=-1)
    return torch.cat([_attend_chunk(queries, keys, chunk) for chunk in chunks], dim=-1)


def _attend_chunk(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Run one fused attention; all operands get the same width, a multiple of eight."""
    width = max(_HEAD, -(-values.shape[-1] // 8) * 8)
    query, key, value = (_widen(part, width)[:, None] for part in (queries, keys, values))
    result = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return result[:, 0, :, : values.shape[-1]]


def _normalisers(queries: Tensor, keys: Tensor, state: torch.dtype) -> Tensor:
    """Return n_i = sum_j k_ij (B, N, 1) from the anchor's share of the softmax.

    The share is read at 24 scales within a factor of two: its mean loses most of the rounding
    that one half-precision result would have.
    """
    width = keys.shape[-1]
    steps = torch.arange(width, dtype=torch.float64, device=keys.device) / width
    scales = (2.0 ** (13 + steps)).to(keys.dtype)
    values = torch.zeros_like(keys)
    values[:, -1] = scales
    shares = _attend(queries, keys, values).to(state) / scales.to(state)
    n = _ANCHOR_WEIGHT / shares.mean(dim=-1, keepdim=True) - _ANCHOR_WEIGHT
    return n.clamp(min=1)


def _smoothness_message(
    images: Tensor, smoothness: tuple[float, float], state: torch.dtype
) -> Message:
    """Build the smoothness kernel: a matrix for each axis, normalised symmetrically."""
    weight, sigma = smoothness
    vertical, horizontal = (
        _gaussian(length, sigma).to(images.device, state) for length in images.shape[1:3]
    )
    return lambda log_probs: weight * (vertical @ log_probs.exp() @ horizontal)


def _gaussian(length: int, sigma: float) -> Tensor:
    """Return the symmetrically normalised Gaussian of ``length`` pixels in a row, float64."""
    position = torch.arange(length, dtype=torch.float64) / sigma
    kernel = torch.exp(-0.5 * (position[:, None] - position).square())
    root = kernel.sum(dim=1).sqrt()
    return kernel / root[:, None] / root


def _region_message(theta: Tensor, layer: Tensor, higher_order: HigherOrder) -> Message:
    """Return a function of log Q (B, L, H, W): minus the energy of one layer of regions.

    It leaves a constant out.

    The product over the other pixels of a region is worked in logarithms.
    """
    pixels, members, n_regions = _members(layer)
    sizes = torch.bincount(members, minlength=n_regions).to(theta.dtype)[:, None]
    sums = theta.new_zeros(n_regions, theta.shape[1])
    means = sums.index_add(0, members, _pixels_first(theta.neg().softmax(1))[pixels]) / sizes
    gamma = means.log().neg().clamp(0, higher_order.gamma_max)
    gain = (higher_order.weight * (higher_order.gamma_max - gamma))[members]
    cost = (higher_order.area_weight * sizes * gamma)[members]

    def message(log_probs: Tensor) -> Tensor:
        own = _pixels_first(log_probs)[pixels].clamp(min=_LEAST_LOG)
        others = sums.index_add(0, members, own)[members] - own
        energy = own.new_zeros(layer.numel(), own.shape[1])
        energy[pixels] = gain * others.exp() - cost
        return energy.reshape(*layer.shape, -1).movedim(-1, 1)

    return message


def _members(layer: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the flat pixels of a batch that are in regions, each pixel's as 0..n-1, and n."""
    ids = layer.flatten(1).long()
    photo = torch.arange(len(ids), device=ids.device)[:, None]
    pixels = (ids.flatten() >= 0).nonzero()[:, 0]
    distinct = (photo * (ids.max() + 1) + ids).flatten()[pixels]
    kinds, members = torch.unique(distinct, return_inverse=True)
    return pixels, members, len(kinds)


def _pixels_first(maps: Tensor) -> Tensor:
    """Return maps (B, L, H, W) as (B * H * W, L)."""
    return maps.movedim(1, -1).reshape(-1, maps.shape[1])


def _filtered(
    images: Tensor,
    unary: Tensor,
    parameters: CrfParameters,
    layers: Sequence[Tensor],
    higher_order: HigherOrder | None,
) -> Tensor:
    """Run the filter-based CRF photo by photo in threads; the kernels hold no lock."""
    arrays = [tensor.detach().cpu().numpy() for tensor in (images, unary, *layers)]

    def probs(photo: int) -> Tensor:
        image, costs, *ids = (array[photo] for array in arrays)
        terms: dict[str, Any] = {"regions": ids, "higher_order": higher_order} if ids else {}
        return torch.from_numpy(refine(image, costs, parameters, **terms))

    with ThreadPoolExecutor(min(len(images), torch.get_num_threads())) as threads:
        return torch.stack(list(threads.map(probs, range(len(images))))).to(images.device)
