"""Scripts in processes of their own that start at once: forks of one that has imported tagseg.

To ``kill -9`` they are as any other process.
"""

from __future__ import annotations

import os
import runpy
import sys
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "tagseg.tables.making", "tagseg.session.inputs", "sklearn.metrics", "torch._dynamo"]
)  # the last two are imported late, by scores and by the first optimizer: 3 s a process


def start(script: str | Path, *words: object) -> BaseProcess:
    """``python SCRIPT WORDS`` on one thread, with nothing printed."""
    process = _CONTEXT.Process(target=_run, args=(str(script), [str(word) for word in words]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        process.start()
    return process


def ended(process: BaseProcess, seconds: float) -> int | None:
    """The exit status, or minus the signal that ended it; None if it still runs by then."""
    process.join(seconds)
    return process.exitcode


def _run(script: str, words: list[str]) -> None:
    sys.argv = [script, *words]
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        runpy.run_path(script, run_name="__main__")
