"""The photos of a folder, as the pages show them: by number, in columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagseg.data.finding import without_suffix
from tagseg.data.paths import Paths
from tagseg.errors import DataError, TagError, first_few
from tagseg.formats.folders.exclusion import NOTHING, parse_patterns
from tagseg.formats.folders.layouts import Place, find_photos_and_tags
from tagseg.formats.tags.voc import is_voc
from tagseg.tar_members import real_path

__all__ = ["JOURNAL", "TAGS", "PhotoFolder", "open_folder", "within"]

TAGS = "tags.csv"
JOURNAL = "tags.journal"

_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$|^\ufeff")  # what readers of tables take off


@dataclass(frozen=True)
class PhotoFolder:
    """Photos in a folder.

    Attributes:
        home: the folder that was given, where the tags are kept.
        root: where photos' names begin: ``home``, or a folder of all photos in it.
        names: of the photos, sorted.
        written: what a tag file calls them: their paths from ``root``.
        paths: their files.
        place: the same as the readers of tags know it.
        notes: what should be said of the folder, a line each.
    """

    home: Path
    root: Path
    names: Sequence[str]
    written: Sequence[str]
    paths: Paths
    place: Place
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def file(self, photo: int) -> Path:
        """The photo's file, links resolved.

        Raises DataError if that is not there, or does not lie in the photos' folder.
        """
        return within(self.home, self.paths[photo], self.names[photo])


def within(home: Path, path: Path, name: str) -> Path:
    """The file ``path``, links resolved.

    Args:
        home: the folder that it must lie in.
        name: of the photo, for messages, which tell nothing of folders.

    Raises DataError if it is gone, or lies elsewhere.
    """
    try:
        real = real_path(path)
    except (OSError, RuntimeError):
        raise DataError("the file is gone", where=name) from None
    if not real.is_relative_to(home.resolve()):
        raise DataError(
            "is a link that leads out of the photos' folder, and is not shown",
            where=name,
            do="put the file itself there",
        )
    return real


def open_folder(folder: Path, exclude: Sequence[str] = ()) -> PhotoFolder:
    """The photos in ``folder``; its folders' names are no tags.

    Raises DataError if there is no such folder or no photo in it, TagError if the tags of its
    layout could not come from a tag file.
    """
    exclusion = parse_patterns(exclude) if exclude else NOTHING
    place, _ = find_photos_and_tags(folder, None, "csv", None, exclusion)
    if is_voc(folder):
        raise TagError(
            "is laid out as VOC, whose Annotations tell the tags",
            where=folder,
            do=f"give {folder / 'JPEGImages'}, the folder of the photos alone",
        )
    root = place.photo_folder
    fit: dict[str, str] = {}
    odd: list[str] = []
    for name, path in place.photos.items():
        written = name + path.suffix
        good = _UNWRITABLE.search(written) is None and without_suffix(written) == name
        if good and place.name_of(written) == name:
            fit[name] = written
        else:
            odd.append(name)
    if not fit:
        raise DataError(
            "no photo has a name that a tag file can hold", where=root, do="rename them"
        )
    notes = [*place.notes]
    if odd:
        notes.append(
            f"left out: {len(odd)} photos with names that a tag file cannot hold (spaces at the "
            f"ends, line ends): {first_few(odd)}; rename them"
        )
    paths = Paths(place.photos[name] for name in fit)
    return PhotoFolder(folder, root, tuple(fit), tuple(fit.values()), paths, place, tuple(notes))
