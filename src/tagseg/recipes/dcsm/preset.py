"""The published set-up of Shimoda and Yanai, ECCV 2016."""

from __future__ import annotations

from tagseg.stages.preset import HIGHER_ORDER, PaperValue, Preset
from tagseg.stages.settings import KERNELS, SegmenterSettings

__all__ = ["PRESET"]

_SEGMENTER = "of a segmenter that is trained on the masks"
_OF_SEGMENTER = (*SegmenterSettings.own(), *KERNELS, "segmenter_unary", *HIGHER_ORDER)

PRESET = Preset(
    backbone=PaperValue("vgg16", "3.2, 4.2"),
    stated={
        "segmenter": PaperValue("none", "3.1"),
        "schedule": PaperValue("paper", "4.2: SGD at one rate"),
        "square": PaperValue(500, "3.2"),
        "batch_scale": PaperValue((0.7, 1.4), "3.2"),
        "classifier_flip": PaperValue(False, "3.2: resized, and nothing else"),
        "classifier_jitter": PaperValue(0.0, "3.2: resized, and nothing else"),
        "classifier_stride": PaperValue(None, "3.2: VGG-16's own"),
        "classifier_width": PaperValue(None, "3.2: of VGG-16's fully connected layers"),
        "upper_iterations": PaperValue(30_000, "4.2"),
        "classifier_iterations": PaperValue(20_000, "4.2"),
        "classifier_batch_size": PaperValue(2, "4.2"),
        "classifier_learning_rate": PaperValue(1e-5, "4.2"),
        "trained_blocks": PaperValue(None, "4.2: in the second phase all the layers"),
        "layer_decay": PaperValue(1.0, "4.2: one learning rate"),
        "alpha": PaperValue(3.0, "3.3, Eq. 5; Table 1"),
        "blocks": PaperValue((3, 4, 5), "4.4, Table 2"),
        "scales": PaperValue((0.8, 1.0, 1.2), "4.4, Table 3: 400, 500 and 600 pixels"),
        "min_candidates": PaperValue(3, "3.3"),
        "candidate_threshold": PaperValue(0.5, "3.3"),
        "method": PaperValue("guided", "3.3, Table 5"),
        "variant": PaperValue("paper", "Eq. 4, 5"),
        "refiner": PaperValue("crf", "3.4"),
        "map_bilateral": PaperValue((1.0, 30.0, 10.0), "4.2"),
        "map_smoothness": PaperValue((1.0, 3.0), "4.2"),
        "map_filter": PaperValue("lattice", "3.4: inference of [2]"),
    },
    open={
        "photo_side": "4.1: VOC's photos; 3.2 brings all to 500 pixels",
        "normalise": "Eq. 5 divides by no maximum, the figures do with the same alpha (3.3)",
        "crf_iterations": "3.4 gives no number",
        "crf_reference_side": "4.2 gives widths for VOC's photos alone",
    },
    beside={
        **dict.fromkeys(_OF_SEGMENTER, _SEGMENTER),
        "output_stride": "of other networks than VGG-16",
        "masks_by_tags": "final masks of training photos are not shown",
    },
    taken={"schedule": "assumed", "output_stride": "assumed", "masks_by_tags": "assumed"},
)
