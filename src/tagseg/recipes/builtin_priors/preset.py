"""The published set-up of Saleh et al., TPAMI 2017."""

from __future__ import annotations

from tagseg.stages.preset import PaperValue, Preset

__all__ = ["PRESET"]

_STRENGTH = "3.1.3 gives no weight, width or number of iterations"
_CHECKMASK = "of masks from which a person picks, CheckMask"

PRESET = Preset(
    backbone=PaperValue("vgg16", "3.1.1, 4.2.1, 4.2.2"),
    stated={
        "masks": PaperValue("both", "3.1.2; Table 6, last row"),
        "alpha": PaperValue(0.5, "3.1.2, Eq. 3"),
        "prior_saturate": PaperValue(0.0, "3.1.1: scaled between 0 and 1"),
        "cam_threshold": PaperValue(0.2, "3.1.2"),
        "elsewhere": PaperValue("mean", "Eq. 4"),
        "mask_crf": PaperValue(True, "3.1.3"),
        "mask_regions": PaperValue("crisp", "3.1.3"),
        "crisp_area_weight": PaperValue(0.0, "Eq. 8"),
        "crf_filter": PaperValue("lattice", "3.1.3: filters of [45]"),
        "sharpness": PaperValue(5.0, "3.2, Eq. 11"),
        "schedule": PaperValue("paper", "4.2.1, 4.2.2: SGD in steps"),
        "trained_blocks": PaperValue(None, "4.2.1: the parameters of the network"),
        "layer_decay": PaperValue(1.0, "4.2.1: one learning rate"),
        "classifier_hidden_layers": PaperValue(2, "4.2.2"),
        "classifier_stride": PaperValue(32, "4.2.2: VGG-16 but for fc6 and fc7"),
        "classifier_size": PaperValue(224, "4.2.2"),
        "classifier_iterations": PaperValue(60_000, "4.2.2, as 4.2.1"),
        "classifier_batch_size": PaperValue(15, "4.2.2"),
        "classifier_learning_rate": PaperValue(1e-4, "4.2.2, as 4.2.1"),
        "segmenter": PaperValue("published", "4.2.1"),
        "field_of_view": PaperValue("auto", "4.2.1: large with multi-class masks, else small"),
        "whole_photos": PaperValue(True, "4.2.1: the network takes an image of size W x H"),
        "scale_field_of_view": PaperValue(False, "4.2.1: 12"),
        "output_stride": PaperValue(8, "4.2.1"),
        "segmenter_width": PaperValue(None, "4.2.1: 1024 with multi-class masks, else 4096"),
        "segmenter_iterations": PaperValue(60_000, "4.2.1"),
        "segmenter_batch_size": PaperValue(1, "4.2.1"),
        "segmenter_learning_rate": PaperValue(1e-4, "4.2.1"),
        "refiner": PaperValue("crf", "3.2.1, 4.2.1"),
        "segmenter_unary": PaperValue("softmax", "3.2.1, Eq. 7"),
        "segmenter_regions": PaperValue("crisp", "3.2.1, 4.2.1"),
    },
    open={
        "photo_side": "photos are VOC's as they are, up to 500 pixels; of others nothing is said",
        "classifier_width": "4.2.2 gives no width of the new convolutions",
        "crf_bilateral": _STRENGTH,
        "crf_smoothness": _STRENGTH,
        "crf_iterations": _STRENGTH,
        "crf_reference_side": _STRENGTH,
        "crisp_weight": "3.1.3 gives no weight of the higher-order terms",
        "crisp_gamma_max": "3.1.3: a maximum cost",
        "crisp_threshold": "3.1.3 does not say how strong a boundary parts regions",
    },
    beside={
        "segmenter_crop": "whole photos have no crop",
        "masks_by_tags": "final masks of training photos are not shown",
        "candidates": _CHECKMASK,
        "candidate_alphas": _CHECKMASK,
        "candidate_blocks": _CHECKMASK,
        "candidate_backgrounds": _CHECKMASK,
        "candidate_crfs": _CHECKMASK,
    },
)
