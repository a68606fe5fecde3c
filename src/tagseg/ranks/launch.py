"""One command, several processes on this machine: started, watched and ended together.

Nothing here imports torch, so that the command that waits costs nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tagseg.errors import ConfigError

__all__ = ["LIFELINE", "Place", "free_port", "launch", "place_in_environment"]

LIFELINE = "TAGSEG_LIFELINE"  # names the file that closes when the command ends
_MOST = 64
_PATIENCE = 30.0  # seconds that processes have to end once one has failed, or a signal has come
_POLL = 0.1
_FORWARDED = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]


class Place(NamedTuple):
    """The place of this process among those that share a run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        here: its number among those on this machine.
        on_this_machine: how many these are.
    """

    rank: int
    size: int
    here: int
    on_this_machine: int


def place_in_environment() -> Place | None:
    """What ``torchrun`` and :func:`launch` say of this process; None if it is alone.

    Raises:
        ConfigError: RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE cannot be meant.
    """
    size = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0)
    here, on_this_machine = _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size)
    if not (0 <= rank < size and 0 <= here < on_this_machine <= size):
        raise ConfigError(
            f"RANK={rank}, WORLD_SIZE={size}, LOCAL_RANK={here}, "
            f"LOCAL_WORLD_SIZE={on_this_machine} do not fit one another",
            do="use torchrun or --processes, which set them",
        )
    return None if size == 1 else Place(rank, size, here, on_this_machine)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise ConfigError(f"{name}={text} in the environment is no number") from None


def launch(count: int, words: Sequence[str]) -> int:
    """Run ``python -m tagseg WORDS`` in ``count`` processes that share the work; the exit status.

    Signals go to all of them, once; when one fails the others have some seconds to end.

    Raises:
        ConfigError: there can be no such number of processes, or they are told already.
    """
    if not 1 <= count <= _MOST:
        raise ConfigError(f"processes is {count}", do=f"use 1 to {_MOST}")
    if place_in_environment() is not None:
        raise ConfigError(
            "--processes is given to a process that torchrun has started", do="leave it out"
        )
    reading, writing = os.pipe()  # its end is this process's, and the others read that it closes
    signals: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: signals.append(n))
        for number in _FORWARDED
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        started = _started(count, words, reading)
        os.close(reading)
        return _waited(started, signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


def _started(count: int, words: Sequence[str], lifeline: int) -> list[subprocess.Popen[bytes]]:
    shared = os.environ | {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        LIFELINE: str(lifeline),
    }
    if sys.platform == "linux":
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
    command = [sys.executable, "-m", "tagseg", *words]
    return [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            pass_fds=[lifeline],
            start_new_session=True,  # the terminal's Ctrl-C comes from here, and only once
        )
        for rank in range(count)
    ]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _waited(processes: Sequence[subprocess.Popen[bytes]], signals: list[int]) -> int:
    """Wait for the end of all; the status of the first that failed, or 0."""
    failed: int | None = None  # the process that has failed first
    until, forwarded = float("inf"), 0
    while None in [process.poll() for process in processes]:
        for number in signals[forwarded:]:
            _send(processes, number)
            until = min(until, time.monotonic() + _PATIENCE)
        forwarded = len(signals)
        ended = [rank for rank, process in enumerate(processes) if process.returncode]
        if failed is None and ended:
            failed = ended[0]
            until = min(until, time.monotonic() + _PATIENCE)
        if time.monotonic() > until:
            _send(processes, signal.SIGKILL)
        time.sleep(_POLL)
    statuses = [process.returncode for process in processes]
    if signals:
        return 128 + signals[0]
    if failed is not None and all(status < 0 for status in statuses):  # nobody could say it
        print(
            f"tagseg: error: process {failed} of {len(statuses)} was ended by signal "
            f"{-statuses[failed]}; give the same command again",
            file=sys.stderr,
        )
    return max((2 if status < 0 else status for status in statuses), default=0)


def _send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
