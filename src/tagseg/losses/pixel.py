"""A segmenter that trains on masks has the cross-entropy on labelled pixels for its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE

__all__ = ["cross_entropy", "pixel_loss"]


def pixel_loss(scores: Tensor, labels: Tensor, *, balanced: bool = False) -> Tensor:
    """Average the cross-entropy over the labelled pixels of the batch.

    Args:
        scores: (B, L, H, W) float logits, 0 = background.
        labels: (B, H, W) uint8; 255 is ignored.
        balanced: take the mean over foreground pixels and the mean over background pixels, and
            average the two (the one that exists, if only one does).

    Returns:
        Scalar in nats, float32, or float64 of float64 scores; 0 with zero gradients where no pixel
        is labelled.

    Raises:
        ShapeError: the shapes do not fit each other, or labels is not uint8.

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
    if scores.ndim != 4 or labels.shape != (scores.shape[0], *scores.shape[2:]):
        raise ShapeError(
            f"labels has shape {tuple(labels.shape)}, scores {tuple(scores.shape)}",
            do="give scores (B, L, H, W) and labels (B, H, W)",
        )
    if labels.dtype != torch.uint8:
        raise ShapeError(f"labels is {labels.dtype}", do="give uint8, 255 for ignored pixels")
    half = scores.dtype in (torch.float16, torch.bfloat16)
    losses = functional.cross_entropy(
        scores.float() if half else scores, labels.long(), ignore_index=IGNORE, reduction="none"
    )
    labelled = labels != IGNORE
    if not balanced:
        return _mean_over(losses, labelled)
    background = labels == BACKGROUND
    foreground = labelled & ~background
    parts = background.any().to(losses.dtype) + foreground.any()
    total = _mean_over(losses, background) + _mean_over(losses, foreground)
    return total / parts.clamp(min=1)


def cross_entropy(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
    """Wrap :func:`pixel_loss` as a segmenter's objective; the labels say all, tags are not used."""
    return pixel_loss(scores, labels)


def _mean_over(losses: Tensor, region: Tensor) -> Tensor:
    return torch.where(region, losses, 0.0).sum() / region.sum().clamp(min=1)
