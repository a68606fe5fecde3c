"""The command that a run was made with: where its photos lie, and how the run is continued.

A run keeps where its files and folders lie, for this alone, and the words of its command, which its
report shows: so of absolute paths only the last part. Files that are not there any more are looked
for where the command may have meant them, and where the photos were that somebody named before,
which is remembered in the user's cache.
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
from tagseg.data.dataset import Dataset
from tagseg.errors import DataError, WorkspaceError
from tagseg.formats.loading import Reading
from tagseg.run.files import read_json, write_json
from tagseg.run.workspace import Workspace
from tagseg.session.inputs import Source

__all__ = [
    "ParseTrain",
    "RecordedCommand",
    "files_of",
    "origin_of",
    "recorded_command",
    "remember",
]

_NAMED_OR_FILES = ("val", "train_list", "weights")  # the name of a list or of weights, or a file
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
        tags: the tag file that it was given, if that is still there.
    """

    run: Path
    photos: Path
    given: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    tags: Path | None = None

    def source(self) -> Source:
        """The photos and tags as the run read them."""
        value = {name: _plain(value) for name, (_, value) in self.given.items()}
        own_val = "target" not in value  # else the list is of the target's photos
        excluded, separator = tuple(value.get("exclude") or ()), value.get("tag_separator")
        frames = value.get("frames_per_class")
        # Who looks at them sees what is missing.
        how = Reading(excluded, separator, allow_missing=1.0, frames_per_class=frames)
        return Source(
            self.photos,
            value.get("tags", self.tags),
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
    kept = _kept_files(work)
    there = {name: path for name, path in kept.items() if path.exists()}
    if photos is None:
        photos = there.get("photos") or _found(typed, places) or _remembered(run)
    if photos is None:
        was = kept.get("photos", typed)
        raise DataError(
            f"the photos that it learned from are not found{f' (they were {was})' if was else ''}",
            where=run,
            do="say where they are with --photos DIR",
        )
    near = [*places, photos, photos.absolute().parent]
    found = {k: _at_home(k, v, near, there.get(k)) for k, v in given.items()}
    return RecordedCommand(run, photos, found, there.get("tags"))


def files_of(given: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Where the files and folders lie that a command is given, but for that of the run itself.

    Args:
        given: as :class:`ParseTrain` gives it.

    Returns:
        Name of what is given -> absolute path, links resolved; for a run to keep.
    """
    files = {k: Path(v) for k, (_, v) in given.items() if k != "out" and _may_be_file(k, v)}
    return {name: str(path.resolve()) for name, path in files.items() if path.exists()}


def origin_of(photos: Dataset) -> dict[str, str]:
    """Where photos and tags were read, as :func:`files_of` has it; nothing for arrays."""
    origin = photos.origin._asdict() if photos.origin is not None else {}
    return {name: str(path.resolve()) for name, path in origin.items() if path is not None}


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


def _kept_files(work: Workspace) -> dict[str, Path]:
    """What :func:`files_of` and :func:`origin_of` found for the run; of an older one nothing."""
    files = work.settings.get("files")
    if not isinstance(files, dict):
        return {}
    return {name: Path(path) for name, path in files.items() if isinstance(path, str)}


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


def _at_home(
    name: str, given: tuple[str, Any], places: Sequence[Path], kept: Path | None
) -> tuple[str, Any]:
    """A thing that was given, its file where it is found, or else as it was written."""
    flag, value = given
    if not _may_be_file(name, value):
        return given
    found = kept or _found(Path(value), places)
    return flag, value if found is None else found


def _may_be_file(name: str, value: Any) -> bool:
    return isinstance(value, Path) or (name in _NAMED_OR_FILES and bool(Path(value).suffix))


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
