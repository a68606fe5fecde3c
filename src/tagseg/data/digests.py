"""Digests of photos' content, and which files they still hold for."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tagseg.maps import Image
from tagseg.tar_members import file_state

__all__ = [
    "DIGEST_SIZE",
    "Digests",
    "FileKey",
    "KnownDigests",
    "digest_of_array",
    "digest_of_bytes",
    "file_key",
    "groups_of_equal",
    "small_key",
    "state_of",
]

FileKey = tuple[str, int, int]
"""A file's state: absolute path, size in bytes, time of change in nanoseconds."""

DIGEST_SIZE = 16  # bytes


class KnownDigests(Protocol):
    """What a mapping of file states to digests answers."""

    def get(self, key: FileKey, /) -> str | None:
        """The digest of the content, as hex; None if this state of a file is not known."""


class Digests:
    """Digests of many files by their state, 24 bytes each."""

    def __init__(self, keys: npt.NDArray[np.uint64], digests: npt.NDArray[np.uint8]) -> None:
        """``keys`` (N,) of :func:`small_key`, and ``digests`` (N, 16)."""
        order = np.argsort(keys)
        self._keys, self._digests = keys[order], digests[order]

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: FileKey, /) -> str | None:
        """The digest of the content, as hex; None if this state of a file is not known."""
        wanted = np.uint64(small_key(key))
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        return self._digests[place].tobytes().hex()


def file_key(path: Path) -> FileKey:
    """What tells whether a file, or a member of a tar, has changed: path, size, time of change."""
    return str(path.absolute()), *file_state(path)


def small_key(key: FileKey) -> int:
    """A file's state in 64 bits. Two of a million states are the same once in 37 million times."""
    text = "\0".join(map(str, key)).encode(errors="surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def state_of(path: Path) -> int:
    """A file's state in 64 bits; 0 if it is not there."""
    try:
        return small_key(file_key(path))
    except OSError:
        return 0


def digest_of_bytes(data: bytes) -> str:
    """Hex digest of a file's content."""
    return blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def digest_of_array(image: Image) -> str:
    """Hex digest of a photo's size and pixels."""
    return blake2b(
        image.tobytes(), digest_size=DIGEST_SIZE, salt=b"%dx%d" % image.shape[:2]
    ).hexdigest()


def groups_of_equal(digests: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.intp]]:
    """The numbers of equal ``digests`` (N, 16): each group of two or more, groups in order."""
    if not len(digests):
        return []
    texts = np.ascontiguousarray(digests).view(f"S{DIGEST_SIZE}")[:, 0]
    order = np.argsort(texts, kind="stable")
    ends = np.flatnonzero(texts[order][1:] != texts[order][:-1]) + 1
    groups = (part for part in np.split(order, ends) if len(part) > 1)
    return sorted(groups, key=lambda part: int(part[0]))
