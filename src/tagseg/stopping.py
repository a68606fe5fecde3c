"""Signals that end the program, put off until the work in hand is safe.

On Ctrl-C, SIGTERM (a batch system, a container or a service that ends) or SIGHUP (a terminal that
closes) the program ends with a KeyboardInterrupt at once, but in a block under :func:`put_off`,
which is asked to end by itself. It has some seconds for that; a second signal does not wait.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ended_by_signals", "ignore_in_worker", "put_off"]

_PATIENCE = 8  # seconds; who sends SIGTERM often sends SIGKILL after ten
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]


class _State:
    """Of the one program that signals are sent to."""

    put_off = False
    asked = False


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """End the block with a KeyboardInterrupt on each of these signals; give those that came.

    What is ignored from the start, as under ``nohup``, stays ignored.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that was forked from here; its parent has the word
            os._exit(128 + number)
        came.append(number)
        if _State.put_off and not _State.asked:
            _State.asked = True
            if hasattr(signal, "SIGALRM"):
                signal.signal(signal.SIGALRM, lose_patience)
                signal.alarm(_PATIENCE)
            return
        raise KeyboardInterrupt

    def lose_patience(number: int, frame: FrameType | None) -> None:
        if _State.put_off:
            raise KeyboardInterrupt

    heard = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def put_off() -> Iterator[Callable[[], bool]]:
    """Put signals off while the block runs; what it is given says whether one has come.

    The block then makes its work safe and raises KeyboardInterrupt, or it just ends.
    """
    outer, _State.put_off = _State.put_off, True
    try:
        yield lambda: _State.asked
    finally:
        _State.put_off = outer
        asked, _State.asked = _State.asked, False
        if asked and hasattr(signal, "SIGALRM"):
            signal.alarm(0)
    if asked:
        raise KeyboardInterrupt


def ignore_in_worker(_: int = 0) -> None:
    """In a process that loads photos for another: that one decides when it ends.

    A terminal and a batch system send signals to all processes at once.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
