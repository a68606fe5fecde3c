"""A segmenter that sees photos at its own size, in windows where they are large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.transforms import resized_shape
from tagseg.data.working import resized
from tagseg.errors import ConfigError
from tagseg.maps import Image, Probs
from tagseg.segment.predict import Refiner, Segmenter
from tagseg.segment.windows import in_windows
from tagseg.training import Execution

__all__ = ["Sight", "WindowedSegmenter"]


@dataclass(frozen=True)
class Sight:
    """How a segmenter looks at a photo.

    Attributes:
        zoom: factor on the photo's working size: what the network sees.
        window: longest side of what it sees at once, pixels after the zoom.
        scales: further factors that probabilities are averaged over.
        flip: whether the mirrored photo's are averaged in.

    Raises:
        ConfigError: a number that cannot be meant.
    """

    zoom: float = 1.0
    window: int = 1024
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales or min(self.zoom, *self.scales) <= 0 or self.window < 32:
            raise ConfigError("a zoom or scale of 0, or a window below 32 pixels", do="use more")


class WindowedSegmenter(Segmenter):
    """A :class:`Segmenter` with a :class:`Sight`; other arguments and attributes are its."""

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        *,
        sight: Sight,
        side: int,
        execution: Execution,
        refiner: Refiner | None = None,
        refinement: Mapping[str, Any] | None = None,
        decided_by: Any = None,
    ) -> None:
        super().__init__(
            net, classes, side=side, execution=execution, refiner=refiner, refinement=refinement
        )
        self.sight = sight
        self.decided_by = decided_by

    @torch.no_grad()
    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, C+1, h, w) of photos (B, h, w, 3) at working size, not refined."""
        return np.stack([self._of_photo(image) for image in images])

    def _of_photo(self, image: Image) -> Probs:
        views = [self._at_scale(image, scale) for scale in self.sight.scales]
        return np.mean(views, axis=0, dtype=np.float32) if len(views) > 1 else views[0]

    def _at_scale(self, image: Image, scale: float) -> Probs:
        """What is seen of the photo at one size, averaged with the mirrored photo's if asked."""
        sight, shape = self.sight, (image.shape[0], image.shape[1])
        height, width = resized_shape(shape, sight.zoom * scale)
        seen = resized(image, (width, height))
        probs = in_windows(super().forward, seen, sight.window)
        if sight.flip:
            mirrored = np.ascontiguousarray(seen[:, ::-1])
            other = in_windows(super().forward, mirrored, sight.window)[..., ::-1]
            probs = (probs + other) / np.float32(2)
        return _at(probs, shape)


def _at(probs: Probs, shape: tuple[int, int]) -> Probs:
    if probs.shape[1:] == shape:
        return probs
    planes = [cv2.resize(np.ascontiguousarray(plane), shape[::-1]) for plane in probs]
    return np.stack(planes).astype(np.float32)
