"""Scores of masks, score maps, saliency maps and tag classifiers against ground truth.

Labels are uint8 (H, W) with 0 for the background, k + 1 for tag k and 255 for what does not count
in ground truth; score maps (C, H, W) and saliency maps (H, W) are floats in [0, 1], read as float32
whatever their width. Most scores are classes that count one photo after another in ``update``;
those that only hold counts of pixels can be added up. Scores are fractions, float64, and NaN where
they are not defined.
"""

from tagseg.evaluate.boundary import TrimapAccuracy
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.evaluate.foreground import ForegroundScores, foreground_scores
from tagseg.evaluate.location import AverageMaps
from tagseg.evaluate.masks import MaskScores, evaluate_masks
from tagseg.evaluate.object_sizes import ObjectSizes
from tagseg.evaluate.picking import best_mask
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.evaluate.scores import average_precision, mean_average_precision
from tagseg.evaluate.seeds import CentreMeanShape, PrecisionRecall, SeedCurves
from tagseg.evaluate.shots import ShotScores

__all__ = [
    "AverageMaps",
    "CentreMeanShape",
    "ConfusionMatrix",
    "ForegroundScores",
    "MaskScores",
    "ObjectSizes",
    "PrecisionRecall",
    "SaliencyScores",
    "SeedCurves",
    "ShotScores",
    "TrimapAccuracy",
    "average_precision",
    "best_mask",
    "evaluate_masks",
    "foreground_scores",
    "mean_average_precision",
]
