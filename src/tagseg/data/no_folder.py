"""What to say where a folder of photos is expected and something else was given."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from tagseg.data.finding import PHOTO_SUFFIXES
from tagseg.errors import DataError

__all__ = ["near_folder", "no_folder"]

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_TAG_FILES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".txt", ".xlsx", ".parquet")


def no_folder(path: Path) -> DataError:
    """The error for a ``path`` that is no folder, with what would help."""
    text = str(path)
    if "://" in text or text.startswith(("http:/", "https:/", "s3:/", "gs:/")):
        return DataError(
            "this is an address, and photos are read from folders",
            where=path,
            do="download them, and give the folder",
        )
    if path.is_file():
        return _of_file(path)
    near = near_folder(path)
    hint = f"; did you mean {near}?" if near is not None else ""
    return DataError("this folder does not exist", where=path, do=f"check the path{hint}")


def _of_file(path: Path) -> DataError:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        what, advice = "this is an archive", "give the folder that it lies in, where tars are read"
    elif suffix in _ARCHIVES:
        what, advice = "this is an archive", "unpack it, and give the folder"
    elif suffix in _TAG_FILES:
        what, advice = "this is a file", "give the folder of the photos, and this file with --tags"
    elif suffix in PHOTO_SUFFIXES:
        what, advice = "this is one file", "give the folder of the photos"
    else:
        what, advice = "this is a file", "give the folder of the photos"
    return DataError(f"{what}, not a folder of photos", where=path, do=advice)


def near_folder(path: Path) -> Path | None:
    """The folder beside ``path`` that is called much like it, if one is."""
    try:
        beside = {f.name.casefold(): f for f in path.absolute().parent.iterdir() if f.is_dir()}
    except OSError:
        return None
    found = get_close_matches(path.name.casefold(), beside, 1, 0.7)
    return path.parent / beside[found[0]].name if found else None
