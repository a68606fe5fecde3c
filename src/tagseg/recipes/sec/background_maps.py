"""Where no class has a say: the maps behind SEC's background cues, kept in the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.transforms import factor_to, resize_batch, resized_shape
from tagseg.localize.background_cues import background_saliency
from tagseg.nets.backbone import upsample_grid
from tagseg.nets.gap import GapClassifier
from tagseg.stages.context import Run
from tagseg.stages.shapes import Seen
from tagseg.stages.stage import (
    Declared,
    Images,
    PhotoMaps,
    Trained,
    network_input,
    per_batch,
)

__all__ = ["background_maps", "sure_pixels"]

_BACKGROUND = Declared("background-maps")

GridMaps = PhotoMaps[npt.NDArray[np.float32]]


def background_maps(run: Run, classifier: Trained[GapClassifier], *, side: int) -> GridMaps:
    """Saliency of all classes together on the classifier's grid (Kolesnikov & Lampert, 4.1).

    The classifier sees photos of the longer side ``side``, in pixels.
    """
    photos, execution = run.photos, run.setup.execution

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, Any]]:
        classifier.model.to(execution.device)
        with network_input(execution, images) as x:
            x = resize_batch(x, factor_to(side, x.shape[2:]))
            with torch.autocast(execution.device.type, enabled=False):  # it casts by itself
                maps = background_saliency(classifier.model, x, precision=execution.precision)
        for found in maps.cpu().numpy():
            yield {"saliency": {"saliency": found}}

    stage = per_batch(
        run, _BACKGROUND, ["saliency"], make, settings=[Seen(side)], inputs=[classifier]
    )
    return GridMaps(
        stage, lambda index: stage.maps("saliency").get(photos.names[index])["saliency"]
    )


def sure_pixels(
    positions: npt.NDArray[np.bool_], shape: tuple[int, int], stride: int | None, *, side: int
) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) whose bilinear share of the positions (h, w) of a grid is over a half.

    The grid is that of a photo whose longer side is ``side``.
    """
    seen = resized_shape(shape, factor_to(side, shape))
    maps = torch.from_numpy(positions.astype(np.float32))[None, None]
    return upsample_grid(maps, shape, stride, seen=seen)[0, 0].numpy() > 0.5
