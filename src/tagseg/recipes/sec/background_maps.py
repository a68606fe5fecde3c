"""Where no class has a say: the maps behind SEC's background cues, kept in the run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.transforms import factor_to, resize_batch, resized_shape
from tagseg.localize.background_cues import background_saliency
from tagseg.nets.backbone import upsample_grid
from tagseg.nets.gap import GapClassifier
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run
from tagseg.stages.labels import each_batch

__all__ = ["background_maps", "sure_pixels"]

GridMaps = Callable[[int], npt.NDArray[np.float32]]


def background_maps(
    run: Run, classifier: GapClassifier, after: Stage, *, side: int
) -> tuple[GridMaps, Stage]:
    """Saliency of all classes together on the classifier's grid (Kolesnikov & Lampert, 4.1).

    The classifier sees photos of the longer side ``side``, in pixels.
    """
    photos, execution = run.photos, run.setup.execution
    with run.stage("background-maps", {"side": side}, [after]) as stage:
        if stage.pending:
            store = stage.maps("saliency")
            classifier.to(execution.device)

            def compute(images: torch.Tensor, indices: list[int]) -> None:
                images = resize_batch(images, factor_to(side, images.shape[2:]))
                with torch.autocast(execution.device.type, enabled=False):  # it casts by itself
                    maps = background_saliency(classifier, images, precision=execution.precision)
                for index, found in zip(indices, maps.cpu().numpy(), strict=True):
                    store.put(photos.names[index], saliency=found)

            each_batch(run, photos, "background maps", store.missing, compute)

    def read(index: int) -> npt.NDArray[np.float32]:
        return stage.maps("saliency").get(photos.names[index])["saliency"]

    return read, stage


def sure_pixels(
    positions: npt.NDArray[np.bool_], shape: tuple[int, int], stride: int | None, *, side: int
) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) whose bilinear share of the positions (h, w) of a grid is over a half.

    The grid is that of a photo whose longer side is ``side``.
    """
    seen = resized_shape(shape, factor_to(side, shape))
    maps = torch.from_numpy(positions.astype(np.float32))[None, None]
    return upsample_grid(maps, shape, stride, seen=seen)[0, 0].numpy() > 0.5
