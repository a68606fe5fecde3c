"""Every error that tagseg raises on purpose.

    TagsegError
    |-- DataError            photos, tags, lists and masks on disk
    |   |-- ImageError       a photo that cannot be decoded whole
    |   |-- TagError         a tag file or a class list that cannot be used
    |   `-- MaskError        a mask or a ground-truth folder that cannot be used
    |-- WeightsError         a weights file that is missing, broken or of another network
    |-- ConfigError          a field, flag or value that does not exist or does not fit
    |-- TrainingError        a training that cannot go on
    |-- RankError            another process of a run that several share has ended
    |-- WorkspaceError       a run folder that is locked, damaged or of another kind
    |   `-- DamagedError     part of a run folder is not what was written
    `-- ShapeError           an array argument of the wrong shape, type or range (a ValueError too)

A message is one line: what is wrong, where, and what to do. The command line prints it and exits
with status 2; it never prints a traceback for one of these.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DamagedError",
    "DataError",
    "ImageError",
    "MaskError",
    "RankError",
    "ShapeError",
    "TagError",
    "TagsegError",
    "TrainingError",
    "WeightsError",
    "WorkspaceError",
    "choose_from",
    "first_few",
    "one_line",
    "printable",
]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)  # but for line feed and tab; the last ones turn the direction of writing


class TagsegError(Exception):
    """Base of all errors raised on purpose: ``what`` is wrong, ``where``, and what to ``do``."""

    def __init__(self, what: str, *, where: object = None, do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        place = f"{where}: " if where is not None else ""
        advice = f"; {do}" if do else ""
        super().__init__(" ".join(f"{place}{what}{advice}".split()))


class DataError(TagsegError):
    """Photos, tags, lists or masks on disk cannot be used."""


class ImageError(DataError):
    """A photo cannot be decoded whole."""


class TagError(DataError):
    """A tag file or class list cannot be used."""


class MaskError(DataError):
    """A mask or a ground-truth folder cannot be used."""


class WeightsError(TagsegError):
    """A weights file is missing, broken or belongs to another network."""


class ConfigError(TagsegError):
    """A field, flag or value does not exist or does not fit."""


class TrainingError(TagsegError):
    """A training cannot go on."""


class RankError(TagsegError):
    """A run that several processes share has lost one of them."""


class WorkspaceError(TagsegError):
    """A run folder is locked, damaged or of another kind."""


class DamagedError(WorkspaceError):
    """Part of a run folder is not what was written there; training it again makes it anew."""


class ShapeError(TagsegError, ValueError):
    """An array argument has the wrong shape, type or range."""


def choose_from(known: Iterable[str], name: str) -> str:
    """What to do about a wrong ``name``: the known one that it is close to, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"


def first_few(names: Iterable[str], most: int = 3) -> str:
    """The first names for a message, with a comma between them and ``...`` if there are more."""
    every = list(names)
    return ", ".join(every[:most]) + (", ..." if len(every) > most else "")


def one_line(error: Exception, most: int | None = None) -> str:
    """What another library's error says, in one line of up to ``most`` characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def printable(text: str) -> str:
    """``text`` with control characters, as names of files may hold, written as in JSON.

    >>> print(printable("a" + chr(27) + "[2J"))
    a\\u001b[2J
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
