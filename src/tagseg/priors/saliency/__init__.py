"""Saliency: where anything stands out in a photo, whatever its class.

Two methods need nothing but the photo: :func:`minimum_barrier_saliency`, which learns nothing, and
:func:`drfi_saliency`, which asks a :class:`RegionForest`. Photos are uint8 (H, W, 3) RGB; maps are
float32 (H, W) in [0, 1], or zeros where a photo says nothing.
"""

from tagseg.priors.saliency.drfi import (
    DrfiSettings,
    drfi_saliency,
    drfi_training_rows,
    shipped_forest,
)
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import (
    MinimumBarrierSettings,
    barrier_distance,
    minimum_barrier_saliency,
)
from tagseg.priors.saliency.salient_regions import salient_mask

__all__ = [
    "DrfiSettings",
    "MinimumBarrierSettings",
    "RegionForest",
    "barrier_distance",
    "drfi_saliency",
    "drfi_training_rows",
    "minimum_barrier_saliency",
    "salient_mask",
    "shipped_forest",
]
