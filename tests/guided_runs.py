"""What tests of guided segmentation, SEC and MCOF share: few odd photos, boxes, maps, and a Run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as PilImage

from small_runs import CLASSES, GREY, NEGATIVE, OPTIONS, QUICK, UNKNOWN, Photos
from tagseg.data.dataset import Dataset
from tagseg.data.scenes import write_box_scenes
from tagseg.maps import IGNORE
from tagseg.recipes.base import Run
from tagseg.recipes.session import Options, check_data, make_setup
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace

__all__ = ["FEW", "LINE", "MINING", "few_photos", "open_run", "write_boxes", "write_maps"]

FEW: dict[str, Any] = {
    **QUICK,
    "segmenter_iterations": 2,
    "classifier_iterations": 4,
    "seeder_side": 64,
}
MINING: dict[str, Any] = {
    "rounds": 2,
    "regionnet_iterations": 2,
    "regionnet_width": 16,
    "regionnet_side": 64,
    "saliency": "barrier",
}  # for recipe mcof, beside QUICK or FEW
LINE = "line"  # a photo one pixel high
_CHOSEN = (0, 1, 2, GREY, 5, NEGATIVE, UNKNOWN)


def few_photos(photos: Photos) -> Dataset:
    """Seven odd photos and one of a single row to train on, two to validate with."""
    chosen = photos.dataset.select([*(photos.train[i] for i in _CHOSEN), *photos.val[:2]])
    row = np.random.default_rng(0).integers(0, 256, (1, 40, 3), np.uint8)
    return replace(
        chosen,
        names=(LINE, *chosen.names),
        tags=np.vstack([np.arange(len(CLASSES)) < 2, chosen.tags]),
        known=np.append(True, chosen.known),
        sources=(row, *chosen.sources),
    )


def write_boxes(folder: Path, count: int = 4, seed: int = 100) -> Path:
    """Generated pictures of other classes and their boxes."""
    write_box_scenes(folder, count=count, seed=seed)
    return folder / "boxes.csv"


def write_maps(folder: Path, dataset: Dataset, photos: Photos) -> Path:
    """Soft saliency maps, one PNG a photo: of the objects, and of the middle where there are none.

    The objects' left halves are missing, so that the maps are not the ground truth.
    """
    for index, name in enumerate(dataset.names):
        height, width = dataset.image(index).shape[:2]
        labels = photos.labels.get(name, np.ones((height, width), np.uint8))
        found = ((labels > 0) & (labels != IGNORE)).astype(np.float32)
        if not found.any():
            found[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = 1
        soft = cv2.GaussianBlur(found, (0, 0), 1) * np.linspace(0.3, 1, width, dtype=np.float32)
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(np.rint(200 * soft).astype(np.uint8)).save(path)
    return folder


@contextmanager
def open_run(
    dataset: Dataset,
    folder: Path,
    *,
    val: tuple[str, ...] = (),
    side: int = 64,
    options: Options = OPTIONS,
    progress: Progress | None = None,
    recipe: str = "guided",
) -> Iterator[Run]:
    """A run on the photos, as the recipe is given it."""
    progress = progress if progress is not None else Progress()
    data = check_data(dataset, val, side, options, progress)
    setup = make_setup(options)
    with Workspace.open(folder, recipe=recipe, settings={}, classes=dataset.classes) as work:
        yield data.run(setup, work, progress)
