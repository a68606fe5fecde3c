"""Folders of masks as tools write them: where the masks lie, and which mask is whose photo's."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from tagseg.data.finding import find_masks, visible_folders
from tagseg.data.images import decode_photo
from tagseg.errors import ImageError, MaskError

__all__ = ["find_truth", "list_beside", "match_names"]

_LISTS = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "_classes.csv")
_INNER = "SegmentationClass"
_DRAWN_COLOURS = 12  # of 512
_ENDINGS = (
    *("_mask", "-mask", ".mask", " mask", "_masks", "_m", "_label", "_labels", "-label", ".label"),
    *("_gt", "-gt", "_seg", "-seg", "_segmentation", "_segmask", "_annotation", "_annotations"),
    *("_labelids", "_gtfine_labelids", "_l", "_p", "_train_id", "_semantic", "_labeltrainids"),
    *(".jpg", ".jpeg", ".png", ".tif", "_pixels", "_color_mask", "_colour_mask"),
)
_BEGINNINGS = ("mask_", "mask-", "label_", "gt_", "seg_")


def find_truth(folder: Path) -> tuple[Path, Mapping[str, Path]]:
    """The folder that the masks lie in, and the masks by name.

    ``folder`` itself, or its ``SegmentationClass``, as exports in VOC's layout have it. Raises
    MaskError if there are none.
    """
    if not folder.is_dir():
        raise MaskError("this folder does not exist", where=folder, do="check the path")
    home = folder / _INNER if (folder / _INNER).is_dir() else folder
    found = find_masks(home)
    if not found:
        jpegs = _jpegs(home)
        if jpegs and _looks_drawn(jpegs[0]):
            raise MaskError(
                f"no masks in this folder, but {len(jpegs)} JPEG files, and JPEG changes class ids",
                where=folder,
                do="save the masks as PNG",
            )
        raise MaskError("no masks in this folder", where=folder, do="give the folder of masks")
    return home, found


def list_beside(home: Path) -> Path | None:
    """The list of colours or numbers that a tool has written into a folder of masks or beside it.

    Folders in it may have one each, which must be equal: else MaskError.
    """
    for name in _LISTS:
        files = [place / name for place in (home, home.parent) if (place / name).is_file()]
        below = sorted(home.glob(f"*/{name}"))
        if not files and len({file.read_bytes() for file in below}) > 1:
            raise MaskError(
                f"the files {name} in its folders differ", where=home, do="give --colours FILE"
            )
        if files or below:
            return [*files, *below][0]
    return None


def match_names(masks: Collection[str], photos: Collection[str]) -> tuple[dict[str, str], str]:
    """photo -> mask, for the photos that have one, and how the names were matched, if not plainly.

    Names are the same, or a mask's has an ending (``_mask``) or beginning more, or the folders
    differ; the way that matches most photos counts, and of equals the first. ``x_mask`` is taken
    before ``x``, which then is the photo itself in a folder of both.
    """
    ways: list[tuple[str, Callable[[str], str | None]]] = [("", lambda name: name)]
    stems = {name.rsplit("/", 1)[-1] for name in masks}
    for ending in _ENDINGS:
        if any(stem.lower().endswith(ending) for stem in stems):
            ways.append((f"named x{ending} for photo x", _without_ending(ending)))
    for beginning in _BEGINNINGS:
        if any(stem.lower().startswith(beginning) for stem in stems):
            ways.append((f"named {beginning}x for photo x", _without_beginning(beginning)))
    of_photo = set(photos)
    tried = [(said, *_matched(masks, of_photo, key)) for said, key in ways]
    return _best(tried)


def _best(tried: list[tuple[str, dict[str, str], dict[str, str]]]) -> tuple[dict[str, str], str]:
    """The way with the most matches; folders may differ only where nothing else matches."""
    plain = tried[0][1]
    said, found, _ = max(tried, key=lambda way: len(way[1]))
    for other, by_name, _ in tried[1:]:
        if by_name and len(by_name) == len(found):  # x_mask beside the photo x
            return by_name, other
    if found:
        return (plain, "") if len(plain) == len(found) else (found, said)
    said, _, found = max(tried, key=lambda way: len(way[2]))
    if not found:
        return {}, ""
    return found, ", ".join(filter(None, (said, "in other folders than their photos")))


def _matched(
    masks: Iterable[str], photos: set[str], key: Callable[[str], str | None]
) -> tuple[dict[str, str], dict[str, str]]:
    """photo -> mask by whole names, and by last parts of names where these are unique."""
    whole: dict[str, str] = {}
    last: dict[str, str] = {}
    twice: set[str] = set()
    for mask in masks:
        name = key(mask)
        if name is None or (mask in photos and name != mask):
            continue
        if name in photos:
            whole[name] = mask
        end = name.rsplit("/", 1)[-1]
        twice |= {end} & last.keys()
        last[end] = mask
    by_end: dict[str, list[str]] = {}
    for photo in photos:
        by_end.setdefault(photo.rsplit("/", 1)[-1], []).append(photo)
    unique = {end: mask for end, mask in last.items() if end not in twice}
    return whole, {
        by_end[end][0]: mask for end, mask in unique.items() if len(by_end.get(end, ())) == 1
    }


def _without_ending(ending: str) -> Callable[[str], str | None]:
    return lambda name: name[: -len(ending)] if name.lower().endswith(ending) else None


def _without_beginning(beginning: str) -> Callable[[str], str | None]:
    def key(name: str) -> str | None:
        folder, slash, stem = name.rpartition("/")
        begins = stem.lower().startswith(beginning)
        return f"{folder}{slash}{stem[len(beginning) :]}" if begins else None

    return key


def _jpegs(folder: Path) -> list[Path]:
    return [
        place / name
        for place, names in visible_folders(folder)
        for name in sorted(names)
        if os.path.splitext(name)[1].lower() in (".jpg", ".jpeg", ".jpe")
    ]


def _looks_drawn(path: Path) -> bool:
    """Whether a picture has areas of few colours, which JPEG blurs only a little."""
    try:
        coarse = decode_photo(path) >> 5
    except ImageError:
        return False
    return len(np.unique(coarse.reshape(-1, 3), axis=0)) <= _DRAWN_COLOURS
