"""Trainings with every loss of the house: several processes learn what one does."""

from __future__ import annotations

import pytest
import torch

import shared_trainings
from paired_ranks import Board, Paired
from tagseg.ranks.network import shared_network


@pytest.mark.parametrize("name", shared_trainings.CASES)
def test_several_processes_learn_what_one_does(shared, name):
    """Of 5 photos a batch they have 2 and 3, or 1, 2 and 2; of 1 photo some have none."""
    expected = shared_trainings.trained(name)
    within = {"bf16": 0.03, "long": 1e-9}.get(name, 1e-4)
    close = {"rtol": within, "atol": within}
    for found in (process["trained"][name] for process in shared):
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            torch.testing.assert_close(found[key], values, **close)
            assert torch.equal(found[key], shared[0]["trained"][name][key]), "the same in each"


def test_what_a_network_draws_by_itself_is_refused():
    class Draws(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    net = shared_network(Draws(), Paired(0, 2, Board(2)))
    with pytest.raises(NotImplementedError, match="rand_like draws random numbers"):
        net(torch.zeros(4, 1))
