"""The Lovász-Softmax loss is a convex stand-in for 1 - IoU of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from tagseg.losses.pixel import pixel_weights

__all__ = ["lovasz_loss"]


def lovasz_loss(scores: Tensor, labels: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Average the Lovász extension of 1 - IoU over the labels that are in the batch.

    Berman et al., CVPR 2018, section 3.2. A pixel's error m for a label is 1 - p where it is the
    pixel's and p elsewhere, with p the softmax over the labels. With the pixels in order of falling
    errors, the loss of a label is the sum of m_i g_i, where g_i is how much 1 - IoU grows when
    pixel i is wrong as well as those before it (Definition 2). Where all errors are 0 or 1 it is
    1 - IoU.

    What the paper leaves open: the pixels of the whole batch are taken together, and labels that no
    pixel has are left out. With weights, sizes of sets are sums of weights; 1 - IoU stays
    submodular, and the loss convex in the errors.

    Args:
        scores: (B, L, H, W) float logits, 0 = background.
        labels: (B, H, W) uint8; 255 is ignored.
        weights: (B, H, W) float, at least 0: how much each pixel counts in a set's size; None is 1.

    Returns:
        Scalar in [0, 1], float32, or float64 of float64 scores; 0 with zero gradients where no
        pixel is labelled.

    Raises:
        ShapeError: the shapes do not fit each other, or labels is not uint8.

    Examples:
        Sure scores that show the class on three pixels instead of two: its IoU is 2 / 3, that of
        the background 7 / 8.

        >>> import torch
        >>> from tagseg.losses import lovasz_loss
        >>> labels = torch.tensor([[[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
        >>> shown = torch.tensor([[[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]])
        >>> scores = 99.0 * torch.stack([1 - shown, shown], 1)
        >>> round(float(lovasz_loss(scores, labels)), 4)
        0.2292
        >>> round((1 - 2 / 3 + 1 - 7 / 8) / 2, 4)
        0.2292
    """
    scores, counts = pixel_weights(scores, labels, weights)
    counted = counts > 0
    probabilities = scores.softmax(1).movedim(1, 3)[counted]  # (N, L)
    counts, labels = counts[counted], labels[counted]
    terms = [
        _extension(
            torch.where(labels == label, 1 - probabilities[:, label], probabilities[:, label]),
            labels == label,
            counts,
        )
        for label in labels.unique().tolist()
    ]
    return torch.stack(terms).mean() if terms else 0.0 * scores.sum()


def _extension(errors: Tensor, own: Tensor, counts: Tensor) -> Tensor:
    """The sum of m_i g_i over N pixels; ``own`` says which of them have the label."""
    errors, order = errors.sort(descending=True, stable=True)
    own, counts = own[order], counts[order]
    size = torch.where(own, counts, 0.0).sum()
    found = size - torch.where(own, counts, 0.0).cumsum(0)
    union = size + torch.where(own, 0.0, counts).cumsum(0)
    losses = 1 - found / union
    growth = torch.cat([losses[:1], losses[1:] - losses[:-1]])
    return (errors * growth).sum()
