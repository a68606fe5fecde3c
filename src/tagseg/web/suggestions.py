"""What the classifier of a run says of the photos, one after the other while somebody tags."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from tagseg.console import user_cache
from tagseg.data.images import decode_photo
from tagseg.errors import TagsegError
from tagseg.maps import Image
from tagseg.web.photo_folder import PhotoFolder

__all__ = ["Suggestions", "suggestions_of"]

_KEEP_EVERY = 200  # photos, after which what is known is written

Classify = Callable[[Image], npt.NDArray[np.float32]]


class Suggestions:
    """Scores of photos, made in a thread and kept in the user's cache.

    Attributes:
        classes: that are scored.
        about: whose scores they are.
        version: how many photos are scored.
    """

    def __init__(
        self,
        photos: PhotoFolder,
        classes: Sequence[str],
        classify: Classify,
        *,
        about: str = "",
        keep: Path | None = None,
    ) -> None:
        self.classes: Sequence[str] = tuple(classes)
        self.about = about
        self._photos, self._classify, self._keep = photos, classify, keep
        self._scores = np.full((len(photos), len(classes)), np.nan, np.float32)
        self._done = np.zeros(len(photos), bool)
        self._ended = threading.Event()
        self._worker = threading.Thread(target=self._work, name="suggestions", daemon=True)
        self._load()
        self.version = int(np.count_nonzero(self._done))

    def start(self) -> None:
        """Begin to score what is not known yet."""
        self._worker.start()

    def scores(self) -> npt.NDArray[np.float32]:
        """Probabilities (N, C); NaN for photos that are not scored, or cannot be decoded."""
        return self._scores

    def close(self) -> None:
        """Stop, and keep what is known."""
        self._ended.set()
        if self._worker.is_alive():
            self._worker.join()
        self._save()

    def wait(self, seconds: float) -> bool:
        """Wait until all is scored; whether it is."""
        self._worker.join(seconds)
        return bool(self._done.all())

    def _work(self) -> None:
        for number, i in enumerate(np.flatnonzero(~self._done).tolist(), 1):
            if self._ended.is_set():
                return
            with suppress(TagsegError):  # a photo that cannot be decoded has no scores
                self._scores[i] = self._classify(decode_photo(self._photos.file(i)))
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
            if scores.shape != (len(marks), len(self.classes)):
                return
            for i in range(len(self._photos)):
                found = row.get(self._mark(i))
                if found is not None:
                    self._scores[i], self._done[i] = scores[found], True

    def _save(self) -> None:
        if self._keep is None or not self._done.any():
            return
        temporary = self._keep.with_suffix(f".{os.getpid()}.tmp")
        known = np.flatnonzero(self._done)
        with suppress(OSError):
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            marks = np.array([self._mark(i) for i in known.tolist()], np.int64)
            with temporary.open("wb") as file:
                np.savez(file, marks=marks, scores=self._scores[known])
            temporary.replace(self._keep)

    def _mark(self, photo: int) -> int:
        """A number that a photo keeps as long as its file does not change."""
        path = self._photos.paths[photo]
        try:
            about = os.stat(path)
        except OSError:
            return -1
        text = b"%d %d " % (about.st_size, about.st_mtime_ns) + os.fsencode(path)
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


def suggestions_of(run: Path, photos: PhotoFolder) -> Suggestions:
    """Suggestions by the tag classifier of a run; not started yet.

    Raises WorkspaceError if the run has none.
    """
    from tagseg.session.classify import load_classifier

    classifier = load_classifier(run)
    place = blake2b(os.fsencode(photos.home.absolute()), digest_size=8).hexdigest()
    keep = user_cache("suggestions") / f"{classifier.key}-{place}.npz"
    return Suggestions(
        photos,
        classifier.classes,
        classifier.probabilities,
        about=run.absolute().name,
        keep=keep,
    )
