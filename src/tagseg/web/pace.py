"""How many photos an hour a person gets through, breaks left out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Pace"]

_WINDOW = 600.0  # seconds that count
_BREAK = 60.0  # seconds without an act, over which nobody was working
_LEAST = 10.0  # seconds before a number says anything


class Pace:
    """Photos decided in the last minutes of work.

    Args:
        clock: seconds, from anywhere.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._acts: deque[tuple[float, float, int]] = deque()  # when, how long it took, photos
        self._last: float | None = None

    def add(self, photos: int) -> None:
        """An act decided on ``photos`` more, fewer than none if it took decisions back."""
        now = self._clock()
        took = 0.0 if self._last is None else now - self._last
        self._acts.append((now, took if took <= _BREAK else 0.0, photos))
        self._last = now

    def an_hour(self) -> int | None:
        """Photos an hour; None where there was too little work to say."""
        now = self._clock()
        while self._acts and now - self._acts[0][0] > _WINDOW:
            self._acts.popleft()
        worked = sum(took for _, took, _ in self._acts)
        if worked < _LEAST:
            return None
        return max(0, round(sum(photos for _, _, photos in self._acts) / worked * 3600))
