"""Shots: consecutive frames of one camera, as a folder of pictures or as a video file.

A shot decodes its frames anew whenever it is asked, one at a time, so that no video needs to fit
into memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.finding import PHOTO_SUFFIXES, visible_folders
from tagseg.data.images import decode_photo
from tagseg.data.working import working_image
from tagseg.errors import DataError, ShapeError
from tagseg.maps import Image

__all__ = ["VIDEO_SUFFIXES", "Shot", "find_shots", "natural_key"]

VIDEO_SUFFIXES = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".m4v"])

_PHOTOS = "JPEGImages"  # where VOC, DAVIS and write_clips keep the photos, beside their masks
_SLACK = 0.05  # containers may announce this share of frames too many; a cut loses more


class _Source(Protocol):
    """Where the frames of a shot come from, and what an error calls it."""

    @property
    def place(self) -> object: ...

    def decode(self) -> Iterator[Image]: ...

    def count(self) -> int: ...


@dataclass(frozen=True)
class Shot:
    """Consecutive frames of one camera, by :func:`find_shots` or :meth:`of_frames`.

    Attributes:
        name: its path relative to the folder that was searched; unique among the shots found.
    """

    name: str
    _source: _Source

    @classmethod
    def of_frames(cls, name: str, frames: npt.NDArray[np.uint8]) -> Shot:
        """A shot in memory, of frames (T, H, W, 3); ShapeError if they are not that."""
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ShapeError(
                f"frames of shape {frames.shape} and type {frames.dtype} are not a shot",
                where=name,
                do="pass uint8 (T, H, W, 3)",
            )
        return cls(name, _Array(name, frames))

    def frames(self, side: int | None = None) -> Iterator[Image]:
        """The frames in order, uint8 (H, W, 3), RGB, decoded anew; longer side at most ``side``.

        Raises DataError if a frame cannot be read, if it is of another size than the first, or if
        a video ends before the length that it announces.
        """
        shape: tuple[int, ...] | None = None
        for number, image in enumerate(self._source.decode()):
            shape = shape or image.shape
            if image.shape != shape:
                raise DataError(
                    f"frame {number} is {_size(image.shape)}, the first is {_size(shape)}",
                    where=self._source.place,
                    do="keep the frames of one camera in a folder",
                )
            yield image if side is None else working_image(image, side)

    def count(self) -> int:
        """Number of frames; a video is decoded for it, since what its header says may be wrong."""
        return self._source.count()


@dataclass(frozen=True)
class _Array:
    place: str
    images: npt.NDArray[np.uint8]

    def decode(self) -> Iterator[Image]:
        return iter(self.images)

    def count(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class _Pictures:
    place: Path
    paths: tuple[Path, ...]

    def decode(self) -> Iterator[Image]:
        return map(decode_photo, self.paths)

    def count(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _Video:
    place: Path

    def decode(self) -> Iterator[Image]:
        with _opened(self.place) as video:
            decoded = 0
            while True:
                more, frame = video.read()
                if not more:
                    break
                decoded += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
            self._check(decoded, video)

    def count(self) -> int:
        with _opened(self.place) as video:
            decoded = 0
            while video.grab():
                decoded += 1
            self._check(decoded, video)
        return decoded

    def _check(self, decoded: int, video: cv2.VideoCapture) -> None:
        announced = round(video.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less: unknown
        if decoded == 0:
            raise _unreadable(self.place)
        if decoded < announced * (1.0 - _SLACK) - 1:
            raise DataError(
                f"the video is cut short: {decoded} of {announced} frames can be decoded",
                where=self.place,
                do="replace or remove it",
            )


def find_shots(source: Path) -> tuple[Shot, ...]:
    """All shots in ``source``, in natural order of their names.

    ``source`` is a video file (:data:`VIDEO_SUFFIXES`), or a folder in which, at any depth, every
    folder that holds pictures is a shot, and every video file is one. Of a folder with a folder
    ``JPEGImages``, as VOC and DAVIS have it, only that is searched, since masks stand beside it.
    Hidden files and folders are left out; links are followed. Nothing is decoded. Raises DataError
    if there is no such path, if it holds no shot, or if two pictures of a shot differ only in
    their suffix.
    """
    source = Path(source)
    if not source.exists():
        raise DataError("there is no such file or folder", where=source, do="check the path")
    if not source.is_dir():
        return (_shot_of_file(source),)
    root = source / _PHOTOS if (source / _PHOTOS).is_dir() else source
    found = {shot.name: shot for shot in _shots_under(root)}
    if not found:
        raise DataError(
            "holds neither pictures nor video files",
            where=root,
            do=f"use a folder of frames, or video files ({_listed(VIDEO_SUFFIXES)})",
        )
    if list(found) == ["."]:
        name = source.resolve().name or "shot"
        return (Shot(name, found["."]._source),)
    return tuple(sorted(found.values(), key=lambda shot: natural_key(shot.name)))


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts names as people number them: frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    numbered = tuple(int(part) if i % 2 else part for i, part in enumerate(parts))
    return numbered, name  # 01 and 1 are one number, but not one name


def _shot_of_file(path: Path) -> Shot:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise DataError(
            "this is neither a folder nor a video file",
            where=path,
            do=f"use a folder of frames, or a video file ({_listed(VIDEO_SUFFIXES)})",
        )
    return Shot(path.name, _Video(path))


def _shots_under(root: Path) -> Iterator[Shot]:
    for folder, names in visible_folders(root):
        place = folder.relative_to(root)
        pictures = [name for name in names if Path(name).suffix.lower() in PHOTO_SUFFIXES]
        if pictures:
            yield Shot(place.as_posix(), _Pictures(folder, _ordered(folder, pictures)))
        for name in names:
            if Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield Shot((place / name).as_posix(), _Video(folder / name))


def _ordered(folder: Path, pictures: Iterable[str]) -> tuple[Path, ...]:
    paths = sorted((folder / name for name in pictures), key=lambda path: natural_key(path.stem))
    for _, group in groupby(paths, key=lambda path: path.stem):
        same = sorted(path.name for path in group)
        if len(same) > 1:  # a mask beside its photo would pass for a frame
            raise DataError(
                f"{same[0]} and {same[1]} have the same name", where=folder, do="remove one"
            )
    return tuple(paths)


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    # FFmpeg and OpenCV would print words of their own beside our error.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.setLogLevel(0)
    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)  # others take digits for a pattern
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not video.isOpened():
            raise _unreadable(path)
        yield video
    finally:
        video.release()


def _unreadable(path: Path) -> DataError:
    return DataError(
        "cannot be decoded as a video: damaged, cut short, or of an unknown kind",
        where=path,
        do="convert, replace or remove it",
    )


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
