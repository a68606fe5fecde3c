"""Files that are whole or absent: written under a temporary name beside, then renamed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import uuid4

from tagseg.errors import DamagedError, WorkspaceError

__all__ = [
    "TEMPORARY",
    "atomic_write",
    "check_file",
    "check_folder",
    "check_names_fit",
    "damaged",
    "one_line_errors",
    "read_json",
    "sync_folder",
    "to_checked_json",
    "to_json",
    "write_checked_json",
    "write_json",
]

TEMPORARY = ".tmp-"  # prefix of a file that is being written; such a file is never an artefact

_CHECK = "check"  # of an object in JSON, by its own entry of that name

_LONG = 100  # bytes of a name, over which its temporary one is a hash of it
_SHOWN = 40  # letters of a long name in a message

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENAMETOOLONG: "give shorter names",
}


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn an OSError on ``path`` (disk full, no permission, missing) into a WorkspaceError."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"cannot be used: {error.strerror or error}",
            where=path,
            do=_ADVICE.get(error.errno or 0, "check the path"),
        ) from error


def check_folder(folder: Path) -> None:
    """Raise WorkspaceError unless files can be written into ``folder``, there or yet to be made.

    This is tried, as permissions do not tell of read-only disks; nothing stays behind.
    """
    with one_line_errors(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        there = _existing(folder)
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=there) as tried:
            # Where folders can be made and files cannot, as under /proc or on a full disk.
            (Path(tried) / "file").write_bytes(b"x")


def check_file(path: Path) -> None:
    """Raise WorkspaceError unless the file ``path`` can be written; nothing stays behind."""
    with one_line_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(prefix=TEMPORARY, dir=path.absolute().parent) as file:
            file.write(b"x")


def check_names_fit(names: Iterable[str], folder: Path, suffix: str = ".png") -> None:
    """Raise WorkspaceError if a file ``folder/NAME.SUFFIX`` would have too long a name there."""
    limit = _longest_name(_existing(folder))
    for name in names:
        longest = max(PurePosixPath(f"{name}{suffix}").parts, key=_bytes_of)
        if _bytes_of(longest) > limit:
            raise WorkspaceError(
                f"the name {longest[:_SHOWN]}... has {_bytes_of(longest)} bytes; "
                f"names may have {limit} there",
                where=folder,
                do="rename the photo",
            )


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest above it that is there."""
    with one_line_errors(folder):
        return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _longest_name(folder: Path) -> int:
    """Bytes that a file's name may have in ``folder``."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows; a file system that does not say
        return 255


def _bytes_of(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at ``path`` only when the block ends without an exception.

    The content reaches the disk before the name does, so a kill or a power cut leaves the old
    file or the new one. Where it is ``shared``, several processes may be writing it, on several
    hosts. Raises WorkspaceError when the disk is full or the folder not writable.
    """
    own = f"{uuid4().hex}-" if shared else ""
    temporary = path.with_name(TEMPORARY + own + _short(path.name))
    with one_line_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Let the names in ``folder`` reach the disk; raises OSError.

    For files of :func:`atomic_write` whose order counts: each is whole, but a power cut may keep
    the name of one and lose that of another which was written before.
    """
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short(name: str) -> str:
    """``name``, or something short in its place, the same each time, if a prefix may not fit."""
    content = name.encode("utf-8", "surrogatepass")
    return name if len(content) <= _LONG else blake2b(content, digest_size=8).hexdigest()


def to_json(value: Any) -> bytes:
    """``value`` as indented JSON in UTF-8; halves of letters, as in odd file names, as escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write(to_json(value) + b"\n")


def to_checked_json(value: Mapping[str, Any]) -> bytes:
    """An object as :func:`to_json` has it, with a check of its content for :func:`read_json`."""
    plain = json.loads(to_json(value))
    return to_json({**plain, _CHECK: _check_of(plain)})


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as :func:`write_json` does, with a check of its content."""
    with atomic_write(path) as file:
        file.write(to_checked_json(value) + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        WorkspaceError: it is missing.
        DamagedError: it is not JSON, or its check is not that of its content.
    """
    with one_line_errors(path):
        content = path.read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged("is damaged (not JSON)", path) from error
    if isinstance(value, dict) and _CHECK in value and value.pop(_CHECK) != _check_of(value):
        raise damaged("is damaged (not what was written)", path)
    return value


def damaged(what: str, path: Path) -> DamagedError:
    """What is raised for part of a run's folder, with what to do about it."""
    return DamagedError(what, where=path, do="run the training command again, which mends it")


def _check_of(value: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
