"""What the classifier of a run says of the photos, one after the other while somebody tags."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.console import user_cache
from tagseg.data.images import decode_photo
from tagseg.maps import Image
from tagseg.web.background import PhotoNumbers
from tagseg.web.photo_folder import PhotoFolder

__all__ = ["Suggestions", "suggestions_of"]

Classify = Callable[[Image], npt.NDArray[np.float32]]


class Suggestions(PhotoNumbers):
    """Scores of photos, made in a thread and kept in the user's cache.

    Attributes:
        classes: that are scored.
        about: whose scores they are.
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
        super().__init__(
            len(photos),
            len(classes),
            lambda photo: classify(decode_photo(photos.file(photo))),
            file_of=lambda photo: photos.paths[photo],
            name="suggestions",
            keep=keep,
        )

    def scores(self) -> npt.NDArray[np.float32]:
        """Probabilities (N, C); NaN for photos that are not scored, or cannot be decoded."""
        return self.rows()


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
