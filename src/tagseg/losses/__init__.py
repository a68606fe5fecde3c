"""Training objectives for pixel scores: on image tags, on masks, and on a few sure labels.

Scores are float logits (B, L, H, W) over the L = C + 1 labels, background first; tags are bool
(B, C), labels and masks uint8 (B, H, W) with 255 for what is ignored. Each loss is a scalar with a
gradient: float32, or float64 where the scores are. ``tag_cross_entropy``, ``hill_loss`` and
``rejection_loss`` are of a tag classifier: their scores are (B, C).
"""

from tagseg.losses.dice import dice_loss
from tagseg.losses.image_tags import (
    hill_loss,
    rejected_share,
    rejection_loss,
    tag_cross_entropy,
)
from tagseg.losses.lovasz import lovasz_loss
from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss
from tagseg.losses.pixel import pixel_loss
from tagseg.losses.seed_expand_constrain import (
    constrain_loss,
    decay_at,
    expand_loss,
    sec_probabilities,
    seed_loss,
)

__all__ = [
    "class_mask_loss",
    "constrain_loss",
    "decay_at",
    "dice_loss",
    "expand_loss",
    "foreground_loss",
    "hill_loss",
    "lovasz_loss",
    "pixel_loss",
    "rejected_share",
    "rejection_loss",
    "sec_probabilities",
    "seed_loss",
    "tag_cross_entropy",
    "tag_loss",
]
