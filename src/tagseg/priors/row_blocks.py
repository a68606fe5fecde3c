"""Kernels over the rows of a picture, on one thread or on several.

The kernels hold no interpreter lock, and each row's result depends on that row alone, so that the
number of threads changes nothing but the time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from tagseg.errors import ConfigError

__all__ = ["RowBlocks"]

_BLOCKS_A_THREAD = 4  # so that a thread that is held up leaves work to the others


class RowBlocks:
    """A runner of work over blocks of rows; a context manager that ends its threads.

    Raises:
        ConfigError: ``threads`` is no whole number, 1 or more.
    """

    def __init__(self, threads: int) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ConfigError(f"threads is {threads!r}", do="give 1 or more")
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> RowBlocks:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, kernel: Callable[..., Any], n_rows: int, *arguments: Any) -> None:
        """Call ``kernel(start, stop, *arguments)`` for blocks that cover rows 0..n_rows-1."""
        if self._pool is None:
            kernel(0, n_rows, *arguments)
            return
        n_blocks = min(n_rows, self._threads * _BLOCKS_A_THREAD)
        edges = [n_rows * block // n_blocks for block in range(n_blocks + 1)]
        jobs = [
            self._pool.submit(kernel, start, stop, *arguments) for start, stop in pairwise(edges)
        ]
        for job in jobs:
            job.result()

    def map(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return the results of ``function`` for each of its arguments, computed side by side."""
        if self._pool is None:
            return list(map(function, *arguments))
        return list(self._pool.map(function, *arguments))
