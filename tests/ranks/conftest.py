"""Processes that share trainings, started once for all tests of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import forked
import shared_trainings
from tagseg.ranks.launch import free_port


@pytest.fixture(scope="session", params=[2, 3])
def shared(request: pytest.FixtureRequest, tmp_path_factory) -> list[dict[str, Any]]:
    """What each of 2 processes, and of 3, gets out of :mod:`shared_trainings`."""
    out, port, size = tmp_path_factory.mktemp("shared"), free_port(), request.param
    processes = [
        forked.start(shared_trainings.__file__, rank, size, port, out) for rank in range(size)
    ]
    assert [forked.ended(process, 120) for process in processes] == [0] * size
    return [torch.load(out / f"{rank}.pt") for rank in range(size)]
