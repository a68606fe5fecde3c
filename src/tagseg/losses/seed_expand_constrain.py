"""SEC has three losses: seed, expand and constrain (Kolesnikov & Lampert 2016, section 3).

They are Eq. 1 to 5 of the paper. *Seed* fits a few sure labels, *expand* makes the objects as large
as objects are, and *constrain* pulls the labels to the edges of the photo, as a dense CRF sees
them. The paper adds them up 1:1:1.

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
    """Turn scores into probabilities that are nowhere 0: a softmax with 1e-4 added to every label.

    The sum is scaled back to 1, as the authors' program does.

    Args:
        scores: (B, L, h, w) float logits.

    Returns:
        (B, L, h, w), float32, or float64 of float64 scores; the least that a label has is
        1e-4 / (1 + 1e-4 L).

    Raises:
        ShapeError: scores is not float (B, L, h, w) with two labels or more.

    Examples:
        >>> import torch
        >>> from tagseg.losses import sec_probabilities
        >>> scores = torch.tensor([0.0, 50.0, 50.0], dtype=torch.float64).view(1, 3, 1, 1)
        >>> [round(p, 5) for p in sec_probabilities(scores).flatten().tolist()]
        [0.0001, 0.49995, 0.49995]
    """
    _check_probs(scores, "scores")
    raised = functional.softmax(_at_least_single(scores), dim=1) + _FLOOR
    return raised / (1 + _FLOOR * scores.shape[1])


def seed_loss(probs: Tensor, cues: Tensor) -> Tensor:
    """Average -log p over each photo's cues, and then over the photos (Eq. 2).

    Args:
        probs: float (B, L, h, w), of :func:`sec_probabilities`.
        cues: (B, h, w) uint8 labels, 255 where there is no cue.

    Returns:
        Scalar in nats, float32, or float64 of float64 probabilities.

    Raises:
        ShapeError: the arrays do not fit each other.

    Examples:
        The cues are on the first two positions; what the third holds does not matter.

        >>> import torch
        >>> from tagseg.losses import seed_loss
        >>> probs = torch.tensor([[[[0.9, 0.5, 0.3]], [[0.1, 0.5, 0.7]]]])
        >>> cues = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
        >>> round(float(seed_loss(probs, cues)), 3)
        0.399
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
    """Penalise present classes that are small and absent ones anywhere (Eq. 3 and 4).

    Size is measured by global weighted rank pooling. G of a label is the mean of its probabilities,
    the one of rank j = 0, 1, ... from the top with the weight decay ** j. A photo's loss is minus
    the mean of log G over its tags, minus the mean of log(1 - largest probability) over the absent
    classes, minus log G of the background.

    Args:
        probs: float (B, L, h, w), of :func:`sec_probabilities`.
        tags: (B, C) bool.
        foreground_decay: decay of the classes, over 0 (maximum) up to 1 (average); see
            :func:`decay_at`.
        background_decay: decay of the background, likewise.
        valid: (B, h, w) bool, False where a crop is padded; None takes all positions.

    Returns:
        Scalar, the mean over photos, float32, or float64 of float64 probabilities.

    Raises:
        ShapeError: the arrays do not fit each other.
        ConfigError: a decay is out of range.

    Examples:
        A class that should be there costs less the larger it is.

        >>> import torch
        >>> from tagseg.losses import expand_loss
        >>> small = torch.tensor([[[[0.9, 0.9, 0.9, 0.1]], [[0.1, 0.1, 0.1, 0.9]]]])
        >>> large = torch.tensor([[[[0.9, 0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9, 0.9]]]])
        >>> tags = torch.tensor([[True]])
        >>> [round(float(expand_loss(p, tags)), 2) for p in (small, large)]
        [1.56, 1.38]
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
    """Convert a decay so that it weighs score maps of another size in the same way.

    The same fraction of the positions, counted from the top, carries the same weight.

    Args:
        decay: over 0 up to 1, for a score map of ``reference`` positions.
        positions: number of positions h w of the score map at hand.
        reference: number of positions that the decay was chosen for, 41 x 41 in the paper.

    Returns:
        The decay for ``positions``, for :func:`expand_loss`.

    Raises:
        ConfigError: decay is not over 0 up to 1, or a number of positions is not positive.

    Examples:
        A map of half the height and width has a quarter of the positions.

        >>> from tagseg.losses import decay_at
        >>> round(decay_at(0.996, 20 * 20, reference=40 * 40), 4)
        0.9841
        >>> round(0.996**4, 4)
        0.9841
    """
    _check_decay(decay)
    if positions < 1 or reference < 1:
        raise ConfigError(f"{positions} positions for {reference}", do="give at least 1 of each")
    return float(decay ** (reference / positions))


def constrain_loss(probs: Tensor, refined: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Average over the positions the divergence sum Q log(Q / p) of p from the CRF's Q (Eq. 5).

    Q is raised to 1e-4 where it is lower and scaled to sum 1, as in the authors' program, so that
    p can reach it. It is a constant here: the gradient at the logits is p - Q a position, but for
    the floor. The authors' program adds a gradient through Q, for which it passes the CRF by (it
    takes Q for a softmax of the scores, and of that the diagonal alone); what was written after it
    leaves this out.

    Args:
        probs: float (B, L, h, w), of :func:`sec_probabilities`.
        refined: float (B, L, h, w), Q; no gradient flows into it.
        valid: (B, h, w) bool, False where a crop is padded; None takes all positions.

    Returns:
        Scalar in nats, the mean over all positions of the batch, float32, or float64 of float64
        probabilities.

    Raises:
        ShapeError: the arrays do not fit each other.

    Examples:
        The CRF agrees on the first position and has its doubts about the second.

        >>> import torch
        >>> from tagseg.losses import constrain_loss
        >>> probs = torch.tensor([[[[0.9, 0.9]], [[0.1, 0.1]]]])
        >>> refined = torch.tensor([[[[0.9, 0.5]], [[0.1, 0.5]]]])
        >>> round(float(constrain_loss(probs, refined)), 3)
        0.255
        >>> float(constrain_loss(probs, probs))
        0.0
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
    """Sum up over photos log G of the background and the mean of log G over the tags.

    Args:
        flat: probabilities (B, L, N).
        inside: positions (B, N) bool that take part.
        decays: those of the background and of the classes.
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
    """Compute the weights (B, C) of the mean over the wanted classes of each photo."""
    return wanted.to(dtype) / wanted.sum(1, keepdim=True).clamp(min=1)


def _log(values: Tensor) -> Tensor:
    return values.clamp(min=_LEAST).log()


def _at_least_single(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _inside(probs: Tensor, valid: Tensor | None) -> Tensor:
    """Mark the positions (B, h, w) that take part."""
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
