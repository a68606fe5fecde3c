"""Safetensors files that are what was written: a digest of their content goes with them.

The format notices a file that is cut short, but not a bit that has turned over on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

__all__ = [
    "RottenError",
    "check_header",
    "content_hash",
    "read_hashed",
    "read_tensors",
    "tensor_file",
]

_DIGEST = "tagseg_digest"
_LONGEST_HEADER = 8 << 20  # bytes; ResNet-101's takes 60 thousand


class RottenError(ValueError):
    """A file's content is not what was written into it."""


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, with a digest in its metadata; equal content gives equal bytes."""
    # Cloned, because the format refuses tensors that share memory.
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    notes = dict(metadata or {})
    notes[_DIGEST] = content_hash(plain, notes)
    return _in_order(safetensors.torch.save(plain, notes))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; raises as :func:`read_hashed`."""
    return read_hashed(path)[:2]


def read_hashed(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Tensors, metadata and :func:`content_hash` of a file, which is its digest if it has one.

    Raises:
        RottenError: the content is not what was written.
        SafetensorError, OSError: the file cannot be read.
    """
    check_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    stated = metadata.pop(_DIGEST, None)  # files of before have none
    found = content_hash(tensors, metadata)
    if stated is not None and stated != found:
        raise RottenError("its content is not what was written")
    return tensors, metadata, found


def check_header(path: Path) -> None:
    """Raise RottenError for a header so long that reading it could fill the memory."""
    with path.open("rb") as file:
        length, begins = int.from_bytes(file.read(8), "little"), file.read(1)
    if begins == b"{" and length > _LONGEST_HEADER:
        raise RottenError(f"its header has {length} bytes")


def content_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash of all names, types, shapes and values, and of the metadata."""
    # Not of the file's bytes: the order of the metadata in them is left open by the format.
    state = hashlib.blake2b(digest_size=16)
    state.update(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted, so that equal results are equal bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns what follows
    return len(text).to_bytes(8, "little") + text + content[end:]
