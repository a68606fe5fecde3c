"""Sizes that are chosen from the photos."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tagseg.stages.shapes import evenly


@given(st.integers(1, 500), st.integers(2, 60))
def test_indices_are_spread_from_the_first_to_the_last(count: int, most: int) -> None:
    found = evenly(count, most)
    assert len(set(found)) == len(found) == min(count, most)
    assert (found[0], found[-1]) == (0, count - 1)
    gaps = {after - before for before, after in itertools.pairwise(found)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_of_nothing_there_is_nothing() -> None:
    assert evenly(0, 5) == []
