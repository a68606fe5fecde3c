"""One process that trains, predicts, evaluates and reports over and over, as a library."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import tagseg
from breaking.subjects import GOOD, RECIPES, SMALL, Subject, Verdict
from tagseg.recipes.catalog import find_recipe
from tagseg.session.predict import predict_folder
from tagseg.session.report import render_report
from tagseg.session.settings import parse_settings

_WARM = 2  # rounds of each recipe, after which everything has been loaded that will be
_MOST_GROWTH = 100.0  # MB in all rounds after that, allocators being as they are


class _Taken(NamedTuple):
    """What a process has: memory in MB, open files, threads, and files in its temporary folder."""

    memory: float
    files: int
    threads: int
    temporary: int


class _Soaker:
    """The process, and what it had after each round."""

    def __init__(self, room: Path) -> None:
        self._room = room
        self.taken: list[_Taken] = []
        self._pipe, end = multiprocessing.Pipe()
        # A fork that has done nothing yet: autograd cannot be forked after its first use.
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(end, room), daemon=True
        )
        process.start()
        end.close()

    def round(self, recipe: str) -> str:
        """Go through one recipe; what went wrong, or nothing."""
        self._pipe.send(recipe)
        try:
            told = self._pipe.recv()
        except EOFError:
            return "the process has ended"
        if isinstance(told, str):
            return told
        self.taken.append(told)
        return ""


_SOAKERS: dict[Path, _Soaker] = {}


def soak(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """One round more in the same process, which must have nothing more than after its first ones.

    Recipes take turns with the calls, whatever the subject is.
    """
    if subject.room not in _SOAKERS:
        _SOAKERS[subject.room] = _Soaker(subject.room)
    soaker = _SOAKERS[subject.room]
    recipe = RECIPES[len(soaker.taken) % len(RECIPES)]
    wrong = soaker.round(recipe)
    if wrong:
        return Verdict("round", "TRACEBACK", wrong)
    taken, warm = soaker.taken, _WARM * len(RECIPES)
    now = taken[-1]
    print(f"soak, round {len(taken)}, {recipe}: {now}", flush=True)
    if len(taken) <= warm:
        return Verdict("round", GOOD)
    before = taken[warm - 1]
    grown = now.memory - before.memory > _MOST_GROWTH or now[1:] > before[1:]
    return Verdict("round", "GROWS" if grown else GOOD, f"{before} -> {now}")


def _serve(pipe: Connection, room: Path) -> None:
    tempfile.tempdir = str(room / "soak-temporary")
    Path(tempfile.tempdir).mkdir()
    while True:
        recipe = pipe.recv()
        try:
            _go_through(recipe, room)
        except BaseException:
            import traceback

            pipe.send(traceback.format_exc())
            return
        gc.collect()
        pipe.send(_taken())


def _go_through(recipe: str, room: Path) -> None:
    run, scenes = room / "soaked", room / "scenes"
    config = find_recipe(recipe).config
    small = parse_settings(config, [f"{n}={v}" for n, v in SMALL.items() if config.named(n)])
    photos = tagseg.load_dataset(scenes)
    truth = tagseg.GroundTruth(scenes / "SegmentationClass", photos.classes)
    options = tagseg.Options(backbone="tiny", device="cpu", precision="fp32", threads=1)
    result = tagseg.train(
        photos, recipe, small, val=photos.names[-6:], out=run, ground_truth=truth, options=options
    )
    predict_folder(tagseg.load_segmenter(run), scenes / "JPEGImages", run / "predicted")
    tagseg.evaluate_masks(run / "predicted", truth, photos.classes)
    render_report(run)
    del result
    shutil.rmtree(run)


def _taken() -> _Taken:
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    temporary = sum(len(files) for _, _, files in os.walk(tempfile.gettempdir()))
    memory = int(told["VmRSS"].split()[0]) / 1024
    return _Taken(
        round(memory, 1), len(os.listdir("/proc/self/fd")), threading.active_count(), temporary
    )
