"""Losses that learn from image tags, with or without masks (Saleh et al. 2017, section 3.2).

They are Eq. 9 to 16 of the paper. All three pull every present label up somewhere in its region, by
a smooth maximum over the region (log-sum-exp with sharpness ``r``), and push the absent labels
down.

=====================  ==================  =====================================================
paper                  here                shape
=====================  ==================  =====================================================
s^k_ij                 ``scores``          (B, L, H, W) float logits, L = C + 1, 0 = background
the photo's classes    ``tags``            (B, C) bool; the background counts as present always
M                      ``foreground``      (B, H, W) bool
M_k                    ``masks``           (B, H, W) uint8 labels, 255 = in no mask, not counted
I                      ``valid``           (B, H, W) bool; False = padding of a batch
r                      ``r``               0 < r <= 10
=====================  ==================  =====================================================

What the equations leave open: a term whose region is empty (a present class without a mask, a photo
that is all foreground, a photo without tags, no absent class) is left out, and the divisors
stay as they are. The result is the mean over the photos of the batch.

Numbers: everything is computed in float32 (float64 stays) and no probability is clipped. ``log S``
and ``log(1 - S)`` are exact however near S is to 0 or 1, so a pixel that is surely wrong still has
its gradient; only what is added to a number near 1 is rounded up to 1e-19 (float64: 1e-154). The
forward pass also writes down the gradient, in closed form: that reads the scores a few times only,
where automatic differentiation would keep and read back every step. There are therefore no second
derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import IGNORE

__all__ = ["class_mask_loss", "foreground_loss", "tag_loss"]

MAX_SHARPNESS = 10.0  # above it exp(-r) is lost beside 1 in float32
_SERIES_BELOW = 1e-3  # |x| under which x -> 0 limits are taken from their series
_NEAR_ONE = math.log(0.7)  # log S above which 1 - S is not computed by subtraction


def tag_loss(
    scores: Tensor, tags: Tensor, *, valid: Tensor | None = None, r: float = 5.0
) -> Tensor:
    """Penalise scores that show a present label nowhere or an absent one anywhere.

    This learns from tags alone. Saleh et al. 2017, Eq. 10 with S^k of Eq. 11 over the whole photo.

    Args:
        scores: float (B, L, H, W) logits.
        tags: (B, C) bool.
        valid: (B, H, W) bool, False where the batch is padded; None takes all pixels.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, float32, or float64 of float64 scores; without unit.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.

    Examples:
        The second of two classes is in the photo. A pixel that shows it lowers the loss, but not
        if it is the first one that is in the photo.

        >>> import torch
        >>> from tagseg.losses import tag_loss
        >>> tags, scores = torch.tensor([[False, True]]), torch.zeros(1, 3, 2, 2)
        >>> round(float(tag_loss(scores, tags)), 3)
        1.504
        >>> scores[0, 2, 0, 0] = 4.0
        >>> round(float(tag_loss(scores, tags)), 3)
        1.132
        >>> round(float(tag_loss(scores, torch.tensor([[True, False]]))), 3)
        2.484
    """
    _check(scores, tags, r, valid=valid)
    region = _all_pixels(scores) if valid is None else valid
    return _Loss.apply(scores, partial(_tag_terms, tags=tags, region=region, r=r))


def foreground_loss(
    scores: Tensor,
    tags: Tensor,
    foreground: Tensor,
    *,
    valid: Tensor | None = None,
    r: float = 5.0,
) -> Tensor:
    """Penalise scores that lack the present classes inside a mask or background outside of it.

    This learns from tags and a class-agnostic mask. Saleh et al. 2017, Eq. 12 with S^k of Eq. 13 in
    the foreground and S^0 of Eq. 14 outside.

    Args:
        scores: float (B, L, H, W) logits.
        tags: (B, C) bool.
        foreground: (B, H, W) bool, the mask M.
        valid: (B, H, W) bool, False where the batch is padded; None takes all pixels.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, float32, or float64 of float64 scores; without unit.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.

    Examples:
        The one class stands inside the mask, or only outside of it.

        >>> import torch
        >>> from tagseg.losses import foreground_loss
        >>> tags, foreground = torch.tensor([[True]]), torch.tensor([[[False, True]]])
        >>> inside = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]]]])
        >>> round(float(foreground_loss(inside, tags, foreground)), 3)
        0.036
        >>> round(float(foreground_loss(inside.flip(3), tags, foreground)), 3)
        8.036
    """
    _check(scores, tags, r, foreground=foreground, valid=valid)
    inside = _all_pixels(scores) if valid is None else valid
    photo, label = _present(tags).nonzero(as_tuple=True)
    is_class = label > 0
    in_mask = foreground.index_select(0, photo) == is_class[:, None, None]
    pixels = inside.index_select(0, photo) & in_mask
    regions = _Regions(photo, label, pixels, torch.where(is_class, tags.sum(1)[photo], 1))
    terms = partial(_region_terms, absent=~_present(tags), regions=regions, inside=inside, r=r)
    return _Loss.apply(scores, terms)


def class_mask_loss(scores: Tensor, tags: Tensor, masks: Tensor, *, r: float = 5.0) -> Tensor:
    """Penalise scores that lack a present label, background included, in its own mask.

    This learns from tags and masks of labels. Saleh et al. 2017, Eq. 15 with S^k of Eq. 16. Only
    the masks of present labels are read.

    Args:
        scores: float (B, L, H, W) logits.
        tags: (B, C) bool.
        masks: (B, H, W) uint8 labels; pixels of 255 (ignored or padding) take no part at all.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, float32, or float64 of float64 scores; without unit.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.

    Examples:
        The class is sure in its mask; the pixel of 255 takes no part.

        >>> import torch
        >>> from tagseg.losses import class_mask_loss
        >>> tags, masks = torch.tensor([[True]]), torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
        >>> scores = torch.tensor([[[[4.0, 0.0, 9.0]], [[0.0, 4.0, 0.0]]]], requires_grad=True)
        >>> loss = class_mask_loss(scores, tags, masks)
        >>> round(loss.item(), 3)
        0.018
        >>> loss.backward()
        >>> bool(scores.grad[0, :, 0, 2].any())
        False
    """
    _check(scores, tags, r, masks=masks)
    present = _present(tags)
    photo, label = present.nonzero(as_tuple=True)
    pixels = masks.index_select(0, photo) == label[:, None, None]
    regions = _Regions(photo, label, pixels, present.sum(1)[photo])
    inside = masks != IGNORE
    terms = partial(_region_terms, absent=~present, regions=regions, inside=inside, r=r)
    return _Loss.apply(scores, terms)


class _Regions(NamedTuple):
    """The regions where the P present labels of the batch are to be found."""

    photo: Tensor  # (P,)
    label: Tensor  # (P,)
    pixels: Tensor  # (P, H, W) bool
    divisor: Tensor  # (P,), of the label's term within its photo


class _Absent(NamedTuple):
    """The last term of Eq. 12 and 15 with what its gradient needs."""

    value: Tensor  # scalar
    odds: Tensor  # (B, L, H, W): p / (1 - p); 0 for the present labels and each pixel's top label
    top: Tensor  # (B, 1, H, W): 1 where the top label is an absent one
    weight: Tensor  # (B, 1, H, W): weight of a pixel's log(1 - p) in the loss


@dataclass(frozen=True)
class _Softmax:
    """Eq. 9, each pixel's top label kept apart, so that 1 - p is exact for every label.

    With a and b the highest and the second highest score of a pixel and Z = sum(exp(s - a)):
    a label below the top has p = exp(s - b) exp(b - a) / Z <= 1/2, where 1 - p loses nothing. The
    top label has p = 1 / Z, and 1 - p = rest exp(b - a) / Z, exact in the logarithm. Where two
    labels share the highest score none is the top: they have p <= 1/2 as all others.
    """

    scores: Tensor  # (B, L, H, W)
    others: Tensor  # (B, L, H, W): exp(s - b), 0 for the top label
    is_top: Tensor  # (B, L, H, W): 1 for the top label, 0 elsewhere
    first: Tensor  # (B, 1, H, W): a
    gap: Tensor  # (B, 1, H, W): b - a
    rest: Tensor  # (B, 1, H, W): sum of others, at least 1
    log_sum: Tensor  # (B, 1, H, W): log Z

    @classmethod
    def of(cls, scores: Tensor) -> _Softmax:
        half = scores.dtype in (torch.float16, torch.bfloat16)
        scores = (scores.float() if half else scores).contiguous()
        first, second = _two_highest(scores)
        above = scores - second
        others = _exp(above.clamp(max=0))
        is_top = above.gt_(0)  # in place: stays floating-point, much faster than masks of bool
        others -= is_top
        rest = others.sum(1, keepdim=True)
        gap = second - first
        top_share = (gap < 0).to(gap.dtype)  # of Z; 0 at a tie
        log_sum = torch.log1p(rest * _exp(gap.clone()) + (top_share - 1))
        return cls(scores, others, is_top, first, gap, rest, log_sum)

    @property
    def scale(self) -> Tensor:
        """The factor p / others, (B, 1, H, W)."""
        return _exp(self.gap - self.log_sum)

    @property
    def log_one_minus_top(self) -> Tensor:
        """The top label's log(1 - p), (B, 1, H, W)."""
        return self.rest.log() + self.gap - self.log_sum

    def rows(self, photo: Tensor, label: Tensor) -> Tensor:
        """Give the index of P (photo, label) pairs into maps of shape (B * L, H, W)."""
        return photo * self.scores.shape[1] + label

    def add_gradient(self, gradient: Tensor, flow: Tensor, top: Tensor) -> Tensor:
        """Add what flows from log p and log(1 - p) through the denominator to the scores.

        d log p_k / d s_l = [k = l] - p_l and d log(1 - p_k) / d s_l = odds_k (p_l - [k = l]), the
        same as p_k (others_l / rest - [k = l]) for the top label, where odds_k may overflow. The
        [k = l] of all but the top label's log(1 - p) are the caller's.

        Args:
            gradient: (B, L, H, W), added to in place.
            flow: (B, 1, H, W), sum over the labels of dL/dlog(1 - p) odds (no top) - dL/dlog p.
            top: (B, 1, H, W), dL/dlog(1 - p) of the top label.
        """
        p_top = (-self.log_sum).exp()
        gradient.addcmul_(self.others, flow * self.scale + top * p_top / self.rest)
        return gradient.addcmul_(self.is_top, (flow - top) * p_top)


class _Loss(torch.autograd.Function):
    """A loss of the scores that comes with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, terms: Callable[[_Softmax], tuple[Tensor, Callable[[], Tensor]]]
    ) -> Tensor:
        """Return the value of the loss; ``terms`` gives it and a function for its gradient."""
        value, gradient = terms(_Softmax.of(scores))
        ctx.dtype = scores.dtype
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(gradient())
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """Return the gradient by the scores; a loss scale is applied before it is rounded."""
        (gradient,) = ctx.saved_tensors
        return (upstream * gradient).to(ctx.dtype), None


def _region_terms(
    softmax: _Softmax, *, absent: Tensor, regions: _Regions, inside: Tensor, r: float
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Compute Eq. 12 and 15, and their gradient. Only the present labels' maps are made for S."""
    photo, label, pixels, divisor = regions
    log_p = _pick(softmax.scores, softmax.rows(photo, label))
    log_p.sub_(_pick(softmax.first, photo)).sub_(_pick(softmax.log_sum, photo))
    log_s, slope = _log_smooth_max(log_p, pixels, r)
    weight = (pixels.sum((1, 2)) > 0) / (divisor * len(absent)).to(log_s.dtype)
    rest = _absent_pixels(softmax, absent, inside)
    value = rest.value - (weight * log_s).sum()
    pull = slope.mul_(-weight[:, None, None])
    return value, lambda: _region_gradient(softmax, regions, pull, rest)


def _region_gradient(softmax: _Softmax, regions: _Regions, pull: Tensor, absent: _Absent) -> Tensor:
    """Return the gradient of Eq. 12 and 15; ``pull`` (P, H, W) is dL/dlog p of their labels."""
    flow = -absent.weight * absent.odds.sum(1, keepdim=True)
    flow[:, 0].index_add_(0, regions.photo, pull, alpha=-1)
    gradient = absent.odds.mul_(absent.weight)
    softmax.add_gradient(gradient, flow, -absent.weight * absent.top)
    rows = softmax.rows(regions.photo, regions.label)
    gradient.flatten(0, 1).index_add_(0, rows, pull)
    return gradient


def _absent_pixels(softmax: _Softmax, absent: Tensor, inside: Tensor) -> _Absent:
    """Compute minus the mean of log(1 - S^k_ij) over absent k and pixels inside."""
    dtype = softmax.scores.dtype
    count = absent.sum(1) * inside.sum((1, 2)) * len(absent)
    weight = inside[:, None] / count.clamp(min=1).to(dtype)[:, None, None, None]
    wanted = absent.to(dtype)[:, :, None, None]
    odds = (softmax.others * softmax.scale).mul_(wanted)
    one = odds.new_ones(1)
    any_of, top = torch.zeros_like(weight[:, 0]), torch.zeros_like(weight[:, 0])
    for k, p in enumerate(odds.unbind(1)):
        any_of.lerp_(one, p)  # 1 - product of (1 - p): one logarithm a pixel, exact near p = 0
        top.addcmul_(softmax.is_top[:, k], wanted[:, k])
        p.div_(1 - p)
    log_none = torch.log1p(-any_of) + top * softmax.log_one_minus_top[:, 0]
    return _Absent(-(weight[:, 0] * log_none).sum(), odds, top[:, None], weight)


def _tag_terms(
    softmax: _Softmax, *, tags: Tensor, region: Tensor, r: float
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Compute Eq. 10, and its gradient."""
    log_p = (softmax.scores - softmax.first).sub_(softmax.log_sum)
    log_s, slope = _log_smooth_max(log_p, region[:, None], r)
    present, seen = _present(tags), region.any(-1).any(-1)[:, None]
    up = _shares(present & seen, log_s.dtype)
    down = _shares(~present & seen, log_s.dtype)
    # One minus the smooth maximum of p is the smooth minimum of 1 - p, which is exact near S = 1.
    near_one = (down > 0) & (log_s > _NEAR_ONE)
    photo, label = near_one.nonzero(as_tuple=True)
    log_not, not_slope = _log_smooth_max(_log_one_minus(softmax, photo, label), region[photo], -r)
    log_not_s = torch.log1p(-log_s.clamp(max=_NEAR_ONE).exp())
    pull = torch.where(near_one, 0.0, down * (log_s - log_not_s).exp()) - up
    log_not_s[near_one] = log_not
    push = not_slope * -down[near_one][:, None, None]
    value = -(up * log_s + down * log_not_s).sum()
    pulls = slope.mul_(pull[:, :, None, None])
    return value, lambda: _tag_gradient(softmax, pulls, photo, label, push)


def _tag_gradient(
    softmax: _Softmax, pull: Tensor, photo: Tensor, label: Tensor, push: Tensor
) -> Tensor:
    """Return the gradient of Eq. 10.

    Args:
        pull: (B, L, H, W), dL/dlog p.
        photo: (P,), of the labels whose S is near 1.
        label: (P,), these labels.
        push: (P, H, W), their dL/dlog(1 - p).
    """
    rows = softmax.rows(photo, label)
    p = _pick(softmax.others, rows) * softmax.scale[photo, 0]
    pushed = push * p / (1 - p)
    flow = -pull.sum(1, keepdim=True)
    flow[:, 0].index_add_(0, photo, pushed)
    top = torch.zeros_like(flow)
    top[:, 0].index_add_(0, photo, push * _pick(softmax.is_top, rows))
    gradient = softmax.add_gradient(pull, flow, top)
    gradient.flatten(0, 1).index_add_(0, rows, pushed, alpha=-1)
    return gradient


def _log_one_minus(softmax: _Softmax, photo: Tensor, label: Tensor) -> Tensor:
    """Compute log(1 - p) of P labels, (P, H, W), exact also for p = 1 - 1e-30."""
    rows = softmax.rows(photo, label)
    p = _pick(softmax.others, rows) * softmax.scale[photo, 0]
    top = _pick(softmax.is_top, rows)
    return torch.log1p(-p) + top * softmax.log_one_minus_top[photo, 0]


def _log_smooth_max(log_p: Tensor, region: Tensor, r: float) -> tuple[Tensor, Tensor]:
    """Compute log S, S = log(mean of exp(r p) over the region) / r, and its slope.

    These are Eq. 11, 13, 14 and 16, rewritten so that nothing is lost near p = 0: with t =
    mean(exp(r p) - 1) / r, S = log(1 + r t) / r, and p is taken relative to the region's highest. A
    negative r gives the smooth minimum. Where the region is empty the values are finite and mean
    nothing.

    Args:
        log_p: (..., H, W), overwritten.
        region: bool, broadcasts against log_p.

    Returns:
        log S (...) and d log S / d log p (..., H, W), which is p exp(r p) / (N (1 + r t) S).
    """
    limits = torch.finfo(log_p.dtype)
    inside = region.to(log_p.dtype)
    size = inside.sum((-2, -1), keepdim=True).clamp(min=1)
    log_p += (inside - 1).mul_(-limits.min / 4)  # finite: no NaN where the region is empty
    highest = log_p.amax((-2, -1), keepdim=True)
    relative = _exp(log_p.sub_(highest)).mul_(inside)
    # exp(x) - 1 is x long before x = eps^2, so the floor keeps the ratio from 0 / 0, no more.
    sharpness = r * highest.exp().clamp(min=limits.eps**2)
    raised = (relative * sharpness).expm1_()
    mean = raised.sum((-2, -1), keepdim=True) / (size * sharpness)
    log_t = highest + mean.clamp(min=limits.tiny).log()  # 0 only where the region is empty
    rt = r * log_t.exp()
    log_s = log_t + _log_log1p_over(rt)
    slope = relative.addcmul_(relative, raised)
    slope *= (highest - log_s).exp() / (size * (1 + rt))
    return log_s[..., 0, 0], slope


def _exp(x: Tensor) -> Tensor:
    """Compute exp(x) in place, at least 1e-19 (float64: 1e-154), to stand beside numbers near 1.

    Less would change nothing there, and subnormal numbers cost 10 to 30 times as much.
    """
    return x.clamp_(min=math.log(torch.finfo(x.dtype).tiny) / 2).exp_()


def _log_log1p_over(y: Tensor) -> Tensor:
    """Compute log(log(1 + y) / y), 0 at y = 0."""
    small = y.abs() < _SERIES_BELOW
    away = y.masked_fill(small, 1.0)
    series = y * (-1 / 2 + y * (5 / 24 - y / 8))
    return torch.where(small, series, (torch.log1p(away) / away).log())


def _two_highest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Find the highest and second highest score of each pixel, (B, 1, H, W), the same at a tie.

    One pass of element-wise steps: topk and argmax over a dimension that is not the last one cost
    ten times as much.
    """
    first, second = scores[:, 0], torch.full_like(scores[:, 0], -math.inf)
    for label in scores.unbind(1)[1:]:
        second = torch.maximum(second, torch.minimum(first, label))
        first = torch.maximum(first, label)
    return first[:, None], second[:, None]


def _pick(maps: Tensor, rows: Tensor) -> Tensor:
    """Pick P of the (B, L, H, W) maps, (P, H, W)."""
    return maps.flatten(0, 1).index_select(0, rows)


def _shares(wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the weights (B, L) of the mean over photos of the mean over the wanted labels."""
    return wanted / (wanted.sum(1, keepdim=True).clamp(min=1) * len(wanted)).to(dtype)


def _present(tags: Tensor) -> Tensor:
    """Mark the labels in each photo, (B, L) bool: the background, then the tags."""
    return torch.nn.functional.pad(tags, (1, 0), value=True)


def _all_pixels(scores: Tensor) -> Tensor:
    batch, _, height, width = scores.shape
    return torch.ones(batch, height, width, dtype=torch.bool, device=scores.device)


def _check(scores: Tensor, tags: Tensor, r: float, **pixelwise: Tensor | None) -> None:
    if not 0 < r <= MAX_SHARPNESS:
        raise ConfigError(f"r is {r}", do=f"take a sharpness over 0, up to {MAX_SHARPNESS:g}")
    if scores.ndim != 4 or scores.shape[1] < 2 or not scores.is_floating_point():
        raise ShapeError(
            f"scores is {scores.dtype} of shape {tuple(scores.shape)}",
            do="give float logits (B, L, H, W) of the background and at least one class",
        )
    if tags.dtype != torch.bool or tags.shape != (scores.shape[0], scores.shape[1] - 1):
        raise ShapeError(
            f"tags is {tags.dtype} of shape {tuple(tags.shape)}",
            do=f"give bool ({scores.shape[0]}, {scores.shape[1] - 1}), foreground classes only",
        )
    wanted = (scores.shape[0], *scores.shape[2:])
    for name, value in pixelwise.items():
        dtype = torch.uint8 if name == "masks" else torch.bool
        if value is not None and (value.dtype != dtype or value.shape != wanted):
            raise ShapeError(
                f"{name} is {value.dtype} of shape {tuple(value.shape)}",
                do=f"give {dtype} of shape {wanted}, as the scores",
            )
