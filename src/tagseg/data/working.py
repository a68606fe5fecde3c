"""Photos at the size that the networks work at, decoded once where memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.images import may_be_reduced
from tagseg.data.shared_photos import SharedPhotos
from tagseg.errors import DataError
from tagseg.maps import Image, Labels, Probs

__all__ = ["WorkingPhotos", "argmax_at", "labels_at", "resized", "working_image"]

_MEMORY = 1 << 30  # bytes of decoded photos that are kept


class WorkingPhotos:
    """A dataset whose longer photo sides are brought down to ``side`` pixels.

    Phones take 4,000 pixels where the papers' photos have 500; masks go back to the photo's own
    size at the very end (:func:`argmax_at`). Smaller photos stay as they are.

    Attributes:
        dataset: the photos as they are on disk.
        side: longest side that is passed on, pixels.
    """

    def __init__(self, dataset: Dataset, side: int) -> None:
        self.dataset, self.side = dataset, side
        self._kept: dict[int, Image] = {}
        self._full_shapes: dict[int, tuple[int, int]] = {}
        self._room = _MEMORY
        self._shared: SharedPhotos | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def retold(self, dataset: Dataset) -> WorkingPhotos:
        """The same photos with other tags; what is decoded is shared."""
        other = WorkingPhotos(dataset, self.side)
        other._kept, other._full_shapes, other._room = self._kept, self._full_shapes, self._room
        other._shared = self._shared
        return other

    def share(self, budget: int) -> SharedPhotos:
        """Keep decoded photos, up to ``budget`` bytes, where processes forked from here see them.

        Sizes must be known.
        """
        assert self.dataset.sizes is not None
        self._shared = SharedPhotos(self.shapes(), budget)
        return self._shared

    @property
    def names(self) -> tuple[str, ...]:
        """Photo names, in order."""
        return self.dataset.names

    @property
    def tags(self) -> npt.NDArray[np.bool_]:
        """Tags (N, C)."""
        return self.dataset.tags

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground class names, in label order."""
        return self.dataset.classes

    def image(self, index: int) -> Image:
        """Photo ``index`` at working size, (h, w, 3); do not write into it."""
        if index in self._kept:
            return self._kept[index]
        shared = self._shared.get(index) if self._shared is not None else None
        if shared is not None:
            return shared
        image, self._full_shapes[index] = self._made(index)
        if self._shared is not None:
            self._shared.put(index, image)
        elif image.nbytes <= self._room:
            self._kept[index] = image
            self._room -= image.nbytes
        return image

    def _made(self, index: int) -> tuple[Image, tuple[int, int]]:
        """Photo ``index`` at working size, and its height and width on disk."""
        if not self._reduces(index):
            full = self.dataset.image(index)
            return working_image(full, self.side), (full.shape[0], full.shape[1])
        decoded, shape = self.dataset.reduced_image(index, self.side)
        return working_image(decoded, self.side, shape), shape

    def _reduces(self, index: int) -> bool:
        """Whether the photo is decoded to less than it is, for which its size must be known."""
        if self.dataset.sizes is None:
            return False
        height, width = self.dataset.sizes[index].tolist()
        return may_be_reduced(self.dataset.sources[index], (height, width), self.side)

    @cached_property
    def reduces(self) -> bool:
        """Whether any photo is decoded to less than it is, which changes its pixels a little."""
        if self.dataset.sizes is None:
            return False
        large = np.flatnonzero(self.dataset.sizes.max(1, initial=0) >= 2 * self.side)
        return any(self._reduces(index) for index in large.tolist())

    def full_shape(self, index: int) -> tuple[int, int]:
        """Height and width of photo ``index`` on disk."""
        if self.dataset.sizes is not None:
            height, width = self.dataset.sizes[index].tolist()
            return height, width
        if index not in self._full_shapes:
            self.image(index)
        return self._full_shapes[index]

    def __getstate__(self) -> dict[str, Any]:
        """Another process decodes for itself."""
        nothing = {"_kept": {}, "_full_shapes": {}, "_room": _MEMORY, "_shared": None}
        return {"dataset": self.dataset, "side": self.side, **nothing}

    def shapes(self) -> npt.NDArray[np.int64]:
        """Heights and widths (N, 2) at working size; photos of unknown size are decoded for it."""
        if self.dataset.sizes is None:
            found = [self.image(index).shape[:2] for index in range(len(self))]
            return np.array(found, np.int64).reshape(-1, 2)
        full = self.dataset.sizes.astype(np.int64)
        factor = np.minimum(self.side / full.max(1, keepdims=True), 1)
        return np.maximum(np.rint(full * factor), 1).astype(np.int64)

    def runs(self, size: int) -> npt.NDArray[np.int64]:
        """Where runs of up to ``size`` neighbouring photos of one size begin, and N (G + 1,).

        What stands in a run depends on the photos and their order only, so a resumed stage puts
        every photo through the network in the same company as an uninterrupted one.
        """
        count, shapes = len(self), self.shapes()
        changes = 1 + np.flatnonzero((shapes[1:] != shapes[:-1]).any(1))
        starts = np.array([0, *changes], np.int64)[: max(count, 1)]
        of_run = np.arange(count) - np.repeat(starts, np.diff([*starts, count]))
        return np.append(np.flatnonzero(of_run % size == 0), count)

    def stacked(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Photos (B, h, w, 3) of one working size.

        Raises DataError if they are not: a file has changed since it was looked at.
        """
        images = [self.image(index) for index in indices]
        for index, image in zip(indices, images, strict=True):
            if image.shape != images[0].shape:
                what = "has another size than when it was looked at"
                raise DataError(what, where=self.names[index], do="run the same command again")
        return np.stack(images)

    def batches(
        self, size: int, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
        """The photos of each of :meth:`runs`: indices and (B, h, w, 3); of ``indices`` alone."""
        group: list[int] = []
        images: list[Image] = []
        for index in range(len(self)) if indices is None else indices:
            image = self.image(index)
            if group and (len(group) == size or image.shape != images[0].shape):
                yield group, np.stack(images)
                group, images = [], []
            group.append(index)
            images.append(image)
        if group:
            yield group, np.stack(images)


def working_image(image: Image, side: int, shape: tuple[int, int] | None = None) -> Image:
    """``image`` (H, W, 3) with its longer side at most ``side``.

    ``shape`` is the photo's own height and width where ``image`` is a reduced one.
    """
    height, width = shape if shape is not None else image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1.0:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size == (image.shape[1], image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def resized(image: Image, size: tuple[int, int]) -> Image:
    """``image`` (H, W, 3) at ``size``, width and height: by area if narrower, else bilinear."""
    if size == (image.shape[1], image.shape[0]):
        return image
    way = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=way)  # type: ignore[return-value]


def labels_at(labels: Labels, shape: tuple[int, int]) -> Labels:
    """``labels`` (h, w) at ``shape``, by nearest neighbour."""
    if labels.shape == shape:
        return labels
    nearest = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST moves labels by up to half a pixel
    return cv2.resize(labels, shape[::-1], interpolation=nearest)  # type: ignore[return-value]


def argmax_at(probs: Probs, shape: tuple[int, int]) -> Labels:
    """Most likely label per pixel at ``shape``, of probabilities (L, h, w) upsampled bilinearly.

    One label is upsampled at a time, so that a photo of 50 megapixels fits.
    """
    if probs.shape[1:] == shape:
        return probs.argmax(0).astype(np.uint8)
    best = np.full(shape, -1.0, np.float32)
    labels = np.zeros(shape, np.uint8)
    for label, plane in enumerate(probs):
        upsampled = cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_LINEAR)
        ahead = upsampled > best
        labels[ahead] = label
        np.maximum(best, upsampled, out=best)  # type: ignore[call-overload]
    return labels
