"""Labels and arrays of all photos, each kept in the run's workspace once it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch

from tagseg.data.images import decode_mask, encode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.maps import Labels
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Split

__all__ = ["LabelMaps", "each_batch", "photo_arrays", "training_labels"]

_BATCH = 16  # photos a forward pass


_MOST_LABELS_AT_ONCE = 1 << 28  # bytes of decoded labels kept in memory


class LabelMaps:
    """Label maps (h, w) of a set of photos, kept compressed in a stage's store.

    Attributes:
        stage: where they come from.
    """

    def __init__(self, stage: Stage, store: str, names: Sequence[str]) -> None:
        self.stage, self._store, self._names = stage, store, names
        self._kept: dict[int, Labels] = {}
        self._room = _MOST_LABELS_AT_ONCE

    def __call__(self, index: int) -> Labels:
        """Labels of photo ``index``; do not write into them."""
        if index not in self._kept:
            content = self.stage.maps(self._store).get_bytes(self._names[index])
            labels = decode_mask(content)
            if labels.nbytes > self._room:
                return labels
            self._room -= labels.nbytes
            self._kept[index] = labels
        return self._kept[index]


def photo_arrays(
    run: Run,
    name: str,
    title: str,
    make: Callable[[int], npt.NDArray[Any]],
    made_from: Mapping[str, Any],
    *,
    split: Split = "train",
) -> tuple[Callable[[int], npt.NDArray[Any]], Stage]:
    """An array of every photo, read by its index: ``make`` (index), run in threads."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", dict(made_from), [key]) as stage:
        if stage.pending:
            store = stage.maps(name)
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)
            with run.task(title, len(todo)) as ticks:
                results = map_photos(
                    lambda photo: make(index_of[photo]),
                    todo,
                    workers=run.setup.threads,
                    progress=ticks,
                )
                for photo, array in zip(todo, results, strict=True):
                    store.put(photo, **{name: array})
    return lambda index: stage.maps(name).get(photos.names[index])[name], stage


def training_labels(
    run: Run,
    name: str,
    make: Callable[[int], Labels],
    made_from: dict[str, Any],
    inputs: Sequence[Stage | str],
    *,
    split: Split = "train",
) -> LabelMaps:
    """Pseudo-labels of every photo: ``make`` (index) -> labels (h, w), run in threads."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", made_from, [key, *inputs]) as stage:
        if stage.pending:
            store = stage.maps("labels")
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)

            def one(photo: str) -> bytes:
                return encode_mask(make(index_of[photo]))

            with run.task(name.replace("-", " "), len(todo)) as ticks:
                results = map_photos(one, todo, workers=run.setup.threads, progress=ticks)
                for photo, content in zip(todo, results, strict=True):
                    store.put_bytes(photo, content)
    return LabelMaps(stage, "labels", photos.names)


def each_batch(
    run: Run,
    photos: WorkingPhotos,
    title: str,
    missing: Callable[[Sequence[str]], list[str]],
    compute: Callable[[torch.Tensor, list[int]], None],
) -> None:
    """Call ``compute`` with image batches (B, 3, h, w) in [0, 1] on the device.

    A batch is skipped only if it is there as a whole, so that photos keep their company.
    """
    execution = run.setup.execution
    low = execution.precision != torch.float32
    with run.task(title, len(photos)) as ticks, torch.no_grad():
        for indices, images in photos.batches(_BATCH):
            if not missing([photos.names[i] for i in indices]):
                ticks.skip(len(indices))
                continue
            x = torch.from_numpy(images).to(execution.device).permute(0, 3, 1, 2).float() / 255
            with torch.autocast(execution.device.type, execution.precision, enabled=low):
                compute(x, indices)
            ticks.advance(len(indices))
