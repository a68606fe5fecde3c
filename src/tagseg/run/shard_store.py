"""A store of many files, a shard of photos each, read as one.

    labels.shards/000000000.sqlite    photos from the first on
                  000004096.sqlite    ...
                  local.sqlite        what one process put, before or after there were shards

Whoever computes a shard writes its file: beside the others' under a temporary name, then renamed.
So it is whole or absent, and nobody writes into it again. Which file holds a photo is looked up
among hashes of the names, 12 bytes a photo, which are read from the files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tagseg.errors import WorkspaceError
from tagseg.run.files import TEMPORARY, atomic_write, one_line_errors
from tagseg.run.map_store import MapStore, PhotoStore, key_of_name

__all__ = ["SHARDS", "NewShard", "ShardStore", "drop_parts", "into_shards"]

SHARDS = ".shards"  # a folder's name ends so

_OWN = "local.sqlite"
_MOST_OPEN = 32  # files at once; a process may have some hundred in all


class _Index(NamedTuple):
    """Which file holds which photo: hashes of names (N,), sorted, and numbers of files (N,)."""

    files: list[MapStore]
    keys: npt.NDArray[np.uint64]
    where: npt.NDArray[np.uint32]

    def candidates(self, name: str) -> Iterator[int]:
        """Numbers of the files that may hold ``name``; two names may share a hash."""
        key = np.uint64(_hash(name))
        start = int(np.searchsorted(self.keys, key))
        while start < len(self.keys) and self.keys[start] == key:
            yield int(self.where[start])
            start += 1


class ShardStore(PhotoStore):
    """Arrays by photo name in the files of ``folder``, which is there.

    One opened ``writable`` puts into a file of its own beside the shards, and belongs to one
    process; otherwise it is open to any number of threads and processes, and pickles as its folder.
    Shards that others write while it is open are not seen.
    """

    def __init__(self, folder: Path, *, writable: bool = False, complete: bool = False) -> None:
        self.path = Path(folder).absolute()
        self._complete = complete
        self._own = MapStore(self.path / _OWN, writable=True) if writable else None
        self._lock = threading.Lock()
        self._known: _Index | None = None
        self._open: OrderedDict[int, None] = OrderedDict()

    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        """Store the arrays of photo ``name`` in the file that is this process's."""
        if self._own is None:
            raise WorkspaceError("is closed to writing", where=self.path, do="run its stage again")
        self._own.put(name, **arrays)

    def commit(self) -> None:
        """Make sure that a kill from here on loses nothing that was put."""
        if self._own is not None:
            self._own.commit()

    def close(self) -> None:
        """Commit and end writing; a later read opens the files again."""
        if self._own is not None:
            self._own.close()
            self._own, self._known = None, None
        with self._lock:
            for number in self._open:
                self._index().files[number].close()
            self._open.clear()

    def names(self) -> list[str]:
        """Names of all stored photos, sorted."""
        stores = self._index().files if self._own is None else [self._own, *self._index().files]
        found: set[str] = set()
        for store in stores:
            found.update(store.names())
        self._close_files()
        return sorted(found, key=key_of_name)

    def packed(self, name: str) -> bytes:
        """The row of photo ``name``."""
        if self._own is not None and name in self._own:
            return self._own.packed(name)
        for number in self._index().candidates(name):
            try:
                return self._file(number).packed(name)
            except KeyError:
                continue
        if self._complete:
            raise self._damaged(f"{name} is missing")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if self._own is not None and name in self._own:
            return True
        return any(name in self._file(number) for number in self._index().candidates(name))

    def __len__(self) -> int:
        return len(self.names())

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.path, "complete": self._complete}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ShardStore.__init__(self, **state)

    def _index(self) -> _Index:
        if self._known is None:
            self._known = _read_index(self.path, self._complete, own=self._own is not None)
        return self._known

    def _file(self, number: int) -> MapStore:
        """A file to read from; those that were not read for longest are closed."""
        with self._lock:
            self._open[number] = None
            self._open.move_to_end(number)
            if len(self._open) > _MOST_OPEN:
                self._index().files[self._open.popitem(last=False)[0]].close()
        return self._index().files[number]

    def _close_files(self) -> None:
        for store in self._index().files:
            store.close()


def _read_index(folder: Path, complete: bool, *, own: bool) -> _Index:
    """What the files hold; all but the process's ``own``, if it has one."""
    with one_line_errors(folder):
        paths = sorted(path for path in folder.glob("*.sqlite") if path.name[0] != ".")
    files, keys, where = list[MapStore](), list[npt.NDArray[np.uint64]](), list[int]()
    for path in paths:
        if own and path.name == _OWN:
            continue
        # A shard is whole and stays as it is; the other file may have a journal of a kill.
        store = MapStore(path, fixed=complete or path.name != _OWN)
        found = np.fromiter(map(_hash, store.names()), np.uint64)
        store.close()
        files.append(store)
        keys.append(found)
        where.append(len(found))
    every = np.concatenate(keys) if keys else np.empty(0, np.uint64)
    numbers = np.repeat(np.arange(len(files), dtype=np.uint32), where)
    order = np.argsort(every, kind="stable")
    return _Index(files, every[order], numbers[order])


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(key_of_name(name), digest_size=8).digest(), "little")


class NewShard:
    """A shard that is being made: in a temporary file of this machine, until it is published.

    Args:
        folder: of the store.
        first: number of its first photo, by which it is called.

    Attributes:
        path: where it will be.
        store: to put its rows into.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.path = folder / f"{first:09d}.sqlite"
        self._made = tempfile.TemporaryDirectory(prefix="tagseg-shard-")
        self.store = MapStore(Path(self._made.name) / self.path.name, writable=True)

    def publish(self) -> str:
        """Put it beside the others; its digest."""
        self.store.close()
        digest = self.store.digest()
        self.store.close()
        with (
            self.store.path.open("rb") as made,
            atomic_write(self.path, shared=True) as file,
        ):
            shutil.copyfileobj(made, file, 1 << 20)
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self._made.cleanup()


def into_shards(file: Path) -> Path:
    """Let the store that one process has begun in ``file``, or none yet, have shards; its folder.

    A kill at any moment leaves the one or the other.
    """
    folder = file.with_suffix(SHARDS)
    with one_line_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            with MapStore(file, writable=True):  # what a killed process left in its journal
                pass
            os.replace(file, folder / _OWN)
    return folder


def drop_parts(folders: Sequence[Path]) -> None:
    """Remove the shards that not all of the stores have, as after a kill, and unfinished files."""
    with one_line_errors(folders[0] if folders else Path()):
        there = [{path.name for path in folder.glob("[0-9]*.sqlite")} for folder in folders]
        whole = set.intersection(*there) if there else set()
        for folder, names in zip(folders, there, strict=True):
            for name in names - whole:
                (folder / name).unlink()
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)
