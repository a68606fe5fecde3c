"""The published set-up of Wang et al., CVPR 2018."""

from __future__ import annotations

from tagseg.stages.preset import (
    BOX_FILES,
    BOX_TRAINING,
    HIGHER_ORDER,
    SALIENCY_FILES,
    PaperValue,
    Preset,
)

__all__ = ["PRESET"]

_CLASSIFIER = "4.1 trains a classification network for CAM [34], and gives no number of it"
_REGIONS = "4.2 takes mask-based Fast R-CNN [9], and gives no number of it"
_PIXELNET = "5 takes DeepLab-LargeFOV [2], and gives no number of it"
_SUPERPIXELS = "4.1 names the method [7], and no number"
_CRF = "4.3 names the CRF [14], and no number"
_ROUNDS = "Algorithm 1 says nothing of how later rounds train"
_HIGHER_ORDER = "of higher-order terms of a CRF"
_FILE = "a file that is given"
_BOXES = "of saliency that is learned from boxes"

PRESET = Preset(
    backbone=PaperValue("vgg16", "6.2; ResNet-101 too"),
    stated={
        "unseeded": PaperValue("background", "4.2: initially labeled as background"),
        "supplement": PaperValue(True, "4.3"),
        "saliency": PaperValue("auto", "4.3: DRFI's, unless others are given"),
        "mining": PaperValue(True, "4.2; Algorithm 1, lines 2 and 3"),
        "rounds": PaperValue(5, "6.3.1, Table 3"),
        "segmenter": PaperValue("published", "5: DeepLab-LargeFOV"),
        "crf_filter": PaperValue("lattice", "4.3: inference of [14]"),
    },
    open={
        "photo_side": "6.1: VOC's photos, of no other size than their own",
        "schedule": "no training has a number of iterations or a rate",
        "trained_blocks": "no training says which layers learn",
        "layer_decay": "no training says which layers learn",
        "seeder": _CLASSIFIER,
        "seeder_side": _CLASSIFIER,
        "classifier_width": _CLASSIFIER,
        "classifier_iterations": _CLASSIFIER,
        "classifier_batch_size": _CLASSIFIER,
        "classifier_learning_rate": _CLASSIFIER,
        "superpixel_scale": _SUPERPIXELS,
        "superpixel_sigma": _SUPERPIXELS,
        "superpixel_min": _SUPERPIXELS,
        "seed_threshold": "4.1: a threshold",
        "background_threshold": "4.1 gives local maxima no least heat",
        "seed_fraction": "Algorithm 1, line 11 does not say how masks label regions",
        "regionnet_backbone": _REGIONS,
        "regionnet_weights": _REGIONS,
        "regionnet_start": _REGIONS,
        "regionnet_width": _REGIONS,
        "regionnet_side": _REGIONS,
        "regionnet_regions": _REGIONS,
        "regionnet_iterations": _REGIONS,
        "regionnet_batch_size": _REGIONS,
        "regionnet_learning_rate": _REGIONS,
        "bayes_feature": "4.3: the feature vector v",
        "bayes_bandwidth": "4.3: the distributions p(v | obj) and p(v | bg)",
        "output_stride": _PIXELNET,
        "scale_field_of_view": _PIXELNET,
        "segmenter_width": _PIXELNET,
        "segmenter_crop": _PIXELNET,
        "segmenter_iterations": _PIXELNET,
        "segmenter_batch_size": _PIXELNET,
        "segmenter_learning_rate": _PIXELNET,
        "refiner": "5 and 6 do not say whether PixelNet's masks are after a CRF",
        "segmenter_unary": "5 and 6 do not say whether PixelNet's masks are after a CRF",
        "crf_bilateral": _CRF,
        "crf_smoothness": _CRF,
        "crf_iterations": _CRF,
        "crf_reference_side": _CRF,
        "masks_by_tags": "Algorithm 1, line 10 does not say which classes masks may hold",
        "start": _ROUNDS,
        "later_fraction": _ROUNDS,
        "converged": "Algorithm 1: while iteration is effective",
    },
    beside={
        **dict.fromkeys(SALIENCY_FILES, _FILE),
        **dict.fromkeys((*BOX_FILES, *BOX_TRAINING), _BOXES),
        **dict.fromkeys(HIGHER_ORDER, _HIGHER_ORDER),
    },
    taken={
        "schedule": "assumed",
        "classifier_iterations": "Oh et al. B.2: 8,000",
        "classifier_batch_size": "Oh et al. B.2: 15",
        "classifier_learning_rate": "Oh et al. B.2: 0.001",
        "seeder_side": "Oh et al., code: 321",
        "output_stride": "Chen et al. 2015: 8",
        "segmenter_width": "Chen et al. 2015: 1024",
        "segmenter_crop": "Oh et al. F: 321",
        "segmenter_iterations": "Oh et al. F: 8,000",
        "segmenter_batch_size": "Oh et al. F: 15",
        "segmenter_learning_rate": "Oh et al. F: 0.001",
        "refiner": "assumed",
        "masks_by_tags": "assumed",
    },
)
