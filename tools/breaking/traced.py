"""A process under strace, which counts its system calls, lets them fail, or kills it at one."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_PATIENCE = 60.0
_ANY = -1
_SET_PTRACER = 0x59616D61  # PR_SET_PTRACER, for systems that trace nothing but children
_CALL = re.compile(r"(\d+) +(\w+)\(")


def why_not() -> str:
    """Why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is missing: apt install strace"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True)
    return "" if tried.returncode == 0 else f"strace may not trace: {tried.stderr.decode()[:200]}"


def let_others_trace() -> None:
    """This process may be traced by one that has not started it."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(_ANY), 0, 0, 0)


def traced(process: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Let strace watch ``process`` and its threads to their end; returns when it has begun."""
    with tempfile.TemporaryFile() as told:
        return _attached(process, ["strace", "-f", "-qq", "-p", str(process), *options], told)


def _attached(process: int, command: Sequence[str], told: IO[bytes]) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    watcher = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=told)
    until = time.monotonic() + _PATIENCE
    status = Path(f"/proc/{process}/status")
    while f"TracerPid:\t{watcher.pid}\n" not in status.read_text():
        if watcher.poll() is not None or time.monotonic() > until:
            told.seek(0)
            raise SystemExit(f"strace does not attach: {told.read().decode(errors='replace')}")
        time.sleep(0.005)
    return watcher


def injection(call: str, what: str, when: str) -> list[str]:
    """Options that let ``what`` come of one system call, at the times that ``when`` says."""
    return ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}", "-o", "/dev/null"]


def new_file() -> Path:
    """An empty temporary file."""
    number, name = tempfile.mkstemp(prefix="traced-")
    os.close(number)
    return Path(name)


class Counting:
    """How often a process comes to each system call: options for strace, and the counts after."""

    def __init__(self, calls: Sequence[str]) -> None:
        self._file = new_file()
        self.options = ["-e", f"trace={','.join(calls)}", "-o", str(self._file)]

    def counts(self) -> dict[str, int]:
        """By call, of the thread that makes most of them: strace counts in each thread anew."""
        threads: dict[str, Counter[str]] = defaultdict(Counter)
        with self._file.open(errors="replace") as file:
            for line in file:
                found = _CALL.match(line)
                if found is not None:
                    threads[found[2]][found[1]] += 1
        self._file.unlink()
        return {call: max(of.values()) for call, of in threads.items()}
