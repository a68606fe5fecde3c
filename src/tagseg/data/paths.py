"""The paths of very many files, a few bytes more than their text."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

__all__ = ["FilePaths", "Paths", "renamed"]


class Paths(Sequence[Path]):
    """A sequence of paths, made when they are asked for.

    A ``pathlib.Path`` takes 400 bytes; here all paths are one text. Slices and sums are tuples, and
    tuples of equal paths are equal.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._keep(map(os.fsencode, paths))

    def _keep(self, texts: Iterable[bytes]) -> None:
        text, ends = bytearray(), array("q", [0])
        for one in texts:
            text += one
            ends.append(len(text))
        self._text, self._ends = bytes(text), ends

    def take(self, indices: Iterable[int]) -> Paths:
        """The paths of these numbers, in that order."""
        some = Paths(())
        some._keep(self._bytes(range(len(self))[i]) for i in indices)
        return some

    def _bytes(self, i: int) -> bytes:
        return self._text[self._ends[i] : self._ends[i + 1]]

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self))[index]  # from the end, and IndexError, as of any sequence
        return Path(os.fsdecode(self._bytes(i)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths | tuple) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Iterable[Path]) -> tuple[Path, ...]:
        return (*self, *other)

    def __radd__(self, other: Iterable[Path]) -> tuple[Path, ...]:
        return (*other, *self)

    def __mul__(self, times: int) -> tuple[Path, ...]:
        return tuple(self) * times

    def __repr__(self) -> str:
        return f"Paths({list(self)!r})"


class FilePaths(Mapping[str, Path]):
    """Files by name. Their paths are kept as text, and made when they are asked for.

    A million of them take 0.1 GB, where as many ``pathlib.Path`` take half a gigabyte.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        """``texts``: name -> path."""
        self._texts = texts

    def renamed(self, names: Iterable[tuple[str, str]]) -> FilePaths:
        """Some of the files by other names: (new, old), in that order."""
        return FilePaths({new: self._texts[old] for new, old in names})

    def __getitem__(self, name: str) -> Path:
        return Path(self._texts[name])

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"FilePaths({self._texts!r})"


def renamed(files: Mapping[str, Path], names: Iterable[tuple[str, str]]) -> FilePaths:
    """Some of ``files`` by other names: (new, old), in that order."""
    if isinstance(files, FilePaths):
        return files.renamed(names)
    return FilePaths({new: os.fspath(files[old]) for new, old in names})
