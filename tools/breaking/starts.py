"""Many starts of one command at once, locks of the dead, and two hosts on one folder."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from functools import cache
from pathlib import Path

from breaking.subjects import GOOD, REFUSED, Subject, Verdict, ended

_NEW_NETWORK, _NEW_HOST = 0x40000000, 0x04000000  # CLONE_NEWNET, CLONE_NEWUTS
_STARTS = 200
_EACH = 60 << 20  # bytes of its own that a start takes, which forks share for the most part
_OTHER = "another-host"


def starts(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """One thing in turn; the run must be as undisturbed each time."""
    return (_at_once, _stale_lock, _two_hosts)[number % 3](subject, rng)


def _at_once(subject: Subject, rng: random.Random) -> Verdict:
    """One of them works, the others say in a line who does, or find the finished run."""
    run, count = subject.new(), _most_starts()
    reading, writing = os.pipe()

    def wait() -> None:
        """Until whoever started this one has closed the pipe, as all have been started."""
        os.close(writing)
        os.read(reading, 1)

    together = [subject.start(run, wait) for _ in range(count)]
    os.close(writing)
    os.close(reading)
    came = [subject.judged(ended(*one), run) for one in together]
    kind = f"{count} at once"
    bad = [one for one in came if one[0] not in (GOOD, REFUSED)]
    others = [more for what, more in came if what == REFUSED and "in use by" not in more]
    if bad or others:
        return Verdict(kind, *(bad[0] if bad else ("ANOTHER LINE", others[0])))
    if not Counter(what for what, _ in came)[GOOD]:
        return Verdict(kind, "NONE WORKED")
    return subject.checked(run, kind)


def _most_starts() -> int:
    """200, or as many as half of the free memory holds."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(told["MemAvailable"].split()[0])
    return max(2, min(_STARTS, free // 2 // _EACH))


def _stale_lock(subject: Subject, rng: random.Random) -> Verdict:
    """What a process left that was killed, or that never was."""
    run = subject.new()
    subject.run(run, kill_after=rng.uniform(0.3, 0.9) * subject.seconds)
    run.mkdir(exist_ok=True)
    (run / ".lock").touch()
    gone = {"pid": 2**22 - 1, "host": socket.gethostname(), "since": "2026-01-01 00:00:00+00:00"}
    word = rng.choice([json.dumps(gone), json.dumps({**gone, "host": _OTHER}), "{", "", "[1]"])
    (run / ".lock-owner.json").write_text(word)
    return subject.checked(run, "stale lock")


def _two_hosts(subject: Subject, rng: random.Random) -> Verdict:
    """The second is refused and told of the first by its host's name; that one is then killed."""
    run, kind = subject.new(), "two hosts"
    if not _has_namespaces():
        raise SystemExit("starts: only root can make namespaces, by which there are two hosts")
    first = subject.start(run, _be_another_host)
    owner = run / ".lock-owner.json"
    until = time.monotonic() + 300
    while not owner.exists() and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(first[0], signal.SIGSTOP)  # so that it holds the lock for as long as is needed
    second = subject.run(run)
    os.kill(first[0], signal.SIGKILL)
    said = ended(*first).said
    if f"in use by process {first[0]} on {_OTHER}" not in " ".join(second.said.split()):
        return Verdict(kind, "NOT REFUSED", f"{second} {said}")
    return subject.checked(run, kind)


def _be_another_host() -> None:
    """This process alone has another network and another name; its files are those of all."""
    ctypes.CDLL(None).unshare(_NEW_NETWORK | _NEW_HOST)
    socket.sethostname(_OTHER)


@cache
def _has_namespaces() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(int(ctypes.CDLL(None).unshare(_NEW_NETWORK | _NEW_HOST) != 0))
    return os.waitpid(child, 0)[1] == 0
