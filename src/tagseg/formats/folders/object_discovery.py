"""MIT Object Discovery (Rubinstein et al. 2013): three classes of photos from the web.

A folder per class, ``Airplane``, ``Car`` and ``Horse`` for the full set, or ``Airplane100``,
``Car100`` and ``Horse100`` for the 100-image subset, each with photos and a folder
``GroundTruth`` of binary masks, which is none of this module's business. All of them may lie in a
folder ``Data``. Photos keep their folder in their name: ``Airplane100/0001``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tagseg.errors import DataError
from tagseg.formats.tags.tag_files import TagRow

__all__ = [
    "CLASSES",
    "MASKS",
    "class_folders",
    "folder_of_classes",
    "is_object_discovery",
    "rows_of_object_discovery",
    "which_set",
]

CLASSES = ("Airplane", "Car", "Horse")
MASKS = "GroundTruth"
_SUBSET = "100"


def is_object_discovery(folder: Path) -> bool:
    """Whether ``folder`` looks like Object Discovery: a class's folder, and masks in it."""
    return any((place / MASKS).is_dir() for place in class_folders(folder))


def folder_of_classes(folder: Path) -> Path:
    """Where the classes' folders lie: in ``folder`` or in its ``Data``."""
    inner = folder / "Data"
    return inner if inner.is_dir() else folder


def class_folders(folder: Path, *, subset: bool | None = None) -> dict[Path, str]:
    """Folder -> class of the full set, of the 100-image subset, or of both for None."""
    ends = {None: ("", _SUBSET), False: ("",), True: (_SUBSET,)}[subset]
    home = folder_of_classes(folder)
    found = {home / f"{name}{end}": name for end in ends for name in CLASSES}
    return {place: name for place, name in found.items() if place.is_dir()}


def which_set(folder: Path) -> bool:
    """Whether the subset is here, not the full set; DataError if both are."""
    has_full, has_subset = (bool(class_folders(folder, subset=s)) for s in (False, True))
    if has_full and has_subset:
        raise DataError(
            "holds the full set and the 100-image subset",
            where=folder_of_classes(folder),
            do="choose with the layout object_discovery or object_discovery_100",
        )
    return has_subset


def rows_of_object_discovery(names: Iterable[str]) -> tuple[TagRow, ...]:
    """Tag each photo ``Airplane100/0001`` with ``Airplane``."""
    return tuple(TagRow(n, (n.split("/")[0].removesuffix(_SUBSET),), n) for n in names)
