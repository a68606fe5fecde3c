"""Losses of a tag classifier, for tags that are complete, incomplete or partly wrong.

Scores are float logits (B, C) and tags bool (B, C). What is not tagged is taken as absent; where
tags are incomplete that is wrong of some, and the losses here differ in how far they believe it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError

__all__ = ["hill_loss", "rejected_share", "rejection_loss", "tag_cross_entropy"]


def tag_cross_entropy(scores: Tensor, tags: Tensor, *, known: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy of what is known: summed over classes, mean over photos.

    Partial binary cross-entropy without its normalisation (Durand, Mehrasa and Mori, Learning a
    Deep ConvNet for Multi-label Classification with Partial Labels, CVPR 2019, Eq. 1 with g = 1): a
    pair of photo and class of which nobody knows adds nothing, and has no gradient.

    Args:
        scores: (B, C) float logits.
        tags: (B, C) bool.
        known: (B, C) bool; None is all.

    Returns:
        Scalar, float32, or float64 of float64 scores.

    Raises:
        ShapeError: shapes or types do not fit.

    Examples:
        >>> import torch
        >>> from tagseg.losses import tag_cross_entropy
        >>> scores, tags = torch.tensor([[0.0, 5.0]]), torch.tensor([[True, False]])
        >>> round(float(tag_cross_entropy(scores, tags)), 3)
        5.7
        >>> round(float(tag_cross_entropy(scores, tags, known=torch.tensor([[True, False]]))), 3)
        0.693
    """
    scores = _checked(scores, tags, known=known)
    return _mean(_cross_entropies(scores, tags), known)


def hill_loss(
    scores: Tensor,
    tags: Tensor,
    *,
    known: Tensor | None = None,
    absent: Tensor | None = None,
    peak: float = 1.5,
    margin: float = 1.0,
    gamma: float = 2.0,
) -> Tensor:
    """A loss that lets go of what is not tagged where the classifier is sure of it.

    Zhang, Cheng, Huang, Wen, Feng, Li and Guo, Simple and Robust Loss Design for Multi-Label
    Learning with Missing Labels, 2021 (arXiv 2112.07368, section 3). With p the sigmoid of a score,
    what is not tagged costs (peak - p) p^2, the Hill loss: its gradient by the score falls again
    where p nears 1, so that a missing tag is not fought for. What is tagged costs the focal margin
    loss, -(1 - q)^gamma log q with q the sigmoid of score - margin. Summed over classes, mean over
    photos, as the cross-entropy is.

    Args:
        scores: (B, C) float logits.
        tags: (B, C) bool.
        known: (B, C) bool; other pairs add nothing. None is all.
        absent: (B, C) bool, what is surely absent and costs its cross-entropy. None is nothing.
        peak: lambda of the Hill loss; at 1.5 the gradient by the score is 3 p^2 (1 - p)^2, which is
            largest at p = 0.5.
        margin: m of the focal margin loss.
        gamma: of the focal margin loss.

    Raises:
        ShapeError: shapes or types do not fit.

    Examples:
        What is not tagged although the classifier is sure of it costs little.

        >>> import torch
        >>> from tagseg.losses import hill_loss, tag_cross_entropy
        >>> scores, tags = torch.tensor([[6.0]]), torch.tensor([[False]])
        >>> [round(float(loss(scores, tags)), 2) for loss in (tag_cross_entropy, hill_loss)]
        [6.0, 0.5]
    """
    scores = _checked(scores, tags, known=known, absent=absent)
    p = scores.sigmoid()
    nothing = (peak - p) * p.square()
    moved = scores - margin
    something = -functional.logsigmoid(moved) * (1 - moved.sigmoid()) ** gamma
    losses = torch.where(tags, something, nothing)
    if absent is not None:
        losses = torch.where(absent & ~tags, functional.softplus(scores), losses)
    return _mean(losses, known)


def rejected_share(epoch: int, rate: float) -> float:
    """Fraction of the losses of unobserved tags that is dropped in ``epoch``, counted from 0.

    Kim, Kim, Akata and Lee, Large Loss Matters in Weakly Supervised Multi-Label Classification,
    CVPR 2022, section 4: none in the first epoch, and ``rate`` percent more in each that follows.

    >>> from tagseg.losses import rejected_share
    >>> [rejected_share(epoch, 0.2) for epoch in (0, 1, 10)]
    [0.0, 0.002, 0.02]
    """
    return min(1.0, max(0, epoch) * rate / 100)


def rejection_loss(
    scores: Tensor,
    tags: Tensor,
    share: float,
    *,
    known: Tensor | None = None,
    absent: Tensor | None = None,
) -> Tensor:
    """Cross-entropy without the largest losses of what is not tagged (LL-R).

    Kim, Kim, Akata and Lee, CVPR 2022, section 4: a network learns from right labels first, so
    that a large loss of an unobserved tag is a sign that it is missing. Of the batch's unobserved
    tags the fraction ``share``, rounded up, with the largest losses has weight 0.

    Args:
        scores: (B, C) float logits.
        tags: (B, C) bool.
        share: of :func:`rejected_share`, 0 to 1.
        known: (B, C) bool; other pairs add nothing. None is all.
        absent: (B, C) bool, what is surely absent, and so is observed. None is nothing.

    Raises:
        ShapeError: shapes or types do not fit.
        ConfigError: share is out of range.

    Examples:
        The second class is not tagged, and is there by the classifier.

        >>> import torch
        >>> from tagseg.losses import rejection_loss
        >>> scores, tags = torch.tensor([[0.0, 5.0, -5.0]]), torch.tensor([[True, False, False]])
        >>> [round(float(rejection_loss(scores, tags, share)), 3) for share in (0.0, 0.5)]
        [5.707, 0.7]
    """
    scores = _checked(scores, tags, known=known, absent=absent)
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}", do="give a fraction, 0 to 1")
    losses = _cross_entropies(scores, tags)
    unobserved = ~tags
    for said in (known, None if absent is None else ~absent):
        unobserved = unobserved if said is None else unobserved & said
    # In whole thousandths of a percent, so that 0.2 percent of 1,000 are 2.
    count = -(-round(share * 1e5) * int(unobserved.sum()) // 100_000)
    if count:
        ranked = losses.detach().masked_fill(~unobserved, -1.0).flatten()
        dropped = ranked.topk(count).indices
        kept = torch.ones_like(ranked, dtype=torch.bool).index_fill(0, dropped, False)
        kept = kept.view_as(tags)
        known = kept if known is None else known & kept
    return _mean(losses, known)


def _cross_entropies(scores: Tensor, tags: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        scores, tags.to(scores.dtype), reduction="none"
    )


def _mean(losses: Tensor, known: Tensor | None) -> Tensor:
    """Summed over the known classes, mean over photos."""
    if known is not None:
        losses = torch.where(known, losses, 0.0)
    return losses.sum(1).mean()


def _checked(scores: Tensor, tags: Tensor, **pairs: Tensor | None) -> Tensor:
    """The scores in float32 or float64; ShapeError where something does not fit."""
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ShapeError(
            f"scores is {scores.dtype} of shape {tuple(scores.shape)}", do="give logits (B, C)"
        )
    for name, value in {"tags": tags, **pairs}.items():
        if value is not None and (value.dtype != torch.bool or value.shape != scores.shape):
            raise ShapeError(
                f"{name} is {value.dtype} of shape {tuple(value.shape)}",
                do=f"give bool of shape {tuple(scores.shape)}, as the scores",
            )
    half = scores.dtype in (torch.float16, torch.bfloat16)
    return scores.float() if half else scores
