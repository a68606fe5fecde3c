"""Losses on image tags, with or without masks (Saleh et al. 2017, section 3.2, Eq. 9 to 16).

All three pull every present label up somewhere in its region, by a smooth maximum over the region
(log-sum-exp with sharpness ``r``), and push the absent labels down.

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

Numbers: everything starts from log-softmax in float32 (float64 stays), and no probability is
clipped. ``log S`` and ``log(1 - S)`` are exact however near S is to 0 or 1, so a pixel that is
surely wrong still has its gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import IGNORE

__all__ = ["class_mask_loss", "foreground_loss", "tag_loss"]

MAX_SHARPNESS = 10.0  # above it exp(-r) is lost beside 1 in float32
_SERIES_BELOW = 1e-3  # |x| under which x -> 0 limits are taken from their series
_NEAR_ONE = math.log(0.7)  # log p above which 1 - p is not computed by subtraction


def tag_loss(
    scores: Tensor, tags: Tensor, *, valid: Tensor | None = None, r: float = 5.0
) -> Tensor:
    """Loss from tags alone: every present label somewhere, no absent label anywhere.

    Saleh et al. 2017, Eq. 10 with S^k of Eq. 11 over the whole photo.

    Args:
        scores: (B, L, H, W) logits.
        tags: (B, C) bool.
        valid: (B, H, W) bool, False where the batch is padded; None takes all pixels.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.
    """
    _check(scores, tags, r, valid=valid)
    log_p = _log_softmax(scores)
    region = (_all_pixels(scores) if valid is None else valid)[:, None]
    log_s = _log_smooth_max(log_p, region, r)
    present, seen = _present(tags), region.any(-1).any(-1)
    absent_term = _mean_where(_log_one_minus_smooth_max(log_p, log_s, region, r), ~present & seen)
    return -(_mean_where(log_s, present & seen) + absent_term).mean()


def foreground_loss(
    scores: Tensor,
    tags: Tensor,
    foreground: Tensor,
    *,
    valid: Tensor | None = None,
    r: float = 5.0,
) -> Tensor:
    """Loss from tags and a class-agnostic mask: present classes inside it, background outside.

    Saleh et al. 2017, Eq. 12 with S^k of Eq. 13 in the foreground and S^0 of Eq. 14 outside.

    Args:
        scores: (B, L, H, W) logits.
        tags: (B, C) bool.
        foreground: (B, H, W) bool, the mask M.
        valid: (B, H, W) bool, False where the batch is padded; None takes all pixels.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.
    """
    _check(scores, tags, r, foreground=foreground, valid=valid)
    log_p = _log_softmax(scores)
    inside = _all_pixels(scores) if valid is None else valid
    photo, label = _present(tags).nonzero(as_tuple=True)
    is_class = label > 0
    regions = inside[photo] & (foreground[photo] == is_class[:, None, None])
    divisors = torch.where(is_class, tags.sum(1)[photo], 1)
    present_terms = _present_log_s(log_p, photo, label, regions, r) / divisors
    return -(present_terms.sum() / len(tags) + _absent_pixels(log_p, tags, inside).mean())


def class_mask_loss(scores: Tensor, tags: Tensor, masks: Tensor, *, r: float = 5.0) -> Tensor:
    """Loss from tags and one mask per present label, background included.

    Saleh et al. 2017, Eq. 15 with S^k of Eq. 16. Only the masks of present labels are read.

    Args:
        scores: (B, L, H, W) logits.
        tags: (B, C) bool.
        masks: (B, H, W) uint8 labels; pixels of 255 (ignored or padding) take no part at all.
        r: sharpness of the smooth maximum, 0 (mean) to 10.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: shapes do not fit each other.
        ConfigError: r is out of range.
    """
    _check(scores, tags, r, masks=masks)
    log_p = _log_softmax(scores)
    present = _present(tags)
    photo, label = present.nonzero(as_tuple=True)
    regions = masks[photo] == label[:, None, None]
    present_terms = _present_log_s(log_p, photo, label, regions, r) / present.sum(1)[photo]
    absent_terms = _absent_pixels(log_p, tags, masks != IGNORE)
    return -(present_terms.sum() / len(tags) + absent_terms.mean())


def _present_log_s(
    log_p: Tensor, photo: Tensor, label: Tensor, regions: Tensor, r: float
) -> Tensor:
    """log S^k of P pairs of a photo and a present label over (P, H, W) regions; 0 where empty.

    Only these maps are touched: a photo has few of the labels.
    """
    maps = log_p.flatten(0, 1).index_select(0, photo * log_p.shape[1] + label)
    return torch.where(regions.any(-1).any(-1), _log_smooth_max(maps, regions, r), 0.0)


def _absent_pixels(log_p: Tensor, tags: Tensor, inside: Tensor) -> Tensor:
    """Mean of log(1 - S^k_ij) over absent k and pixels inside, (B,): last term of Eq. 12 and 15."""
    counted = (~_present(tags))[:, :, None, None] & inside[:, None]
    return _mean_where(_log_one_minus(log_p).flatten(1), counted.flatten(1))


def _log_smooth_max(log_p: Tensor, region: Tensor, r: float) -> Tensor:
    """log S with S = log(mean of exp(r p) over the region) / r: Eq. 11, 13, 14, 16.

    Rewritten so that nothing is lost near p = 0: with t = mean(exp(r p) - 1) / r,
    S = log(1 + r t) / r, and both steps are taken in the logarithm. A negative r gives the smooth
    minimum. Where the region is empty the value is finite and means nothing.

    Args:
        log_p: (..., H, W).
        region: bool, broadcasts against log_p.
    """
    # Finite instead of -inf: an empty region then has no NaN in its (unused) gradient.
    outside = torch.finfo(log_p.dtype).min / 4
    terms = log_p + _log_expm1_over(r * log_p.exp())
    size = region.sum((-2, -1)).clamp(min=1).to(log_p.dtype)
    log_t = terms.masked_fill(~region, outside).logsumexp((-2, -1)) - size.log()
    return log_t + _log_log1p_over(r * log_t.exp())


def _log_one_minus_smooth_max(log_p: Tensor, log_s: Tensor, region: Tensor, r: float) -> Tensor:
    """log(1 - S), (B, L), for the second term of Eq. 10.

    One minus the smooth maximum of p is the smooth minimum of 1 - p, which is exact near S = 1.
    """
    near_one = log_s > _NEAR_ONE
    small = torch.log1p(-log_s.masked_fill(near_one, -1.0).exp())
    return torch.where(near_one, _log_smooth_max(_log_one_minus(log_p), region, -r), small)


def _log_one_minus(log_p: Tensor) -> Tensor:
    """log(1 - p) of every label, (B, L, H, W), exact also for p = 1 - 1e-30.

    At most one label of a pixel is near 1; what the others hold together is its 1 - p.
    """
    near_one = log_p > _NEAR_ONE
    others = log_p.masked_fill(near_one, -math.inf).logsumexp(1, keepdim=True)
    return torch.where(near_one, others, torch.log1p(-log_p.masked_fill(near_one, -1.0).exp()))


def _log_expm1_over(x: Tensor) -> Tensor:
    """log((exp(x) - 1) / x), 0 at x = 0."""
    small = x.abs() < _SERIES_BELOW
    away = x.masked_fill(small, 1.0)
    return torch.where(small, x / 2 + x * x / 24, (torch.expm1(away) / away).log())


def _log_log1p_over(y: Tensor) -> Tensor:
    """log(log(1 + y) / y), 0 at y = 0."""
    small = y.abs() < _SERIES_BELOW
    away = y.masked_fill(small, 1.0)
    series = y * (-1 / 2 + y * (5 / 24 - y / 8))
    return torch.where(small, series, (torch.log1p(away) / away).log())


def _mean_where(values: Tensor, wanted: Tensor) -> Tensor:
    """Mean of each photo's wanted values, (B, N) to (B,); 0 where none is wanted."""
    return torch.where(wanted, values, 0.0).sum(1) / wanted.sum(1).clamp(min=1)


def _present(tags: Tensor) -> Tensor:
    """Labels in each photo, (B, L) bool: the background, then the tags."""
    return torch.nn.functional.pad(tags, (1, 0), value=True)


def _log_softmax(scores: Tensor) -> Tensor:
    """Logarithm of Eq. 9, at least float32."""
    half = scores.dtype in (torch.float16, torch.bfloat16)
    return (scores.float() if half else scores).log_softmax(1)


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
