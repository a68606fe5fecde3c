"""One stage's folder: its artefacts, its checkpoint, its log, and when it counts as finished.

    stages/03-segmenter/
        started.json      while it runs: the record of what it is made from, and the time so far
        checkpoint.pt     while it runs
        metrics.jsonl     what it logged
        ...               artefacts
        manifest.json     written last: record, sizes and hashes of all artefacts, time

A folder with a manifest is finished, without one it is partial work that the same command resumes.
What a finished stage holds is compared with what was written when it is first read: rows of
stores by checks of their own, other files by the manifest's hashes. A difference is a DamagedError,
upon which :meth:`Workspace.mended` sets the stage aside and lets it run again.
Files of a finished stage are never written to, only replaced or removed: so stages of several runs
may share them by hard links (:func:`adopt`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError
from torch import Tensor

from tagseg.errors import DamagedError, WorkspaceError
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.run.damage import set_aside
from tagseg.run.files import (
    TEMPORARY,
    atomic_write,
    damaged,
    one_line_errors,
    read_json,
    sync_folder,
    write_checked_json,
    write_json,
)
from tagseg.run.manifest import (
    Fingerprint,
    Record,
    canonical,
    is_intact,
    just_written,
    read_manifest,
    read_record,
    size_of,
)
from tagseg.run.map_store import MapStore, PhotoStore
from tagseg.run.shard_store import SHARDS, ShardStore, into_shards
from tagseg.tensor_files import RottenError, read_hashed, tensor_file

__all__ = [
    "Company",
    "Stage",
    "adopt",
    "discard",
    "folder_aside",
    "is_finished",
    "record_in",
    "run_of",
    "say_nothing",
]

_STARTED = "started.json"
_CHECKPOINT = "checkpoint.pt"
_METRICS = "metrics.jsonl"
_MANIFEST = "manifest.json"
_OWN_FILES = {_STARTED, _CHECKPOINT, _MANIFEST}

Announce = Callable[[str], None]


class Company:
    """The processes that are at a stage, and by what words they keep together.

    Attributes:
        ranks: the processes.
        shared: whether all take part in its work; if not, the others wait until it is finished.
        found, finished: numbers of the words.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.shared = ranks, False
        self.found, self.finished = ranks.next_word(), ranks.next_word()
        self._apart = ExitStack()

    def begin(self) -> None:
        """The process that leads begins the stage's work."""
        if not self.shared:
            self._apart.enter_context(self.ranks.apart())

    def end(self, *, finished: bool) -> None:
        """It has left the stage."""
        self._apart.close()
        if finished:
            self.ranks.tell(self.finished, True)


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
        company: in a run that several processes share; see :mod:`tagseg.run.company`.
    """

    planned = False

    def __init__(
        self, folder: Path, record: Record, announce: Announce, *, read_only: bool = False
    ) -> None:
        self.name, self.key, self.folder = record["name"], record["key"], folder
        self.announce = announce
        self.company: Company | None = None
        self._log = Log(folder / _METRICS)
        self.checkpoint = Checkpoint(folder / _CHECKPOINT, self._log, announce)
        self._record, self._read_only = record, read_only
        self._stores: dict[str, PhotoStore] = {}
        self._artefacts: dict[str, Fingerprint] = {}
        self._compared: set[str] = set()
        self._open, self._began = False, 0.0
        self.pending, self.seconds, self.finished_at = True, 0.0, ""
        if (folder / _MANIFEST).exists():
            self._take_finished()
        elif (folder / _STARTED).exists():
            self.seconds = _seconds_spent(folder)

    def shared(self) -> Self:
        """The same, with all processes of the run taking part in its work."""
        if self.company is not None:
            self.company.shared = True
        return self

    @property
    def ranks(self) -> Ranks:
        """The processes that take part in its work."""
        return self.company.ranks if self.company is not None and self.company.shared else ALONE

    def path(self, name: str) -> Path:
        """Path of artefact ``name``, to be written; its parent exists while the stage runs."""
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise WorkspaceError(f"{name!r} leads out of the folder", where=self.folder)
        path = self.folder / name
        if self._open:
            with one_line_errors(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def read_path(self, name: str) -> Path:
        """Path of artefact ``name``, to be read: the file, or that in a folder of files.

        In a finished stage it is compared with what was written; DamagedError if it differs.
        """
        path, artefact = self.path(name), PurePath(name).parts[0]
        if not self.pending and artefact not in self._compared:
            stated = self._artefacts.get(artefact)
            if stated is None or not is_intact(self.folder / artefact, stated):
                raise self._damaged(artefact)
            self._compared.add(artefact)
        return path

    def holds(self, name: str) -> bool:
        """Whether the finished stage has an artefact ``name``."""
        return name in self._artefacts

    def maps(self, name: str) -> PhotoStore:
        """The photos' arrays ``name``: writable while the stage runs, closed by its end."""
        if name not in self._stores:
            file = self.path(f"{name}.sqlite")
            shards = file.with_suffix(SHARDS)
            kind, path = (ShardStore, shards) if shards.is_dir() else (MapStore, file)
            if not self.pending and not self.holds(path.name):
                raise self._damaged(path.name)
            self._stores[name] = kind(path, writable=self._open, complete=not self.pending)
        return self._stores[name]

    def shards(self, name: str) -> Path:
        """Folder for shards of the photos' arrays ``name``, beside what is there of them."""
        self._require_open(name)
        if name in self._stores:
            self._stores.pop(name).close()
        return into_shards(self.path(f"{name}.sqlite"))

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
        return read_json(self.read_path(f"{name}.json"))

    def save_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write ``name``.safetensors as a whole."""
        self.save_bytes(f"{name}.safetensors", tensor_file(tensors, metadata))

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata that :meth:`save_tensors` wrote."""
        path = self.path(f"{name}.safetensors")
        try:
            with one_line_errors(path):
                tensors, metadata, found = read_hashed(path)
        except (SafetensorError, RottenError) as error:
            raise self._damaged(path.name) from error
        stated = self._artefacts.get(path.name)
        if not self.pending and (stated is None or found != stated["hash"]):
            raise self._damaged(path.name)
        return tensors, metadata

    def log(self, **values: Any) -> None:
        """Append one line to the log; give ``iteration`` in a stage that has checkpoints."""
        self._require_open(_METRICS)
        self._log.append(values)

    def read_log(self) -> list[dict[str, Any]]:
        """All logged lines, in order, but for those that are damaged."""
        return self._log.read()

    def verify(self) -> list[str]:
        """Read and hash every artefact; return the damaged ones and, if any, make it pending."""
        if self.pending:
            return []
        self.close()
        damaged = [
            name
            for name, stated in _results(self._artefacts)
            if not is_intact(self.folder / name, stated, again=True)
        ]
        if damaged:
            self._reset(damaged)
        return damaged

    def close(self) -> None:
        """Close all map stores; a later read opens them again. A checkpoint is written first."""
        self.checkpoint.wait()
        stores, self._stores = self._stores, {}
        for store in stores.values():
            store.close()

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads what is finished, and says nothing."""
        told = ("name", "key", "folder", "pending", "seconds", "finished_at", "_artefacts")
        state = {name: getattr(self, name) for name in (*told, "_record", "_compared")}
        return {**state, "_read_only": True, "_stores": {}, "_open": False, "_began": 0.0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, announce=say_nothing)
        self._log = Log(self.folder / _METRICS)
        self.checkpoint = Checkpoint(self.folder / _CHECKPOINT, self._log, say_nothing)

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
            write_checked_json(
                self.folder / _STARTED,
                {"record": self._record, "seconds": self.seconds, "began": self._began},
            )
            self._open = True
            if self.company is not None:
                self.company.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        worked = self._open
        try:
            self.close()
            if self._open and error is None:
                self._finish()
        except WorkspaceError:
            if error is None:  # else the first error is the one to tell
                raise
        finally:
            self._open = False
            if worked and self.company is not None:
                self.company.end(finished=not self.pending)

    def _require_open(self, name: str) -> None:
        if not self._open:
            raise WorkspaceError(f"stage {self.name} is not running", where=self.folder / name)

    def _damaged(self, artefact: str) -> DamagedError:
        return damaged("is damaged or missing", self.folder / artefact)

    def _take_finished(self) -> None:
        try:
            manifest = read_manifest(self.folder / _MANIFEST)
        except DamagedError:
            self._reset([_MANIFEST])
            return
        artefacts = manifest["artefacts"]
        damaged = [
            name
            for name, stated in _results(artefacts)
            if size_of(self.folder / name) != stated["bytes"]
        ]
        if damaged:
            self._reset(damaged)
            return
        log = artefacts.get(_METRICS)
        if log is not None and size_of(self.folder / _METRICS) != log["bytes"]:
            self.announce(f"stage {self.name}: its log is damaged; its curve lacks points")
        self._artefacts = artefacts
        self.pending, self.seconds = False, manifest["seconds"]
        self.finished_at = manifest["finished"]
        self._tidy()

    def _reset(self, damaged: list[str]) -> None:
        what = f"damaged or missing: {', '.join(damaged)}"
        if self._read_only:
            raise WorkspaceError(what, where=self.folder, do="run the training command again")
        kept = set_aside(self.folder, run_of(self.folder))
        self.announce(f"stage {self.name} runs again: {what}; what was there is kept in {kept}")
        self._artefacts, self._compared = {}, set()
        self.pending, self.seconds, self.finished_at = True, 0.0, ""

    def _finish(self) -> None:
        with one_line_errors(self.folder):
            for left in self.folder.rglob(f"{TEMPORARY}*"):
                left.unlink()
            artefacts = {
                path.name: just_written(path)
                for path in sorted(self.folder.iterdir())
                if path.name not in _OWN_FILES
            }
            for folder in (self.folder, *filter(Path.is_dir, self.folder.rglob("*"))):
                sync_folder(folder)
        self.seconds += max(0.0, time.time() - self._began)
        self.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._artefacts = artefacts
        write_checked_json(
            self.folder / _MANIFEST,
            {
                "record": self._record,
                "artefacts": artefacts,
                "seconds": round(self.seconds, 3),
                "finished": self.finished_at,
                "tagseg": version("tagseg"),
            },
        )
        with one_line_errors(self.folder):
            sync_folder(self.folder)
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


def say_nothing(line: str) -> None:
    """An announcer that nobody hears."""


def _results(artefacts: Mapping[str, Fingerprint]) -> list[tuple[str, Fingerprint]]:
    """All but the log, for a damaged line of which no stage runs again."""
    return [(name, stated) for name, stated in artefacts.items() if name != _METRICS]


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` holds a finished stage."""
    return (folder / _MANIFEST).exists()


def record_in(folder: Path) -> Record | None:
    """What the stage in ``folder`` is made from, finished or not; None if nobody can tell."""
    for name in (_MANIFEST, _STARTED):
        if (folder / name).exists():
            return read_record(folder / name)
    return None


def run_of(folder: Path) -> Path:
    """The run that a stage's folder belongs to."""
    return folder.parent.parent


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
        artefacts = read_manifest(source / _MANIFEST)["artefacts"]
        if not all(is_intact(source / name, stated) for name, stated in _results(artefacts)):
            return False
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
        return float(started["seconds"]) + max(0.0, last - float(started["began"]))
    except (WorkspaceError, KeyError, TypeError, ValueError):
        return 0.0
