from __future__ import annotations

import threading

import pytest

from tagseg.threads import in_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    assert in_threads(lambda job: job * job, range(20), threads) == [job * job for job in range(20)]


def test_one_thread_is_this_one() -> None:
    assert (
        in_threads(lambda _: threading.current_thread(), [0, 1], 1)
        == [threading.current_thread()] * 2
    )
    assert threading.current_thread() not in in_threads(
        lambda _: threading.current_thread(), [0, 1], 2
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_reach_the_caller(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda job: 1 // job, [1, 0], threads)
