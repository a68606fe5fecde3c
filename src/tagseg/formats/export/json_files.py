"""JSON files of many entries, written as these come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["quoted", "to_bytes", "write_json_array", "write_json_lists"]


def quoted(text: str) -> str:
    """``text`` in quotation marks, as JSON and YAML have it."""
    return json.dumps(text, ensure_ascii=False)


def to_bytes(value: Any) -> bytes:
    """``value`` as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def write_json_array(path: Path, entries: Iterable[Any]) -> None:
    """Write a JSON array, an entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"[\n")
        _write_lines(file, map(to_bytes, entries))
        file.write(b"\n]\n")


def write_json_lists(
    path: Path,
    head: Mapping[str, Any],
    name: str,
    entries: Iterable[Any],
    other: str,
    lines: Iterable[str],
) -> None:
    """Write a JSON object of ``head`` and two lists, an entry a line.

    ``lines`` are JSON already, and only asked for when all ``entries`` have been written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"{\n")
        for key, value in head.items():
            file.write(to_bytes(key) + b": " + to_bytes(value) + b",\n")
        file.write(to_bytes(name) + b": [\n")
        _write_lines(file, map(to_bytes, entries))
        file.write(b"\n],\n" + to_bytes(other) + b": [\n")
        _write_lines(file, (line.encode("utf-8", "backslashreplace") for line in lines))
        file.write(b"\n]\n}\n")


def _write_lines(file: IO[bytes], lines: Iterable[bytes]) -> None:
    for number, line in enumerate(lines):
        file.write(b",\n" + line if number else line)
