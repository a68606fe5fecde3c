"""Tars for tests: shards as WebDataset has them, and tars that nobody should trust."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image as PilImage


def jpeg(value: int, size: tuple[int, int] = (16, 12)) -> bytes:
    """A photo of one grey, with noise."""
    noise = np.random.default_rng(value).integers(0, 40, (size[1], size[0], 3)) + value
    content = io.BytesIO()
    PilImage.fromarray(noise.astype(np.uint8)).save(content, "JPEG")
    return content.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of plain files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(*tags: str, first: int = 0) -> dict[str, bytes]:
    """``0000.jpg`` and ``0000.json``, one for each tag."""
    found = {}
    for number, tag in enumerate(tags, first):
        found[f"{number:04d}.jpg"] = jpeg(20 + number)
        found[f"{number:04d}.json"] = json.dumps({"tags": [tag]}).encode()
    return found
