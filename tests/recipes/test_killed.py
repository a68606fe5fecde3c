"""``kill -9`` in each stage of a training, then the same command: as if nothing had happened.

Run as a script, this file is the command line with a checkpoint at every iteration.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

if __name__ != "__main__":
    from small_runs import contents
    from tagseg.data.scenes import write_scenes
    from tagseg.run.workspace import Workspace

pytestmark = pytest.mark.slow

STAGES = (
    *("classifier", "location-maps", "activation-prior", "regions", "training-masks"),
    *("segmenter", "masks", "predictions", "val-location-maps", "findings", "export"),
)
SETTINGS = {
    "classifier_width": 16,
    "classifier_iterations": 24,
    "classifier_batch_size": 4,
    "segmenter_width": 16,
    "segmenter_iterations": 24,
    "segmenter_batch_size": 4,
    "crf_iterations": 2,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, train=20, val=6)
    return folder


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(scenes, run).wait(120) == 0
    return run


def start(scenes: Path, run: Path) -> subprocess.Popen[bytes]:
    truth = scenes / "SegmentationClass"
    words = ["train", scenes, "--out", run, "--val", "val", "--ground-truth", truth]
    words += ["--backbone", "tiny", "--device", "cpu", "--precision", "fp32", "--threads", "1"]
    words += [part for k, v in SETTINGS.items() for part in ("--set", f"{k}={v}")]
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def kill_in(stage: str, number: int, scenes: Path, run: Path) -> None:
    """Start, and kill while ``stage`` runs; in a training, after a checkpoint."""
    folder = run / "stages" / f"{number:02d}-{stage}"
    process = start(scenes, run)
    begun = time.monotonic()
    while not (folder / "started.json").exists() and not (folder / "manifest.json").exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() - begun < 120
        time.sleep(0.001)
    wanted = folder / "checkpoint.pt"
    trains = stage in ("classifier", "segmenter")
    until = time.monotonic() + (60 if trains else 0.01)
    while time.monotonic() < until and not (trains and wanted.exists()):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def test_killed_in_every_stage_of_one_run(scenes, undisturbed, tmp_path):
    """One run that is killed in each stage: each start gets a stage further than the last."""
    run = tmp_path / "run"
    caught = 0
    for number, stage in enumerate(STAGES, start=1):
        kill_in(stage, number, scenes, run)
        done = {p.parent.name[3:] for p in run.glob("stages/*/manifest.json")}
        assert set(STAGES[: number - 1]) <= done
        caught += stage not in done
        if stage in ("classifier", "segmenter"):
            assert stage not in done
    assert caught >= 5, "most kills must fall into their stage"
    assert start(scenes, run).wait(120) == 0
    assert results(run) == results(undisturbed)
    assert not [p for p in run.rglob("*") if p.name.startswith(".tmp-")]
    left = {p.name for p in run.glob("stages/*/*")} & {"started.json", "checkpoint.pt"}
    assert not left


def results(run: Path) -> dict[str, object]:
    """What a run is for, to the byte; stores by content, as SQLite's files keep their history."""
    stages = {p.name[3:]: p for p in run.glob("stages/*")}
    found: dict[str, object] = {"masks": contents(stages["masks"] / "masks")}
    found["export"] = (stages["export"] / "segmenter.safetensors").read_bytes()
    for name in STAGES:
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
    import tagseg.recipes.smoothing
    import tagseg.training
    from tagseg.priors.crisp import CrispSettings

    tagseg.training._CHECKPOINT_EVERY = 0.0
    tagseg.recipes.smoothing.CRISP = CrispSettings(n_kernels=200, n_forest_pairs=300, n_trees=1)
    tagseg.cli.main()
