"""One stage's folder: its artefacts, its checkpoint, its log, and when it counts as finished.

    stages/03-segmenter/
        started.json      while it runs: the record of what it is made from, and the time so far
        checkpoint.pt     while it runs
        metrics.jsonl     what it logged
        ...               artefacts
        manifest.json     written last: record, sizes and hashes of all artefacts, time

A folder with a manifest is finished, without one it is partial work that the same command resumes.
Files of a finished stage are never written to, only replaced or removed: so stages of several runs
may share them by hard links (:func:`adopt`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tagseg.errors import WorkspaceError
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.run.files import TEMPORARY, atomic_write, one_line_errors, read_json, write_json
from tagseg.run.manifest import Fingerprint, Record, canonical, fingerprint, size_of
from tagseg.run.map_store import MapStore

__all__ = ["Stage", "adopt", "discard", "folder_aside", "is_finished", "record_in"]

_STARTED = "started.json"
_CHECKPOINT = "checkpoint.pt"
_METRICS = "metrics.jsonl"
_MANIFEST = "manifest.json"
_OWN_FILES = {_STARTED, _CHECKPOINT, _MANIFEST}

Announce = Callable[[str], None]


class Stage:
    """A stage of a run; made by :meth:`Workspace.stage`, used as a context manager.

    On a clean end of the with-block the manifest is written and the stage is finished; after an
    exception or a kill the partial work stays and the next run continues it. Every method raises
    WorkspaceError for what cannot be read or written.

    Attributes:
        name: as given; unique in the run.
        folder: where the artefacts are.
        key: hash of what the stage is made from.
        pending: False if it is finished already, with the same key, and intact.
        seconds: working time so far, over all interruptions.
        finished_at: when it was finished, in ISO format, UTC; empty if it is not.
        checkpoint: the training state, kept until the stage is finished.
        planned: True for a stage that has a key alone; see :mod:`tagseg.run.plan`.
    """

    planned = False

    def __init__(
        self, folder: Path, record: Record, announce: Announce, *, read_only: bool = False
    ) -> None:
        self.name, self.key, self.folder = record["name"], record["key"], folder
        self.announce = announce
        self._log = Log(folder / _METRICS)
        self.checkpoint = Checkpoint(folder / _CHECKPOINT, self._log, announce)
        self._record, self._read_only = record, read_only
        self._stores: dict[str, MapStore] = {}
        self._open, self._began = False, 0.0
        self.pending, self.seconds, self.finished_at = True, 0.0, ""
        if (folder / _MANIFEST).exists():
            self._take_finished()
        elif (folder / _STARTED).exists():
            self.seconds = _seconds_spent(folder)

    def path(self, name: str) -> Path:
        """Path of artefact ``name``; its parent exists while the stage runs."""
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise WorkspaceError(f"{name!r} leads out of the folder", where=self.folder)
        path = self.folder / name
        if self._open:
            with one_line_errors(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def maps(self, name: str) -> MapStore:
        """The photos' arrays ``name``: writable while the stage runs, closed by its end."""
        if name not in self._stores:
            self._stores[name] = MapStore(self.path(f"{name}.sqlite"), writable=self._open)
        return self._stores[name]

    def save_bytes(self, name: str, content: bytes) -> None:
        """Write a file as a whole."""
        self._require_open(name)
        with atomic_write(self.path(name)) as file:
            file.write(content)

    def save_json(self, name: str, value: Any) -> None:
        """Write ``name``.json as a whole."""
        self._require_open(name)
        write_json(self.path(f"{name}.json"), canonical(value))

    def load_json(self, name: str) -> Any:
        """What :meth:`save_json` wrote."""
        return read_json(self.path(f"{name}.json"))

    def save_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write ``name``.safetensors as a whole."""
        # Cloned, because the format refuses tensors that share memory.
        plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        content = safetensors.torch.save(plain, dict(metadata) if metadata else None)
        self.save_bytes(f"{name}.safetensors", _in_order(content))

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata that :meth:`save_tensors` wrote."""
        path = self.path(f"{name}.safetensors")
        try:
            with one_line_errors(path), safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, (  # noqa: SIM118
                    file.metadata() or {}
                )
        except SafetensorError as error:
            raise WorkspaceError(f"is damaged: {error}", where=path, do="run again") from error

    def log(self, **values: Any) -> None:
        """Append one line to the log; give ``iteration`` in a stage that has checkpoints."""
        self._require_open(_METRICS)
        self._log.append(values)

    def read_log(self) -> list[dict[str, Any]]:
        """All logged lines, in order."""
        return self._log.read()

    def verify(self) -> list[str]:
        """Read and hash every artefact; return the damaged ones and, if any, make it pending."""
        if self.pending:
            return []
        self.close()
        stated = read_json(self.folder / _MANIFEST)["artefacts"]
        damaged = [name for name in stated if not _intact(self.folder / name, stated[name])]
        if damaged:
            self._reset(damaged)
        return damaged

    def close(self) -> None:
        """Close all map stores; a later read opens them again."""
        stores, self._stores = self._stores, {}
        for store in stores.values():
            store.close()

    def __enter__(self) -> Self:
        if self.pending:
            self.close()
            with one_line_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            if self.seconds:
                self.announce(f"stage {self.name} continues ({self.seconds:.0f} s done before)")
            if not self.checkpoint.path.exists():
                self._log.cut(None)
            self._began = time.time()
            write_json(
                self.folder / _STARTED,
                {"record": self._record, "seconds": self.seconds, "began": self._began},
            )
            self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
            if self._open and error is None:
                self._finish()
        except WorkspaceError:
            if error is None:  # else the first error is the one to tell
                raise
        finally:
            self._open = False

    def _require_open(self, name: str) -> None:
        if not self._open:
            raise WorkspaceError(f"stage {self.name} is not running", where=self.folder / name)

    def _take_finished(self) -> None:
        manifest = read_json(self.folder / _MANIFEST)
        artefacts: dict[str, Fingerprint] = manifest["artefacts"]
        damaged = [
            n for n, stated in artefacts.items() if size_of(self.folder / n) != stated["bytes"]
        ]
        if damaged:
            self._reset(damaged)
            return
        self.pending, self.seconds = False, manifest["seconds"]
        self.finished_at = manifest["finished"]
        self._tidy()

    def _reset(self, damaged: list[str]) -> None:
        what = f"damaged or missing: {', '.join(damaged)}"
        if self._read_only:
            raise WorkspaceError(what, where=self.folder, do="run the training command again")
        self.announce(f"stage {self.name} runs again: {what}")
        discard(self.folder)
        self.pending, self.seconds, self.finished_at = True, 0.0, ""

    def _finish(self) -> None:
        with one_line_errors(self.folder):
            for left in self.folder.rglob(f"{TEMPORARY}*"):
                left.unlink()
            artefacts = {
                path.name: fingerprint(path)
                for path in sorted(self.folder.iterdir())
                if path.name not in _OWN_FILES
            }
        self.seconds += max(0.0, time.time() - self._began)
        self.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(
            self.folder / _MANIFEST,
            {
                "record": self._record,
                "artefacts": artefacts,
                "seconds": round(self.seconds, 3),
                "finished": self.finished_at,
                "tagseg": version("tagseg"),
            },
        )
        self.pending = False
        self._tidy()

    def _tidy(self) -> None:
        # Only now: until the manifest stands, a kill must find the checkpoint to go on from.
        if self._read_only:
            return
        with one_line_errors(self.folder):
            for name in (_CHECKPOINT, _STARTED):
                (self.folder / name).unlink(missing_ok=True)
        discard(folder_aside(self.folder.parent, self.name))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted, so that equal results are equal bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns what follows
    return len(text).to_bytes(8, "little") + text + content[end:]


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` holds a finished stage."""
    return (folder / _MANIFEST).exists()


def record_in(folder: Path) -> Record | None:
    """What the stage in ``folder`` is made from, finished or not; None if nobody can tell."""
    for name in (_MANIFEST, _STARTED):
        if (folder / name).exists():
            try:
                return read_json(folder / name)["record"]
            except (WorkspaceError, KeyError, TypeError):
                return None
    return None


def folder_aside(stages: Path, name: str) -> Path:
    """Where the finished stage ``name`` of before a change waits until the new one is finished."""
    return stages / f".before-{name}"


def discard(folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves none that looks like a stage."""
    trash = folder.with_name(f"{TEMPORARY}{folder.name}")
    with one_line_errors(folder):
        if trash.exists():
            shutil.rmtree(trash)
        if folder.exists():
            folder.rename(trash)
            shutil.rmtree(trash)


def adopt(source: Path, folder: Path) -> bool:
    """Make ``folder`` the finished stage that ``source`` is; False if that is not intact.

    By hard links where the file system allows, else by copies. Its store of maps keeps no journal
    once it is finished and is opened for reading only, under either name; and a folder that has
    lost its manifest is removed before anything is written, so neither run can harm the other's.
    A kill half-way leaves a temporary folder, which the next opening of the run removes.
    """
    arriving = folder.with_name(f"{TEMPORARY}lent-{folder.name}")
    record = record_in(source)
    if record is None or not is_finished(source):
        return False
    try:
        Stage(source, record, lambda line: None, read_only=True)  # sizes as its manifest has them
        artefacts = read_json(source / _MANIFEST)["artefacts"]
        with one_line_errors(arriving):
            shutil.rmtree(arriving, ignore_errors=True)
            arriving.mkdir(parents=True)
            for name in (*artefacts, _MANIFEST):
                _link(source / name, arriving / name)
    except WorkspaceError:  # damaged, or removed by its own run meanwhile
        shutil.rmtree(arriving, ignore_errors=True)
        return False
    discard(folder)
    with one_line_errors(folder):
        arriving.rename(folder)
    return True


def _link(source: Path, target: Path) -> None:
    """Give a file, or a folder's files, a second name; copy them where that is not possible."""
    if source.is_dir():
        target.mkdir()
        for part in source.iterdir():
            _link(part, target / part.name)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _seconds_spent(folder: Path) -> float:
    """Working time of the runs that were cut short: until their last write into the folder."""
    try:
        started = read_json(folder / _STARTED)
        with one_line_errors(folder):
            last = max(path.stat().st_mtime for path in folder.rglob("*"))
        return started["seconds"] + max(0.0, last - started["began"])
    except (WorkspaceError, KeyError, TypeError):
        return 0.0


def _intact(path: Path, stated: Fingerprint) -> bool:
    try:
        return path.exists() and fingerprint(path) == stated
    except (WorkspaceError, SafetensorError):
        return False
