"""What a stage was made from and what it holds: keys, records and fingerprints of artefacts.

A stage's key is a hash over its name, the format version, its configuration and the keys of its
inputs. So it is known before the stage runs, and a change anywhere reaches exactly the stages
behind it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypedDict, TypeGuard

import numpy as np
from safetensors import SafetensorError

from tagseg.errors import ConfigError, WorkspaceError
from tagseg.run.files import TEMPORARY, damaged, read_json
from tagseg.run.map_store import MapStore
from tagseg.tensor_files import RottenError, read_hashed

__all__ = [
    "FORMAT",
    "Fingerprint",
    "Manifest",
    "Record",
    "canonical",
    "changes",
    "fingerprint",
    "is_intact",
    "just_written",
    "make_record",
    "note_written",
    "read_manifest",
    "read_record",
    "size_of",
]

FORMAT = 1  # raise it when old stage folders can no longer be read

_LONGEST_NAME = 255  # bytes, on usual file systems
_SHOWN_CHANGES = 4
_SHOWN_CHARACTERS = 40


class Record(TypedDict):
    """What decides whether a stage must run again."""

    name: str
    format: int
    config: dict[str, Any]
    inputs: list[list[str]]  # [label, key] of each
    key: str


class Fingerprint(TypedDict):
    """Size and logical hash of one artefact (a file, or a folder of files)."""

    bytes: int
    hash: str


class Manifest(TypedDict):
    """What a finished stage was made from and holds, its working time and its end (ISO, UTC)."""

    record: Record
    artefacts: dict[str, Fingerprint]
    seconds: float
    finished: str


def read_manifest(path: Path) -> Manifest:
    """The manifest of a finished stage; DamagedError if it is not one that tagseg has written."""
    value = read_json(path)
    if not _is_manifest(value):
        raise damaged("is damaged (no manifest)", path)
    return value


def read_record(path: Path) -> Record | None:
    """What the stage is made from whose manifest or beginning is told in ``path``."""
    try:
        value = read_json(path)
    except WorkspaceError:
        return None
    record = value.get("record") if isinstance(value, dict) else None
    return record if _is_record(record) else None


def _is_manifest(value: Any) -> TypeGuard[Manifest]:
    return (
        isinstance(value, dict)
        and _is_record(value.get("record"))
        and isinstance(value.get("artefacts"), dict)
        and all(_is_artefact(name, of) for name, of in value["artefacts"].items())
        and isinstance(value.get("seconds"), int | float)
        and isinstance(value.get("finished"), str)
    )


def _is_record(value: Any) -> TypeGuard[Record]:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("name", "key"))
        and isinstance(value.get("format"), int)
        and isinstance(value.get("config"), dict)
        and isinstance(value.get("inputs"), list)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in value["inputs"])
        and all(isinstance(text, str) for pair in value["inputs"] for text in pair)
    )


def _is_artefact(name: str, stated: Any) -> bool:
    """Whether it is a file of the stage's own folder, as its name has it; links lead elsewhere."""
    return (
        name not in ("", ".", "..")
        and len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
        and PurePath(name).name == name
        and isinstance(stated, dict)
        and isinstance(stated.get("bytes"), int)
        and isinstance(stated.get("hash"), str)
    )


def canonical(value: Any) -> Any:
    """``value`` as plain JSON data; raise ConfigError for what JSON cannot say exactly."""
    try:
        return json.loads(json.dumps(value, default=_plain, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"a setting cannot be recorded: {error}", do="use numbers, strings, lists and paths"
        ) from error


def make_record(name: str, config: Mapping[str, Any], inputs: Iterable[tuple[str, str]]) -> Record:
    """Record of stage ``name``; ``inputs`` are (label, key) pairs, of which the keys count."""
    pairs = [[label, key] for label, key in inputs]
    plain = canonical(dict(config))
    text = json.dumps([name, FORMAT, plain, [key for _, key in pairs]], sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return Record(name=name, format=FORMAT, config=plain, inputs=pairs, key=key)


def changes(old: Record, new: Record) -> str:
    """Say in one phrase which configuration fields and inputs differ, each with old -> new."""
    found = list(_differences(_flat(old["config"]), _flat(new["config"]), ""))
    old_inputs, new_inputs = ({label: key[:8] for label, key in r["inputs"]} for r in (old, new))
    found += _differences(old_inputs, new_inputs, "input ")
    if not found:
        return f"its format changed ({old['format']} -> {new['format']})"
    more = len(found) - _SHOWN_CHANGES
    return ", ".join(found[:_SHOWN_CHANGES]) + (f" and {more} more" if more > 0 else "")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; -1 if it is missing."""
    if path.is_dir():
        return sum(file.stat().st_size for file in _files(path))
    return path.stat().st_size if path.exists() else -1


def fingerprint(path: Path, hash_of: Callable[[Path], str] | None = None) -> Fingerprint:
    """Size and hash of an artefact; equal content has equal hashes however it was written.

    ``hash_of`` is where the hashes of a folder's files are from; None reads the files.
    """
    if path.is_dir():
        told = hash_of or _hash_file
        parts = [(file.relative_to(path).as_posix(), told(file)) for file in _files(path)]
        return Fingerprint(bytes=size_of(path), hash=_hash(json.dumps(parts).encode()))
    return Fingerprint(bytes=size_of(path), hash=_hash_file(path))


def is_intact(path: Path, stated: Fingerprint, *, again: bool = False) -> bool:
    """Whether an artefact has the content that was written.

    Read as a whole, but once a process unless ``again``: files whose identity, size and time are
    those of before are taken to have the content of before.
    """
    try:
        identity = _identity(path)
        if not again and _INTACT.get(identity) == stated["hash"]:
            return True
        found = fingerprint(path)
    except (OSError, WorkspaceError, SafetensorError, RottenError):
        return False
    if found != stated:
        return False
    _INTACT[identity] = stated["hash"]
    return True


def just_written(path: Path) -> Fingerprint:
    """The fingerprint of an artefact, which :func:`is_intact` needs not read again."""
    found = fingerprint(path, _noted_hash)
    _INTACT[_identity(path)] = found["hash"]
    return found


def note_written(path: Path, digest: str) -> None:
    """Who has just written the file knows its hash, so that it need not be read for it."""
    _INTACT[_identity(path)] = digest


def _noted_hash(path: Path) -> str:
    return _INTACT.get(_identity(path)) or _hash_file(path)


_Identity = tuple[tuple[int, int, int, int], ...]
_INTACT: dict[_Identity, str] = {}


def _identity(path: Path) -> _Identity:
    states = [os.stat(path)]
    if stat.S_ISDIR(states[0].st_mode):
        states = [os.stat(file) for file in _files(path)]
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in states)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new or old[name] != new[name]:
            yield f"{prefix}{name} {_shown(old, name)} -> {_shown(new, name)}"


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _files(folder: Path) -> Sequence[Path]:
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(TEMPORARY)
    )


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _hash_file(path: Path) -> str:
    if path.suffix == ".sqlite":
        with MapStore(path) as maps:
            return maps.digest()
    if path.suffix == ".safetensors":
        return read_hashed(path)[2]
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
