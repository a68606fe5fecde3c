"""What lets a training go on where it stopped: its state, and its log up to that state."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tagseg.run.files import atomic_write, one_line_errors

__all__ = ["Checkpoint", "Log"]

_DIGEST_BYTES = 32


class Log:
    """Lines of JSON in one file, one for each call of :meth:`append`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, values: dict[str, Any]) -> None:
        """Add one line."""
        with one_line_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines, in order; none if nothing was logged. Damaged ones are left out."""
        found = [_values(line) for line in self._lines()]
        return [values for values in found if values is not None]

    def cut(self, iteration: int | None) -> None:
        """Drop everything from the first line behind ``iteration`` on, or all of it for None."""
        lines = self._lines()
        kept = 0
        while iteration is not None and kept < len(lines) and _is_until(lines[kept], iteration):
            kept += 1
        if kept < len(lines):
            with atomic_write(self.path) as file:
                file.writelines(lines[:kept])

    def _lines(self) -> list[bytes]:
        with one_line_errors(self.path):
            if not self.path.exists():
                return []
            return self.path.read_bytes().splitlines(keepends=True)


class Checkpoint:
    """A training state that is replaced as a whole; a damaged one is announced and ignored.

    The state is packed at once and written by a thread, while the training goes on.
    """

    def __init__(self, path: Path, log: Log, announce: Callable[[str], None]) -> None:
        self.path = path
        self._log, self._announce = log, announce
        self._writing: Future[None] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Keep ``state``: tensors, numbers, strings, and lists and dictionaries of them.

        An integer ``state["iteration"]`` says up to where the log belongs to it. Raises what
        writing the state before came upon.
        """
        content = io.BytesIO()
        torch.save(state, content)
        self.wait()
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing = thread.submit(self._write, content.getbuffer())
        thread.shutdown(wait=False)  # it ends with this state

    def wait(self) -> None:
        """Until what was saved is on disk; raises WorkspaceError if it cannot be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load(self) -> dict[str, Any] | None:
        """The state saved last, on the CPU, or None; cuts the log back to its iteration."""
        self.wait()
        state = self._read() if self.path.exists() else None
        self._log.cut(None if state is None else state.get("iteration"))
        return state

    def _write(self, content: memoryview) -> None:
        # torch does not notice flipped bits in a file's tensors; the hash in front does.
        with atomic_write(self.path) as file:
            file.write(_digest(content))
            file.write(content)

    def _read(self) -> dict[str, Any] | None:
        with one_line_errors(self.path):
            content = memoryview(self.path.read_bytes())
        if _digest(content[_DIGEST_BYTES:]) != content[:_DIGEST_BYTES]:
            self._announce(f"{self.path}: the checkpoint is damaged and ignored; starting anew")
            return None
        file = io.BytesIO(content[_DIGEST_BYTES:])
        return torch.load(file, map_location="cpu", weights_only=True)


def _digest(content: memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _values(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it was torn by a kill or is damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _is_until(line: bytes, iteration: int) -> bool:
    values = _values(line)
    if values is None:
        return False
    at = values.get("iteration", iteration)
    return isinstance(at, int) and at <= iteration
