"""The photos in a folder: its pictures but masks, what tagseg wrote, and what the user excludes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tagseg.data.finding import OUTPUT_MARKER, Listing, is_output, list_pictures, named
from tagseg.data.paths import renamed
from tagseg.errors import DataError
from tagseg.formats.folders.exclusion import NOTHING, Exclusion
from tagseg.formats.folders.mask_evidence import tell_masks

__all__ = ["PhotoFiles", "choose_photos", "find_photo_files", "refuse_output"]


@dataclass(frozen=True)
class PhotoFiles:
    """Photos by name, and what was left out.

    Attributes:
        photos: name (relative posix path without suffix) -> file, sorted.
        left_out: reason -> number of pictures.
        notes: what should be said, a line each.
        doubt: to be raised where nothing else tells photos and masks apart.
    """

    photos: Mapping[str, Path]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubt: DataError | None = None


def find_photo_files(folder: Path) -> PhotoFiles:
    """The photos under ``folder``, as the user said nothing of them.

    Raises DataError if there is no such folder or tagseg wrote it, if two photos differ only in
    their suffix, and if it cannot be told whether pictures are masks or photos.
    """
    refuse_output(folder)
    found = choose_photos(list_pictures(folder))
    if found.doubt is not None:
        raise found.doubt
    return found


def choose_photos(
    found: Listing, exclusion: Exclusion = NOTHING, *, prefix: str = ""
) -> PhotoFiles:
    """The photos among pictures.

    Args:
        exclusion: what the user said, of paths that begin with ``prefix``.
        prefix: where the listed folder lies in the one that the user gave, ``JPEGImages/``.

    Raises DataError if two photos differ only in their suffix.
    """
    files, left_out = found.files, dict(found.left_out)
    if all(exclusion.is_mask(prefix + path) for path in files):
        exclusion = replace(exclusion, masks=())  # the photos' own folder, which is no such folder
    wanted = renamed(files, ((p, p) for p in files if not exclusion.drops(prefix + p)))
    idle = exclusion.idle(prefix + path for path in files)
    notes = [f"--exclude '{pattern}' matches no picture" for pattern in idle]
    if len(wanted) < len(files):
        left_out["excluded by a flag"] = len(files) - len(wanted)
    masks, more, doubt = tell_masks(wanted, is_kept=lambda path: exclusion.keeps(prefix + path))
    if masks:
        left_out["masks"] = len(masks)
    photos = named(renamed(wanted, ((p, p) for p in wanted if p not in masks)) if masks else wanted)
    return PhotoFiles(photos, left_out, (*_left_out(left_out, masks), *notes, *more), doubt)


def refuse_output(folder: Path) -> None:
    """Raise DataError for the folder of a run, or one that ``tagseg predict`` wrote."""
    if folder.is_dir() and is_output(folder):
        raise DataError(
            "tagseg wrote this folder: its pictures are results, no photos",
            where=folder,
            do=f"give the folder of the photos (or remove {OUTPUT_MARKER}, if these are)",
        )


def _left_out(counts: dict[str, int], masks: dict[str, str]) -> Iterator[str]:
    """A line for each reason."""
    for reason, number in counts.items():
        pictures = f"{number} picture{'s' if number > 1 else ''}"
        if reason != "masks":
            yield f"left out: {pictures} {reason}"
            continue
        mask, photo = next((pair for pair in masks.items() if pair[1]), (next(iter(masks)), ""))
        beside = f" beside {photo}" if photo else ""
        yield (
            f"left out: {pictures} as masks, such as {mask}{beside} "
            "(--ground-truth DIR scores with masks)"
        )
