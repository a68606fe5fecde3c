"""Which pictures in a folder are masks, by what shows: names, partners, sizes and pixels.

Only pictures whose names hint at a mask (:mod:`tagseg.formats.folders.mask_names`) are opened, and
of many with one kind of name, some: if these agree, they speak for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.masks import voc_palette
from tagseg.data.pictures import MAX_PIXELS, decode_picture, read_bytes
from tagseg.errors import DataError, ImageError
from tagseg.formats.folders.mask_names import MaskName, mask_names

__all__ = ["Evidence", "tell_masks"]

_SAMPLES = 12  # of a group of names, that speak for it if they agree
_ALL_SAMPLES = 240  # of all groups, but two of each at least
_MOST_ROWS = 256  # of a picture that are looked at
_FEW = 16  # values: a mask of so few, whatever its shape
_SEVERAL = 64  # values that nearly all pixels have, if the picture is flat, too
_SAME_RATIO = 0.02  # of width to height; masks are at times of another scale
_REPEATED = 0.9  # of a folder's names that others have, too
_GREY = 12  # largest difference of R, G and B in what counts as grey
_LOSSY = ("JPEG", "MPO", "WEBP")


class Evidence(NamedTuple):
    """What :func:`tell_masks` found.

    Attributes:
        masks: path -> path of the photo that it belongs to, "" if that is not known.
        notes: what else should be said, a line each.
        doubt: the first case, with the flags that decide it, in which names say mask and pixels
            leave it open; such pictures are not among the masks.
    """

    masks: dict[str, str]
    notes: tuple[str, ...]
    doubt: DataError | None


def tell_masks(files: Mapping[str, Path], *, is_kept: Callable[[str], bool]) -> Evidence:
    """The masks among pictures.

    Args:
        files: relative path with suffix -> file.
        is_kept: whether the user said that a path is no mask.
    """
    groups = _groups(name for name in mask_names(files) if not is_kept(name.path))
    judge = _Judge(files, len(groups))
    masks: dict[str, str] = {}
    notes, doubts = [], []
    for names in groups:
        verdicts = judge.of_group(names)
        unclear = [name for name in names if verdicts[name.path] is Verdict.UNCLEAR]
        if unclear:
            doubts.append(_both_readings(unclear))
        masks |= {n.path: n.partner or "" for n in names if verdicts[n.path] is Verdict.MASK}
        kept = [n for n in names if verdicts[n.path] is Verdict.PHOTO]
        if kept and kept[0].hint == "affix" and kept[0].partner and _same_folder(kept[0]):
            notes.append(
                f"taken as photos, though called as masks of others: {_pictures(len(kept))}, "
                f"such as {kept[0].path} beside {kept[0].partner}; "
                f"--exclude '{kept[0].pattern}' leaves them out"
            )
    doubts += _repetitions([path for path in files if path not in masks and not is_kept(path)])
    return Evidence(masks, tuple(notes), next(iter(doubts), None))


class Verdict(Enum):
    """What a picture is."""

    MASK = "mask"
    PHOTO = "photo"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Look:
    """What the pixels of a picture show.

    Attributes:
        size: width and height.
        few: nearly all pixels have one of a few values, in patches.
        exact: there are very few values, without exception.
        coloured: not grey.
        palette: pixels are numbers of colours; voc: of those of VOC's palette.
    """

    size: tuple[int, int]
    few: bool
    exact: bool
    coloured: bool
    palette: bool
    voc: bool


def _groups(names: Iterable[MaskName]) -> list[list[MaskName]]:
    groups: dict[tuple[str, str, bool], list[MaskName]] = defaultdict(list)
    for name in names:
        groups[name.group, name.hint, name.partner is not None].append(name)
    # Those with a partner first: they tell what the others of their folder are.
    ordered = sorted(groups.items(), key=lambda item: (not item[0][2], item[0][:2]))
    return [found for _, found in ordered]


class _Judge:
    """Opens what must be opened, each picture once."""

    def __init__(self, files: Mapping[str, Path], n_groups: int) -> None:
        self._files = files
        self._samples = min(_SAMPLES, max(2, _ALL_SAMPLES // max(1, n_groups)))
        self._masks: set[tuple[str, str]] = set()  # groups that are known to be of masks
        self._photos_are_few: bool | None = None
        self._look = cache(self._looked)

    def of_group(self, names: Sequence[MaskName]) -> dict[str, Verdict]:
        """The verdict on each, by path; a sample that agrees decides."""
        some = [names[i] for i in _spread(len(names), self._samples)]
        if names[0].hint == "mirror" and self._of(some[0]) is not Verdict.MASK:
            some = some[:1]  # two folders with photos of one name are nothing rare
        found = [verdict for name in some if (verdict := self._of(name)) is not None]
        if len(set(found)) == 1:
            verdicts = dict.fromkeys((name.path for name in names), found[0])
        else:
            verdicts = {name.path: self._of(name) or Verdict.PHOTO for name in names}
        if Verdict.MASK in verdicts.values():
            self._masks.add((names[0].group, names[0].hint))
        return verdicts

    def _of(self, name: MaskName) -> Verdict | None:
        """None for what cannot be opened."""
        own = self._look(name.path)
        if own is None:
            return None
        if name.partner is None:
            return self._alone(name, own)
        partner = self._look(name.partner)
        return None if partner is None else _compared(name, own, partner)

    def _alone(self, name: MaskName, own: Look) -> Verdict:
        if name.hint == "overlay" or not own.few:
            return Verdict.PHOTO
        if (name.group, name.hint) in self._masks:
            return Verdict.MASK
        return Verdict.PHOTO if self._drawings() else Verdict.UNCLEAR

    def _drawings(self) -> bool:
        """Whether pictures of plain names have few values, too: drawings, icons."""
        if self._photos_are_few is None:
            hinted = {name.path for name in mask_names(self._files) if name.hint != "mirror"}
            plain = [path for path in self._files if path not in hinted]
            looks = [self._look(plain[i]) for i in _spread(len(plain), _SAMPLES)]
            few = [look.few for look in looks if look is not None]
            self._photos_are_few = not few or sum(few) > len(few) / 2
        return self._photos_are_few

    def _looked(self, path: str) -> Look | None:
        try:
            return look_at(self._files[path])
        except ImageError:
            return None


def _compared(name: MaskName, own: Look, partner: Look) -> Verdict:
    """Mask or photo, of a picture and what it may be a mask of."""
    alike = _alike(own.size, partner.size)
    if name.hint == "overlay":
        return Verdict.UNCLEAR if alike else Verdict.PHOTO
    label = own.few and (not partner.few or (own.exact and _plainer(own, partner)))
    if name.hint == "mirror":  # a name of one's own in another folder says little
        certain = label and own.size == partner.size
        if certain and own.voc:
            return Verdict.MASK
        return Verdict.UNCLEAR if certain and own.exact and not own.coloured else Verdict.PHOTO
    if name.hint == "twin":
        return Verdict.MASK if label and alike else Verdict.PHOTO
    if label:
        return Verdict.MASK if alike else Verdict.UNCLEAR
    soft = not own.coloured and partner.coloured and alike
    return Verdict.UNCLEAR if own.few or soft else Verdict.PHOTO


def _plainer(own: Look, partner: Look) -> bool:
    return partner.coloured and not partner.palette and (own.palette or not own.coloured)


def _alike(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether the sizes are the same, or of one ratio; a photo may be turned by its EXIF."""
    ratio = a[0] / a[1]
    return any(abs(ratio - r) <= _SAME_RATIO * r for r in (b[0] / b[1], b[1] / b[0]))


def look_at(path: Path) -> Look:
    """What the pixels of a picture show; ImageError if it cannot be decoded."""
    picture = decode_picture(read_bytes(path), path, MAX_PIXELS)
    values = np.asarray(picture)
    colours = np.asarray(picture.convert("RGB"))
    step = max(1, -(-len(values) // _MOST_ROWS))
    values, colours = values[::step], colours[::step].astype(np.int16)
    if picture.format in _LOSSY:
        few, exact = _few_about(colours), False
    else:
        few, exact = _few_values(_codes(values))
    red, green, blue = np.moveaxis(colours, 2, 0)
    apart = np.maximum(np.abs(red - green), np.abs(green - blue))  # faster than along a short axis
    return Look(
        size=picture.size,
        few=few,
        exact=exact,
        coloured=bool(np.mean(apart > _GREY) > 0.01),
        palette=picture.mode == "P",
        voc=_has_voc_palette(picture),
    )


def _codes(values: npt.NDArray) -> npt.NDArray:
    """One number a pixel, (h, w), of channels of at most 8 bits."""
    if values.ndim == 2:
        return values
    return values.astype(np.uint32) @ (256 ** np.arange(values.shape[2], dtype=np.uint32))


def _few_values(codes: npt.NDArray) -> tuple[bool, bool]:
    counts = np.sort(np.unique(codes, return_counts=True)[1])[::-1]
    exact = len(counts) <= max(2, min(_FEW, codes.size // 8))
    flat = np.mean(codes[:, 1:] == codes[:, :-1]) if codes.shape[1] > 1 else 1.0
    several = counts[:_SEVERAL].sum() >= 0.97 * codes.size and flat >= 0.85
    return exact or bool(several), exact


def _few_about(colours: npt.NDArray) -> bool:
    """As :func:`_few_values`, where compression has blurred the values."""
    counts = np.sort(np.unique(_codes((colours + 8) // 16), return_counts=True)[1])[::-1]
    change = np.abs(np.diff(colours, axis=1)).max(axis=2)
    flat = np.mean(change <= 6) if change.size else 1.0
    return bool(counts[:8].sum() >= 0.95 * counts.sum() and flat >= 0.9)


def _has_voc_palette(picture: PilImage.Image) -> bool:
    palette = picture.getpalette() if picture.mode == "P" else None
    return palette is not None and palette == voc_palette().ravel().tolist()[: len(palette)]


def _spread(number: int, most: int) -> list[int]:
    """At most so many indices, from the first to the last."""
    if number <= most:
        return list(range(number))
    return sorted({round(i * (number - 1) / (most - 1)) for i in range(most)})


def _same_folder(name: MaskName) -> bool:
    return name.partner is not None and (
        name.partner.rpartition("/")[0] == name.path.rpartition("/")[0]
    )


def _both_readings(unclear: Sequence[MaskName]) -> DataError:
    first = unclear[0]
    group = first.pattern
    beside = f" beside {first.partner}" if first.partner else ""
    kind = "photos with masks over them" if first.hint == "overlay" else "masks"
    return DataError(
        f"{_pictures(len(unclear))} may be {kind} or photos, such as {first.path}{beside}",
        do=f"leave them out with --exclude '{group}', or keep them with --exclude '!{group}'",
    )


def _repetitions(paths: Sequence[str]) -> Iterator[DataError]:
    """Folders with the names of the others over again, ``out/cat/x`` for ``cat/x``: results?"""
    names = {path.rpartition(".")[0] for path in paths}
    inside: dict[str, list[str]] = defaultdict(list)
    for name in names:
        top, _, rest = name.partition("/")
        if rest:
            inside[top].append(rest)
    for top, rests in sorted(inside.items()):
        again = [rest for rest in rests if rest in names]
        if len(again) > max(1, _REPEATED * len(rests)):
            yield DataError(
                f"{_pictures(len(again))} in {top} have the names of others, such as "
                f"{top}/{min(again)} of {min(again)}: they may be results, or photos",
                do=f"leave them out with --exclude '{top}', or keep them with --exclude '!{top}'",
            )


def _pictures(number: int) -> str:
    return f"{number} picture{'s' if number != 1 else ''}"
