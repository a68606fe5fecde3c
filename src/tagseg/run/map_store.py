"""Named arrays for each of many photos in one SQLite file, safe under ``kill -9``.

One row a photo, so that 100,000 photos are one file. A row holds its arrays as a small JSON header
(names, dtypes, shapes) and their raw bytes, deflated where that makes it smaller, and a check of
photo and content, without which a bit that turns over would be a wrong map; nothing is ever
unpickled. SQLite's rollback journal keeps the committed rows whole whenever the process dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tagseg.errors import DamagedError, ShapeError, WorkspaceError
from tagseg.run.files import damaged

__all__ = ["MapStore", "PhotoStore", "key_of_name", "pack", "unpack"]

Arrays = Mapping[str, npt.NDArray[Any]]

_COMMIT_PUTS = 200
_COMMIT_SECONDS = 5.0
_WAIT_SECONDS = 60.0  # for another process that is just committing
_RAW, _DEFLATED, _CHECKED = b"\0", b"\1", b"\2"
_CHECK_BYTES = 8
_LENGTH = struct.Struct("<I")
_NAME_CODING = ("utf-8", "surrogateescape")  # file names need not be valid text
_BYTES = "bytes"  # array name under which put_bytes stores


# Connections that came over by a fork. SQLite forbids to use or close them in the child: closing a
# writer's would roll the parent's rows back. So they are kept for as long as the child lives.
_INHERITED: list[sqlite3.Connection] = []


def pack(arrays: Arrays) -> bytes:
    """Named arrays of booleans, integers, floats or complex numbers as bytes; else ShapeError."""
    content = _encode(arrays)
    deflated = zlib.compress(content, 1)
    return _DEFLATED + deflated if len(deflated) < len(content) else _RAW + content


def unpack(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """Arrays from :func:`pack`, each with its dtype and shape; ValueError if damaged."""
    content = _inflate(packed)
    start = _LENGTH.size
    if len(content) < start:
        raise ValueError("too short")
    end = start + _LENGTH.unpack_from(content)[0]
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        for name, kind, shape in json.loads(content[start:end]):
            # Copied, so that the array is aligned and may be written to.
            array = np.ndarray(shape, np.dtype(kind), content, end).copy()
            arrays[name], end = array, end + array.nbytes
    except TypeError as error:
        raise ValueError(str(error)) from error
    if end != len(content):
        raise ValueError("of the wrong length")
    return arrays


def _encode(arrays: Arrays) -> bytes:
    header, parts = [], []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype.kind not in "biufc":
            raise ShapeError(f"{name} has dtype {array.dtype}", do="store numbers only")
        header.append([name, array.dtype.str, array.shape])
        parts.append(array.tobytes())
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *parts])


def _inflate(packed: bytes) -> bytes:
    flag, content = packed[:1], packed[1:]
    if flag == _RAW:
        return content
    if flag != _DEFLATED:
        raise ValueError("of an unknown format")
    try:
        return zlib.decompress(content)
    except zlib.error as error:
        raise ValueError(str(error)) from error


class PhotoStore(ABC):
    """Arrays by photo name, in one file or in several (:mod:`tagseg.run.shard_store`).

    Raises WorkspaceError if a file is missing or cannot be written, DamagedError if it is damaged,
    KeyError for a photo that is not in it; DamagedError for that, too, if the store is complete.

    Attributes:
        path: of the file, or the folder of files.
    """

    path: Path

    @abstractmethod
    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        """Store the arrays of photo ``name``, in place of what was stored for it before."""

    @abstractmethod
    def commit(self) -> None:
        """Make sure that a kill from here on loses nothing that was put."""

    @abstractmethod
    def close(self) -> None:
        """Commit and end writing; a later read opens the files again."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all stored photos, sorted."""

    @abstractmethod
    def packed(self, name: str) -> bytes:
        """The row of photo ``name``, as of :func:`pack`."""

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    def put_many(self, items: Iterable[tuple[str, Arrays]]) -> None:
        """Store the arrays of several photos, given as (name, arrays by name)."""
        for name, arrays in items:
            self.put(name, **arrays)

    def get(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Arrays of photo ``name``, with the dtypes and shapes they were put with."""
        packed = self.packed(name)
        try:
            return unpack(packed)
        except ValueError as error:
            raise self._damaged(f"{name}: {error}") from error

    def put_bytes(self, name: str, content: bytes) -> None:
        """Store bytes, such as a PNG, for photo ``name``."""
        self.put(name, **{_BYTES: np.frombuffer(content, np.uint8)})

    def get_bytes(self, name: str) -> bytes:
        """Bytes stored by :meth:`put_bytes`."""
        return self.get(name)[_BYTES].tobytes()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that are not stored yet, in the given order.

        Each name is looked up by an index: the cost is that of ``names``, not of the store.
        """
        return [name for name in names if name not in self]

    def digest(self) -> str:
        """Hash over names and arrays, whatever the files, order and history of the puts."""
        state = hashlib.blake2b(digest_size=16)
        for name in self.names():
            try:
                content = _inflate(self.packed(name))
            except (ValueError, KeyError) as error:  # KeyError: its index and table disagree
                raise self._damaged(f"{name}: {error}") from error
            for part in (key_of_name(name), content):
                state.update(len(part).to_bytes(8, "little"))
                state.update(part)
        return state.hexdigest()

    def _damaged(self, how: str) -> DamagedError:
        return damaged(f"is damaged: {how}", self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MapStore(PhotoStore):
    """Arrays by photo name in the file ``path``.

    A store opened ``writable`` belongs to one process and commits every 200 puts, every 5 s of
    putting, and on close; afterwards it reads. Otherwise it is open to any number of threads and
    processes (it pickles as its path, and survives a fork). A file that nobody writes to any more
    may be opened as ``fixed``: nothing is locked for it, which file systems of networks need not
    be able to do.
    """

    def __init__(
        self, path: Path, *, writable: bool = False, complete: bool = False, fixed: bool = False
    ) -> None:
        self.path = Path(path).absolute()
        self._complete, self._fixed = complete, fixed
        self._writable = writable
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._connected: sqlite3.Connection | None = None
        self._uncommitted = 0
        self._committed_at = time.monotonic()
        with self._use() as connection:
            if writable:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS maps (name BLOB PRIMARY KEY, content BLOB NOT NULL)"
                )
                connection.commit()

    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        """Store the arrays of photo ``name``, in place of what was stored for it before."""
        self._leave_parent()
        if not self._writable:
            raise WorkspaceError("is closed to writing", where=self.path, do="run its stage again")
        key, packed = key_of_name(name), pack(arrays)
        row = _CHECKED + _check_of(key, packed) + packed
        with self._use() as connection:
            connection.execute("INSERT OR REPLACE INTO maps VALUES (?, ?)", (key, row))
            self._uncommitted += 1
            late = time.monotonic() - self._committed_at > _COMMIT_SECONDS
            if late or self._uncommitted >= _COMMIT_PUTS:
                self._commit(connection)

    def commit(self) -> None:
        """Make sure that a kill from here on loses nothing that was put."""
        self._leave_parent()
        with self._use() as connection:
            self._commit(connection)

    def _commit(self, connection: sqlite3.Connection) -> None:
        connection.commit()
        self._uncommitted, self._committed_at = 0, time.monotonic()

    def names(self) -> list[str]:
        """Names of all stored photos, sorted."""
        with self._use() as connection:
            rows = connection.execute("SELECT name FROM maps ORDER BY name").fetchall()
        if not all(isinstance(name, bytes) for (name,) in rows):
            raise self._damaged("a row has no name")
        return [name.decode(*_NAME_CODING) for (name,) in rows]

    def close(self) -> None:
        """Commit and end writing; a later read opens the file again."""
        self._leave_parent()
        with self._lock, self._one_line_errors():
            connection, self._connected = self._connected, None
            self._writable = False
            if connection is not None:
                with closing(connection):
                    connection.commit()

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        with self._use() as connection:
            found = connection.execute("SELECT 1 FROM maps WHERE name = ?", (key_of_name(name),))
            return found.fetchone() is not None

    def __len__(self) -> int:
        with self._use() as connection:
            return connection.execute("SELECT count(*) FROM maps").fetchone()[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "complete": self._complete, "fixed": self._fixed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        MapStore.__init__(self, **state)

    def __del__(self) -> None:
        self._leave_parent()
        if self._connected is not None:
            self._connected.close()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        self._leave_parent()
        with self._lock, self._one_line_errors():
            if self._connected is None:
                self._connected = sqlite3.connect(
                    f"{self.path.as_uri()}?{self._mode()}",
                    uri=True,
                    timeout=_WAIT_SECONDS,
                    check_same_thread=False,
                )
            yield self._connected

    def _mode(self) -> str:
        if self._writable:
            return "mode=rwc"
        return "mode=ro&immutable=1" if self._fixed else "mode=ro"

    def _leave_parent(self) -> None:
        if self._pid == os.getpid():
            return
        if self._connected is not None:
            _INHERITED.append(self._connected)
        self._connected, self._writable = None, False
        self._lock, self._pid = threading.Lock(), os.getpid()

    def packed(self, name: str) -> bytes:
        """The row of photo ``name``, as of :func:`pack`."""
        key = key_of_name(name)
        with self._use() as connection:
            found = connection.execute("SELECT content FROM maps WHERE name = ?", (key,))
            row = found.fetchone()
        if row is None:
            if self._complete:
                raise self._damaged(f"{name} is missing")
            raise KeyError(name)
        content = row[0]
        if not isinstance(content, bytes):
            raise self._damaged(f"{name}: no bytes")
        if content[:1] != _CHECKED:  # of before there were checks
            return content
        start = 1 + _CHECK_BYTES
        packed = content[start:]
        if _check_of(key, packed) != content[1:start]:
            raise self._damaged(f"{name}: not what was written")
        return packed

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # full disk, no permission, missing
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # no such table
                raise self._damaged(str(error)) from error
            raise WorkspaceError(
                f"cannot be used: {error}", where=self.path, do="check the path and the free space"
            ) from error
        except sqlite3.Error as error:
            raise self._damaged(str(error)) from error


def _check_of(key: bytes, packed: bytes) -> bytes:
    state = hashlib.blake2b(len(key).to_bytes(8, "little") + key, digest_size=_CHECK_BYTES)
    state.update(packed)
    return state.digest()


def key_of_name(name: str) -> bytes:
    """A photo's name as bytes, by which it is stored."""
    return name.encode(*_NAME_CODING)
