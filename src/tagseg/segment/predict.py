"""A trained segmenter: photo in, labels out, no tags needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.depth import WHITE
from tagseg.data.working import argmax_at, working_image
from tagseg.maps import Image, Labels, Probs, Tags, check_image
from tagseg.training import Execution

__all__ = ["NOTHING", "Known", "Refiner", "Segmenter"]


class Known(NamedTuple):
    """What is known of a photo beside its pixels; None where it is not.

    Attributes:
        tags: bool (C,).
        regions: crisp regions, int32 (H, W), that were found before.
    """

    tags: Tags | None = None
    regions: npt.NDArray[np.int32] | None = None


NOTHING = Known()


class Refiner(Protocol):
    """What is applied last, a dense CRF as a rule."""

    def refine(self, image: Image, probs: Probs, known: Known = NOTHING) -> Probs:
        """Better probabilities (L, H, W) of a photo (H, W, 3)."""


class Segmenter:
    """A segmentation network with its classes, working size and optional refinement.

    Attributes:
        classes: foreground class names; label k + 1 is classes[k].
        side: photos are brought down to this longest side, as in training.
        refiner: applied last, a dense CRF as a rule; None for none.
        refinement: the settings that it was made from, JSON data; None for none.
        decided_by: JSON data of what its answers depend on beside its network and photos: the
            refinement, or what that was chosen from.
        white: what was white in training photos of 16 bits (:mod:`tagseg.data.depth`).
    """

    white: int = WHITE

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        *,
        side: int,
        execution: Execution,
        refiner: Refiner | None = None,
        refinement: Mapping[str, Any] | None = None,
    ) -> None:
        self.net: nn.Module = net.to(execution.device).eval()
        self.classes, self.side, self.execution = classes, side, execution
        self.refiner, self.refinement = refiner, refinement
        self.decided_by: Any = refinement

    def predict(self, image: Image, *, refine: bool = True) -> Labels:
        """Labels (H, W) of a photo (H, W, 3) of any size.

        Raises:
            ShapeError: ``image`` is not uint8 (H, W, 3).
        """
        height, width = check_image(image).shape[:2]
        return argmax_at(self.probabilities(image, refine=refine), (height, width))

    def probabilities(self, image: Image, *, refine: bool = True) -> Probs:
        """Label probabilities (C+1, h, w) at working size."""
        small = working_image(check_image(image), self.side)
        probs = self.forward(small[None])[0]
        if not refine or self.refiner is None:
            return probs
        return self.refiner.refine(small, probs)

    @torch.no_grad()
    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, C+1, h, w) of photos (B, h, w, 3) at working size, not refined."""
        execution = self.execution
        x = torch.from_numpy(np.require(images, requirements=("C", "W"))).to(execution.device)
        x = x.permute(0, 3, 1, 2).float() / 255
        low = execution.precision != torch.float32
        with torch.autocast(execution.device.type, execution.precision, enabled=low):
            scores = self.net(x)
        return torch.softmax(scores.float(), 1).cpu().numpy()
