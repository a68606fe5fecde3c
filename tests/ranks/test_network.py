from __future__ import annotations

import pytest
import torch

import forked
import shared_trainings
from tagseg.ranks.launch import free_port


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, tmp_path_factory) -> dict:
    """What the trainings come to with several processes; 5 photos a batch are shared unequally."""
    out, port = tmp_path_factory.mktemp("shared") / "found.pt", free_port()
    processes = [
        forked.start(shared_trainings.__file__, rank, request.param, port, out)
        for rank in range(request.param)
    ]
    assert [forked.ended(process, 120) for process in processes] == [0] * request.param
    return torch.load(out)


@pytest.mark.parametrize("name", shared_trainings.CASES)
def test_several_processes_learn_what_one_does(shared, name):
    expected, found = shared_trainings.trained(name), shared[name]
    close = {"rtol": 0.03, "atol": 0.03} if name == "bf16" else {"rtol": 1e-4, "atol": 1e-4}
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, **close)
