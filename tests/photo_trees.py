"""Folders of photos and masks as tools and people lay them out, small."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from tagseg.data.masks import write_mask

SIZE = (32, 24)  # width and height


def photo(path: Path, size: tuple[int, int] = SIZE, *, grey: bool = False) -> None:
    """Noise over a slope, as no mask has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.as_posix().encode()))
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    noise = rng.integers(0, 120, shape)
    slope = np.linspace(0, 120, size[0]).astype(int).reshape((-1,) if grey else (-1, 1))
    PilImage.fromarray((noise + slope).astype(np.uint8)).save(path)


def shape_of(size: tuple[int, int]) -> np.ndarray:
    """A box, uint8 (h, w) of 0 and 1."""
    labels = np.zeros((size[1], size[0]), np.uint8)
    labels[size[1] // 4 : size[1] // 2, size[0] // 3 : size[0] // 2 + 2] = 1
    return labels


def mask(path: Path, size: tuple[int, int] = SIZE, *, kind: str = "grey") -> None:
    """A mask: ``grey`` (0 and 255), ``ids``, ``voc`` palette, ``bits``, ``colours``, ``soft``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = shape_of(size)
    if kind == "voc":
        write_mask(path, labels)
    elif kind == "colours":
        PilImage.fromarray(np.array([(0, 0, 0), (200, 30, 90)], np.uint8)[labels]).save(path)
    elif kind == "bits":
        PilImage.fromarray(labels > 0).save(path)
    elif kind == "soft":
        slope = np.linspace(0, 255, size[0]).astype(np.uint8)
        PilImage.fromarray(np.tile(slope, (size[1], 1))).save(path)
    else:
        PilImage.fromarray(labels * np.uint8(255 if kind == "grey" else 1)).save(path)


def photos(folder: Path, *names: str) -> Path:
    """Photos of these names."""
    for name in names:
        photo(folder / name)
    return folder


def masks(folder: Path, *names: str, kind: str = "grey") -> Path:
    """Masks of these names."""
    for name in names:
        mask(folder / name, kind=kind)
    return folder
