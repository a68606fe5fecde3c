"""Final masks in a folder: a PNG a photo, or tars of some thousand.

    masks/cat/a.png           of photo cat/a
    masks/masks-000000.tar    of the first 4,096 photos, as members cat/a.png
          masks-000001.tar    of the next ones

A mask is a file first. When all masks of a tar are there, it is written beside them under a
temporary name, renamed, and they are removed: so a kill loses nothing, what is left over is packed
by the next process, and the bytes of a tar depend on the masks alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy.typing as npt

from tagseg.errors import ConfigError
from tagseg.run.files import atomic_write, one_line_errors
from tagseg.tar_members import Tars, write_tar

__all__ = [
    "MASKS_IN",
    "MaskFiles",
    "MaskShards",
    "MasksIn",
    "are_sharded",
    "check_masks_in",
    "tars_in",
]

MasksIn = Literal["auto", "files", "shards"]
MASKS_IN: tuple[str, ...] = get_args(MasksIn)

_MANY = 100_000  # photos, past which masks are kept in tars
_SHARD = 4096  # masks in a tar
_PATTERN = "masks-*.tar"


def check_masks_in(masks_in: str) -> None:
    """Raise ConfigError for another word than those of :data:`MASKS_IN`."""
    if masks_in not in MASKS_IN:
        raise ConfigError(f"masks_in {masks_in!r} does not exist", do=f"use {', '.join(MASKS_IN)}")


def are_sharded(masks_in: str, photos: int) -> bool:
    """Whether the masks of so many photos are to be kept in tars."""
    return masks_in == "shards" or (masks_in == "auto" and photos > _MANY)


def tars_in(folder: Path) -> list[Path]:
    """The tars of masks in a folder, in the photos' order."""
    return sorted(folder.glob(_PATTERN))


class MaskFiles:
    """The masks in a folder, to be read: files, or members of its tars. Pickles as the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _tars(self) -> Tars | None:
        """The tars that were there when the first mask was asked for."""
        found = tars_in(self._folder)
        return Tars(found) if found else None

    def path(self, name: str) -> Path:
        """Where the mask of photo ``name`` is, or would be: a file, or a path below a tar."""
        member = self._tars.find(f"{name}.png") if self._tars is not None else None
        if member is None:
            return self._folder / f"{name}.png"
        return Path(member.tar) / member.name

    def is_packed(self, name: str) -> bool:
        """Whether a tar has the mask of photo ``name``."""
        return self._tars is not None and self._tars.find(f"{name}.png") is not None

    def __contains__(self, name: object) -> bool:
        return self.is_packed(str(name)) or (self._folder / f"{name}.png").is_file()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder}


class MaskShards:
    """The masks of photos ``names``, to be written into tars of ``folder``."""

    def __init__(self, folder: Path, names: Sequence[str], *, shard: int = _SHARD) -> None:
        self._folder, self._names, self._size = folder, names, shard
        self._shards = -(-len(names) // shard)
        self._waiting = dict.fromkeys(range(self._shards), 0)  # tar to be -> masks seen
        self._put = 0
        self._there = MaskFiles(folder)  # before this process began

    def __contains__(self, name: object) -> bool:
        return name in self._there

    def put(self, name: str, /, **arrays: npt.NDArray[Any]) -> None:
        """Raise TypeError: masks are PNG alone."""
        raise TypeError("files hold PNG alone")

    def put_bytes(self, name: str, content: bytes) -> None:
        """Keep the PNG of photo ``name``, if no tar of before has it."""
        if self._there.is_packed(name):
            return
        path = self._file(name)
        with one_line_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, shared=True) as file:
            file.write(content)
        self._put += 1

    def commit(self) -> None:
        """Pack the masks that make whole tars, once there may be one."""
        if self._put >= self._size:
            self._put = 0
            self.pack()

    def pack(self, *, every: bool = False) -> None:
        """Pack the masks of each tar whose masks are all there; ``every``: what is there of all."""
        for number in range(self._shards) if every else list(self._waiting):
            names = self._names[number * self._size : (number + 1) * self._size]
            tar = self._folder / f"masks-{number:06d}.tar"
            if every or tar.exists() or not self._lacks(number, names):
                self._pack(tar, names)
                self._waiting.pop(number, None)
        if every:
            self._remove_folders()

    def _lacks(self, number: int, names: Sequence[str]) -> bool:
        """Whether a mask is not there; those that were seen are not looked for again."""
        there = self._waiting[number]
        while there < len(names) and self._file(names[there]).is_file():
            there += 1
        self._waiting[number] = there
        return there < len(names)

    def _pack(self, tar: Path, names: Sequence[str]) -> None:
        found = [name for name in names if self._file(name).is_file()]
        with one_line_errors(tar):
            if found and not tar.exists():
                with atomic_write(tar, shared=True) as file:
                    write_tar(file, self._contents(found))
            for name in found:
                self._file(name).unlink(missing_ok=True)

    def _contents(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((f"{name}.png", self._file(name).read_bytes()) for name in names)

    def _remove_folders(self) -> None:
        """Remove the folders that photos' names have, which are empty now."""
        inner = {name.rpartition("/")[0] for name in self._names if "/" in name}
        every = {path for name in inner for path in (Path(name), *Path(name).parents)} - {Path()}
        for folder in sorted(every, key=lambda path: -len(path.parts)):
            with suppress(OSError):
                (self._folder / folder).rmdir()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.png"
