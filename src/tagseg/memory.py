"""Memory at hand, and how several threads share it for work that takes much of it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Room", "memory_at_hand"]

_MEMORY = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")
_UNKNOWN = 4 << 30  # bytes, where no system tells


def memory_at_hand() -> int:
    """Bytes that this process can still take: of the machine, or of its container if that is less.

    4 GB where the system does not tell.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = _MEMORY.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # "max" without a limit
        most, used = ((_CONTAINER / f"memory.{part}").read_text() for part in ("max", "current"))
        found.append(max(0, int(most) - int(used)))
    return min(found, default=_UNKNOWN)


class Room:
    """Lets threads take memory up to half of what is at hand; who asks for more than all waits.

    Whoever asks alone gets what it asks for. Processes beside this one, as they check photos on
    many cores, have as much each: a worker process takes its part of the cores.
    """

    def __init__(self, at_hand: Callable[[], int] = memory_at_hand) -> None:
        self._at_hand = at_hand
        self._limit: int | None = None
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until there is room for ``amount`` bytes, and have them in the block."""
        with self._changed:
            while self._taken and self._taken + amount > self._most():
                self._changed.wait()
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()

    def _most(self) -> int:
        if self._limit is None:
            parts = 1 if multiprocessing.parent_process() is None else os.cpu_count() or 1
            self._limit = self._at_hand() // 2 // parts
        return self._limit
