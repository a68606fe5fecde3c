"""The one type in which photos and their tags travel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.data.depth import WHITE
from tagseg.data.digests import (
    FileKey,
    KnownDigests,
    digest_of_array,
    digest_of_bytes,
    file_key,
)
from tagseg.data.images import decode_photo, decode_reduced
from tagseg.data.legends import Legend
from tagseg.data.paths import Paths
from tagseg.data.pictures import MAX_PIXELS, read_bytes
from tagseg.data.text import readable
from tagseg.errors import DataError, ShapeError, TagError
from tagseg.maps import MAX_CLASSES, Image, check_image
from tagseg.tar_members import is_there

__all__ = [
    "Dataset",
    "FileKey",
    "Origin",
    "digest_of_array",
    "digest_of_bytes",
    "file_key",
    "tag_matrix",
]

_MARKS = ("unsure", "absent")
_PLAIN = re.compile(r"\w[\w-]*(?:/\w[\w-]*)*", re.ASCII)  # a name of which nothing need be asked


class Origin(NamedTuple):
    """Where photos and tags were read: the folder, and a tag file that was named."""

    photos: Path
    tags: Path | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Photos with image-level tags, N photos and C foreground classes.

    Attributes:
        classes: names of the foreground classes, in the fixed order of tags and labels.
        names: the photos' names, each once; also the names of everything made from them.
        tags: bool (N, C), which classes are in which photo.
        known: bool (N,), False where nothing is known about a photo's tags.
        unsure: bool (N, C), classes of which it is said that nobody knows whether they are in the
            photo: neither tagged nor absent. None where there are none.
        absent: bool (N, C), classes of which it is said that they are surely not in the photo. It
            adds nothing where tags are complete, and None is where it is said of none.
        sources: a file or a uint8 (H, W, 3) array per photo.
            Many files are kept as :class:`Paths`, in little memory.
        sizes: int32 (N, 2), height and width of each in display orientation; None where nobody has
            looked. No part of the content.
        max_pixels: limit above which a photo is refused.
        white: value that is white in photos of 16 bits (:mod:`tagseg.data.depth`).
        unlisted: photos that lie in the folder but not in its tag file, left out.
        left_out: (reason, number) of pictures in the folder that are no photos.
        notes: how the folder and its tags were understood, a line each; no part of the content.
        legend: what stands for the classes in masks made with their list, where that says more than
            their order; no part of the content.
        origin: where it was read, if it is from a folder; no part of the content.

    Raises TagError, DataError or ShapeError if these do not fit together.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    tags: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    sources: Sequence[Path | Image]
    unsure: npt.NDArray[np.bool_] | None = None
    absent: npt.NDArray[np.bool_] | None = None
    sizes: npt.NDArray[np.int32] | None = None
    max_pixels: int = MAX_PIXELS
    white: int = WHITE
    unlisted: int = 0
    left_out: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    legend: Legend | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        _check_names(self.names)
        n, c = len(self.names), len(self.classes)
        _check_array(self.tags, (n, c), "tags")
        _check_array(self.known, (n,), "known")
        for name in _MARKS:
            object.__setattr__(self, name, _check_mark(getattr(self, name), self.tags, name))
        if len(self.sources) != n:
            raise ShapeError(f"{len(self.sources)} photos, but {n} names", do="give one name each")
        if self.sizes is not None and self.sizes.shape != (n, 2):
            raise ShapeError(f"sizes is {self.sizes.shape}", do=f"give ({n}, 2)")
        if not 1 <= self.white <= WHITE:
            raise DataError(f"white is {self.white}", do=f"use 1 to {WHITE}")
        object.__setattr__(self, "sources", _small(self.sources))

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[Image],
        tags: npt.NDArray[np.bool_] | Sequence[Collection[str]],
        classes: Sequence[str],
        names: Sequence[str] | None = None,
    ) -> Dataset:
        """Dataset of arrays, uint8 (H, W, 3) each.

        ``tags`` is bool (N, C) or the class names of each photo; ``names`` default to the photos'
        numbers. A photo without tags counts as one without any of the classes.
        """
        pictures = tuple(check_image(image, f"photo {i}") for i, image in enumerate(images))
        if names is None:
            names = [f"{i:06d}" for i in range(len(pictures))]
        matrix = tags if isinstance(tags, np.ndarray) else tag_matrix(tags, classes)
        known = np.ones(len(pictures), bool)
        return cls(tuple(classes), tuple(names), matrix, known, pictures)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image:
        """Photo ``index`` as uint8 (H, W, 3); ImageError if it cannot be decoded whole."""
        source = self.sources[index]
        if isinstance(source, Path):
            return decode_photo(source, max_pixels=self.max_pixels, white=self.white)
        return source

    def reduced_image(self, index: int, side: int) -> tuple[Image, tuple[int, int]]:
        """Photo ``index`` for work at ``side`` pixels, and its own height and width.

        It may be smaller than it is, see :func:`tagseg.data.images.decode_reduced`. Errors are
        those of :meth:`image`.
        """
        source = self.sources[index]
        if isinstance(source, Path):
            found = decode_reduced(source, side, max_pixels=self.max_pixels, white=self.white)
            return found.image, found.shape
        return source, (source.shape[0], source.shape[1])

    def marks(self) -> tuple[tuple[str, npt.NDArray[np.bool_] | None], ...]:
        """What is said of photos and classes beside the tags, by name: ``unsure``, ``absent``."""
        return tuple((name, getattr(self, name)) for name in _MARKS)

    def subset(self, indices: Iterable[int] | npt.NDArray[np.integer]) -> Dataset:
        """The photos ``indices``, in that order."""
        chosen = np.fromiter(indices, np.intp)
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            tags=self.tags[chosen],
            known=self.known[chosen],
            sources=_chosen(self.sources, chosen),
            unsure=None if self.unsure is None else self.unsure[chosen],
            absent=None if self.absent is None else self.absent[chosen],
            sizes=None if self.sizes is None else self.sizes[chosen],
        )

    def select(self, names: Iterable[str]) -> Dataset:
        """The photos ``names``, in that order; DataError if one is not here."""
        index = {name: i for i, name in enumerate(self.names)}
        wanted = list(names)
        missing = [name for name in wanted if name not in index]
        if missing:
            shown = ", ".join(missing[:3])
            raise DataError(
                f"{len(missing)} of {len(wanted)} listed photos are not in the data: {shown}",
                do="check the list",
            )
        return self.subset([index[name] for name in wanted])

    def without(self, names: Iterable[str]) -> Dataset:
        """All photos but ``names``; names that are not here do no harm."""
        dropped = set(names)
        return self.subset([i for i, name in enumerate(self.names) if name not in dropped])

    def fingerprint(self, digests: KnownDigests | None = None) -> str:
        """Hex digest of classes, names, tags, those nobody knows, and the content of every photo.

        What is surely absent is no part of it: it decides only where tags are not complete.

        ``digests`` holds what is already known of files (:attr:`Audit.digests`), so that a file
        which has not changed since need not be read again.
        """
        total = blake2b(digest_size=16)
        for text in (*self.classes, "\n", *self.names):
            total.update(len(text.encode()).to_bytes(4, "big") + text.encode())
        total.update(np.packbits(self.tags).tobytes() + np.packbits(self.known).tobytes())
        if self.unsure is not None:
            total.update(b"unsure" + np.packbits(self.unsure).tobytes())
        if self.white != WHITE:
            total.update(b"white %d" % self.white)
        for source in self.sources:
            total.update(_digest(source, digests or {}).encode())
        return total.hexdigest()


def tag_matrix(tags: Sequence[Collection[str]], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Class names per photo as bool (N, C); TagError for a name that is not in ``classes``."""
    column = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(tags), len(classes)), bool)
    for row, names in enumerate(tags):
        if isinstance(names, str):
            raise TagError(f"the tags of photo {row} are one string", do="give a list of names")
        for name in names:
            if name not in column:
                raise TagError(f"tag '{name}' of photo {row} is not a class", do="check classes")
            matrix[row, column[name]] = True
    return matrix


def _digest(source: Path | Image, digests: KnownDigests) -> str:
    if isinstance(source, np.ndarray):
        return digest_of_array(source)
    if not is_there(source):
        return "missing"
    return digests.get(file_key(source)) or digest_of_bytes(read_bytes(source))


def _chosen(
    sources: Sequence[Path | Image], indices: npt.NDArray[np.intp]
) -> Sequence[Path | Image]:
    return sources.take(indices) if isinstance(sources, Paths) else [sources[i] for i in indices]


def _small(sources: Sequence[Path | Image]) -> Sequence[Path | Image]:
    if isinstance(sources, Paths):
        return sources
    if sources and all(isinstance(source, Path) for source in sources):
        return Paths(sources)  # type: ignore[arg-type]
    return tuple(sources)


def _check_classes(classes: tuple[str, ...]) -> None:
    if not classes:
        raise TagError("there are no classes", do="give at least one")
    if len(classes) > MAX_CLASSES:
        raise TagError(f"there are {len(classes)} classes", do=f"use at most {MAX_CLASSES}")
    twice = _first_repeated(classes)
    if twice is not None:
        raise TagError(f"class '{twice}' is listed twice", do="remove one")
    if "" in classes or "background" in classes:
        raise TagError(
            "a class has no name or is called background",
            do="name foreground classes only; background is always there",
        )
    for name in classes:
        if readable(name) != name:
            raise TagError(
                f"the class name '{readable(name)}' is no Unicode text", do="give it another name"
            )


def _check_names(names: tuple[str, ...]) -> None:
    twice = _first_repeated(names)
    if twice is not None:
        raise DataError(f"photo '{twice}' is listed twice", do="remove or rename one")
    for name in names:
        if _PLAIN.fullmatch(name):
            continue
        # Results are written under these names: they must stay inside their folder.
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise DataError(
                f"'{name}' cannot be a photo's name",
                do="give paths inside the photo folder",
            )
        if readable(name) != name:
            raise DataError(
                f"the photo's name '{readable(name)}' is no Unicode text", do="rename it"
            )


def _first_repeated(values: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _check_mark(mark: Any, tags: npt.NDArray[np.bool_], name: str) -> npt.NDArray[np.bool_] | None:
    """The mark, or None where no class of any photo has it; it cannot stand beside the tag."""
    if mark is None:
        return None
    _check_array(mark, tags.shape, name)
    both = np.argwhere(mark & tags)
    if len(both):
        raise TagError(
            f"class {both[0][1]} of photo {both[0][0]} is tagged and {name}", do="say one of them"
        )
    return mark if mark.any() else None


def _check_array(array: Any, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.bool_ or array.shape != shape:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
        raise ShapeError(f"{name} is {kind}", do=f"give a bool array {shape}")
