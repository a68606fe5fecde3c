"""Pixel-level semantic segmentation learned from image-level tags.

    import tagseg

    photos = tagseg.load_dataset("photos", tags="photos/tags.csv")
    result = tagseg.train(photos, recipe="builtin_priors")
    labels = result.segmenter.predict(image)  # uint8 (H, W, 3) in, uint8 (H, W) out

The names below are loaded when they are first used, so that importing tagseg is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagseg.data.dataset import Dataset
    from tagseg.data.targets import with_target
    from tagseg.errors import TagsegError
    from tagseg.evaluate.masks import evaluate_masks
    from tagseg.formats.loading import load_dataset
    from tagseg.formats.masks.ground_truth import GroundTruth
    from tagseg.refine.dense_crf import dense_crf
    from tagseg.refine.higher_order import HigherOrder
    from tagseg.segment.predict import Segmenter
    from tagseg.session.export import load_segmenter
    from tagseg.session.train import Options, Result, train

__all__ = [
    "Dataset",
    "GroundTruth",
    "HigherOrder",
    "Options",
    "Result",
    "Segmenter",
    "TagsegError",
    "dense_crf",
    "evaluate_masks",
    "load_dataset",
    "load_segmenter",
    "train",
    "with_target",
]

__version__ = version("tagseg")

_HOMES = {
    "Dataset": "data.dataset",
    "GroundTruth": "formats.masks.ground_truth",
    "HigherOrder": "refine.higher_order",
    "Options": "session.train",
    "Result": "session.train",
    "Segmenter": "segment.predict",
    "TagsegError": "errors",
    "dense_crf": "refine.dense_crf",
    "evaluate_masks": "evaluate.masks",
    "load_dataset": "formats.loading",
    "load_segmenter": "session.export",
    "train": "session.train",
    "with_target": "data.targets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tagseg' has no attribute {name!r}")
    return getattr(import_module(f"tagseg.{_HOMES[name]}"), name)
