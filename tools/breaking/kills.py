"""SIGKILL: at random moments, before every k-th system call, and between checkpoints of 15 s."""

from __future__ import annotations

import random
from collections.abc import Iterable

from breaking.subjects import Subject, Verdict, long_subject, often_saved
from breaking.traced import Counting, injection, let_others_trace, why_not

_CALLS = (
    *("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate"),
    *("rename", "unlink", "unlinkat", "mkdir", "rmdir"),
)
_LONG_SECONDS = 45.0  # in which three checkpoints are saved at their real interval


def kills(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """Kill the command, up to three times; then it runs in peace. One in ten is a long run."""
    turn = number % 10
    if turn == 0:
        return _long(subject, rng)
    if turn % 2 and not why_not():
        return _at_a_call(subject, rng)
    run = subject.new()
    for _ in range(rng.randrange(1, 4)):
        subject.run(run, often_saved, kill_after=rng.uniform(0.1, subject.seconds))
    return subject.checked(run, "moment")


def _long(subject: Subject, rng: random.Random) -> Verdict:
    """Long trainings, whose checkpoints are as far apart as those of any run."""
    longer = long_subject(subject.room, _LONG_SECONDS)
    run = longer.new()
    longer.run(run, kill_after=rng.uniform(0.3, 1.0) * longer.seconds)
    return longer.checked(run, "moment, checkpoints 15 s apart")


def _at_a_call(subject: Subject, rng: random.Random) -> Verdict:
    """Killed before a system call, in the order of a shuffled list of all of them."""
    call, at = next_point(subject, rng, _CALLS, "kill points")
    run = subject.new()
    subject.run(run, _often_saved_and_traced, strace=injection(call, "signal=KILL", str(at)))
    return subject.checked(run, call)


def next_point(
    subject: Subject, rng: random.Random, calls: Iterable[str], name: str
) -> tuple[str, int]:
    """A system call and the how manieth of its kind, each once before any comes again.

    Kinds take turns, so that a few minutes reach the rare ones, too. The counts of an undisturbed
    run are in ``subject.notes["calls"]``.
    """
    if "calls" not in subject.notes:
        counting = Counting(_CALLS)
        subject.run(subject.new(), _often_saved_and_traced, strace=counting.options)
        subject.notes["calls"] = counting.counts()
    counts = subject.notes["calls"]
    points = subject.notes.setdefault(name, {})
    for call in calls:
        if not points.get(call) and counts.get(call):
            points[call] = rng.sample(range(1, counts[call] + 1), counts[call])
    here = [call for call in calls if points.get(call)]
    turn = subject.notes[f"{name}, turn"] = subject.notes.get(f"{name}, turn", -1) + 1
    call = here[turn % len(here)]
    return call, points[call].pop()


def _often_saved_and_traced() -> None:
    let_others_trace()
    often_saved()
