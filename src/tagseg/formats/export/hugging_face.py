"""Hugging Face's datasets: Parquet files of photos and masks, which load_dataset decodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tagseg.errors import ConfigError
from tagseg.formats.export.masked_photos import (
    Export,
    Format,
    MaskedPhoto,
    Piece,
    used_labels,
)
from tagseg.formats.export.png import palette_png, write_classes
from tagseg.tar_members import read_file

__all__ = ["HUGGING_FACE"]

_SHARD = 500_000_000  # bytes of photos in a file, about what the hub's own files have
_GROUP = 50_000_000  # bytes that are written at once
_MOST_ROWS = 100  # as many as a reader has to decode for one row


def _check(export: Export) -> None:
    if find_spec("pyarrow") is None:
        raise ConfigError("Parquet files need pyarrow", do="pip install 'tagseg[formats]'")


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    labels = used_labels(photo.labels)
    mask = palette_png(photo.labels, export.classes)
    row = {
        "name": photo.name,
        "image": _image(photo, export),
        "mask": {"bytes": mask, "path": f"{photo.name}.png"},
        "classes": [label - 1 for label in labels],
    }
    return Piece(entry=row, regions=len(labels))


def _image(photo: MaskedPhoto, export: Export) -> dict[str, Any]:
    assert photo.source is not None
    if export.photos == "link":
        return {"bytes": None, "path": str(photo.source.absolute())}
    return {"bytes": read_file(photo.source), "path": photo.file}


def _whole(entries: Iterator[Any], export: Export) -> None:
    write_classes(export)
    (export.folder / "data").mkdir(exist_ok=True)
    in_files = export.photo_bytes if export.photos == "copy" else 0
    shards = 1 + in_files // _SHARD
    _Shards(export, shards, in_files / shards).write(entries)


class _Shards:
    """Parquet files that are filled one after the other."""

    def __init__(self, export: Export, number: int, size: float) -> None:
        self._folder, self._number, self._size = export.folder / "data", number, size
        self._schema = _schema(export)

    def write(self, rows: Iterator[dict[str, Any]]) -> None:
        """Write all rows; every file is there in the end, if only with no rows in it."""
        from pyarrow.parquet import ParquetWriter

        for shard in range(self._number):
            is_last = shard == self._number - 1
            with ExitStack() as stack:
                writer = stack.enter_context(ParquetWriter(self._path(shard), self._schema))
                written = 0
                while is_last or written < self._size:
                    group, size = _group(rows)
                    if not group:
                        break
                    self._write_group(writer, group)
                    written += size

    def _write_group(self, writer: Any, group: list[dict[str, Any]]) -> None:
        import pyarrow

        writer.write_table(pyarrow.Table.from_pylist(group, schema=self._schema))

    def _path(self, shard: int) -> Path:
        return self._folder / f"train-{shard:05d}-of-{self._number:05d}.parquet"


def _group(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The next rows, as many as are held at once, and the bytes of their photos."""
    group: list[dict[str, Any]] = []
    size = 0
    while len(group) < _MOST_ROWS and size < _GROUP:
        row = next(rows, None)
        if row is None:
            break
        group.append(row)
        size += len(row["image"]["bytes"] or b"")
    return group, size


def _schema(export: Export) -> Any:
    """The columns, with what tells the library datasets that two of them are pictures."""
    import pyarrow

    picture = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = {
        "name": pyarrow.string(),
        "image": picture,
        "mask": picture,
        "classes": pyarrow.list_(pyarrow.int64()),
    }
    names = {"names": list(export.classes.names), "_type": "ClassLabel"}
    features = {
        "name": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "classes": {"feature": names, "_type": "Sequence"},
    }
    about = json.dumps({"info": {"features": features}})
    return pyarrow.schema(columns, metadata={"huggingface": about})


HUGGING_FACE = Format(
    "Hugging Face datasets",
    _one,
    _whole,
    photos_in=None,
    photos_by=("copy", "link"),
    keeps_unknown=True,
    check=_check,
)
