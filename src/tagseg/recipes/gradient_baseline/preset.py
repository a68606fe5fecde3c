"""The published set-up of the gradient seeders of Oh et al., CVPR 2017 (4.2, Figure 3)."""

from __future__ import annotations

from tagseg.stages.preset import HIGHER_ORDER, PaperValue, Preset
from tagseg.stages.settings import KERNELS, SegmenterSettings

__all__ = ["PRESET"]

_SCORED_ALONE = "4.2 scores the seeds, and no segmenter learns from them"
_OF_SEGMENTER = (
    *("segmenter", "refiner", "segmenter_unary", "masks_by_tags", "output_stride"),
    *(*SegmenterSettings.own(), *KERNELS, *HIGHER_ORDER),
)

PRESET = Preset(
    backbone=PaperValue("vgg16", "4.2, F, Table 6"),
    stated={
        "classifier_form": PaperValue("fully_connected", "4.2, Table 6: VGG-16"),
        "classifier_size": PaperValue(224, "Table 6: VGG-16"),
        "classifier_stride": PaperValue(32, "Table 6: VGG-16"),
        "classifier_width": PaperValue(4096, "Table 6: VGG-16"),
        "schedule": PaperValue("paper", "F: SGD, a tenth in equal steps"),
        "trained_blocks": PaperValue(None, "6.1: fine-tuned"),
        "layer_decay": PaperValue(1.0, "F: one base learning rate"),
        "classifier_iterations": PaperValue(30_000, "F"),
        "classifier_batch_size": PaperValue(40, "F"),
        "classifier_learning_rate": PaperValue(1e-3, "F"),
        "blocks": PaperValue((0,), "4.2: across the RGB channels"),
        "seed_crf": PaperValue(True, "4.2"),
        "seed_bilateral": PaperValue((4.0, 121.0, 5.0), "C.1"),
        "seed_smoothness": PaperValue((3.0, 3.0), "C.1"),
        "seed_filter": PaperValue("lattice", "4.2, C.1: inference of [19]"),
        "crf_reference_side": PaperValue(None, "C.1: pixels"),
    },
    open={
        "photo_side": "photos are VOC's as they are, up to 500 pixels; of others nothing is said",
        "method": "4.2 compares all three",
        "seed_sigma": "4.2: a vanilla Gaussian kernel",
        "seed_contrast": "4.2 does not say how gradients become unaries of the CRF",
        "crf_iterations": "C.1 gives none; 10 in the authors' code",
        "seed_threshold": "Figure 3 is of every threshold; 6.1's 0.2 is of GAP-HighRes",
    },
    beside={
        **dict.fromkeys(_OF_SEGMENTER, _SCORED_ALONE),
        "classifier_hidden_layers": "of a classifier with global average pooling",
    },
)
