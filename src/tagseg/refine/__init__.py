"""Make labels follow the image: dense CRFs by filters or exactly, and GrabCut from masks and boxes.

Shapes and types are those of :mod:`tagseg.maps`: photos are uint8 (H, W, 3), maps of L labels or
classes float32 (L, H, W) and single maps (H, W); float64 is accepted and read as float32. Labels
are uint8 (H, W) with 255 for ignore, masks bool (H, W), regions integer ids (H, W). A unary is
-log p, and its label 0 is the background where there is one. Functions named
``batch`` or ``exact`` take tensors with a first axis of photos, (B, H, W, 3) and (B, L, H, W), all
others numpy arrays.
"""

from tagseg.refine.box_masks import boxed, object_mask
from tagseg.refine.component_crf import ComponentCrf
from tagseg.refine.dense_crf import CrfParameters, dense_crf, refine, softmax_unary
from tagseg.refine.exact_crf import dense_crf_batch, exact_dense_crf
from tagseg.refine.grabcut import (
    GrabCutSettings,
    enhanced_mask,
    grab,
    levelled,
    thresholded,
    trimap,
)
from tagseg.refine.higher_order import HigherOrder

__all__ = [
    "ComponentCrf",
    "CrfParameters",
    "GrabCutSettings",
    "HigherOrder",
    "boxed",
    "dense_crf",
    "dense_crf_batch",
    "enhanced_mask",
    "exact_dense_crf",
    "grab",
    "levelled",
    "object_mask",
    "refine",
    "softmax_unary",
    "thresholded",
    "trimap",
]
