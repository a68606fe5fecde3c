"""Files in tars, read where they lie: a member is a path below its tar, ``photos.tar/cat/a.jpg``.

The headers of a tar are read once a process, into columns of some 50 bytes a member; a member is
then read with one call, at its place. Nothing is unpacked, nothing stays open, and any number of
threads and processes may read, each by the path alone. All other paths are files as ever.
"""

from __future__ import annotations

import io
import os
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import DataError

__all__ = [
    "COMPRESSED",
    "SUFFIX",
    "Member",
    "Members",
    "Tars",
    "file_state",
    "is_there",
    "member_at",
    "members_of",
    "open_file",
    "read_file",
    "real_path",
    "write_tar",
]

SUFFIX = ".tar"
COMPRESSED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz"),
    *(".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4"),
)
"""Names of compressed tars end so; their members can only be read one after the other."""

_BELOW = SUFFIX + os.sep
_BLOCK = 512  # bytes; of a header, and what a tar ends with is a block of zeros
_BEHIND = 1 << 16  # bytes behind that, in which nothing may stand
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

State = tuple[int, int]
"""Size in bytes and time of change in nanoseconds."""


class Member(NamedTuple):
    """A file in a tar: where its bytes are.

    Attributes:
        tar: path of the tar.
        name: of the member in it.
        offset, size: of its bytes.
        changed: time of change of the tar, nanoseconds.
    """

    tar: str
    name: str
    offset: int
    size: int
    changed: int

    def read(self) -> bytes:
        """All bytes; OSError where the tar cannot be read, or has become shorter."""
        with open(self.tar, "rb", buffering=0) as file:
            content = os.pread(file.fileno(), self.size, self.offset)
            while 0 < len(content) < self.size:  # the system reads 2 GB at most
                more = os.pread(file.fileno(), self.size - len(content), self.offset + len(content))
                if not more:
                    break
                content += more
        if len(content) < self.size:
            raise OSError(f"{self.tar}: {self.name} is cut short")
        return content


@dataclass(frozen=True, eq=False)
class Members:
    """The plain files in one tar, N of them, in its order.

    Attributes:
        path: of the tar.
        state: of the tar when it was read.
        text: all names, one behind the other, and ``ends`` (N + 1,) of each.
        offsets, sizes: int64 (N,), of their bytes in the tar.
        keys: uint64 (N,), hashes of names, sorted, and ``order`` (N,) that sorts them.
        left_out: kind of what is no plain file, such as links -> how many.
    """

    path: str
    state: State
    text: bytes
    ends: array[int]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    order: npt.NDArray[np.intp]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return map(self.name, range(len(self)))

    def name(self, i: int) -> str:
        """The name of member ``i``."""
        return os.fsdecode(self.text[self.ends[i] : self.ends[i + 1]])

    def find(self, name: str) -> Member | None:
        """The member of this name, None if there is none."""
        key = np.uint64(_hash(os.fsencode(name)))
        place = int(np.searchsorted(self.keys, key))
        while place < len(self.keys) and self.keys[place] == key:
            i = int(self.order[place])
            if self.name(i) == name:
                return Member(
                    self.path, name, int(self.offsets[i]), int(self.sizes[i]), self.state[1]
                )
            place += 1
        return None


_read: dict[str, Members] = {}  # by the tar's path; threads may both read one, and agree


def members_of(tar: Path | str) -> Members:
    """What is in a tar, which is looked at again if its size or time of change is another.

    Raises DataError for a tar that is compressed, cut short, damaged or followed by another, that
    has a name twice, or one that leads out of it; OSError where it cannot be read.
    """
    path = os.fspath(tar)
    about = os.stat(path)
    state = about.st_size, about.st_mtime_ns
    known = _read.get(path)
    if known is None or known.state != state:
        known = _read[path] = _read_members(path, state)
    return known


def member_at(path: Path | str) -> Member | None:
    """The member of a tar that is called so; None for any other path, and where it is not there.

    Errors are those of :func:`members_of`.
    """
    text = os.fspath(path)
    end = text.find(_BELOW)
    while end >= 0:
        tar = text[: end + len(SUFFIX)]
        if os.path.isfile(tar):
            return members_of(tar).find(text[end + len(_BELOW) :])
        end = text.find(_BELOW, end + 1)
    return None


def is_there(path: Path) -> bool:
    """Whether there is such a file, or such a member of a tar."""
    return member_at(path) is not None or path.is_file()


def read_file(path: Path) -> bytes:
    """The bytes of a file or of a member; OSError if it cannot be read."""
    member = member_at(path)
    return path.read_bytes() if member is None else member.read()


def open_file(path: Path) -> BinaryIO:
    """A file, open for reading, or a member's bytes; OSError if it cannot be read."""
    member = member_at(path)
    return path.open("rb") if member is None else io.BytesIO(member.read())


def file_state(path: Path) -> State:
    """What tells whether a file has changed; of a member its size and its tar's time of change.

    Raises OSError if it is not there.
    """
    member = member_at(path)
    if member is not None:
        return member.size, member.changed
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def real_path(path: Path) -> Path:
    """The path without links; OSError if it is not there."""
    member = member_at(path)
    if member is None:
        return path.resolve(strict=True)
    return Path(member.tar).resolve(strict=True) / member.name


class Tars:
    """Several tars as one: where a member of them is, by a hash of its name, 12 bytes a member."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Errors are those of :func:`members_of`."""
        self._tars = [members_of(path) for path in paths]
        keys = [tar.keys for tar in self._tars]
        where = np.repeat(np.arange(len(keys), dtype=np.uint32), [len(own) for own in keys])
        every = np.concatenate(keys) if keys else np.empty(0, np.uint64)
        order = np.argsort(every, kind="stable")
        self._keys, self._where = every[order], where[order]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, name: str) -> Member | None:
        """The member of this name in the first tar that has one, None if none has."""
        key = np.uint64(_hash(os.fsencode(name)))
        place = int(np.searchsorted(self._keys, key))
        while place < len(self._keys) and self._keys[place] == key:
            found = self._tars[int(self._where[place])].find(name)
            if found is not None:
                return found
            place += 1
        return None


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar into an open file; of equal members equal bytes, whoever writes it and when."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


class _Columns:
    """Members as they are found."""

    def __init__(self) -> None:
        self.text, self.ends = bytearray(), array("q", [0])
        self.offsets, self.sizes, self.keys = array("q"), array("q"), array("Q")
        self.left_out: Counter[str] = Counter()

    def add(self, info: tarfile.TarInfo, path: str) -> None:
        if info.isdir():
            return
        if not info.isreg() or info.sparse is not None:
            self.left_out[_kind(info)] += 1
            return
        name = os.fsencode(_inner_name(info.name, path))
        self.text += name
        self.ends.append(len(self.text))
        self.offsets.append(info.offset_data)
        self.sizes.append(info.size)
        self.keys.append(_hash(name))

    def members(self, path: str, state: State) -> Members:
        keys = np.array(self.keys, np.uint64)
        order = np.argsort(keys, kind="stable")
        found = Members(
            path,
            state,
            bytes(self.text),
            self.ends,
            np.array(self.offsets, np.int64),
            np.array(self.sizes, np.int64),
            keys[order],
            order,
            dict(self.left_out),
        )
        _check_once(found)
        return found


def _read_members(path: str, state: State) -> Members:
    columns = _Columns()
    try:
        with open(path, "rb") as file:
            _check_plain(file, path)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    columns.add(info, path)
                    tar.members = []  # type: ignore[attr-defined]  # which keeps every header
                _check_end(file, tar.offset, path)
    except tarfile.TarError as problem:
        raise _damaged(path, str(problem)) from None
    return columns.members(path, state)


def _check_plain(file: BinaryIO, path: str) -> None:
    head = file.read(8)
    file.seek(0)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(
                f"is compressed ({kind}), so that no photo in it can be read by its place",
                where=path,
                do="decompress it, and keep the tar: photos are compressed already",
            )


def _check_end(file: BinaryIO, end: int, path: str) -> None:
    """A tar ends with a block of zeros, and with nothing but zeros behind it.

    ``tarfile`` itself takes whatever comes where a header should be for the end.
    """
    file.seek(end)
    last = file.read(_BLOCK)
    if len(last) < _BLOCK:
        raise _damaged(path, "it has no end")
    if any(last):
        raise _damaged(path, f"there is no header at byte {end}")
    if any(file.read(_BEHIND)):
        raise DataError("goes on behind its end", where=path, do="write it again as one archive")


def _damaged(path: str, reason: str) -> DataError:
    what = f"the tar is cut short or damaged ({reason})"
    return DataError(what, where=path, do="copy or download it again")


def _check_once(members: Members) -> None:
    for place in np.flatnonzero(members.keys[1:] == members.keys[:-1]):
        first, second = (members.name(int(members.order[place + i])) for i in (0, 1))
        if first == second:
            what = f"has the member '{first}' twice"
            raise DataError(what, where=members.path, do="write it again with each photo once")


def _inner_name(name: str, path: str) -> str:
    """The member's name without ``./``; DataError for one that leads out of the tar."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise DataError(
            f"has a member called '{name}', which would lie elsewhere",
            where=path,
            do="take it only from a source that you trust, and write it again",
        )
    return "/".join(parts)


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "links"
    return "sparse files" if info.isreg() else "devices and pipes"


def _hash(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")
