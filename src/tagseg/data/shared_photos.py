"""Decoded photos in memory that processes share, those that load photos for a training."""

from __future__ import annotations

import mmap
from multiprocessing import Lock

import numpy as np
import numpy.typing as npt

from tagseg.maps import Image

__all__ = ["SharedPhotos"]

_CHANNELS = 3


class SharedPhotos:
    """Photos of known sizes, as many of the first ones as a budget allows.

    Whoever decodes one puts it here, and this process and those that are forked from it later find
    it. Memory is taken as photos come.

    Args:
        shapes: height and width of each photo, (N, 2).
        budget: bytes.
    """

    def __init__(self, shapes: npt.NDArray[np.int64], budget: int) -> None:
        self._shapes = shapes
        self._ends = np.cumsum(_CHANNELS * shapes.prod(1))
        self.all_bytes = int(self._ends[-1]) if len(shapes) else 0
        self._count = int(np.searchsorted(self._ends, budget, side="right"))
        self.bytes = int(self._ends[self._count - 1]) if self._count else 0
        self._there = mmap.mmap(-1, max(1, self._count))
        self._pixels = mmap.mmap(-1, max(1, self.bytes))
        self._lock = Lock()  # what it guards is seen by others in the order in which it was written

    def get(self, index: int) -> Image | None:
        """Photo ``index``, if it is there; do not write into it."""
        if index >= self._count:
            return None
        with self._lock:
            there = self._there[index]
        return self._place(index) if there else None

    def put(self, index: int, image: Image) -> None:
        """Keep a photo, if there is room for it and it has the size that it should have."""
        if index >= self._count or image.shape[:2] != tuple(self._shapes[index]):
            return
        self._place(index)[:] = image
        with self._lock:
            self._there[index] = 1

    def _place(self, index: int) -> Image:
        height, width = self._shapes[index].tolist()
        size = _CHANNELS * height * width
        flat = np.frombuffer(self._pixels, np.uint8, size, int(self._ends[index]) - size)
        return flat.reshape(height, width, _CHANNELS)
