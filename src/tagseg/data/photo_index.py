"""What a look at photos found, kept in columns: names, tags, sizes, and hashes of their content.

    RUN/index.arrow    one row a photo

Photos are looked at once, all of them decoded; afterwards a file whose path, size and time of
change are those of before is taken to be the same. A million photos are some 60 MB, and no object
of Python is made of a row. The file needs pyarrow; without it every photo is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.data.digests import DIGEST_SIZE

__all__ = ["INDEX", "PhotoIndex", "read_index", "write_index"]

INDEX = "index.arrow"

_ROWS = 1 << 16  # that are written at once
_FORMAT = "1"
_PLAIN = {"state": np.uint64, "height": np.int32, "width": np.int32, "pages": np.bool_}

Table = Any  # of pyarrow, which is imported late
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class PhotoIndex:
    """Columns of N photos that can be used; those of 16 bits, which are looked at again, left out.

    Attributes:
        states: uint64 (N,), :func:`tagseg.data.digests.small_key` of each file, in order.
        sizes: int32 (N, 2), height and width in display orientation.
        digests: uint8 (N, 16), of the content.
        pages: bool (N,), whether it is animated or has several pages.
        max_pixels: limit under which they were looked at.
    """

    states: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int32]
    digests: npt.NDArray[np.uint8]
    pages: npt.NDArray[np.bool_]
    max_pixels: int

    def places(self, states: npt.NDArray[np.uint64]) -> tuple[Indices, Indices]:
        """Which of ``states`` (M,) are known, and the row of each of these."""
        if not len(self.states):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        rows = np.searchsorted(self.states, states).clip(max=len(self.states) - 1)
        known = np.flatnonzero(self.states[rows] == states)
        return known, rows[known]

    def check(self) -> str:
        """Hash of the columns."""
        total = blake2b(str(self.max_pixels).encode(), digest_size=DIGEST_SIZE)
        for column in (self.states, self.sizes, self.digests, self.pages):
            total.update(np.ascontiguousarray(column).tobytes())
        return total.hexdigest()


def read_index(path: Path) -> PhotoIndex | None:
    """The index in a file; None if there is none, or none that is whole, or no pyarrow."""
    if not path.is_file() or find_spec("pyarrow") is None:
        return None
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            table = pyarrow.ipc.open_file(file).read_all()
            return _from_table(table)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError):
        return None  # it is made again


def _from_table(table: Table) -> PhotoIndex:
    told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    if told["format"] != _FORMAT:
        raise ValueError("of another version")
    plain = {name: table[name].to_numpy().astype(kind) for name, kind in _PLAIN.items()}
    parts = [np.frombuffer(chunk.buffers()[1], np.uint8) for chunk in table["digest"].chunks]
    digests = np.concatenate(parts or [np.empty(0, np.uint8)])[: DIGEST_SIZE * len(table)]
    order = np.argsort(plain["state"])
    index = PhotoIndex(
        plain["state"][order],
        np.stack([plain["height"], plain["width"]], axis=1)[order],
        digests.reshape(-1, DIGEST_SIZE)[order],
        plain["pages"][order],
        int(told["max_pixels"]),
    )
    if index.check() != told["check"]:
        raise ValueError("not what was written")
    return index


def write_index(
    file: Any,
    index: PhotoIndex,
    order: Indices,
    names: tuple[str, ...],
    tags: npt.NDArray[np.bool_],
    classes: tuple[str, ...],
) -> None:
    """Write an index into an open binary file, with names and tags beside it for people.

    Args:
        order: the row of each photo of ``names`` in the index (M,), -1 where it is not there.
        tags: (M, C), written as numbers of classes.
    """
    import pyarrow

    about = {
        "format": _FORMAT,
        "max_pixels": str(index.max_pixels),
        "check": index.check(),
        "classes": "\n".join(classes),
    }
    schema = pyarrow.schema(
        {
            "name": pyarrow.string(),
            "tags": pyarrow.list_(pyarrow.uint8()),
            "height": pyarrow.int32(),
            "width": pyarrow.int32(),
            "digest": pyarrow.binary(DIGEST_SIZE),
            "pages": pyarrow.bool_(),
            "state": pyarrow.uint64(),
        },
        metadata=about,
    )
    with pyarrow.ipc.new_file(file, schema) as writer:
        for batch in _batches(index, order, names, tags, schema):
            writer.write_batch(batch)


def _batches(
    index: PhotoIndex,
    order: Indices,
    names: tuple[str, ...],
    tags: npt.NDArray[np.bool_],
    schema: Any,
) -> Iterator[Any]:
    import pyarrow

    there = np.flatnonzero(order >= 0)
    for start in range(0, len(there), _ROWS):
        photos = there[start : start + _ROWS]
        rows = order[photos]
        of_photo, classes = np.nonzero(tags[photos])
        ends = np.searchsorted(of_photo, np.arange(len(photos) + 1)).astype(np.int32)
        digests = pyarrow.py_buffer(np.ascontiguousarray(index.digests[rows]))
        columns = [
            pyarrow.array([names[i] for i in photos], pyarrow.string()),
            pyarrow.ListArray.from_arrays(ends, classes.astype(np.uint8)),
            pyarrow.array(index.sizes[rows, 0]),
            pyarrow.array(index.sizes[rows, 1]),
            pyarrow.Array.from_buffers(pyarrow.binary(DIGEST_SIZE), len(rows), [None, digests]),
            pyarrow.array(index.pages[rows]),
            pyarrow.array(index.states[rows]),
        ]
        yield pyarrow.record_batch(columns, schema=schema)
