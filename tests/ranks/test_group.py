"""What processes get from one another; see shared_trainings.exchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tagseg.errors import ConfigError
from tagseg.ranks.alone import ALONE
from tagseg.ranks.group import together


@pytest.fixture
def exchanged(shared) -> list[dict[str, Any]]:
    return [process["exchanged"] for process in shared]


def test_rows_are_joined_and_each_takes_its_own_gradient(exchanged):
    rows = [torch.arange(2.0 * rank).view(rank, 2) for rank in range(len(exchanged))]
    for rank, found in enumerate(exchanged):
        assert torch.equal(found["joined"], torch.cat(rows))
        assert torch.equal(found["own gradient"], rows[rank])
        assert found["lengths"] == [0, 1, 2][: len(exchanged)]
        flags = [flag for other in range(len(exchanged)) for flag in (other == 1, True)]
        assert found["flags"].tolist() == flags


def test_a_sum_has_the_gradient_of_all(exchanged):
    """f = sum over r of S x_r with S the sum of all x: df / dx_r = S + S."""
    total = sum(1.0 + rank for rank in range(len(exchanged)))
    for found in exchanged:
        assert found["total gradient"].tolist() == [2 * total] * 2


def test_tensors_of_all_kinds_are_summed_or_taken_over(exchanged):
    total = sum(range(len(exchanged)))
    for found in exchanged:
        assert found["grown"][0].tolist() == [[total] * 2] * 2
        assert found["grown"][1].tolist() == [total] * 3
        assert found["grown"][1].dtype == torch.int64
        assert found["same"][0].tolist() == [[5.0] * 2] * 2
        assert int(found["same"][1]) == 7


def test_values_go_around(exchanged):
    count = len(exchanged)
    for rank, found in enumerate(exchanged):
        assert found["first"] == {"rank": 0}
        assert found["gathered"] == list("abc"[:count])
        assert found["brought"] == (list(range(count)) if rank == 0 else [])
        assert found["any"] == [True, False]
        assert "take no part" in found["refused"]


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together(torch.device("cpu")) as ranks:
        assert ranks is ALONE


def test_devices_that_cannot_be_shared(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ConfigError, match="cannot share a run on mps"),
        together(torch.device("mps")),
    ):
        pass
