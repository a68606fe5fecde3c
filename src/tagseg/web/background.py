"""Numbers of photos that are found one photo after the other while somebody works, and kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from tagseg.errors import TagsegError

__all__ = ["PhotoNumbers", "mark_of"]

_KEEP_EVERY = 200  # photos, after which what is known is written

OfPhoto = Callable[[int], npt.NDArray[np.float32] | float]


class PhotoNumbers:
    """A row of numbers a photo, made in one thread and kept in a file between starts.

    Attributes:
        version: of how many photos they are known.
    """

    def __init__(
        self,
        photos: int,
        width: int,
        of_photo: OfPhoto,
        *,
        file_of: Callable[[int], Path],
        name: str,
        keep: Path | None = None,
    ) -> None:
        """Take up what was kept; nothing is computed before :meth:`start`.

        Args:
            photos: how many there are.
            width: numbers of each.
            of_photo: finds those of a photo; TagsegError where there are none.
            file_of: its file; when that changes, its numbers do.
            name: of the thread.
            keep: the file that they are kept in.
        """
        self._of_photo, self._file_of, self._keep = of_photo, file_of, keep
        self._rows = np.full((photos, width), np.nan, np.float32)
        self._done = np.zeros(photos, bool)
        self._ended = threading.Event()
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._load()
        self.version = int(np.count_nonzero(self._done))

    def start(self) -> None:
        """Begin with what is not known yet."""
        self._worker.start()

    def rows(self) -> npt.NDArray[np.float32]:
        """The numbers (N, width); NaN for photos that are not done, or have none."""
        return self._rows

    def close(self) -> None:
        """Stop, and keep what is known."""
        self._ended.set()
        if self._worker.is_alive():
            self._worker.join()
        self._save()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done; whether it is."""
        self._worker.join(seconds)
        return bool(self._done.all())

    def _work(self) -> None:
        for number, i in enumerate(np.flatnonzero(~self._done).tolist(), 1):
            if self._ended.is_set():
                return
            with suppress(TagsegError):  # such as a photo that cannot be decoded
                self._rows[i] = self._of_photo(i)
            self._done[i] = True
            self.version += 1
            if number % _KEEP_EVERY == 0:
                self._save()

    # --- kept between starts --------------------------------------------------------------------

    def _load(self) -> None:
        if self._keep is None:
            return
        with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
            with self._keep.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                marks, scores = kept["marks"], kept["scores"]
            row = {mark: i for i, mark in enumerate(marks.tolist())}
            if scores.shape != (len(marks), self._rows.shape[1]):
                return
            for i in range(len(self._rows)):
                found = row.get(mark_of(self._file_of(i)))
                if found is not None:
                    self._rows[i], self._done[i] = scores[found], True

    def _save(self) -> None:
        if self._keep is None or not self._done.any():
            return
        temporary = self._keep.with_suffix(f".{os.getpid()}.tmp")
        known = np.flatnonzero(self._done)
        with suppress(OSError):
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            marks = np.array([mark_of(self._file_of(i)) for i in known.tolist()], np.int64)
            with temporary.open("wb") as file:
                np.savez(file, marks=marks, scores=self._rows[known])
            temporary.replace(self._keep)


def mark_of(path: Path) -> int:
    """A number that a file keeps as long as it does not change; -1 for one that is gone."""
    try:
        about = os.stat(path)
    except OSError:
        return -1
    text = b"%d %d " % (about.st_size, about.st_mtime_ns) + os.fsencode(path)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)
