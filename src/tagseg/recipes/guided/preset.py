"""The published set-up of Oh et al., CVPR 2017: G2 on GAP-HighRes seeds."""

from __future__ import annotations

from tagseg.stages.preset import (
    BOX_FILES,
    HIGHER_ORDER,
    SALIENCY_FILES,
    PaperValue,
    Preset,
)

__all__ = ["PRESET"]

_HIGHER_ORDER = "the CRF of C.1 has two kernels and no higher-order terms"
_OTHER_SOURCE = "of another source of saliency"
_A_FILE = "a file that is to be given"

PRESET = Preset(
    backbone=PaperValue("vgg16", "6.1, Table 6"),
    stated={
        "guide": PaperValue("g2", "5.1, 6.2"),
        "seeder": PaperValue("highres", "4.2, 6.1"),
        "seed_threshold": PaperValue(0.2, "6.1"),
        "seeder_side": PaperValue(321, "Table 6"),
        "schedule": PaperValue("paper", "B.2, F: SGD, a tenth in equal steps"),
        "trained_blocks": PaperValue(None, "6.1: fine-tuned"),
        "layer_decay": PaperValue(1.0, "B.2, F: one base learning rate"),
        "classifier_iterations": PaperValue(None, "B.2: 8,000 of a seeder; F: 30,000 of G1's"),
        "classifier_batch_size": PaperValue(None, "B.2: 15 of a seeder; F: 40 of G1's"),
        "classifier_learning_rate": PaperValue(1e-3, "B.2, F"),
        "classifier_form": PaperValue("fully_connected", "6.1, Table 6: VGG-16, of G1"),
        "classifier_width": PaperValue(None, "Table 6: 1024 of a seeder, 4096 of G1's"),
        "classifier_stride": PaperValue(32, "Table 6: VGG-16, of G1"),
        "classifier_size": PaperValue(224, "Table 6: VGG-16, of G1"),
        "saliency": PaperValue("boxes", "6.1: --boxes"),
        "saliency_threshold": PaperValue(0.5, "6.1"),
        "saliency_backbone": PaperValue("resnet101", "6.1, F: as [7]"),
        "saliency_iterations": PaperValue(None, "F: as [7], 20,000"),
        "min_component": PaperValue(0.01, "E"),
        "crf_seed": PaperValue(False, "C: saliency takes its place"),
        "crf_loss": PaperValue(False, "C: excluded from the final model"),
        "crf_bilateral": PaperValue((4.0, 121.0, 5.0), "C.1"),
        "crf_smoothness": PaperValue((3.0, 3.0), "C.1"),
        "crf_reference_side": PaperValue(None, "C.1: pixels"),
        "crf_filter": PaperValue("lattice", "6.1, C.1: inference of [19]"),
        "share_bilateral": PaperValue((4.0, 121.0, 5.0), "E, C.1"),
        "share_smoothness": PaperValue((3.0, 3.0), "E, C.1"),
        "segmenter": PaperValue("published", "6.1"),
        "output_stride": PaperValue(8, "6.1: DeepLab-LargeFOV; Table 6: 41 positions of 321"),
        "scale_field_of_view": PaperValue(False, "Table 6: 12"),
        "segmenter_width": PaperValue(1024, "6.1: DeepLab-LargeFOV; Table 6"),
        "segmenter_iterations": PaperValue(8_000, "6.1, F"),
        "segmenter_batch_size": PaperValue(15, "F"),
        "segmenter_learning_rate": PaperValue(1e-3, "F"),
        "refiner": PaperValue("crf", "6.1"),
    },
    open={
        "photo_side": "photos are VOC's as they are, up to 500 pixels; of others nothing is said",
        "segmenter_crop": "in the authors' code alone: 321",
        "min_seed": "E: 'similarly'; 25 pixels in the authors' code",
        "share_sigma": "E: unaries set by the seeds; a Gaussian in the authors' code alone",
        "without_rise": "5.1: the class with the greatest positive difference, if there is one",
        "crf_iterations": "C.1 gives none; 10 in the authors' code",
        "segmenter_unary": "6.1: the standard DeepLab procedure",
        "saliency_weights": "F: as [7], which has several",
    },
    gives_way={"saliency": SALIENCY_FILES},
    beside={
        **dict.fromkeys(BOX_FILES, _A_FILE),
        "boxes_left_out": f"{_A_FILE}: 6.1 leaves out Pascal's categories",
        **dict.fromkeys(SALIENCY_FILES, _OTHER_SOURCE),
        **dict.fromkeys(HIGHER_ORDER, _HIGHER_ORDER),
        "classifier_hidden_layers": "of a classifier with global average pooling",
        "masks_by_tags": "final masks of training photos are not shown",
    },
)
