from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import ConfigError
from tagseg.priors.row_blocks import RowBlocks


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n_rows", [1, 3, 40])
def test_every_row_is_done_once(threads, n_rows):
    counts = np.zeros(n_rows, int)

    def add(start, stop, amount):
        counts[start:stop] += amount

    with RowBlocks(threads) as blocks:
        blocks.run(add, n_rows, 2)
        assert blocks.map(lambda x: x * x, [1, 2, 3]) == [1, 4, 9]
    assert (counts == 2).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_come_through(threads):
    def fail(start, stop):
        raise ZeroDivisionError(f"rows {start} to {stop}")

    with RowBlocks(threads) as blocks, pytest.raises(ZeroDivisionError):
        blocks.run(fail, 10)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, None])
def test_threads_that_are_none(threads):
    with pytest.raises(ConfigError, match="threads"):
        RowBlocks(threads)
