"""The values that flow between stages: their types, shapes and checks.

H, W are the photo's height and width, C the number of foreground classes.

==============  ========  ============  ==========================================================
value           dtype     shape         meaning
==============  ========  ============  ==========================================================
image           uint8     (H, W, 3)     RGB
tags            bool      (C,)          which foreground classes are in the photo
score_map       float32   (C, H, W)     where each class is, in [0, 1] after normalisation
saliency_map    float32   (H, W)        where any object is, in [0, 1]
superpixels     int32     (H, W)        region ids 0..n-1
labels          uint8     (H, W)        0 background, k + 1 for tag k, 255 ignore
probs           float32   (C+1, H, W)   label probabilities, summing to 1 over the first axis
unary           float32   (C+1, H, W)   -log p
==============  ========  ============  ==========================================================

The conversion between tag indices and labels stands here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "MAX_CLASSES",
    "Image",
    "Labels",
    "Probs",
    "SaliencyMap",
    "ScoreMap",
    "Tags",
    "as_float32",
    "check_alike",
    "check_image",
    "check_labels",
    "check_maps",
    "label_of_tag",
    "labels_of_tags",
    "tags_of_labels",
]

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 254  # labels 1..254 are free between background and ignore

Image = npt.NDArray[np.uint8]
Tags = npt.NDArray[np.bool_]
ScoreMap = npt.NDArray[np.float32]
SaliencyMap = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Probs = npt.NDArray[np.float32]


def label_of_tag(tag: int) -> int:
    """Label of foreground class ``tag`` (0..C-1)."""
    return tag + 1


def labels_of_tags(tags: Tags) -> npt.NDArray[np.intp]:
    """Labels that a photo with ``tags`` (C,) may contain: background, then the present ones."""
    return np.concatenate(([BACKGROUND], np.flatnonzero(tags) + 1))


def tags_of_labels(labels: Labels, n_classes: int) -> Tags:
    """Tags (C,) of the foreground classes that occur in ``labels``; ignored pixels say nothing."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return counts[1 : n_classes + 1] > 0


def as_float32(values: Any) -> Any:
    """Return a floating-point array as float32, and anything else as it is, for a check to name.

    What is too large for float32 becomes infinity, which :func:`check_maps` refuses.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    return values


def check_image(image: Any, name: str = "image") -> Image:
    """Return ``image`` if it is uint8 (H, W, 3) and not empty; raise ShapeError otherwise."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ShapeError(f"{name} is {_describe(image)}", do="give a uint8 array (H, W, 3), RGB")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"{name} has shape {image.shape}", do="give a uint8 array (H, W, 3), RGB")
    return image


def check_labels(labels: Any, n_classes: int, name: str = "labels") -> Labels:
    """Return ``labels`` if uint8 (H, W) with values 0..n_classes or 255; else ShapeError."""
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8 or labels.ndim != 2:
        raise ShapeError(f"{name} is {_describe(labels)}", do="give a uint8 array (H, W)")
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    wrong = present[(present > n_classes) & (present != IGNORE)]
    if wrong.size:
        raise ShapeError(
            f"{name} holds label {wrong[0]}, but there are {n_classes} classes and background",
            do=f"use 0..{n_classes} and {IGNORE} for ignore",
        )
    return labels


def check_alike(prediction: Labels, truth: Labels) -> None:
    """Raise ShapeError unless a prediction and its ground truth have one height and width."""
    if prediction.shape != truth.shape:
        raise ShapeError(
            f"prediction is {prediction.shape}, ground truth is {truth.shape}",
            do="give masks of the photo's own height and width",
        )


def check_maps(maps: Any, shape: tuple[int, int], name: str) -> npt.NDArray[np.float32]:
    """Return ``maps`` if it is a finite float32 (N, H, W) with (H, W) == shape; else ShapeError."""
    if not isinstance(maps, np.ndarray) or maps.dtype != np.float32 or maps.ndim != 3:
        raise ShapeError(f"{name} is {_describe(maps)}", do="give a float32 array (N, H, W)")
    if maps.shape[1:] != shape:
        raise ShapeError(
            f"{name} has shape {maps.shape}, the photo is {shape[0]} x {shape[1]}",
            do="bring both to the same height and width",
        )
    if not np.isfinite(maps).all():
        raise ShapeError(f"{name} holds NaN or infinity", do="check what produced it")
    return maps


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"a {type(value).__name__}"
