"""Priors: where any object is, and which pixels belong together, before any class is known.

Shapes and types are those of :mod:`tagseg.maps`: photos are uint8 (H, W, 3) RGB, saliency maps
float32 (H, W) in [0, 1], superpixels and regions int32 (H, W) with ids 0..n-1. Where a function
takes floats, float64 does as well as float32, and what it returns is float32.

>>> import numpy as np
>>> from tagseg.priors import minimum_barrier_saliency, salient_mask
>>> image = np.full((60, 80, 3), 120, np.uint8)
>>> image[20:40, 25:55] = (200, 60, 40)
>>> int(salient_mask(minimum_barrier_saliency(image)).sum())
600

===================  ===========================================================================
activations          :func:`channel_means`, :func:`foreground_probability`
crisp boundaries     :func:`crisp_boundaries`, :func:`crisp_contour_map`, :func:`crisp_regions`,
                     :class:`ContourMap`, :class:`CrispSettings`
superpixels          :func:`superpixels`, :func:`superpixel_levels`,
                     :func:`superpixel_neighbours`, :class:`SuperpixelSettings`
saliency of a photo  :func:`minimum_barrier_saliency`, :class:`MinimumBarrierSettings`,
                     :func:`barrier_distance`, :func:`salient_mask`
DRFI                 :func:`drfi_saliency`, :class:`DrfiSettings`, :class:`RegionForest`,
                     :func:`shipped_forest`, :func:`drfi_training_rows`
video                :func:`videopca_masks`, :class:`VideoPcaSettings`
student of video     :func:`student_saliency`, :func:`student_saliencies`,
                     :func:`shipped_student`, :func:`load_student`, :func:`save_student`
to teach a student   :func:`mask_quality`, :func:`best_frames`, :func:`lesson`, :class:`Lesson`,
                     :func:`student_schedule`, :func:`fit_student`
===================  ===========================================================================
"""

from tagseg.priors.activations import channel_means, foreground_probability
from tagseg.priors.contour_map import ContourMap
from tagseg.priors.crisp import (
    CrispSettings,
    crisp_boundaries,
    crisp_contour_map,
    crisp_regions,
)
from tagseg.priors.saliency import (
    DrfiSettings,
    MinimumBarrierSettings,
    RegionForest,
    barrier_distance,
    drfi_saliency,
    drfi_training_rows,
    minimum_barrier_saliency,
    salient_mask,
    shipped_forest,
)
from tagseg.priors.student import (
    Lesson,
    best_frames,
    fit_student,
    lesson,
    load_student,
    mask_quality,
    save_student,
    shipped_student,
    student_saliencies,
    student_saliency,
    student_schedule,
)

# The function takes the place of its module of the same name as an attribute of this package;
# ``from tagseg.priors.superpixels import ...`` finds the module as ever.
from tagseg.priors.superpixels import (
    SuperpixelSettings,
    superpixel_levels,
    superpixel_neighbours,
    superpixels,
)
from tagseg.priors.videopca import VideoPcaSettings, videopca_masks

__all__ = [
    "ContourMap",
    "CrispSettings",
    "DrfiSettings",
    "Lesson",
    "MinimumBarrierSettings",
    "RegionForest",
    "SuperpixelSettings",
    "VideoPcaSettings",
    "barrier_distance",
    "best_frames",
    "channel_means",
    "crisp_boundaries",
    "crisp_contour_map",
    "crisp_regions",
    "drfi_saliency",
    "drfi_training_rows",
    "fit_student",
    "foreground_probability",
    "lesson",
    "load_student",
    "mask_quality",
    "minimum_barrier_saliency",
    "salient_mask",
    "save_student",
    "shipped_forest",
    "shipped_student",
    "student_saliencies",
    "student_saliency",
    "student_schedule",
    "superpixel_levels",
    "superpixel_neighbours",
    "superpixels",
    "videopca_masks",
]
