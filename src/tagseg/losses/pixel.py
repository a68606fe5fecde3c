"""A segmenter that trains on masks has the cross-entropy on labelled pixels for its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, IGNORE

__all__ = ["cross_entropy", "pixel_loss", "pixel_weights"]


def pixel_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    balanced: bool = False,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Average the cross-entropy over the labelled pixels of the batch.

    Args:
        scores: (B, L, H, W) float logits, 0 = background.
        labels: (B, H, W) uint8; 255 is ignored.
        balanced: take the mean over foreground pixels and the mean over background pixels, and
            average the two (the one that exists, if only one does).
        weights: (B, H, W) float, at least 0: how much each pixel counts in the means; None is 1.
        label_smoothing: the part e of each target that is shared out evenly over all L labels, so
            that a pixel's own label has 1 - e + e / L (Szegedy et al., CVPR 2016, section 7); 0 to
            below 1.

    Returns:
        Scalar in nats, float32, or float64 of float64 scores; 0 with zero gradients where no pixel
        is labelled.

    Raises:
        ShapeError: the shapes do not fit each other, or labels is not uint8.
        ConfigError: the label smoothing is out of range.

    Examples:
        One of three background pixels is wrong and the one foreground pixel is right; the last
        pixel is ignored.

        >>> import torch
        >>> from tagseg.losses import pixel_loss
        >>> scores = torch.tensor([[[[3.0, 3.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 3.0, 3.0, 9.0]]]])
        >>> labels = torch.tensor([[[0, 0, 0, 1, 255]]], dtype=torch.uint8)
        >>> round(float(pixel_loss(scores, labels)), 3)
        0.799
        >>> round(float(pixel_loss(scores, labels, balanced=True)), 3)
        0.549
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"a label smoothing of {label_smoothing}", do="use 0 to below 1")
    scores, counts = pixel_weights(scores, labels, weights)
    losses = functional.cross_entropy(
        scores,
        labels.long(),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    if not balanced:
        return _mean_over(losses, counts)
    background = torch.where(labels == BACKGROUND, counts, 0.0)
    foreground = counts - background
    parts = background.any().to(losses.dtype) + foreground.any()
    total = _mean_over(losses, background) + _mean_over(losses, foreground)
    return total / parts.clamp(min=1)


def pixel_weights(
    scores: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Check what a loss of labelled pixels is given.

    Returns:
        The scores (B, L, H, W), in float32 at least, and how much each pixel counts, (B, H, W) of
        their type: its weight, or 1, and 0 where it is ignored.

    Raises:
        ShapeError: the shapes do not fit each other, or labels is not uint8.
    """
    if scores.ndim != 4 or labels.shape != (scores.shape[0], *scores.shape[2:]):
        raise ShapeError(
            f"labels has shape {tuple(labels.shape)}, scores {tuple(scores.shape)}",
            do="give scores (B, L, H, W) and labels (B, H, W)",
        )
    if labels.dtype != torch.uint8:
        raise ShapeError(f"labels is {labels.dtype}", do="give uint8, 255 for ignored pixels")
    if weights is not None and weights.shape != labels.shape:
        raise ShapeError(
            f"weights has shape {tuple(weights.shape)}, labels {tuple(labels.shape)}",
            do="give a weight for each pixel, (B, H, W)",
        )
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    labelled = (labels != IGNORE).to(scores.dtype)
    return scores, labelled if weights is None else labelled * weights.to(scores.dtype)


def cross_entropy(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
    """Wrap :func:`pixel_loss` as a segmenter's objective; the labels say all, tags are not used."""
    return pixel_loss(scores, labels)


def _mean_over(losses: Tensor, counts: Tensor) -> Tensor:
    total = counts.sum()
    # A pixel that does not count may have any loss, also one that is not finite.
    return torch.where(counts > 0, losses * counts, 0.0).sum() / torch.where(total > 0, total, 1.0)
