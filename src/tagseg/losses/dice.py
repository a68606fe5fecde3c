"""The soft Dice loss counts overlap, so that a class of few pixels weighs as much as any other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tagseg.losses.pixel import pixel_weights

__all__ = ["dice_loss"]


def dice_loss(scores: Tensor, labels: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Average 1 - D over the labels that are in the batch, with D the soft Dice coefficient.

    Milletari et al., V-Net, 3DV 2016, section 3: D = 2 sum p g / (sum p^2 + sum g^2), where p is a
    label's probability (softmax over the labels) and g is 1 where it is the pixel's and 0
    elsewhere.

    What the paper leaves open, as it has one class: the sums run over the pixels of the whole
    batch, since a class of few pixels is in few crops; background is a label like the others; and
    labels that no pixel has are left out, so that no smoothing constant is needed. Where a class is
    not in the batch, its probabilities still lower the D of those that are.

    Args:
        scores: (B, L, H, W) float logits, 0 = background.
        labels: (B, H, W) uint8; 255 is ignored.
        weights: (B, H, W) float, at least 0: how much each pixel counts in the sums; None is 1.

    Returns:
        Scalar in [0, 1], float32, or float64 of float64 scores; 0 with zero gradients where no
        pixel is labelled.

    Raises:
        ShapeError: the shapes do not fit each other, or labels is not uint8.

    Examples:
        One of ten pixels shows the class. To miss it costs little in the cross-entropy, but half of
        all that the Dice loss can be.

        >>> import torch
        >>> from tagseg.losses import dice_loss, pixel_loss
        >>> labels = torch.tensor([[[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
        >>> missed = torch.tensor([3.0, -3.0])[None, :, None, None].expand(1, 2, 1, 10)
        >>> round(float(pixel_loss(missed, labels)), 2)
        0.6
        >>> round(float(dice_loss(missed, labels)), 2)
        0.52
    """
    scores, counts = pixel_weights(scores, labels, weights)
    probabilities = scores.softmax(1)
    n_labels = scores.shape[1]
    # Label 255 may be any: its pixels count 0.
    own = functional.one_hot(torch.where(counts > 0, labels.long(), 0), n_labels)
    own = own.movedim(3, 1).to(scores.dtype) * counts[:, None]  # g, weighted
    axes = (0, 2, 3)
    sizes = own.sum(axes)
    squares = (probabilities.square() * counts[:, None]).sum(axes)
    present = sizes > 0
    overlaps = 2 * (probabilities * own).sum(axes)
    missing = 1 - overlaps / torch.where(present, squares + sizes, 1.0)
    return torch.where(present, missing, 0.0).sum() / present.sum().clamp(min=1)
