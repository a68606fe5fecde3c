"""The published set-ups of Jing et al.: semantic segmentation, and foreground segmentation."""

from __future__ import annotations

from dataclasses import replace

from tagseg.stages.preset import (
    BOX_FILES,
    BOX_TRAINING,
    HIGHER_ORDER,
    SALIENCY_FILES,
    PaperValue,
    Preset,
)

__all__ = ["FOREGROUND_PRESET", "PRESET"]

_NETWORK = "III-D names DeepLab [2], and no number of it"
_GRABCUT = "III-C names GrabCut [42], and no number"
_CRF = "III-D: DeepLab has a CRF; not whether the masks are after it, nor a number of it"
_OTHER_SOURCE = "of another source of coarse masks"
_BOXES = "of saliency that is learned from boxes"
_HIGHER_ORDER = "of higher-order terms of a CRF"
_FIXED = "of a fixed number of iterations"

FOREGROUND_PRESET = Preset(
    stated={
        "saliency": PaperValue("auto", "III-B: the student's of [20], unless others are given"),
        "initial": PaperValue("enhanced", "III-C, III-D"),
        "grabcut_iterations": PaperValue(None, "III-C: until it converges"),
        "between": PaperValue("grabcut", "III-D, IV-D.2"),
        "foreground_limits": PaperValue((0.01, 0.8), "IV-D.2, rule a"),
        "filter_first": PaperValue(False, "IV-D.2, rule a: in next training round"),
        "rounds": PaperValue(5, "IV-B"),
        "converged": PaperValue(2.0, "IV-B: completed for 5 rounds"),
        "start": PaperValue("warm", "III-D: to continue to train"),
        "schedule": PaperValue("paper", "IV-B: SGD"),
        "segmenter_batch_size": PaperValue(12, "IV-B"),
        "segmenter_learning_rate": PaperValue(2.5e-4, "IV-B"),
        "resize": PaperValue(321, "IV-B"),
        "resize_range": PaperValue((1.0, 1.0), "IV-B: to 321 x 321"),
        "segmenter_crop": PaperValue(256, "IV-B"),
        "network": PaperValue("fpn", "III-E"),
    },
    open={
        "photo_side": "IV-A: ImageNet's photos, of no other size than their own",
        "coarse_fraction": "III-B: what of a soft mask is foreground",
        "grabcut_side": _GRABCUT,
        "segmenter_iterations": "IV-B gives the rounds, and no iterations of one",
        "later_fraction": "IV-B gives the rounds, and no iterations of one",
        "trained_blocks": _NETWORK,
        "layer_decay": _NETWORK,
        "output_stride": _NETWORK,
        "scale_field_of_view": _NETWORK,
        "segmenter_width": _NETWORK,
        "refiner": _CRF,
        "segmenter_unary": _CRF,
        "crf_bilateral": _CRF,
        "crf_smoothness": _CRF,
        "crf_iterations": _CRF,
        "crf_reference_side": _CRF,
        "crf_filter": _CRF,
    },
    beside={
        "grabcut_start_side": _FIXED,
        "grabcut_start_iterations": _FIXED,
        **dict.fromkeys(SALIENCY_FILES, _OTHER_SOURCE),
        "student": "a file that is given",
        **dict.fromkeys((*BOX_FILES, *BOX_TRAINING), _BOXES),
        **dict.fromkeys(HIGHER_ORDER, _HIGHER_ORDER),
    },
    taken={
        "schedule": "assumed",
        "segmenter_iterations": "Chen et al. 2017: 20,000",
        "segmenter_width": "Chen et al. 2017: 1024",
        "output_stride": "Chen et al. 2017: 8",
        "refiner": "Chen et al. 2017",
    },
)

_OF_CLASSES = {
    "segmenter": PaperValue("published", "III-D: DeepLab"),
    "masks_by_tags": PaperValue(False, "IV-E: multi-categories in the training image"),
}

PRESET = replace(
    FOREGROUND_PRESET,
    stated={
        **{name: said for name, said in FOREGROUND_PRESET.stated.items() if name != "network"},
        **_OF_CLASSES,
    },
)
