"""benchmarks/gpu.py at toy size: it must work on the day on which a GPU is there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_gpu", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its functions look for its types
    spec.loader.exec_module(module)
    return module


gpu = loaded()
PLACE = gpu.Place(torch.device("cpu"), torch.float32, True)


@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_gives_rows(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    gpu.PARTS[part](PLACE)
    rows = capsys.readouterr().out.splitlines()
    assert rows
    assert not any("nan" in row for row in rows)


def test_it_counts_operations() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, gpu.CLASSES))
    found = gpu.operations(PLACE, gpu.Trained(net, 8, 1))
    once = 2 * 3 * 8 * 8 * gpu.CLASSES
    assert found == 2 * once  # forward, and the weights' gradient; the photo needs none


def test_a_part_that_fails_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    failed = gpu.run_all(["crf", "peak"], "cuda:99", True, 120.0)
    printed = capfd.readouterr().out
    assert failed == 2
    assert "crf" in printed
    assert "peak" in printed
    assert "failed: " in printed
    assert "0 of 2 parts" in printed


def test_a_part_that_takes_too_long_is_ended() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert gpu.run_one(command, 1.0) == "not done in 1 s"
    assert gpu.run_one(command, 0.5) == "no time left"


def test_the_command_runs_unattended() -> None:
    command = [sys.executable, str(FILE), "--device", "cpu", "--quick", "--only", "peak"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 parts" in done.stdout
