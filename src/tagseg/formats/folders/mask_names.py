"""Which pictures' names say that they may be masks of others; nothing is read.

A name hints at a mask in four ways, each with a partner, the photo that it may be a mask of:

- ``affix``: ``x_mask.png`` or ``seg_x.png``, for ``x.jpg``;
- ``folder``: ``masks/x.png`` or ``gtFine/train/x_gtFine_labelIds.png``, for ``images/x.jpg``;
- ``twin``: ``x.png``, beside ``x.jpg``;
- ``mirror``: ``out/cat/x.png``, for ``cat/x.jpg``.

``overlay``, in affix or folder, is a photo with a mask painted over it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from glob import escape
from typing import Literal, NamedTuple

__all__ = ["Hint", "MaskName", "mask_names"]

Hint = Literal["affix", "folder", "twin", "mirror", "overlay"]

_WORDS = (
    "masks?|labels?|labell?ed|lbl|seg|segm|segs|segmentations?|segmim|gt|ground[ _-]?truth|truth|"
    "annotations?|annots?|anno|ann|trimaps?|mattes?|label[ _-]?ids|label[ _-]?train[ _-]?ids|"
    "instance[ _-]?ids|gt[ _-]?fine|gt[ _-]?coarse|manual|parts"
)
_OVERLAYS = "overlays?|overlaid|visuali[sz]ations?|viz|blend(?:ed)?"
_COLOURS = "colou?rs?|l|polygons?"  # of masks, and of much else: behind such a word, or in a folder
_PHOTO_WORDS = "images?|imgs?|photos?|pictures?|pics?|left[ _-]?img[ _-]?8bit|sat|training|test"
_BREAK = r"[ _.\-()\[\]]"
_FOLDER = re.compile(
    rf"(?:^|{_BREAK}|[0-9])(?:{_WORDS})(?:$|{_BREAK}|[0-9])"
    r"|(?:masks?|annots?|labels|labelids|groundtruth)$",
    re.IGNORECASE,
)
_OVERLAY_FOLDER = re.compile(rf"(?:^|{_BREAK})(?:{_OVERLAYS})(?:$|{_BREAK})", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LOSSLESS = frozenset((".png", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"))


class MaskName(NamedTuple):
    """A picture whose name hints at a mask.

    Attributes:
        path: relative, with the suffix.
        hint: how its name tells.
        group: what it shares with others of its kind in its folder.
        pattern: one for ``--exclude`` that matches it and all of its kind.
        partner: path of the photo that it may be a mask of; None if there is none.
    """

    path: str
    hint: Hint
    group: str
    pattern: str
    partner: str | None


def mask_names(paths: Iterable[str]) -> list[MaskName]:
    """The pictures, of all in a folder, that may be masks by their names. Of twins, both may."""
    pictures = [_Picture.of(path) for path in paths]
    by_words = list(_by_words(pictures))
    found = {name.path for name in by_words}
    return by_words + list(_by_places([p for p in pictures if p.path not in found]))


class _Picture(NamedTuple):
    path: str
    folders: tuple[str, ...]
    stem: str
    suffix: str
    affix: tuple[Hint, str] | None  # of which kind, and as a pattern

    @classmethod
    def of(cls, path: str) -> _Picture:
        *folders, file = path.split("/")
        end = file.rfind(".")
        return cls(path, tuple(folders), file[:end], file[end:].lower(), _affix(file[:end]))


def _affix_expressions(words: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A stem with one of the words behind it or before it."""
    behind = rf"(?:[ _.\-(\[]+(?:{words})|(?<=[a-z0-9])(?-i:Masks?|Labels?|Seg|GT))"
    return (
        re.compile(rf"(?P<base>.+?)(?P<affix>{behind}{_BREAK}*\d*{_BREAK}*)$", re.IGNORECASE),
        re.compile(rf"(?P<affix>(?:{words})\d*{_BREAK}+)(?P<base>.+)$", re.IGNORECASE),
    )


_MASK_AFFIXES = _affix_expressions(_WORDS)
_OVERLAY_AFFIXES = _affix_expressions(_OVERLAYS)
_ANY_AFFIXES = _affix_expressions(f"{_WORDS}|{_COLOURS}|{_OVERLAYS}")
_PHOTO_AFFIXES = _affix_expressions(_PHOTO_WORDS)
_ENDS = re.compile(rf"(?:{_BREAK}|\d)+$")
_MAYBE = re.compile(f"{_WORDS}|{_OVERLAYS}", re.IGNORECASE)  # quick: most names hold no word


def _affix(stem: str) -> tuple[Hint, str] | None:
    if not _MAYBE.search(stem):
        return None
    kinds: tuple[tuple[Hint, tuple[re.Pattern[str], ...]], ...]
    kinds = (("affix", _MASK_AFFIXES), ("overlay", _OVERLAY_AFFIXES))
    for hint, expressions in kinds:
        for pattern, expression in zip(("*{}*", "{}*"), expressions, strict=True):
            found = expression.match(stem)
            if found:
                return hint, pattern.format(escape(_ENDS.sub("", found["affix"])))
    return None


@cache
def _mask_folder(folders: tuple[str, ...]) -> tuple[Hint, int] | None:
    """The place of the first folder that is called as one of masks, or of overlays."""
    for place, folder in enumerate(folders):
        parted = _CAMEL.sub("_", folder)
        if _FOLDER.search(parted) or _FOLDER.search(folder):
            return "folder", place
        if _OVERLAY_FOLDER.search(parted):
            return "overlay", place
    return None


def _bases(stem: str, expressions: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """The stem, and what is left of it without one affix, two, ..."""
    yield stem
    for expression in expressions:
        found = expression.match(stem)
        if found:
            yield from _bases(found["base"], expressions)


def _keys_of_photo(picture: _Picture) -> list[str]:
    keys = (picture.stem + picture.suffix, *_bases(picture.stem, _PHOTO_AFFIXES))
    return [key.casefold() for key in keys]


def _keys_of_mask(picture: _Picture) -> list[str]:
    bases = dict.fromkeys(_bases(picture.stem, _ANY_AFFIXES))
    keys = dict.fromkeys(key for base in bases for key in _bases(base, _PHOTO_AFFIXES))
    return [key.casefold() for key in keys]


class _Photos:
    """Photos by key, and by the last folders that they lie in."""

    def __init__(
        self, photos: Iterable[_Picture], keys: Callable[[_Picture], Iterable[str]]
    ) -> None:
        self._found: dict[tuple[str, tuple[str, ...]], list[_Picture]] = defaultdict(list)
        for photo in photos:
            ends = _ends(photo.folders)
            for key in dict.fromkeys(keys(photo)):
                for end in ends:
                    self._found[key, end].append(photo)

    def find(
        self,
        keys: Sequence[str],
        ends: Iterable[tuple[str, ...]],
        fits: Callable[[_Picture], bool],
    ) -> str | None:
        """The first photo of one of the keys, in folders of the first of the ends that has one."""
        listed = (self._found.get((key, end), ()) for end in ends for key in keys)
        return next((photo.path for some in listed for photo in some if fits(photo)), None)


def _ends(folders: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The last folders: all, all but the first, ..., none."""
    return [folders[i:] for i in range(len(folders) + 1)]


def _by_words(pictures: list[_Picture]) -> Iterator[MaskName]:
    hinted = [p for p in pictures if p.affix is not None or _mask_folder(p.folders) is not None]
    if not hinted:
        return
    photos = _Photos((p for p in pictures if p.affix is None), _keys_of_photo)
    for mask in hinted:
        keys, folder = _keys_of_mask(mask), _mask_folder(mask.folders)
        if mask.affix is not None:
            hint, pattern = mask.affix
            partner = photos.find(keys[1:], _ends(mask.folders), lambda photo: True)
            if partner is not None or folder is None:
                group = "/".join((*mask.folders, pattern))
                yield MaskName(mask.path, hint, group, pattern, partner)
                continue
        if folder is not None:
            hint, place = folder
            ends = _ends(mask.folders[place + 1 :])
            partner = photos.find(keys, ends, _beside(mask.folders, place))
            pattern = escape("/".join(mask.folders[: place + 1]))
            yield MaskName(mask.path, hint, "/".join((*mask.folders, "*")), pattern, partner)


def _beside(folders: tuple[str, ...], place: int) -> Callable[[_Picture], bool]:
    """Whether a photo lies where the folder of masks does, but not in it."""
    home, own = folders[:place], folders[: place + 1]
    return lambda photo: photo.folders[:place] == home and photo.folders[: place + 1] != own


def _by_places(pictures: list[_Picture]) -> Iterator[MaskName]:
    """Twins, and pictures of the name of one in another folder; lossless ones alone."""
    lossless = [picture for picture in pictures if picture.suffix in _LOSSLESS]
    if not lossless:
        return
    photos = _Photos(pictures, lambda picture: [picture.stem, picture.stem + picture.suffix])
    for picture in lossless:
        ending = picture.path[-len(picture.suffix) :]  # in its own case of letters
        group = "/".join((*map(escape, picture.folders), f"*{ending}"))
        twin = photos.find([picture.stem], [picture.folders], _twin_of(picture))
        if twin is not None:
            yield MaskName(picture.path, "twin", group, group, twin)
            continue
        other = photos.find([picture.stem], _ends(picture.folders)[1:], _elsewhere(picture))
        if other is not None:
            yield MaskName(picture.path, "mirror", group, group, other)


def _twin_of(picture: _Picture) -> Callable[[_Picture], bool]:
    return lambda photo: photo.folders == picture.folders and photo.path != picture.path


def _elsewhere(picture: _Picture) -> Callable[[_Picture], bool]:
    return lambda photo: photo.folders != picture.folders
