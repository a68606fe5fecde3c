"""The command that a run was made with: where its photos lie, and how the run is continued.

A run keeps the words of its command, but of absolute paths only the last part, as its report is
read by others. So files are looked for where the command may have meant them, and where the photos
were that somebody named before, which is remembered in the user's cache.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from tagseg.console import user_cache
from tagseg.errors import DataError, WorkspaceError
from tagseg.formats.loading import Reading
from tagseg.run.files import read_json, write_json
from tagseg.run.workspace import Workspace
from tagseg.session.inputs import Source

__all__ = ["ParseTrain", "RecordedCommand", "recorded_command", "remember"]

_LISTS = ("val", "train_list")  # a name of a list, or its file
_REPLACED = ("photos", "out", "review")


class ParseTrain(Protocol):
    """Reads the words of a ``tagseg train`` command."""

    def __call__(self, words: Sequence[str], /) -> Mapping[str, tuple[str, Any]]:
        """Name of each thing that is given -> its flag, empty for none, and its value.

        Nothing if they are no such command.
        """


@dataclass(frozen=True)
class RecordedCommand:
    """What a run was asked for, with files where they are found now.

    Attributes:
        run: its folder.
        photos: the folder of its photos.
        given: name -> flag and value, as :class:`ParseTrain` gives them; empty for a run that no
            command made.
    """

    run: Path
    photos: Path
    given: Mapping[str, tuple[str, Any]] = field(default_factory=dict)

    def source(self) -> Source:
        """The photos and tags as the run read them."""
        value = {name: _plain(value) for name, (_, value) in self.given.items()}
        own_val = "target" not in value  # else the list is of the target's photos
        excluded, separator = tuple(value.get("exclude") or ()), value.get("tag_separator")
        how = Reading(excluded, separator, allow_missing=1.0)  # who looks at them sees that
        return Source(
            self.photos,
            value.get("tags"),
            value.get("classes"),
            value.get("untagged") if self.given else "unknown",
            value.get("layout", "auto"),
            value.get("synsets"),
            _text(value.get("train_list")),
            _text(value.get("val")) if own_val else None,
            value.get("ground_truth"),
            how,
        )

    def again(self, review: Path) -> str:
        """The command that trains again in the same folder with a review; "" if none is known."""
        if not self.given:
            return ""
        words = ["tagseg", "train", str(self.photos)]
        for name, (flag, value) in self.given.items():
            if name not in _REPLACED:
                words += _as_words(flag, value)
        return shlex.join([*words, "--out", str(self.run), "--review", str(review)])


def recorded_command(
    work: Workspace, run: Path, photos: Path | None, parse: ParseTrain
) -> RecordedCommand:
    """The command of a run.

    Args:
        run: its folder as the user wrote it.
        photos: where its photos are; None to look for them.

    Raises DataError if the photos are not found.
    """
    words = _words(work.settings.get("command"))
    given = parse(words[1:]) if words[:1] == ["train"] else {}
    typed = given["photos"][1] if "photos" in given else None
    places = _places(run, given["out"][1] if "out" in given else None)
    folder = photos if photos is not None else _found(typed, places) or _remembered(run)
    if folder is None:
        name = f" (it was given {typed})" if typed is not None else ""
        raise DataError(
            f"the photos that it learned from are not found{name}",
            where=run,
            do="say where they are with --photos DIR",
        )
    near = [*places, folder, folder.absolute().parent]
    return RecordedCommand(run, folder, {k: _at_home(k, v, near) for k, v in given.items()})


def remember(run: Path, photos: Path) -> None:
    """Keep in the user's cache where a run's photos are, where that can be written."""
    place = _memory_of(run)
    with suppress(OSError, WorkspaceError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"run": str(run.absolute()), "photos": str(photos.absolute())})


def _remembered(run: Path) -> Path | None:
    try:
        folder = Path(read_json(_memory_of(run))["photos"])
    except (WorkspaceError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() else None


def _memory_of(run: Path) -> Path:
    name = blake2b(os.fsencode(run.absolute()), digest_size=16).hexdigest()
    return user_cache("photos-of-runs") / f"{name}.json"


def _words(command: object) -> list[str]:
    """The words behind ``tagseg``."""
    try:
        return shlex.split(command)[1:] if isinstance(command, str) else []
    except ValueError:
        return []


def _places(run: Path, out: Path | None) -> list[Path]:
    """Folders in which the command may have been given, the likeliest first."""
    here = run.absolute()
    found = [Path()]
    if out is not None and not out.is_absolute():
        parts = Path(os.path.normpath(out)).parts
        if parts and here.parts[-len(parts) :] == parts:
            found.insert(0, here.parents[len(parts) - 1])
    return [*found, here.parent]


def _found(path: Path | None, places: Sequence[Path]) -> Path | None:
    if path is None:
        return None
    tried = (place / path for place in places)
    return next((place for place in tried if place.exists()), None)


def _at_home(name: str, given: tuple[str, Any], places: Sequence[Path]) -> tuple[str, Any]:
    """A thing that was given, its file where it is found, or else as it was written."""
    flag, value = given
    is_file = isinstance(value, Path) or (name in _LISTS and Path(value).suffix)
    if not is_file:
        return given
    found = _found(Path(value), places)
    return flag, value if found is None else found


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _as_words(flag: str, value: Any) -> Iterator[str]:
    if value is True:
        yield flag
    elif isinstance(value, list | tuple):
        for each in value:
            yield from (flag, str(_plain(each)))
    elif value is not None and value is not False:
        yield from (flag, str(_plain(value)))
