"""The three losses of SEC (Kolesnikov & Lampert 2016, section 3, Eq. 1 to 5).

*Seed* fits a few sure labels, *expand* makes the objects as large as objects are, and *constrain*
pulls the labels to the edges of the photo, as a dense CRF sees them. The paper adds them up 1:1:1.

===============  =================  ==============================================================
paper            here               shape
===============  =================  ==============================================================
f_u,c(X)         ``probs``          (B, L, h, w) from :func:`sec_probabilities`; L = C + 1, 0 =
                                    background
S_c              ``cues``           (B, h, w) uint8 labels, 255 = no cue
T                ``tags``           (B, C) bool
G_c, d_+, d_bg   ``..._decay``      0 < decay <= 1
Q_u,c            ``refined``        (B, L, h, w), the CRF's probabilities
(whole photo)    ``valid``          (B, h, w) bool; False = padding of a crop, takes no part
===============  =================  ==============================================================

What the equations leave open: a photo without cues, tags, absent classes or valid positions adds 0
to the term that wants them, and still counts in the mean over photos.

Numbers: float32 at least, float64 stays. A logarithm stops at 1e-6, which probabilities with the
floor of :func:`sec_probabilities` never reach; where others do, the gradient there is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE

__all__ = ["constrain_loss", "decay_at", "expand_loss", "sec_probabilities", "seed_loss"]

_FLOOR = 1e-4  # added to each probability, and the least that the CRF's may be
_LEAST = 1e-6  # of a logarithm's argument
_PAPER_POSITIONS = 41 * 41  # of the score map of a crop of 321 pixels


def sec_probabilities(scores: Tensor) -> Tensor:
    """Softmax with 1e-4 added to every label, scaled to sum 1 (the authors' program).

    Args:
        scores: (B, L, h, w) float logits.

    Returns:
        (B, L, h, w), float32 at least; the least that a label has is 1e-4 / (1 + 1e-4 L).

    Raises:
        ShapeError: scores is not float (B, L, h, w) with two labels or more.
    """
    _check_probs(scores, "scores")
    raised = functional.softmax(_at_least_single(scores), dim=1) + _FLOOR
    return raised / (1 + _FLOOR * scores.shape[1])


def seed_loss(probs: Tensor, cues: Tensor) -> Tensor:
    """Mean over photos of the mean of -log p over the photo's cues (Eq. 2).

    Args:
        probs: (B, L, h, w).
        cues: (B, h, w) uint8 labels, 255 where there is no cue.

    Returns:
        Scalar.

    Raises:
        ShapeError: the arrays do not fit each other.
    """
    _check_probs(probs)
    _check_pixelwise(probs, cues, "cues", torch.uint8)
    is_cue = cues != IGNORE
    label = torch.where(is_cue, cues, BACKGROUND).long()
    log_p = _log(_at_least_single(probs).gather(1, label[:, None]))[:, 0]
    sums = torch.where(is_cue, log_p, 0).sum((1, 2))
    return -(sums / is_cue.sum((1, 2)).clamp(min=1)).mean()


def expand_loss(
    probs: Tensor,
    tags: Tensor,
    *,
    foreground_decay: float = 0.996,
    background_decay: float = 0.999,
    valid: Tensor | None = None,
) -> Tensor:
    """Present classes large, absent ones nowhere, by global weighted rank pooling (Eq. 3 and 4).

    G of a label is the mean of its probabilities, the one of rank j = 0, 1, ... from the top with
    the weight decay ** j. A photo's loss is minus the mean of log G over its tags, minus the mean
    of log(1 - largest probability) over the absent classes, minus log G of the background.

    Args:
        probs: (B, L, h, w).
        tags: (B, C) bool.
        foreground_decay: over 0 up to 1 (global average); see :func:`decay_at`.
        background_decay: likewise.
        valid: (B, h, w) bool, False where a crop is padded; None takes all positions.

    Returns:
        Scalar, the mean over photos.

    Raises:
        ShapeError: the arrays do not fit each other.
        ConfigError: a decay is out of range.
    """
    _check_probs(probs)
    _check_tags(probs, tags)
    for decay in (foreground_decay, background_decay):
        _check_decay(decay)
    flat = _at_least_single(probs).flatten(2)
    inside = _inside(probs, valid).flatten(1)
    pooled = _rank_pooled_logs(flat, tags, inside, (background_decay, foreground_decay))
    peak = torch.where(inside[:, None], flat[:, 1:], 0).amax(2)
    return -(pooled + (_shares(~tags, peak.dtype) * _log(1 - peak)).sum()) / len(tags)


def decay_at(decay: float, positions: int, reference: int = _PAPER_POSITIONS) -> float:
    """Decay that weighs a score map of ``positions`` as ``decay`` does one of ``reference``.

    The same share of the positions, counted from the top, carries the same weight.

    Raises:
        ConfigError: decay is not over 0 up to 1, or a number of positions is not positive.
    """
    _check_decay(decay)
    if positions < 1 or reference < 1:
        raise ConfigError(f"{positions} positions for {reference}", do="give at least 1 of each")
    return float(decay ** (reference / positions))


def constrain_loss(probs: Tensor, refined: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean over positions of the divergence sum Q log(Q / p) of p from the CRF's Q (Eq. 5).

    Q is raised to 1e-4 where it is lower and scaled to sum 1, as in the authors' program, so that
    p can reach it. It is a constant here: the gradient at the logits is p - Q a position, but for
    the floor. The authors' program adds a gradient through Q, for which it passes the CRF by (it
    takes Q for a softmax of the scores, and of that the diagonal alone); what was written after it
    leaves this out.

    Args:
        probs: (B, L, h, w).
        refined: (B, L, h, w) float, Q; no gradient flows into it.
        valid: (B, h, w) bool, False where a crop is padded; None takes all positions.

    Returns:
        Scalar, the mean over all positions of the batch.

    Raises:
        ShapeError: the arrays do not fit each other.
    """
    _check_probs(probs)
    if refined.shape != probs.shape or not refined.is_floating_point():
        raise ShapeError(
            f"refined is {refined.dtype} of shape {tuple(refined.shape)}",
            do=f"give float of shape {tuple(probs.shape)}, as the probabilities",
        )
    p = _at_least_single(probs)
    q = refined.detach().to(p.dtype).clamp(min=_FLOOR)
    q = q / q.sum(1, keepdim=True)
    divergence = (q * (q.log() - _log(p))).sum(1)
    inside = _inside(probs, valid)
    return torch.where(inside, divergence, 0).sum() / inside.sum().clamp(min=1)


def _rank_pooled_logs(
    flat: Tensor, tags: Tensor, inside: Tensor, decays: tuple[float, float]
) -> Tensor:
    """Sum over photos of log G of the background and of the mean of log G over the tags.

    Args:
        flat: probabilities (B, L, N).
        inside: positions (B, N) bool that take part.
        decays: of the background and of the classes.
    """
    present = functional.pad(tags, (1, 0), value=True)
    photo, label = (present & inside.any(1, keepdim=True)).nonzero(as_tuple=True)  # P of them
    member = inside[photo]
    # Padding goes last, whatever its values; then it weighs nothing.
    ranked = torch.where(member, flat[photo, label], -1).sort(1, descending=True)[0]
    rank = torch.arange(flat.shape[2], device=flat.device, dtype=flat.dtype)
    log_decay = flat.new_tensor([math.log(decay) for decay in decays])[(label > 0).long()]
    counts = rank < member.sum(1, keepdim=True)
    weights = torch.where(counts, torch.exp(log_decay[:, None] * rank), 0)
    log_g = _log((weights * ranked).sum(1) / weights.sum(1))
    return (log_g / torch.where(label > 0, tags.sum(1)[photo], 1)).sum()


def _shares(wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (B, C) of the mean over the wanted classes of each photo."""
    return wanted.to(dtype) / wanted.sum(1, keepdim=True).clamp(min=1)


def _log(values: Tensor) -> Tensor:
    return values.clamp(min=_LEAST).log()


def _at_least_single(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _inside(probs: Tensor, valid: Tensor | None) -> Tensor:
    """Positions (B, h, w) that take part."""
    if valid is None:
        return torch.ones_like(probs[:, 0], dtype=torch.bool)
    _check_pixelwise(probs, valid, "valid", torch.bool)
    return valid


def _check_probs(probs: Tensor, name: str = "probs") -> None:
    if probs.ndim != 4 or probs.shape[1] < 2 or 0 in probs.shape or not probs.is_floating_point():
        raise ShapeError(
            f"{name} is {probs.dtype} of shape {tuple(probs.shape)}",
            do="give float (B, L, h, w) of the background and at least one class",
        )


def _check_pixelwise(probs: Tensor, value: Tensor, name: str, dtype: torch.dtype) -> None:
    wanted = (probs.shape[0], *probs.shape[2:])
    if value.dtype != dtype or value.shape != wanted:
        raise ShapeError(
            f"{name} is {value.dtype} of shape {tuple(value.shape)}",
            do=f"give {dtype} of shape {wanted}, as the probabilities",
        )


def _check_tags(probs: Tensor, tags: Tensor) -> None:
    wanted = (probs.shape[0], probs.shape[1] - 1)
    if tags.dtype != torch.bool or tags.shape != wanted:
        raise ShapeError(
            f"tags is {tags.dtype} of shape {tuple(tags.shape)}",
            do=f"give bool {wanted}, foreground classes only",
        )


def _check_decay(decay: float) -> None:
    if not 0 < decay <= 1:
        raise ConfigError(f"a decay of {decay}", do="use a number over 0 up to 1")
