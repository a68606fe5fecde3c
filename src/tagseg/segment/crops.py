"""Training crops that see rare and small things: drawn around the labels of a class.

A random crop of a photo whose thing covers a hundredth of it holds background nearly always. Here
most crops are centred on a labelled pixel of a class, and classes are drawn by how rare they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.transforms import GREY, colour_change
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, TrainingError
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels

__all__ = ["ClassCrops", "CropForm", "class_weights", "random_crop"]

_CENTRE = 0.8  # the part of a crop's sides within which the pixel that it is drawn around lies
_COLOUR_CHANNELS = 3


@dataclass(frozen=True)
class CropForm:
    """What crops are like.

    Attributes:
        size: height and width, pixels.
        zoom: factor on the photo's size, before the random one: what the network sees of it.
        scale: range of a random factor on the size, drawn log-uniformly.
        around: fraction of crops that are drawn around a class.
        upside_down, turns: whether photos mean the same upside down, and by quarter turns.
        jitter: range of random factors on brightness, contrast and saturation, 0.2 means 0.8 to
            1.2; and of a shift of the colour channels against one another.

    Raises:
        ConfigError: a number that cannot be meant.
    """

    size: tuple[int, int]
    zoom: float = 1.0
    scale: tuple[float, float] = (0.5, 2.0)
    around: float = 0.7
    upside_down: bool = False
    turns: bool = False
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.zoom <= 0:
            raise ConfigError(
                f"crops of {self.size} pixels at zoom {self.zoom}", do="use values over 0"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale is {self.scale}", do="give two factors, the smaller first")
        if not 0 <= self.around <= 1 or not 0 <= self.jitter < 1:
            raise ConfigError("around or jitter is out of its range", do="use 0 to 1")


def class_weights(photos_with: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """How often each class is drawn, sum 1: by the square root of the number of its photos (C,).

    Between drawing photos evenly, which forgets rare classes, and drawing classes evenly, which
    learns their few photos by heart: Mahajan et al., Exploring the Limits of Weakly Supervised
    Pretraining, ECCV 2018, section 2.2. Classes without photos get 0.
    """
    roots = np.sqrt(photos_with.astype(np.float64))
    return roots / roots.sum() if roots.any() else roots


class ClassCrops:
    """Samples for :func:`tagseg.training.train`: "image" (3, h, w) and "labels" (h, w), uint8.

    Labels are 255 outside the photo, where the image is grey. Photos of whose labels nothing is
    known are not drawn.

    Args:
        known: indices of the photos to draw from.
        targets: training labels (h, w) of photo i at working size.
        apart: whether colours are left to the device, :func:`tagseg.data.transforms.recoloured`.

    Raises:
        TrainingError: nothing is known of any photo.
    """

    def __init__(
        self,
        photos: WorkingPhotos,
        known: npt.NDArray[np.intp],
        targets: Callable[[int], Labels],
        form: CropForm,
        *,
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._photos, self._targets, self._form = photos, targets, form
        n_labels = len(photos.classes) + 1
        held = np.zeros((len(known), n_labels), np.bool_)
        for row, index in enumerate(known):
            counts = np.bincount(targets(int(index)).ravel(), minlength=IGNORE + 1)
            held[row] = counts[:n_labels] > 0
        if not held.any():
            raise TrainingError(
                "no training label is known in any photo", do="look at the masks that they are from"
            )
        self._known, held = known[held.any(1)], held[held.any(1)]
        held[:, BACKGROUND] = False
        self._with = [np.flatnonzero(column) for column in held.T]
        self._weights = class_weights(held.sum(0))

    def __call__(self, i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        """Sample ``i``: around a class, whatever ``i`` is, or else of photo ``i``."""
        i, centre, form = i % len(self._known), None, self._form
        if rng.random() < form.around and self._weights.any():
            label = int(rng.choice(len(self._weights), p=self._weights))
            i = int(rng.choice(self._with[label]))
            places = np.flatnonzero(self._targets(int(self._known[i])) == label)
            centre = int(rng.choice(places))
        index = int(self._known[i])
        image, labels = self._photos.image(index), self._targets(index)
        image, labels = _cut(image, labels, centre, form, rng)
        image, labels = _turned(image, labels, form, rng)
        later = self._apart and form.jitter > 0
        if not later:
            image = _recoloured(image, form.jitter, rng)
        return {
            "image": np.ascontiguousarray(image.transpose(2, 0, 1)),
            "labels": np.ascontiguousarray(labels),
            **(_to_be_recoloured(form.jitter, rng) if later else {}),
        }


def random_crop(image: Image, form: CropForm, rng: np.random.Generator) -> Image:
    """A crop of a photo (h, w, 3) from anywhere, for a network that learns from tags alone."""
    nowhere = np.zeros(image.shape[:2], np.uint8)
    cut, _ = _turned(*_cut(image, nowhere, None, form, rng), form, rng)
    return _recoloured(cut, form.jitter, rng)


def _cut(
    image: Image, labels: Labels, centre: int | None, form: CropForm, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """A window of the photo at a random scale, around pixel ``centre`` if there is one."""
    low, high = np.log(form.scale)
    factor = form.zoom * float(np.exp(rng.uniform(low, high)))
    place = None if centre is None else divmod(centre, labels.shape[1])
    window = []
    for axis, side in enumerate(form.size):
        whole, extent = labels.shape[axis], max(1.0, side / factor)
        if place is None:
            first = rng.uniform(min(0.0, whole - extent), max(0.0, whole - extent))
        else:
            first = place[axis] + 0.5 - extent * rng.uniform(0.5 - _CENTRE / 2, 0.5 + _CENTRE / 2)
            first = float(np.clip(first, min(0.0, whole - extent), max(0.0, whole - extent)))
        window.append((first, extent))
    (top, height), (left, width) = window
    rows, columns = form.size
    # Pixel (x, y) of the crop is what lies at (left + (x + 0.5) * width / columns - 0.5, ...).
    affine = np.array(
        [
            [width / columns, 0.0, left + 0.5 * width / columns - 0.5],
            [0.0, height / rows, top + 0.5 * height / rows - 0.5],
        ]
    )
    shrinks = factor < 1
    if shrinks:  # smooth first what would be aliased
        sigma = 0.5 * (1 / factor - 1)
        y0, y1 = max(0, int(top) - 8), min(image.shape[0], int(top + height) + 9)
        x0, x1 = max(0, int(left) - 8), min(image.shape[1], int(left + width) + 9)
        image = cv2.GaussianBlur(image[y0:y1, x0:x1], (0, 0), sigma)  # type: ignore[assignment]
        part = affine - np.array([[0.0, 0.0, x0], [0.0, 0.0, y0]])
    else:
        part = affine
    flags = cv2.WARP_INVERSE_MAP
    grey = (GREY,) * _COLOUR_CHANNELS
    cut = cv2.warpAffine(
        image, part, (columns, rows), flags=flags | cv2.INTER_LINEAR, borderValue=grey
    )
    nearest = cv2.warpAffine(
        labels, affine, (columns, rows), flags=flags | cv2.INTER_NEAREST, borderValue=(IGNORE,)
    )
    return cut, nearest  # type: ignore[return-value]


def _turned(
    image: Image, labels: Labels, form: CropForm, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Mirrored, and turned where photos mean the same then."""
    mirrored, flipped, quarter = rng.random(3) < 0.5
    if mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if flipped and (form.upside_down or form.turns):
        image, labels = image[::-1], labels[::-1]
    if quarter and form.turns and image.shape[0] == image.shape[1]:
        image, labels = image.transpose(1, 0, 2), labels.T
    return image, labels


def _recoloured(image: Image, amount: float, rng: np.random.Generator) -> Image:
    """Brightness, contrast, saturation and the balance of the channels, at random."""
    if amount == 0.0:
        return image
    matrix, brightness = _colours(amount, rng)
    mean = image.reshape(-1, _COLOUR_CHANNELS).mean(0)
    offset = mean * brightness - matrix @ mean
    return cv2.transform(image, np.column_stack([matrix, offset]))  # type: ignore[return-value]


def _to_be_recoloured(
    amount: float, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """The same draw, for the device."""
    matrix, brightness = _colours(amount, rng)
    return colour_change(matrix, brightness * np.eye(_COLOUR_CHANNELS) - matrix, 0.5)


def _colours(amount: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], float]:
    """What colours are multiplied by, (3, 3), and their mean."""
    contrast, brightness, saturation = rng.uniform(1 - amount, 1 + amount, 3)
    balance = rng.uniform(1 - amount / 4, 1 + amount / 4, _COLOUR_CHANNELS)
    grey = np.array([0.299, 0.587, 0.114])
    mix = saturation * np.eye(3) + (1 - saturation) * grey[None, :]
    return contrast * balance[:, None] * mix, float(brightness)
