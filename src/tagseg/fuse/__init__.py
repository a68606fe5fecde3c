"""Pseudo-labels of a photo from its tags, where its classes are and where any object is.

Maps have the shapes and types of :mod:`tagseg.maps`: score maps (C, H, W) and saliency maps (H, W)
are floats in [0, 1] and read as float32 whatever their width, tags are bool (C,), and labels are
uint8 (H, W) with 0 for the background, k + 1 for tag k and 255 where nothing is known. Superpixels
are int (H, W) with the ids 0..n-1, and what is known of regions stands in arrays (n, ...).
"""

from tagseg.fuse.bayes import colour_histograms, object_probability, refined_regions
from tagseg.fuse.builtin_masks import (
    PresentMaps,
    binary_maps,
    foreground_maps,
    labels_from_maps,
    multiclass_maps,
)
from tagseg.fuse.doubtful_labels import without_doubtful
from tagseg.fuse.guide_labels import (
    component_guide,
    oracle_guide,
    oracle_mask,
    random_guide,
    salient_components,
    seed_guide,
)
from tagseg.fuse.localization_cues import localization_cues
from tagseg.fuse.one_label import has_usable_foreground, of_category, one_label
from tagseg.fuse.region_seeds import (
    object_regions,
    paint,
    region_areas,
    region_labels,
    region_means,
    region_seeds,
)
from tagseg.fuse.seed_labels import cam_labels
from tagseg.fuse.union import agreed_labels, fused_probabilities, joined_maps, region_votes

__all__ = [
    "PresentMaps",
    "agreed_labels",
    "binary_maps",
    "cam_labels",
    "colour_histograms",
    "component_guide",
    "foreground_maps",
    "fused_probabilities",
    "has_usable_foreground",
    "joined_maps",
    "labels_from_maps",
    "localization_cues",
    "multiclass_maps",
    "object_probability",
    "object_regions",
    "of_category",
    "one_label",
    "oracle_guide",
    "oracle_mask",
    "paint",
    "random_guide",
    "refined_regions",
    "region_areas",
    "region_labels",
    "region_means",
    "region_seeds",
    "region_votes",
    "salient_components",
    "seed_guide",
    "without_doubtful",
]
