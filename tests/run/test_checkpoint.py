from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import torch

from tagseg.errors import WorkspaceError
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.run.files import atomic_write


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "metrics.jsonl")


@pytest.fixture
def checkpoint(tmp_path: Path, log: Log, heard: list[str]) -> Checkpoint:
    return Checkpoint(tmp_path / "checkpoint.pt", log, heard.append)


def test_the_state_saved_last_comes_back(checkpoint: Checkpoint) -> None:
    assert checkpoint.load() is None
    model, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).sum().backward()
    optimiser.step()
    for iteration in (1, 2):
        checkpoint.save(
            {
                "iteration": iteration,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "random": torch.get_rng_state(),
            }
        )
    state = checkpoint.load()
    assert state is not None
    assert state["iteration"] == 2
    assert torch.equal(state["model"]["weight"], model.weight)
    momentum = state["optimiser"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, x.expand(2, 3))


@pytest.mark.parametrize("where", [0, 40, 700, -1])
def test_a_flipped_bit_is_noticed(checkpoint: Checkpoint, heard: list[str], where: int) -> None:
    checkpoint.save({"iteration": 1, "weight": torch.rand(500)})
    checkpoint.wait()
    content = bytearray(checkpoint.path.read_bytes())
    content[where] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    assert "checkpoint is damaged and ignored" in heard[0]


@pytest.mark.parametrize("length", [0, 10, 32, 500])
def test_a_cut_file_is_noticed(checkpoint: Checkpoint, heard: list[str], length: int) -> None:
    checkpoint.save({"iteration": 1, "weight": torch.rand(500)})
    checkpoint.wait()
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:length])
    assert checkpoint.load() is None
    assert len(heard) == 1


def test_a_training_goes_on_while_its_state_is_written(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()

    @contextmanager
    def slow(path: Path) -> Iterator[IO[bytes]]:
        assert may_write.wait(60)
        with atomic_write(path) as file:
            yield file

    monkeypatch.setattr("tagseg.run.checkpoint.atomic_write", slow)
    weights = torch.tensor([1.0, 2.0])
    checkpoint.save({"w": weights})
    weights += 5  # the state is that of the moment at which it was saved
    assert not checkpoint.path.exists()
    may_write.set()
    found = checkpoint.load()  # waits
    assert found is not None
    assert found["w"].tolist() == [1.0, 2.0]


def test_a_state_that_cannot_be_written_shows_at_the_next_or_when_it_is_waited_for(
    checkpoint: Checkpoint,
) -> None:
    checkpoint.path = checkpoint.path / "in a folder that is not there"
    checkpoint.save({"iteration": 1})
    with pytest.raises(WorkspaceError, match="checkpoint"):
        checkpoint.save({"iteration": 2})
    checkpoint.wait()  # nothing is being written
    checkpoint.save({"iteration": 3})
    with pytest.raises(WorkspaceError, match="checkpoint"):
        checkpoint.wait()
    checkpoint.wait()  # it was said once


def test_loading_cuts_the_log_to_the_iteration(checkpoint: Checkpoint, log: Log) -> None:
    log.append({"event": "start"})
    for iteration in range(1, 6):
        log.append({"iteration": iteration})
    checkpoint.save({"iteration": 3})
    with log.path.open("a") as file:
        file.write('{"iteration": 6, "lo')
    assert len(log.read()) == 6  # the torn line is no line
    checkpoint.load()
    assert log.path.read_text().splitlines() == [
        '{"event": "start"}',
        *(f'{{"iteration": {i}}}' for i in (1, 2, 3)),
    ]


def test_without_a_checkpoint_the_log_starts_anew(checkpoint: Checkpoint, log: Log) -> None:
    log.append({"iteration": 1})
    checkpoint.load()
    assert log.read() == []


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot be used"):
        Log(tmp_path / "no" / "metrics.jsonl").append({"a": 1})
