"""Runs that several processes share: what one process makes, also when some are killed.

Run as a script (RANK, SIZE, PORT, ERRORS, then words of the command line), this is one of several,
with a checkpoint at every iteration.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

if __name__ != "__main__":
    from safetensors.torch import load_file

    import forked
    from small_runs import contents
    from tagseg.data.scenes import write_scenes
    from tagseg.ranks.launch import free_port
    from tagseg.run.workspace import Workspace

pytestmark = pytest.mark.slow

SETTINGS = {
    "classifier_width": 16,
    "classifier_iterations": 8,
    "classifier_batch_size": 5,
    "segmenter_width": 16,
    "segmenter_iterations": 8,
    "segmenter_batch_size": 3,
    "crf_iterations": 2,
}
STAGES = ("classifier", "location-maps", "seeds", "segmenter", "masks", "predictions")
AGAIN = "give the same command again, which goes on, also with another number of processes"


class Processes:
    """A run by ``size`` processes."""

    def __init__(self, folder: Path, scenes: Path, size: int) -> None:
        truth = scenes / "SegmentationClass"
        words = ["train", scenes, "--out", folder, "--val", "val", "--ground-truth", truth]
        words += ["--recipe", "cam_baseline", "--backbone", "tiny", "--device", "cpu"]
        words += ["--precision", "fp32", "--threads", "1"]
        words += [part for k, v in SETTINGS.items() for part in ("--set", f"{k}={v}")]
        port = free_port()
        self.folder = folder
        self.errors = [folder.parent / f"errors-{port}-{rank}.txt" for rank in range(size)]
        self.all: list[BaseProcess] = [
            forked.start(__file__, rank, size, port, errors, *words)
            for rank, errors in enumerate(self.errors)
        ]

    def statuses(self) -> list[int | None]:
        return [forked.ended(process, 120) for process in self.all]

    def last_lines(self) -> list[str]:
        """What each said last."""
        return [(["", *file.read_text().splitlines()])[-1] for file in self.errors]

    def wait_for(self, file: str) -> None:
        begun = time.monotonic()
        while not list(self.folder.glob(f"stages/{file}")):
            assert all(process.is_alive() for process in self.all), self.last_lines()
            assert time.monotonic() - begun < 120
            time.sleep(0.001)

    def killed(self, rank: int) -> float:
        """Kill one; seconds until the others have ended."""
        self.all[rank].kill()
        begun = time.monotonic()
        statuses = self.statuses()
        took = time.monotonic() - begun
        assert statuses[rank] == -signal.SIGKILL
        assert {status for other, status in enumerate(statuses) if other != rank} == {2}
        return took


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, train=20, val=6)
    return folder


@pytest.fixture(scope="module")
def alone(scenes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert Processes(folder, scenes, 1).statuses() == [0]
    return folder


def assert_same_results(run: Path, alone: Path) -> None:
    """Keys are the same, what was learned within float's tolerance, and so what was made of it."""
    ours, expected = Workspace.read(run), Workspace.read(alone)
    assert [s.key for s in ours.summary()] == [s.key for s in expected.summary()]
    for stage in ("classifier", "segmenter"):
        logs = [work.finished(stage).read_log() for work in (ours, expected)]
        assert [line["loss"] for line in logs[0]] == pytest.approx(
            [line["loss"] for line in logs[1]], rel=1e-4
        )
    weights = [
        load_file(work.finished("export").read_path("segmenter.safetensors"))
        for work in (ours, expected)
    ]
    for name, values in weights[1].items():
        assert (weights[0][name] - values).abs().max() <= 1e-4 * max(1, values.abs().max()), name
    masks = [contents(work.finished("masks").read_path("masks")) for work in (ours, expected)]
    differ = [name for name in masks[1] if masks[0][name] != masks[1][name]]
    assert masks[0].keys() == masks[1].keys()
    assert len(differ) <= 2, "a pixel may fall the other way"
    scores = [work.finished("findings").load_json("scores") for work in (ours, expected)]
    for row, alone_row in zip(*scores, strict=True):
        assert row["photos"] == alone_row["photos"]
        assert row["miou"] == pytest.approx(alone_row["miou"], abs=1e-3)
    told = [json.loads((folder / "run.json").read_text()) for folder in (run, alone)]
    assert told[0]["command"].replace(run.name, "") == told[1]["command"].replace(run.name, "")


def test_processes_are_killed_and_others_go_on(scenes, alone, tmp_path):
    """Each kill finds another number of processes; what is left ends, and one of it says why."""
    run = tmp_path / "run"
    two = Processes(run, scenes, 2)
    two.wait_for("*-classifier/checkpoint.pt")
    assert two.killed(1) < 60
    assert two.last_lines()[0] == f"tagseg: error: process 1 of 2 has ended; {AGAIN}"

    three = Processes(run, scenes, 3)
    three.wait_for("*-segmenter/checkpoint.pt")
    assert three.killed(0) < 60
    said = three.last_lines()
    assert said[1:] == [f"tagseg: error: process 0 of 3 has ended; {AGAIN}", ""]

    two = Processes(run, scenes, 2)
    assert two.statuses() == [0, 0], two.last_lines()
    assert two.errors[1].read_text() == "", "one alone speaks"
    assert_same_results(run, alone)


def test_a_signal_ends_all_and_the_state_is_kept(scenes, tmp_path):
    run = tmp_path / "run"
    two = Processes(run, scenes, 2)
    two.wait_for("*-classifier/checkpoint.pt")
    os.kill(two.all[1].pid, signal.SIGTERM)  # the other hears of it
    statuses = two.statuses()
    assert statuses[1] == 128 + signal.SIGTERM
    assert statuses[0] not in (0, None)
    assert two.last_lines() == ["stopped; the same command continues", ""]
    assert list(run.glob("stages/*-classifier/checkpoint.pt"))


def test_what_cannot_be_used_is_said_once(scenes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other.txt").write_text("mine")
    two = Processes(tmp_path / "run", scenes, 2)
    assert two.statuses() == [2, 2]
    first, second = two.last_lines()
    assert "is neither empty nor a run" in first
    assert second == ""


if __name__ == "__main__":
    rank, size, port, errors, *words = sys.argv[1:]
    os.environ |= {"RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    sys.stderr = open(errors, "w")  # noqa: SIM115
    sys.argv = ["tagseg", *words]
    import tagseg.cli
    import tagseg.training

    tagseg.training._CHECKPOINT_EVERY = 0.0
    tagseg.cli.main()
