"""What tests of guided segmentation, SEC, MCOF and coarse to fine share.

Few odd photos, boxes, maps, a Run, and what its trainings begin with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from small_runs import CLASSES, GREY, NEGATIVE, OPTIONS, QUICK, UNKNOWN, Photos
from tagseg.data.dataset import Dataset
from tagseg.data.scenes import write_box_scenes
from tagseg.data.transforms import Augmentation
from tagseg.maps import IGNORE, Labels
from tagseg.recipes.catalog import find_recipe
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import Options, Result, check_data, make_setup, train
from tagseg.stages.context import Run
from tagseg.stages.settings import PhotoSettings
from tagseg.tables.making import Tables
from tagseg.training import Schedule

__all__ = [
    "FEW",
    "LINE",
    "MINING",
    "RECURSION",
    "TWO_TAGS",
    "WITHOUT_CLASSIFIER",
    "Begun",
    "begun_trainings",
    "counting",
    "few_photos",
    "one_label_photos",
    "open_run",
    "write_boxes",
    "write_maps",
]

FEW: dict[str, Any] = {
    **QUICK,
    "segmenter_iterations": 2,
    "classifier_iterations": 4,
    "seeder_side": 64,
}
WITHOUT_CLASSIFIER: dict[str, Any] = {
    name: value for name, value in FEW.items() if not name.startswith(("classifier", "seeder"))
}  # for recipes that have none
MINING: dict[str, Any] = {
    "rounds": 2,
    "regionnet_iterations": 2,
    "regionnet_width": 16,
    "regionnet_side": 64,
    "saliency": "barrier",
}  # for recipe mcof, beside QUICK or FEW
RECURSION: dict[str, Any] = {
    "rounds": 2,
    "saliency": "barrier",
    "segmenter_learning_rate": 0.0003,  # at which masks do not vanish in so few steps
}  # for recipes coarse_to_fine and coarse_to_fine_foreground, beside WITHOUT_CLASSIFIER
LINE = "line"  # a photo one pixel high
TWO_TAGS = "train_1"  # the one photo of one_label_photos that has two tags
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


def few_runs(photos: Photos, recipe: str, usual: Mapping[str, Any]) -> Callable[..., Result]:
    """Trains a recipe on these, with the ``usual`` values where no others are given."""
    dataset = few_photos(photos)

    def run(config: dict[str, Any], out: Path | None = None, **changed: Any) -> Result:
        given = {"val": photos.val[:2], "ground_truth": photos.truth(), "options": OPTIONS}
        return train(dataset, recipe, {**usual, **config}, out=out, **{**given, **changed})

    return run


def one_label_photos(photos: Photos) -> Dataset:
    """The same, five of which have one tag each, of two classes, and one has two tags."""
    few = few_photos(photos)
    tags = few.tags.copy()
    for index, name in enumerate(few.names):
        if name != TWO_TAGS and name not in photos.val:
            tags[index, np.flatnonzero(tags[index])[1:]] = False
    return replace(few, tags=tags)


class Begun(NamedTuple):
    """What a training on a network's own grid began with."""

    weights: dict[str, torch.Tensor]
    labels: Callable[[int], Labels]
    how: Augmentation
    schedule: Schedule
    named: dict[str, Any]


def begun_trainings(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Begun]:
    """What the trainings by a module's ``fit_on_grid`` begin with, in order."""
    found: list[Begun] = []
    real = module.fit_on_grid

    def fit(
        net: Any, photos: Any, labels: Any, objective: Any, how: Any, schedule: Any, **named: Any
    ) -> Any:
        weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        found.append(Begun(weights, labels, how, schedule, named))
        return real(net, photos, labels, objective, how, schedule, **named)

    monkeypatch.setattr(module, "fit_on_grid", fit)
    return found


@contextmanager
def counting(
    work: Mapping[str, tuple[ModuleType, str]], stop_at: tuple[str, int] | None = None
) -> Iterator[Counter[str]]:
    """How often each function in ``work`` is called; the call ``stop_at`` is interrupted."""
    count: Counter[str] = Counter()

    def counted(title: str, function: Any) -> Any:
        def called(*args: Any, **named: Any) -> Any:
            count[title] += 1
            if stop_at == (title, count[title]):
                raise KeyboardInterrupt
            return function(*args, **named)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for title, (module, name) in work.items():
            patch.setattr(module, name, counted(title, getattr(module, name)))
        yield count


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
    data = check_data(dataset, val, find_recipe(recipe), PhotoSettings(side), options, progress)
    setup = make_setup(options)
    with Workspace.open(folder, recipe=recipe, settings={}, classes=dataset.classes) as work:
        yield data.run(setup, work, progress)


Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Made:
    """A finished run with its tables, and the trainings that they took."""

    run: Path
    tables: Tables
    worked: Counter[str]

    def rows(self, name: str) -> Rows:
        return next(list(t.rows) for t in self.tables.tables if t.name == name)

    def by_label(self, name: str) -> dict[str, tuple[Any, ...]]:
        return {str(row[0]): row[1:] for row in self.rows(name)}

    def notes(self, name: str) -> tuple[str, ...]:
        return next(t.notes for t in self.tables.tables if t.name == name)
