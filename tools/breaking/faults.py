"""Calls that fail: at every k-th of their kind, once or from then on; and disks that are full."""

from __future__ import annotations

import random
import resource
import subprocess
from functools import cache
from pathlib import Path

from breaking.kills import next_point
from breaking.subjects import GOOD, REFUSED, Subject, Verdict, often_saved
from breaking.traced import injection, let_others_trace, why_not

_ERRORS = {
    "openat": ("EMFILE", "ENOSPC", "EIO"),
    "write": ("ENOSPC", "EIO", "EDQUOT", "nothing"),
    "pwrite64": ("ENOSPC", "EIO", "nothing"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO", "ENOSPC"),
    "rename": ("ENOSPC", "EIO"),
    "unlink": ("EIO",),
    "unlinkat": ("EIO",),
    "mkdir": ("ENOSPC", "EIO"),
}
_LIMITS = (0, 100, 1000, 5000, 20_000, 100_000)  # bytes of a file, behind which no write goes


def faults(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """A call fails: one line, or a result as ever; then the command in peace.

    A write of which nothing is done is the shortest of short writes; one that is done in part
    comes before that on a full disk, and where files may not be longer than a limit.
    """
    if why_not() or number % 5 == 4:
        return _limited(subject, rng)
    call, at = next_point(subject, rng, _ERRORS, "fault points")
    error = rng.choice(_ERRORS[call])
    # That it never writes anything and never fails either is no disk's way.
    sticky = error != "nothing" and rng.random() < 0.5
    what = "retval=0" if error == "nothing" else f"error={error}"
    kind = f"{call} {error}, {'from then on' if sticky else 'once'}"
    run = subject.new()
    options = injection(call, what, f"{at}+" if sticky else str(at))
    first = subject.run(run, _prepared, strace=options)
    return _then_in_peace(subject, run, kind, *subject.judged(first, run))


def _prepared() -> None:
    let_others_trace()
    often_saved()


def _limited(subject: Subject, rng: random.Random) -> Verdict:
    """Writes end short at a length of the file, and then fail; SQLite's, too."""
    most = rng.choice(_LIMITS)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    run = subject.new()
    first = subject.run(run, limit)
    return _then_in_peace(subject, run, "files limited", *subject.judged(first, run))


def disk(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """A disk that is full at a random moment; then it has room, and the command runs again."""
    subject.new().mkdir()
    reason = _why_no_disk(subject.broken)
    if reason:
        raise SystemExit(f"disk: {reason}; faults limits the size of files instead")
    files = [path for path in subject.whole.rglob("*") if path.is_file()]
    needed = sum(4096 + path.stat().st_size for path in files)
    size = round(needed * rng.uniform(0.02, 0.98))
    _mount(subject.broken, size)
    try:
        run = subject.broken / "run"
        first = subject.run(run, often_saved)
        _mount(subject.broken, 8 * needed, again=True)
        return _then_in_peace(subject, run, "disk full", *subject.judged(first, run))
    finally:
        subprocess.run(["umount", "--lazy", str(subject.broken)], check=True)


def _then_in_peace(subject: Subject, run: Path, kind: str, what: str, more: str) -> Verdict:
    if what not in (GOOD, REFUSED):
        return Verdict(kind, f"{what} at first", more)
    return subject.checked(run, kind)


@cache
def _why_no_disk(place: Path) -> str:
    try:
        _mount(place, 1 << 20)
    except (OSError, subprocess.CalledProcessError):
        return "only root can mount a small tmpfs"
    subprocess.run(["umount", str(place)], check=True)
    return ""


def _mount(place: Path, size: int, *, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tagseg", str(place)]
    subprocess.run(command, check=True, capture_output=True)
