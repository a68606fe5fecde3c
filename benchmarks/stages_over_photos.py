"""What a stage costs beside its work, by the number of photos: loop, storage, progress, finishing.

    python benchmarks/stages_over_photos.py [photos ...]

The photos are not decoded: a fake reader hands out one small array. For each number of photos the
stage is run afresh, interrupted at 90 % and gone on with, and asked for again when it is finished.
Linear time shows as equal figures per 1,000 photos.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.stages.context import Run, Setup
from tagseg.stages.stage import Declared, per_batch, per_photo
from tagseg.training import Execution

PHOTO = np.zeros((8, 8, 3), np.uint8)
ROW = {"maps": {"scores": np.zeros((2, 4, 4), np.float16)}}


class FakePhotos(WorkingPhotos):
    """Photos that are all alike and cost nothing to read."""

    def image(self, index: int) -> Any:
        return PHOTO


class Stopped(Exception):
    """The end of a run that is cut short."""


def fake_run(count: int, work: Workspace) -> Run:
    names = tuple(f"photo-{i:07d}" for i in range(count))
    tags, known = np.ones((count, 1), bool), np.ones(count, bool)
    photos = FakePhotos(Dataset(("thing",), names, tags, known, names), 8)
    setup = Setup("tiny", None, Execution(torch.device("cpu")), threads=1)
    return Run(
        photos=photos,
        photos_key=f"{count} photos",
        val=None,
        val_key="none",
        setup=setup,
        workspace=work,
        progress=Progress(),
    )


def batches(run: Run, stop_at: int | None = None) -> int:
    """Photos that were worked on."""
    seen = 0

    def make(images: Any, indices: list[int]) -> Iterator[Any]:
        nonlocal seen
        for index in indices:
            if index == stop_at:
                raise Stopped
            seen += 1
            yield ROW

    per_batch(run, Declared("batches"), ["maps"], make)
    return seen


def singly(run: Run) -> None:
    per_photo(run, Declared("singly"), ["maps"], lambda index: ROW)


def opened(folder: Path) -> Workspace:
    return Workspace.open(
        folder, recipe="fake", settings={}, classes=("thing",), announce=lambda line: None
    )


def timed(what: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = what()
    return time.perf_counter() - begun, found


def measure(count: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        with opened(Path(folder) / "whole") as work:
            fresh, _ = timed(lambda: batches(fake_run(count, work)))
        with opened(Path(folder) / "whole") as work:
            again, _ = timed(lambda: batches(fake_run(count, work)))
            single, _ = timed(lambda: singly(fake_run(count, work)))
        try:
            with opened(Path(folder) / "cut") as work:
                batches(fake_run(count, work), stop_at=int(0.9 * count))
        except Stopped:
            pass
        with opened(Path(folder) / "cut") as work:
            rest, redone = timed(lambda: batches(fake_run(count, work)))
    left = count - int(0.9 * count)
    return (
        f"{count:>8,} photos: per_batch {fresh:7.2f} s ({1e3 * fresh / count:.3f} ms a photo), "
        f"per_photo {single:7.2f} s ({1e3 * single / count:.3f}), finished {again:5.2f} s, "
        f"after a stop at 90 % {rest:6.2f} s: {redone - left} photos done twice"
    )


def main() -> None:
    for count in map(int, sys.argv[1:] or ("10000", "40000", "200000")):
        print(measure(count), flush=True)


if __name__ == "__main__":
    main()
