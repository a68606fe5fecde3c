"""Who of the processes of a run is still there: a thread that watches their connections.

Every process keeps a connection to the one that leads. The system closes it when a process ends,
however it ends, and while a process lives nothing need be sent: one that computes for an hour
without a pause is not taken for dead. Where a whole machine is lost, TCP's own probes tell within
half a minute. Whoever ends on purpose says so with one byte before.
"""

from __future__ import annotations

import _thread
import os
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

__all__ = ["DONE", "TOLD", "Ending", "Watch", "keep_alive"]

DONE = b"."  # the process has finished
TOLD = b"!"  # it ends before that, and the user knows why
_GRACE = 15.0  # seconds that a process has to end by itself once another is gone
_PROBES = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))  # seconds, number
_STARTER = -1  # stands for what has started the processes


class Ending(NamedTuple):
    """That the run cannot go on in this process.

    Attributes:
        rank: whose end it is; -1 for the command that started the processes.
        told: whether the user knows why.
    """

    rank: int
    told: bool


def keep_alive(connection: socket.socket) -> None:
    """Let the system find out whether the machine at the other end is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if hasattr(socket, name):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Watch:
    """Watches connections, each to one process; made once everybody is connected.

    When one ends before it is done, the main thread is interrupted, unless it has noticed by
    itself; and if the process is still there a while later, stuck in a call, it is ended.

    Args:
        connections: by the rank at the other end.
        lifeline: file that closes when the command that started the processes ends; or None.
        last: says what has to be said, and ends the process.

    Attributes:
        thread: that watches.
    """

    def __init__(
        self,
        connections: Mapping[int, socket.socket],
        lifeline: int | None,
        last: Callable[[Ending], None],
    ) -> None:
        self._connections, self._last = dict(connections), last
        self._done: set[int] = set()
        self._lock, self._changed = threading.Lock(), threading.Condition()
        self._noticed = False
        self._ending: Ending | None = None
        self._selector = selectors.DefaultSelector()
        for rank, connection in self._connections.items():
            self._selector.register(connection, selectors.EVENT_READ, rank)
        if lifeline is not None:
            self._selector.register(lifeline, selectors.EVENT_READ, _STARTER)
        self.thread = threading.Thread(target=self._watch, name="tagseg-watch", daemon=True)
        self.thread.start()

    @property
    def ending(self) -> Ending | None:
        """That the run cannot go on, as soon as it is known."""
        return self._ending

    def notice(self) -> None:
        """The main thread knows that something is wrong, and is not to be interrupted for it."""
        with self._lock:
            self._noticed = True

    def wait(self, seconds: float) -> Ending | None:
        """Wait until it is known who has ended, but no longer than ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending is not None, seconds)
        return self._ending

    def wait_for_all(self, seconds: float | None = None) -> bool:
        """Wait until all others are done; False if one ended before, or it took too long."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ending is not None or self._done >= self._connections.keys(), seconds
            )
        return self._ending is None and self._done >= self._connections.keys()

    def say(self, word: bytes) -> None:
        """Tell the others how this process ends."""
        for connection in self._connections.values():
            with suppress(OSError):
                connection.sendall(word)

    def _watch(self) -> None:
        while self._ending is None and self._selector.get_map():
            for key, _ in self._selector.select():
                self._read(key)
        if self._ending is None:
            return
        threading.Event().wait(_GRACE)
        self._last(self._ending)

    def _read(self, key: selectors.SelectorKey) -> None:
        rank = int(key.data)
        word = b""
        with suppress(OSError):
            word = os.read(key.fd, 1) if rank == _STARTER else key.fileobj.recv(1)  # type: ignore[union-attr]
        if word == DONE:
            with self._changed:
                self._done.add(rank)
                self._changed.notify_all()
            return
        self._selector.unregister(key.fileobj)
        if rank not in self._done:
            self._end(Ending(rank, word == TOLD))

    def _end(self, ending: Ending) -> None:
        with self._changed:
            self._ending = self._ending or ending
            self._changed.notify_all()
        with self._lock:
            if not self._noticed:
                self._noticed = True
                _thread.interrupt_main()
