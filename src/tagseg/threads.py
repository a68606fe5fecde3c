"""Work that is shared out among threads: kernels that hold no lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_threads", "one_ahead"]

Job = TypeVar("Job")
Found = TypeVar("Found")
Result = TypeVar("Result")


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> list[Result]:
    """``work`` of each job, in their order; one thread is this one, without a pool."""
    if threads == 1:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, jobs))


def one_ahead(
    first: Callable[[Job], Found], then: Callable[[Job, Found], Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """``then(job, first(job))`` of each job, in their order, the two steps side by side.

    While a thread of its own takes the second step of one job, this one takes the first step of the
    next, and no more: two jobs are in hand at most. What a step raises comes in its job's turn.
    """
    with ThreadPoolExecutor(1, "behind") as pool:
        behind: list[Future[Result]] = []
        for job in jobs:
            try:
                found = first(job)
            except Exception:
                yield from (one.result() for one in behind)
                raise
            yield from (one.result() for one in behind)
            behind = [pool.submit(then, job, found)]
        yield from (one.result() for one in behind)
