"""What very many photos cost before and beside the networks: time and memory, step by step.

    python benchmarks/million_photos.py [--photos 100000 1000000] [--folder /tmp]

The photos are hard links of 200 small JPEGs in class folders with subfolders of 1,000, removed
afterwards. A process for each number: the folder is read, all photos are checked (which decodes
them), the index is written, read and checked by; then a stage that stores eight numbers a photo.
Seconds are of the clock; memory is the most that the process had until then.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tagseg.data.audit import audit
from tagseg.data.photo_index import INDEX, read_index
from tagseg.data.working import WorkingPhotos
from tagseg.formats.loading import load_dataset
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.index import keep_index
from tagseg.stages.context import Run, Setup
from tagseg.stages.stage import Declared, per_photo
from tagseg.training import Execution

CLASSES = ("ant", "bee", "cat", "dog")
DIFFERENT, A_FOLDER = 200, 1000
ROW = {"numbers": {"numbers": np.zeros(8, np.float16)}}


def main() -> None:
    """A Markdown table a number of photos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[100_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        measure(args.measure)
        return
    for count in args.photos:
        room = Path(tempfile.mkdtemp(prefix="many-photos-", dir=args.folder))
        try:
            linked(room / "photos", count)
            print(f"\n{count:,} photos\n", flush=True)
            subprocess.run([sys.executable, __file__, "--measure", room], check=True)
        finally:
            shutil.rmtree(room)


def linked(folder: Path, count: int) -> None:
    """Hard links of 200 photos of 64 x 48, a folder for each class."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    sources = [folder.parent / f"source-{i}.jpg" for i in range(DIFFERENT)]
    for path in sources:
        cv2.imwrite(str(path), rng.integers(0, 255, (48, 64, 3), np.uint8))
    for i in range(count):
        parts = CLASSES[i % len(CLASSES)], f"part-{i // (len(CLASSES) * A_FOLDER):04d}"
        if i % (len(CLASSES) * A_FOLDER) < len(CLASSES):
            folder.joinpath(*parts).mkdir(parents=True)
        os.link(sources[i % DIFFERENT], folder.joinpath(*parts, f"photo-{i:07d}.jpg"))


def measure(room: Path) -> None:
    """The steps, a line each."""
    print("| | seconds | peak GB |\n|---|---|---|", flush=True)
    threads = len(os.sched_getaffinity(0))
    dataset = told("loaded", lambda: load_dataset(room / "photos", layout="folders"))
    found = told("checked, all decoded", lambda: audit(dataset, workers=threads))
    (room / "run").mkdir()
    told("index written", lambda: keep_index(room / "run", found, None))
    known = told("index read", lambda: read_index(room / "run" / INDEX))
    told("checked by the index", lambda: audit(dataset, workers=threads, known=known))
    key = told("fingerprint", lambda: found.dataset.fingerprint(found.digests))
    with Workspace.open(room / "run", recipe="fake", settings={}, classes=dataset.classes) as work:
        photos = WorkingPhotos(found.dataset, 64)
        setup = Setup("tiny", None, Execution(torch.device("cpu")), threads=1)
        run = Run(photos, key, None, "none", setup, work, Progress())
        told("a stage over all photos", lambda: per_photo(run, DECLARED, ["numbers"], numbers))
        again = Run(photos, key, None, "none", setup, work, Progress())
        told("asked for again", lambda: per_photo(again, DECLARED, ["numbers"], numbers))


DECLARED = Declared("cheap")


def numbers(index: int) -> Any:
    """The cheap function of the stage."""
    return ROW


def told(what: str, do: Callable[[], Any]) -> Any:
    """The result, with a line on what it cost."""
    begun = time.perf_counter()
    result = do()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {what} | {seconds:.1f} | {peak:.2f} |", flush=True)
    return result


if __name__ == "__main__":
    main()
