from __future__ import annotations

import pytest
import torch

from paired_ranks import Board, Paired
from tagseg.ranks.alone import ALONE


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 16])
def test_shares_are_all_and_differ_by_one_at_most(size, count):
    things, board = list(range(count)), Board(size)
    shares = [things[Paired(rank, size, board).part(count)] for rank in range(size)]
    assert [thing for share in shares for thing in share] == things
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_has_only_itself():
    rows = torch.ones(2, 3, requires_grad=True)
    assert ALONE.leads
    assert ALONE.joined(rows) is rows
    assert ALONE.total(rows) is rows
    assert ALONE.gathered(3) == ALONE.brought(3) == [3]
    assert ALONE.first(lambda: 4) == 4
    assert not ALONE.is_apart
