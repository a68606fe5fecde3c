"""Photos in tar shards with WebDataset's naming: which tars there are, and which splits.

What a photo is called, and which members are photos, is :mod:`tagseg.data.tar_pictures`'s business;
what samples say of tags, :mod:`tagseg.formats.tags.samples`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from tagseg.data.finding import Listing, advice_without_photos, visible_folders
from tagseg.data.tar_pictures import compressed_tars, is_tar, pictures_in, tars_of
from tagseg.errors import DataError
from tagseg.formats.folders.photo_tree import kind_of_split
from tagseg.formats.tags.samples import ENDINGS
from tagseg.tar_members import members_of

__all__ = ["WEBDATASET", "has_sample_tags", "list_samples", "splits_of_tars"]

WEBDATASET: Final[Literal["webdataset"]] = "webdataset"

_NUMBER = re.compile(r"[-_.]?\d+(?:[-_.]of[-_.]\d+)?$")
_FIRST = 100  # members of a tar that are looked at for tags


def list_samples(folder: Path) -> Listing:
    """The photos in all tars under ``folder``, whatever else lies there.

    Raises DataError if there are no tars, if some are compressed, and for tars of no use.
    """
    tars, compressed = list[Path](), list[Path]()
    for place, names in visible_folders(folder):
        tars += [place / name for name in sorted(names) if is_tar(name)]
        compressed += [place / name for name in compressed_tars(names)]
    if compressed or not tars:
        what = "is a compressed tar" if compressed else "no tars in this folder"
        where = compressed[0] if compressed else folder
        raise DataError(what, where=where, do=advice_without_photos(folder))
    found = pictures_in(tars, folder)
    return Listing(found.files, found.left_out)


def has_sample_tags(photos: Mapping[str, Path]) -> bool:
    """Whether photos lie in tars, of which one begins with members that may tell tags."""
    return any(
        name.lower().endswith(ENDINGS)
        for tar in tars_of(photos.values())
        for _, name in zip(range(_FIRST), members_of(tar), strict=False)
    )


def splits_of_tars(photos: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Split -> its photos, if all tars are called as splits: ``imagenet-train-000000.tar``.

    Empty if they are not, or if photos lie in files as ever.
    """
    kinds = {tar: _kind_of(tar) for tar in tars_of(photos.values())}
    if not kinds or None in kinds.values():
        return {}
    found: dict[str, list[str]] = {}
    for name, tar in zip(photos, _tar_of_each(photos, kinds), strict=True):
        found.setdefault(str(kinds[tar]), []).append(name)
    return {split: tuple(names) for split, names in found.items()}


def _tar_of_each(photos: Mapping[str, Path], tars: Mapping[str, str | None]) -> Iterator[str]:
    for path in photos.values():
        text = str(path.parent)
        while text not in tars:
            text = text.rpartition("/")[0]
        yield text


def _kind_of(tar: str) -> str | None:
    """The last word of a tar's name without its number, if a split is called so."""
    stem = _NUMBER.sub("", Path(tar).stem)
    word = re.split(r"[-_. ]", stem)[-1]
    return word if kind_of_split(word) is not None else None
