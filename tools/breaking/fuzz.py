"""Every reader gets files that are nearly right: only TagsegError may come, soon, in little memory.

Bytes are flipped, cut, put in, repeated and mixed; in JSON parts are replaced, too, by values of
other kinds, and in files that carry checks of their content the checks are made to hold, so that
what lies behind them is reached. What ends otherwise is kept under runs/campaign-fuzz/.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import signal
import traceback
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from breaking.fuzz_targets import Target, targets
from breaking.subjects import GOOD, Subject, Verdict

_SECONDS = 5.0  # of the processor, that reading a file may take
_MEMORY = 512 << 20
_CALL_SECONDS = 6.0  # of the processor, in which one call of this part tries inputs
_MOST = 400  # inputs of one call
_KEPT = Path("runs/campaign-fuzz")

_WORDS = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r\n",
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"{",
        b"}",
        b"[",
        b"]",
        b"<",
        b">",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3\x28", b"\\ud800", b"\\u0000"),
    *(
        b"-1",
        b"0",
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b"99999999999999999999",
    ),
    *(b"1" * 5000, b"[" * 20_000, b"[" * 500, b"<a>" * 2000, b"a" * 300, b"../../../etc/passwd"),
    *(
        b"/dev/zero",
        b"!",
        b"?",
        b"-",
        b"%s",
        b"&lol;",
        b"<!ENTITY a 'b'>",
        b"&amp;",
        b"#",
        b":",
        b"~",
    ),
    *("²".encode(), "\u202e".encode(), "ﬁ".encode(), "İ".encode(), b"\x1b[2J", b"\x85", b"\x0b"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 1e308, 0.5, float("nan")),
    *(float("inf"), "", "a", "0", "\0", "\ud800", "../..", "x" * 5000, "1" * 5000, "/dev/zero"),
    *([], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"a": {"a": []}}}, [0] * 2000),
)


class _Trouble(NamedTuple):
    """An input that came to a bad end."""

    what: str
    content: bytes


class _TooSlow(BaseException):
    """No reader catches it."""


def fuzz(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """Some hundred inputs for one reader, in a process of its own; the next one's turn is next."""
    every = targets(subject)
    target = every[subject.notes.setdefault("fuzz", rng.randrange(len(every))) % len(every)]
    subject.notes["fuzz"] += 1
    seed = rng.randrange(2**32)
    place = subject.room / f"fuzz-{target.name}{target.suffix}"
    tried, trouble = _in_a_process(lambda: _try(target, seed, place), place)
    count = subject.notes.setdefault("fuzzed", {})
    count[target.name] = count.get(target.name, 0) + tried
    if trouble is None:
        print(f"fuzz, {target.name}: {tried} inputs, {count[target.name]} in all", flush=True)
        return Verdict(target.name, GOOD)
    _KEPT.mkdir(parents=True, exist_ok=True)
    digest = blake2b(trouble.content, digest_size=4).hexdigest()
    kept = _KEPT / f"{target.name}-{digest}{target.suffix}"
    kept.write_bytes(trouble.content)
    return Verdict(target.name, "TROUBLE", f"{kept}: {trouble.what}")


def _in_a_process(
    work: Callable[[], tuple[int, _Trouble | None]], place: Path
) -> tuple[int, _Trouble | None]:
    """What ``work`` gives; if the process dies, the file it was reading is what killed it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 2)
            told = pickle.dumps(work())
            with open(writing, "wb") as pipe:
                pipe.write(told)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return pickle.loads(told)  # noqa: S301 - by the fork
    signalled = f"the process died, {os.waitstatus_to_exitcode(status)}"
    return 0, _Trouble(signalled, place.read_bytes() if place.exists() else b"")


def _try(target: Target, seed: int, place: Path) -> tuple[int, _Trouble | None]:
    rng, tried = random.Random(seed), 0
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, resource.RLIM_INFINITY))
    watch_time()
    began = _spent()
    while tried < _MOST and _spent() - began < _CALL_SECONDS:
        content = target.changed(rng, mutated) if target.changed else mutated(target.seeds, rng)
        place.write_bytes(content)
        what = tried_once(target, place)
        tried += 1
        if what:
            return tried, _Trouble(what, content)
    return tried, None


def tried_once(target: Target, place: Path) -> str:
    """Read a file; what went wrong, if it is not an error that tagseg raises on purpose."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        target.read(place)
    except target.allowed:
        return ""
    except _TooSlow:
        return f"over {_SECONDS} s: {traceback.format_exc()[-600:]}"
    except BaseException as error:
        return f"{type(error).__name__}: {traceback.format_exc()[-900:]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def mutated(seeds: tuple[bytes, ...], rng: random.Random) -> bytes:
    """One of the seeds with some changes."""
    content = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if rng.random() < 0.5:
            content = _json_changed(content, rng)
        content = _bytes_changed(content, seeds, rng) if rng.random() < 0.6 else content
    return content


def _bytes_changed(content: bytes, seeds: tuple[bytes, ...], rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    length = rng.choice((1, 1, 2, 8, 40, 1000))
    kind = rng.randrange(6)
    if kind == 0 and content:
        changed = bytearray(content)
        changed[at % len(content)] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 1:
        return content[:at] + content[at + length :]
    if kind == 2:
        return content[:at] + rng.choice(_WORDS) + content[at:]
    if kind == 3:
        return content[:at] + rng.choice(_WORDS) + content[at + length :]
    if kind == 4:
        part = content[at : at + length]
        return content[:at] + part * rng.choice((2, 3, 50)) + content[at + length :]
    other = rng.choice(seeds)
    return content[:at] + other[rng.randrange(len(other) + 1) :]


def _json_changed(content: bytes, rng: random.Random) -> bytes:
    """A part of one JSON value, or of one line of them, replaced by something else."""
    lines = content.split(b"\n")
    try:
        value = json.loads(content)
        lines, at = [content], 0
    except (ValueError, RecursionError):
        at = rng.randrange(len(lines))
        try:
            value = json.loads(lines[at])
        except (ValueError, RecursionError):
            return content
    try:
        lines[at] = json.dumps(value_changed(value, rng)).encode()
    except (ValueError, RecursionError):
        return content
    return b"\n".join(lines)


def value_changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one part of it replaced, left out or put in."""
    if rng.random() < 0.15 or not isinstance(value, list | dict) or not value:
        return rng.choice(_VALUES)
    if isinstance(value, list):
        changed, at = list(value), rng.randrange(len(value))
        deed = rng.random()
        if deed < 0.1:
            del changed[at]
        elif deed < 0.2:
            changed.insert(at, rng.choice((*_VALUES, changed[at])))
        else:
            changed[at] = value_changed(changed[at], rng)
        return changed
    copied, key = dict(value), rng.choice(list(value))
    deed = rng.random()
    if deed < 0.1:
        del copied[key]
    elif deed < 0.2:
        copied[rng.choice(("", "a", "\ud800", "id", "name", "x" * 300))] = copied[key]
    else:
        copied[key] = value_changed(copied[key], rng)
    return copied


def watch_time() -> None:
    """Let what takes too long end by an exception."""
    signal.signal(signal.SIGPROF, _too_slow)


def _too_slow(number: int, frame: object) -> None:
    raise _TooSlow


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
