"""What recipes have to show: products to be scored, and pictures of intermediate maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import nn

from tagseg.data.working import WorkingPhotos
from tagseg.maps import Image, Probs, SaliencyMap, ScoreMap
from tagseg.nets.gap import GapClassifier
from tagseg.report.figures import colour_map
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter
from tagseg.stages.classifier import LocationMaps, classifier_scores, location_maps
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Product, Seeds, TagScores, View
from tagseg.stages.segmenter import photo_masks, predictions

__all__ = ["cam_seeds", "classifier_outcome", "segmenter_products", "show_map", "show_maps"]


def segmenter_products(
    run: Run,
    config: TrainingConfig,
    segmenter: Segmenter,
    after: Stage,
    probabilities: Callable[[int], Probs] | None = None,
    *,
    name: str = "segmenter",
    by_class: bool = True,
) -> list[Product]:
    """Final masks of the training photos; predictions for the validation photos, without tags.

    ``probabilities`` of the training photos may be given if they are there already; ``name`` is
    what the report calls the predictions; ``by_class`` is as in :class:`Product`.
    """
    masks, stage = photo_masks(run, config, segmenter, after, probabilities)
    title = "masks of the photos" + (" (known tags)" if config.masks_by_tags else "")
    products = [Product(title, "train", masks, (stage,), by_class)]
    if run.val is None:
        return products
    raw, smooth = predictions(run, segmenter, after, run.val)
    products.append(Product(name, "val", raw, (raw.stage,), by_class))
    if smooth is not None:
        products.append(Product(f"{name} + CRF", "val", smooth, (smooth.stage,), by_class))
    return products


def classifier_outcome(
    run: Run, classifier: nn.Module, *, side: int | None = None
) -> TagScores | None:
    """Class probabilities (N, C) of the validation photos when asked for; None without any.

    The classifier sees photos of the longer side ``side``, or at working size.
    """
    if run.val is None:
        return None
    return partial(classifier_scores, run, classifier, run.val, side=side)


def cam_seeds(
    run: Run, config: TrainingConfig, classifier: GapClassifier, after: Stage, threshold: float
) -> Seeds:
    """Class activation maps of the known tags, to be scored."""

    def maps_of(split: Split) -> tuple[LocationMaps, Stage]:
        return location_maps(run, config, classifier, after, split=split)

    return Seeds("class activation maps", threshold, maps_of)


def show_maps(photos: WorkingPhotos, scores_of: Callable[[int], ScoreMap]) -> View:
    """Heat of the strongest present class, over the photo."""

    def show(index: int) -> Image:
        scores = scores_of(index)
        return colour_map(scores.max(0) if len(scores) else np.zeros(scores.shape[1:], np.float32))

    return show


def show_map(photos: WorkingPhotos, map_of: Callable[[int], SaliencyMap]) -> View:
    """Heat of one map."""
    return lambda index: colour_map(map_of(index))
