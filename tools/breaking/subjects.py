"""Small runs that are whole, to be broken, and what came of the same command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch._dynamo  # noqa: F401 - the first optimizer imports it, 2 s in each process

from breaking.traced import traced
from tagseg import cli, training
from tagseg.recipes.catalog import find_recipe
from tagseg.session.settings import laid_under
from tagseg.tables import making  # noqa: F401 - so that forks need not import it

LOG = "metrics.jsonl"  # a damaged line costs a point of a curve, and no stage runs again for it
GOOD = "as undisturbed"
REFUSED = "one line"
SMALL: dict[str, Any] = {
    "classifier_width": 16,
    "classifier_iterations": 4,
    "classifier_batch_size": 4,
    "upper_iterations": 4,
    "segmenter_width": 16,
    "segmenter_iterations": 4,
    "segmenter_batch_size": 4,
    "crf_iterations": 2,
    "rounds": 1,
    "regionnet_width": 16,
    "regionnet_side": 96,
    "seeder_side": 96,
    "regionnet_iterations": 4,
    "mask_regions": "none",
    "segmenter_regions": "none",
    "saliency": "barrier",
    "objects": "barrier",
    "classifier_side": 96,
    "classifier_crop": 64,
    "judged_photos": 4,
    "judge_side": 64,
    "pyramid_iterations": 4,
    "pyramid_batch_size": 2,
    "pyramid_crop": 64,
    "pyramid_zoom": 1.0,
    "pyramid_cycles": 1,
}
RECIPES = (
    "cam_baseline",
    "gradient_baseline",
    "builtin_priors",
    "sec",
    "dcsm",
    "guided",
    "mcof",
    "coarse_to_fine",
    "full_supervision",
    "union",
)


class Ended(NamedTuple):
    """How a command ended: its status, or minus the signal, and what it printed."""

    status: int
    said: str


class Verdict(NamedTuple):
    """What was done, what came of it, and what to know if it is bad."""

    kind: str
    what: str
    more: str = ""


class Subject:
    """One recipe's small run: as a command, whole, and to be broken.

    Attributes:
        whole: folder of the undisturbed run.
        gives: what that gives, as of :func:`results`.
        seconds: that it takes.
        notes: what parts have found out about it.
    """

    def __init__(self, recipe: str, room: Path, iterations: int | None = None) -> None:
        self.recipe, self.room, self.iterations = recipe, room, iterations
        self.whole = room / f"whole-{recipe}-{iterations or 'small'}"
        self.broken = room / "broken"
        self.notes: dict[str, Any] = {}
        self._watcher: subprocess.Popen[bytes] | None = None
        began = time.monotonic()
        ended = self.run(self.whole)
        self.seconds = time.monotonic() - began
        if ended.status != 0:
            raise SystemExit(f"{recipe}: the undisturbed run ended with {ended}")
        self.gives = results(self.whole)

    def new(self) -> Path:
        """Where a run may be begun that is not there."""
        shutil.rmtree(self.broken, ignore_errors=True)
        return self.broken

    def copy(self) -> Path:
        """A copy of the finished run."""
        return Path(shutil.copytree(self.whole, self.new()))

    def words(self, run: Path) -> list[str]:
        """The command, without its program."""
        scenes = self.room / "scenes"
        config = find_recipe(self.recipe).config
        named = {name: value for name, value in SMALL.items() if config.named(name)}
        if self.iterations is not None:
            named |= {n: self.iterations for n in named if n.endswith("_iterations")}
            named |= {"crf_iterations": 1} if "crf_iterations" in named else {}
        values = laid_under(config, named, {})
        return [
            *("train", str(scenes), "--out", str(run), "--val", "val", "--recipe", self.recipe),
            *("--ground-truth", str(scenes / "SegmentationClass"), "--backbone", "tiny"),
            *("--device", "cpu", "--precision", "fp32", "--threads", "1"),
            *(word for name, value in values.items() for word in ("--set", f"{name}={value}")),
        ]

    def run(
        self,
        run: Path,
        before: Callable[[], None] | None = None,
        kill_after: float | None = None,
        strace: Sequence[str] = (),
    ) -> Ended:
        """The command in a process of its own, which ``before`` may prepare, or strace watch."""
        child, pipe = self.start(run, before, strace)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        found = ended(child, pipe)
        if self._watcher is not None:
            self._watcher.wait()  # what it has written is whole
        return found

    def start(
        self, run: Path, before: Callable[[], None] | None = None, strace: Sequence[str] = ()
    ) -> tuple[int, int]:
        """The command's process, and where what it says can be read."""
        reading, writing = os.pipe()
        waits, goes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.close(goes)
            _be_the_command(self.words(run), writing, before, waits)
        os.close(writing)
        os.close(waits)
        self._watcher = traced(child, strace) if strace else None
        os.close(goes)
        return child, reading

    def judged(self, ended: Ended, run: Path) -> tuple[str, str]:
        """What came of a command: as undisturbed, or what went wrong; and what it said."""
        said = ended.said[-600:]
        if "Traceback" in ended.said:
            return "TRACEBACK", ended.said[-1500:]
        if ended.status == 2:
            return REFUSED, said
        if ended.status != 0:
            return f"STATUS {ended.status}", said
        differ = differences(self.gives, results(run))
        return ("WRONG RESULT", f"{differ}; {said}") if differ else (GOOD, "")

    def checked(self, run: Path, kind: str) -> Verdict:
        """The command in peace: it must end as the undisturbed one has."""
        return Verdict(kind, *self.judged(self.run(run), run))


@cache
def long_subject(room: Path, seconds: float) -> Subject:
    """``cam_baseline`` with trainings that take about as many seconds together."""
    small = Subject("cam_baseline", room)
    logs = small.whole.glob(f"stages/*/{LOG}")
    stages = [json.loads((log.parent / "manifest.json").read_text()) for log in logs]
    each = sum(stage["seconds"] for stage in stages) / SMALL["segmenter_iterations"]
    return Subject("cam_baseline", room, max(5, round(seconds / each)))


def ended(child: int, pipe: int) -> Ended:
    """How a started command ends."""
    with open(pipe, errors="replace") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), said)


def often_saved() -> None:
    """A checkpoint at each iteration, where small runs would come to none."""
    training._CHECKPOINT_EVERY = 0.0


def results(run: Path) -> dict[str, Any]:
    """What a run gives: hashes of the artefacts, masks and segmenter, and its record."""
    kept: dict[str, Any] = {}
    for path in sorted(run.glob("stages/??-*/manifest.json")):
        artefacts = json.loads(path.read_text())["artefacts"]
        for name, of in artefacts.items():
            if name != LOG:
                kept[f"{path.parent.name}/{name}"] = of["hash"]
    for path in [*run.glob("stages/*-masks/masks/*"), *run.glob("stages/*-export/*.safetensors")]:
        kept[path.relative_to(run).as_posix()] = path.read_bytes()
    about = json.loads((run / "run.json").read_text())
    return kept | {name: about[name] for name in ("recipe", "classes", "config")}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names under which two runs give different things."""
    return sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))


def _be_the_command(
    words: list[str], output: int, before: Callable[[], None] | None, waits: int
) -> None:
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        sys.argv = ["tagseg", *words]
        os.read(waits, 1)
        if before is not None:
            before()
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
