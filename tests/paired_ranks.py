"""Several threads that keep together as the processes of a run do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from tagseg.ranks.alone import Ranks

T = TypeVar("T")
PATIENCE = 20.0  # seconds


class Board:
    """What the threads share."""

    def __init__(self, size: int) -> None:
        self.size, self.ended = size, False
        self.values: dict[int, dict[int, Any]] = {}  # of each gathering, by thread
        self.words: dict[int, Any] = {}
        self.told = threading.Condition()

    def end(self) -> None:
        """One of the threads has ended: gatherings that it takes no part in do not come about."""
        with self.told:
            self.ended = True
            self.told.notify_all()


class Paired(Ranks):
    """One of the threads."""

    def __init__(self, rank: int, size: int, board: Board) -> None:
        self.rank, self.size = rank, size
        self.board, self._words, self._gatherings, self._apart = board, 0, 0, False

    def gathered(self, value: T) -> list[T]:
        assert not self._apart, "others take no part"
        board, self._gatherings = self.board, self._gatherings + 1
        with board.told:
            values = board.values.setdefault(self._gatherings, {})
            values[self.rank] = value
            board.told.notify_all()
            board.told.wait_for(lambda: len(values) == board.size or board.ended, PATIENCE)
            if len(values) < board.size:
                raise threading.BrokenBarrierError
            return [values[rank] for rank in range(board.size)]

    def brought(self, value: T) -> list[T]:
        values = self.gathered(value)
        return values if self.leads else []

    def first(self, make: Callable[[], T]) -> T:
        if self._apart:
            return make()
        with self.apart():
            value: Any = make() if self.leads else None
        return self.gathered(value)[0]

    @property
    def is_apart(self) -> bool:
        return self._apart

    @contextmanager
    def apart(self) -> Iterator[None]:
        outer, self._apart = self._apart, True
        yield
        self._apart = outer

    def next_word(self) -> int:
        self._words += 1
        return self._words

    def tell(self, number: int, value: Any) -> None:
        with self.board.told:
            self.board.words[number] = value
            self.board.told.notify_all()

    def hear(self, number: int) -> Any:
        with self.board.told:
            assert self.board.told.wait_for(lambda: number in self.board.words, PATIENCE)
            return self.board.words[number]


def together(size: int, work: Callable[[Paired], T]) -> list[T | BaseException]:
    """What ``work`` gives, or raises, in each of the threads."""
    board = Board(size)

    def one(rank: int) -> T | BaseException:
        try:
            return work(Paired(rank, size, board))
        except Exception as error:
            board.end()
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(one, range(size)))
