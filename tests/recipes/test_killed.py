"""``kill -9`` in stages of every kind, then the same command: as if nothing had happened.

Stages of a kind share their loop and their storage (:mod:`tagseg.stages.stage`).

Run as a script, this file is the command line with a checkpoint at every iteration.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

if __name__ != "__main__":
    import forked
    from small_runs import contents
    from tagseg.data.scenes import write_scenes
    from tagseg.run.workspace import Workspace

pytestmark = pytest.mark.slow

LAST = ("masks", "predictions", "val-location-maps", "findings", "export")
QUICK = {
    "classifier_width": 16,
    "classifier_iterations": 8,
    "classifier_batch_size": 4,
    "segmenter_width": 16,
    "segmenter_iterations": 8,
    "segmenter_batch_size": 4,
    "crf_iterations": 2,
}


@dataclass(frozen=True)
class Case:
    """A recipe, its stages in order, those that train, and those to be killed."""

    recipe: str
    stages: tuple[str, ...]
    trains: tuple[str, ...]
    killed: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case(
        "builtin_priors",
        (
            *("classifier", "location-maps", "activation-prior", "regions", "training-masks"),
            *("segmenter", *LAST),
        ),
        ("classifier", "segmenter"),
        ("classifier", "location-maps", "regions", "training-masks", "segmenter", "masks"),
        {"photo_side": 64},
    ),
    Case(
        "mcof",
        (
            *("superpixels", "saliency", "seeder", "location-maps", "seeds"),
            *("regionnet-1", "object-regions-1", "supplement", "pixelnet-1", "masks-1"),
            *("predictions-1", "regionnet-2", "object-regions-2", "pixelnet-2", "masks-2"),
            *("agreement-2", "predictions-2", *LAST),
        ),
        ("seeder", *(f"{net}-{number}" for net in ("regionnet", "pixelnet") for number in (1, 2))),
        ("regionnet-1", "supplement", "masks-1", "pixelnet-2"),
        {
            "rounds": 2,
            "regionnet_width": 16,
            "regionnet_side": 96,
            "seeder_side": 96,
            "regionnet_iterations": 8,
            "saliency": "barrier",
        },
    ),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, train=20, val=6)
    return folder


def start(case: Case, scenes: Path, run: Path) -> BaseProcess:
    truth = scenes / "SegmentationClass"
    words = ["train", scenes, "--out", run, "--val", "val", "--ground-truth", truth]
    words += ["--recipe", case.recipe]
    settings = {**QUICK, **case.settings}
    words += ["--backbone", "tiny", "--device", "cpu", "--precision", "fp32", "--threads", "1"]
    words += [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    return forked.start(__file__, *words)


def kill_in(case: Case, stage: str, number: int, scenes: Path, run: Path) -> None:
    """Start, and kill while ``stage`` runs; in a training, after a checkpoint."""
    folder = run / "stages" / f"{number:02d}-{stage}"
    process = start(case, scenes, run)
    begun = time.monotonic()
    while not (folder / "started.json").exists() and not (folder / "manifest.json").exists():
        assert process.is_alive(), "it ended before"
        assert time.monotonic() - begun < 120
        time.sleep(0.001)
    wanted = folder / "checkpoint.pt"
    trains = stage in case.trains
    until = time.monotonic() + (60 if trains else 0.01)
    while time.monotonic() < until and not (trains and wanted.exists()):
        time.sleep(0.001)
    process.kill()
    assert forked.ended(process, 60) == -signal.SIGKILL


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.recipe)
def test_killed_in_stages_of_every_kind(scenes, tmp_path, case):
    """One run that is killed in each stage: each start gets a stage further than the last."""
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert forked.ended(start(case, scenes, undisturbed), 120) == 0
    caught = 0
    for number, stage in enumerate(case.stages, start=1):
        if stage not in case.killed:
            continue
        kill_in(case, stage, number, scenes, run)
        done = {p.parent.name[3:] for p in run.glob("stages/*/manifest.json")}
        assert set(case.stages[: number - 1]) <= done
        caught += stage not in done
        if stage in case.trains:
            assert stage not in done
    assert caught >= 3, "most kills must fall into their stage"
    assert forked.ended(start(case, scenes, run), 120) == 0
    assert results(case, run) == results(case, undisturbed)
    assert not [p for p in run.rglob("*") if p.name.startswith(".tmp-")]
    left = {p.name for p in run.glob("stages/*/*")} & {"started.json", "checkpoint.pt"}
    assert not left


def results(case: Case, run: Path) -> dict[str, object]:
    """What a run is for, to the byte; stores by content, as SQLite's files keep their history."""
    stages = {p.name[3:]: p for p in run.glob("stages/*")}
    found: dict[str, object] = {"masks": contents(stages["masks"] / "masks")}
    found["export"] = (stages["export"] / "segmenter.safetensors").read_bytes()
    for name in case.stages:
        manifest = json.loads((stages[name] / "manifest.json").read_text())
        found[f"{name}, stated"] = {k: v["hash"] for k, v in manifest["artefacts"].items()}
    stage = Workspace.read(run).finished("predictions")
    for store in ("raw", "smooth"):
        maps = stage.maps(store)
        found[store] = {name: maps.get_bytes(name) for name in maps.names()}
    stage.close()
    assert len(found["raw"]) == 6  # type: ignore[arg-type]
    return found


if __name__ == "__main__":
    import tagseg.cli
    import tagseg.stages.crf
    import tagseg.training
    from small_runs import QUICK_CRISP

    tagseg.training._CHECKPOINT_EVERY = 0.0
    tagseg.stages.crf.CRISP = QUICK_CRISP
    tagseg.cli.main()
