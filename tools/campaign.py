"""The reliability campaign: break small runs in every way, run the same command, compare.

    python tools/campaign.py rot kills faults --minutes 5 --recipes cam_baseline mcof

``rot`` flips bits in files of a finished run, cuts, lengthens, swaps and removes them. ``kills``
sends SIGKILL at random moments. ``faults`` lets fsync, rename or every write over some bytes fail,
once or from then on. After each, the same command must give what an undisturbed run gives, or one
line that says why not, and never a traceback. Each part stops after its minutes; what was found is
printed, and kept as JSON. ``make campaign`` runs all parts.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch._dynamo  # noqa: F401 - the first optimizer imports it, 2 s in each process

from tagseg import cli
from tagseg.data.scenes import write_scenes
from tagseg.recipes.catalog import find_recipe
from tagseg.run import files
from tagseg.session.settings import laid_under
from tagseg.tables import making  # noqa: F401 - so that forks need not import it

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
LOG = (
    "metrics.jsonl"  # a damaged line of it costs a point of a curve, and no stage runs again for it
)


class Ended(NamedTuple):
    """How a command ended: its status, or minus the signal, and what it printed."""

    status: int
    said: str


class Subject:
    """One recipe's small run, whole and to be broken."""

    def __init__(self, recipe: str, room: Path) -> None:
        self.recipe, self.room = recipe, room
        self.whole = room / f"whole-{recipe}"
        began = time.monotonic()
        ended = self.run(self.whole)
        self.seconds = time.monotonic() - began
        if ended.status != 0:
            raise SystemExit(f"{recipe}: the undisturbed run ended with {ended}")
        self.gives = results(self.whole)

    def _command(self, run: Path) -> list[str]:
        scenes = self.room / "scenes"
        config = find_recipe(self.recipe).config
        named = {name: value for name, value in SMALL.items() if config.named(name)}
        values = laid_under(config, named, {})
        return [
            *("train", str(scenes), "--out", str(run), "--val", "val", "--recipe", self.recipe),
            *("--ground-truth", str(scenes / "SegmentationClass"), "--backbone", "tiny"),
            *("--device", "cpu", "--precision", "fp32", "--threads", "1"),
            *(word for name, value in values.items() for word in ("--set", f"{name}={value}")),
        ]

    def copy(self) -> Path:
        """A copy of the finished run, to be broken."""
        broken = self.room / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        return Path(shutil.copytree(self.whole, broken))

    def run(
        self, run: Path, before: Callable[[], None] | None = None, kill_after: float | None = None
    ) -> Ended:
        """The command in a process of its own, which ``before`` may prepare."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _be_the_command(self._command(run), writing, before)
        os.close(writing)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        with open(reading, errors="replace") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        return Ended(os.waitstatus_to_exitcode(status), said)


def _be_the_command(words: list[str], output: int, before: Callable[[], None] | None) -> None:
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        sys.argv = ["tagseg", *words]
        if before is not None:
            before()
        cli.main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def results(run: Path) -> dict[str, Any]:
    """What a run gives: hashes of the artefacts, masks and segmenter, and its record."""
    kept: dict[str, Any] = {}
    for path in sorted(run.glob("stages/??-*/manifest.json")):
        artefacts = json.loads(path.read_text())["artefacts"]
        stage = path.parent.name
        kept[stage] = {name: of["hash"] for name, of in artefacts.items() if name != LOG}
    for path in [*run.glob("stages/*-masks/masks/*"), *run.glob("stages/*-export/*.safetensors")]:
        kept[path.relative_to(run).as_posix()] = path.read_bytes()
    about = json.loads((run / "run.json").read_text())
    return kept | {name: about[name] for name in ("recipe", "classes", "config")}


def judged(subject: Subject, ended: Ended, run: Path) -> str:
    """What came of a command: "as undisturbed", or what went wrong."""
    if "Traceback" in ended.said:
        return "TRACEBACK"
    if ended.status == 2:
        return "one line"
    if ended.status != 0:
        return f"STATUS {ended.status}"
    return "as undisturbed" if results(run) == subject.gives else "WRONG RESULT"


def rot(subject: Subject, rng: random.Random) -> tuple[str, str]:
    """Damage one file of a finished run; the same command must mend it."""
    run = subject.copy()
    every = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in (LOG, ".lock")]
    path = rng.choice([p for p in every if p.name != "report.html"])
    kind = rng.choice(["bit", "bit", "bit", "cut", "longer", "removed", "swapped", "zeros"])
    content = bytearray(path.read_bytes())
    if kind == "bit" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        content = content[: rng.randrange(len(content) + 1)]
    elif kind == "longer":
        content += bytes(rng.randrange(1, 100))
    elif kind == "zeros":
        start = rng.randrange(len(content) + 1)
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    elif kind == "swapped":
        content = bytearray(rng.choice(every).read_bytes())
    path.unlink()
    if kind != "removed":
        path.write_bytes(content)
    verdict = judged(subject, subject.run(run), run)
    return kind, verdict if verdict == "as undisturbed" else f"{verdict}: {path.relative_to(run)}"


def kills(subject: Subject, rng: random.Random) -> tuple[str, str]:
    """SIGKILL at a random moment of a new run, up to three times; then the command in peace."""
    run = subject.room / "broken"
    shutil.rmtree(run, ignore_errors=True)
    for _ in range(rng.randrange(1, 4)):
        subject.run(run, kill_after=rng.uniform(0.1, subject.seconds))
    return "killed", judged(subject, subject.run(run), run)


def faults(subject: Subject, rng: random.Random) -> tuple[str, str]:
    """A call fails, once or from then on: one line or nothing; then the command in peace."""
    run = subject.room / "broken"
    shutil.rmtree(run, ignore_errors=True)
    code = rng.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])
    at, sticky = rng.randrange(1, 60), rng.random() < 0.5
    kind = rng.choice(["fsync", "rename", "write"])

    def fails() -> None:
        if kind == "write":  # SQLite's too, which no patch of Python's reaches
            most = rng.choice([0, 100, 1000, 5000, 20_000, 100_000])
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            return
        calls = iter(range(1, 10**9))

        def failing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                number = next(calls)
                if number == at or (sticky and number > at):
                    raise OSError(code, os.strerror(code))
                return real(*args)

            return call

        if kind == "fsync":
            files.os.fsync = failing(os.fsync)  # type: ignore[attr-defined]
        else:
            Path.replace = failing(Path.replace)  # type: ignore[method-assign]
            Path.rename = failing(Path.rename)  # type: ignore[method-assign]

    first = subject.run(run, before=fails)
    verdict = judged(subject, first, run)
    if verdict not in ("one line", "as undisturbed"):
        return kind, f"{verdict}: {first.said[-300:]}"
    return kind, judged(subject, subject.run(run), run)


PARTS = {"rot": rot, "kills": kills, "faults": faults}


def main() -> None:
    """Run the parts, print what came of them, and end with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[[], *PARTS])
    parser.add_argument("--minutes", type=float, default=5.0, help="a part")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign.json"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(args.seed)
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        room = Path(folder)
        write_scenes(room / "scenes", train=20, val=6)
        subjects = [Subject(recipe, room) for recipe in args.recipes]
        for part in args.parts or PARTS:
            until, number = time.monotonic() + 60 * args.minutes, 0
            while time.monotonic() < until:
                subject = subjects[number % len(subjects)]
                kind, verdict = PARTS[part](subject, rng)
                found.setdefault(part, Counter())[f"{kind}: {verdict.partition(':')[0]}"] += 1
                number += 1
                if verdict != "as undisturbed":
                    print(f"{part}, {subject.recipe}, {kind}: {verdict}", flush=True)
            print(f"{part}: {dict(sorted(found[part].items()))}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({part: dict(count) for part, count in found.items()}, indent=1))
    verdicts = {kind.partition(": ")[2] for count in found.values() for kind in count}
    sys.exit(1 if verdicts - {"as undisturbed", "one line"} else 0)


if __name__ == "__main__":
    main()
