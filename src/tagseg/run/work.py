"""Work over photos: what a stage makes of each, where that is kept, and which engine does it.

A stage says what is to be done as a :class:`PhotoWork`; an :class:`Engine` does it for the photos
that the stage's stores lack. Whatever the engine, the same rows are stored, so that a stage that
one engine has begun may be finished by another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tagseg.run.files import atomic_write, one_line_errors
from tagseg.run.mask_files import MaskShards, tars_in
from tagseg.run.progress import Task
from tagseg.run.stage import Stage

__all__ = [
    "Engine",
    "Groups",
    "Kept",
    "Local",
    "PhotoWork",
    "Row",
    "Sink",
    "fill",
    "folder_of_pngs",
    "pack",
    "pending",
    "sink_of",
]

_TARS = "/*.tar"  # a store's name ends so

Kept = bytes | Mapping[str, npt.NDArray[Any]]  # of one photo, in one store
Row = Mapping[str, Kept]  # of one photo, by store
Groups = npt.NDArray[np.int64]  # (G, 2): first photo of each group, and the one behind its last


class PhotoWork(ABC):
    """What is to be made of photos. Other processes get copies, by pickling.

    Attributes:
        names: of all photos.
        network: whether a network is at work, which wants the device.
        costly: whether each group is to be safe on disk before the next begins.
    """

    names: Sequence[str]
    network: bool
    costly: bool

    @abstractmethod
    def bounds(self) -> npt.NDArray[np.int64]:
        """Where the groups begin that are worked on together, and the number of photos (G + 1,)."""

    @abstractmethod
    def rows(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[range, Iterable[Row]]]:
        """For each group (first, behind the last) its photos and a row for each, in order."""


class Engine(Protocol):
    """Who does the work."""

    def fill(self, stage: Stage, stores: Sequence[str], work: PhotoWork, progress: Task) -> None:
        """Fill the stores of the stage, which is running, with the rows that they lack."""

    def close(self) -> None:
        """Let go of what is held for more work; a second call does nothing."""


class Sink(Protocol):
    """Where rows are kept: a store of the stage, or a folder of files."""

    def __contains__(self, name: object) -> bool: ...

    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        """Keep the arrays of photo ``name``."""

    def put_bytes(self, name: str, content: bytes) -> None:
        """Keep bytes, such as a PNG, for photo ``name``."""

    def commit(self) -> None:
        """Make sure that a kill from here on loses nothing that was put."""


@dataclass(frozen=True)
class Local:
    """This process: photo after photo, or several at once in threads, as the work has it."""

    def fill(self, stage: Stage, stores: Sequence[str], work: PhotoWork, progress: Task) -> None:
        """Fill the stores of the stage."""
        sinks = {store: sink_of(stage, store, work.names) for store in stores}
        todo = pending(work, list(sinks.values()))
        progress.skip(len(work.names) - photos_in(todo))
        fill(work, todo, sinks, progress.advance)
        pack(sinks.values(), every=True)

    def close(self) -> None:
        """Nothing is held."""


def folder_of_pngs(name: str, *, tars: bool) -> str:
    """What a store is called that is a folder of PNG files, or of tars of them."""
    return name + (_TARS if tars else "/")


def sink_of(stage: Stage, store: str, names: Sequence[str] = ()) -> Sink:
    """The store of that name, which may be a folder (:func:`folder_of_pngs`).

    A folder in which there are tars is gone on with so. ``names`` are those of all photos; without
    them files are written, which another process packs.
    """
    if not is_folder(store):
        return stage.maps(store)
    folder = stage.path(store.partition("/")[0])
    tars = store.endswith(_TARS) or bool(tars_in(folder))
    return MaskShards(folder, names) if tars and names else _Pngs(folder)


def is_folder(store: str) -> bool:
    """Whether a store of this name is a folder of PNG files, or of tars of them."""
    return "/" in store


def pack(sinks: Iterable[Sink], *, every: bool = False) -> None:
    """Pack what is to be in tars, as :meth:`MaskShards.pack` does."""
    for sink in sinks:
        if isinstance(sink, MaskShards):
            sink.pack(every=every)


def pending(work: PhotoWork, sinks: Sequence[Sink]) -> Groups:
    """The groups of which a photo is missing in one of the sinks."""
    if not work.names:
        return np.empty((0, 2), np.int64)
    bounds = work.bounds()
    missing = (not all(name in sink for sink in sinks) for name in work.names)
    lacking = np.fromiter(missing, np.int64, len(work.names))
    groups = np.stack([bounds[:-1], bounds[1:]], axis=1)
    return groups[np.add.reduceat(lacking, bounds[:-1]) > 0]


def photos_in(groups: Groups) -> int:
    """How many photos they have."""
    return int((groups[:, 1] - groups[:, 0]).sum())


def fill(
    work: PhotoWork, groups: Groups, sinks: Mapping[str, Sink], tick: Callable[[], object]
) -> None:
    """Do the work for ``groups`` and keep its rows; ``tick`` is called after each photo."""
    for group, rows in work.rows(pair.tolist() for pair in groups):
        for index, row in zip(group, rows, strict=True):
            put_row(sinks, work.names[index], row)
            tick()
        if work.costly:
            for sink in sinks.values():
                sink.commit()


def put_row(sinks: Mapping[str, Sink], name: str, row: Row) -> None:
    """Keep what was made of photo ``name``, each part in its sink."""
    for store, sink in sinks.items():
        _put(sink, name, row[store])


def _put(sink: Sink, name: str, kept: Kept) -> None:
    if isinstance(kept, bytes):
        sink.put_bytes(name, kept)
    else:
        sink.put(name, **kept)


class _Pngs:
    """A PNG file a photo."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"

    def __contains__(self, name: object) -> bool:
        return self._path(str(name)).exists()

    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        raise TypeError("files hold PNG alone")

    def put_bytes(self, name: str, content: bytes) -> None:
        path = self._path(name)
        with one_line_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, shared=True) as file:
            file.write(content)

    def commit(self) -> None:
        """Files are safe once they are there."""
