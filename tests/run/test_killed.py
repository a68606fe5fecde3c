"""A run that is killed at any point and started again ends as if nothing had happened.

Run as a script, this file is the run: ``python test_killed.py FOLDER POINT`` kills itself there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
from tagseg.run import files, stage
from tagseg.run.workspace import Stage, Workspace

PHOTOS = [f"photo{i:03d}.jpg" for i in range(450)]
ITERATIONS = 6
Here = Callable[[str], None]


def work_through(folder: Path, here: Here) -> dict[str, int]:
    """Three stages, as a recipe has them; ``here`` is told each point; counts the work done."""
    done = {"iterations": 0, "photos": 0, "masks": 0}
    with Workspace.open(folder, recipe="toy", settings={"seed": 1}) as work:
        with work.stage("classifier", config={"lr": 0.1}, inputs=["data"]) as classifier:
            if classifier.pending:
                done["iterations"] = train(classifier, here)
            here("classifier:saved")
        with work.stage("cam", config={}, inputs=["data", classifier]) as cam:
            if cam.pending:
                done["photos"] = localize(cam, classifier, here)
            here("cam:put")
        with work.stage("masks", config={}, inputs=[cam]) as masks:
            if masks.pending:
                done["masks"] = write_masks(masks, cam, here)
    return done


def train(classifier: Stage, here: Here) -> int:
    state = classifier.checkpoint.load() or {"iteration": 0, "weight": torch.zeros(50)}
    first = state["iteration"]
    for iteration in range(first + 1, ITERATIONS + 1):
        generator = torch.Generator().manual_seed(iteration)
        state["weight"] = state["weight"] * 0.5 + torch.rand(50, generator=generator)
        state["iteration"] = iteration
        classifier.log(iteration=iteration, loss=float(state["weight"].sum()))
        if iteration % 2 == 0:
            classifier.checkpoint.save(state)
            classifier.checkpoint.wait()  # the kill that follows is behind it
        here(f"classifier:{iteration}")
    classifier.save_tensors("weights", {"weight": state["weight"]}, {"a": "1", "b": "2", "c": "3"})
    return ITERATIONS - first


def localize(cam: Stage, classifier: Stage, here: Here) -> int:
    weight = classifier.load_tensors("weights")[0]["weight"].numpy()
    maps = cam.maps("scores")
    missing = maps.missing(PHOTOS)
    for number, name in enumerate(missing):
        maps.put(name, scores=np.float16(weight * PHOTOS.index(name)), shape=np.array([1, 2]))
        here(f"cam:{number}")
    return len(missing)


def write_masks(masks: Stage, cam: Stage, here: Here) -> int:
    wanted = [name for name in PHOTOS[:20] if not masks.path(f"masks/{name}").exists()]
    for number, name in enumerate(wanted):
        masks.save_bytes(f"masks/{name}", cam.maps("scores").get(name)["scores"].tobytes())
        here(f"masks:{number}")
    return len(wanted)


def hashes(folder: Path) -> dict[str, dict[str, str]]:
    manifests = sorted(folder.glob("stages/*/manifest.json"))
    found = {path.parent.name: json.loads(path.read_text())["artefacts"] for path in manifests}
    return {
        stage: {name: artefact["hash"] for name, artefact in artefacts.items()}
        for stage, artefacts in found.items()
    }


def in_peace(point: str) -> None:
    pass


def die_at(wanted: str) -> Here:
    """Kill this process, as ``kill -9`` does, at point ``wanted``."""

    def here(point: str) -> None:
        if point == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    write_json = stage.write_checked_json

    def write(path: Path, value: object) -> None:
        manifest = path.name == "manifest.json"
        name = path.parent.name[3:]
        here(f"{name}:before manifest" if manifest else "")
        if manifest and wanted == f"{name}:in manifest":
            files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        write_json(path, value)
        here(f"{name}:after manifest" if manifest else "")

    stage.write_checked_json = write
    return here


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert work_through(folder, in_peace) == {"iterations": 6, "photos": 450, "masks": 20}
    return hashes(folder)


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("classifier:1", {"iterations": 6, "photos": 450, "masks": 20}),
        ("classifier:5", {"iterations": 2, "photos": 450, "masks": 20}),
        ("classifier:before manifest", {"iterations": 0, "photos": 450, "masks": 20}),
        ("classifier:after manifest", {"iterations": 0, "photos": 450, "masks": 20}),
        ("cam:250", {"iterations": 0, "photos": 250, "masks": 20}),
        ("cam:put", {"iterations": 0, "photos": 50, "masks": 20}),
        ("cam:in manifest", {"iterations": 0, "photos": 0, "masks": 20}),
        ("masks:7", {"iterations": 0, "photos": 0, "masks": 12}),
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    tmp_path: Path, undisturbed: dict[str, dict[str, str]], point: str, left: dict[str, int]
) -> None:
    killed = forked.start(__file__, tmp_path / "run", point)
    assert forked.ended(killed, 60) == -signal.SIGKILL
    assert hashes(tmp_path / "run") != undisturbed

    assert work_through(tmp_path / "run", in_peace) == left
    assert hashes(tmp_path / "run") == undisturbed
    log = (tmp_path / "run/stages/01-classifier/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in log] == [1, 2, 3, 4, 5, 6]
    left_over = [p.name for p in (tmp_path / "run").rglob("*") if p.name.startswith(".tmp-")]
    assert not left_over
    names = {p.name for p in (tmp_path / "run/stages").glob("*/*")}
    assert not names & {"started.json", "checkpoint.pt"}

    assert work_through(tmp_path / "run", in_peace) == {"iterations": 0, "photos": 0, "masks": 0}


if __name__ == "__main__":
    work_through(Path(sys.argv[1]), die_at(sys.argv[2]))
