from __future__ import annotations

import threading

import pytest

from tagseg.threads import in_threads, one_ahead


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


def test_steps_of_neighbours_are_taken_side_by_side() -> None:
    """The second step of each job ends only once the next job's first one has begun."""
    begun = [threading.Event() for _ in range(5)]

    def first(job: int) -> int:
        begun[job].set()
        return 10 * job

    def then(job: int, found: int) -> tuple[int, int, bool]:
        return job, found, job == 4 or begun[job + 1].wait(10)

    assert list(one_ahead(first, then, range(5))) == [(i, 10 * i, True) for i in range(5)]


def test_two_jobs_are_in_hand_at_most() -> None:
    taken, given = [], []
    for job in one_ahead(lambda job: taken.append(job), lambda job, _: job, range(6)):
        given.append(job)
        assert len(taken) <= len(given) + 1
    assert given == list(range(6))
    assert list(one_ahead(lambda job: job, lambda job, _: job, [])) == []


@pytest.mark.parametrize("step", ["first", "then"])
def test_what_came_before_an_error_is_given_first(step: str) -> None:
    def fails(job: int, where: str) -> int:
        return 1 // (3 - job) if where == step else job

    given = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for job in one_ahead(
            lambda job: fails(job, "first"), lambda job, _: (job, fails(job, "then"))[0], range(9)
        ):
            given.append(job)
    assert given == [0, 1, 2]
