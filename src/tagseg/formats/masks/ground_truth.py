"""Human annotation, class ids per pixel: the only door to it.

Only ``evaluate`` and the recipe ``full_supervision`` may import this module. No other training
code may read ground truth, and thresholds are never tuned on it silently.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import FileKey, digest_of_array, digest_of_bytes, file_key
from tagseg.data.finding import find_masks
from tagseg.data.images import decode_photo
from tagseg.data.legends import Legend, MaskContent, MasksBy, Reading
from tagseg.data.masks import RawMask, check_reading, open_mask
from tagseg.data.orientation import turned
from tagseg.data.targets import TARGET, class_columns
from tagseg.data.text import readable
from tagseg.data.working import labels_at
from tagseg.errors import ImageError, MaskError, TagError, first_few
from tagseg.formats.folders.coco import instance_files
from tagseg.formats.folders.object_discovery import MASKS, class_folders, is_object_discovery
from tagseg.formats.folders.youtube_objects import (
    find_labels,
    frame_name,
    is_youtube_objects,
)
from tagseg.formats.lists.class_lists import meaning_of, read_class_list
from tagseg.formats.masks.coco_masks import DrawnMask, drawn_masks
from tagseg.formats.masks.mask_folders import find_truth, list_beside, match_names
from tagseg.maps import IGNORE, Labels

__all__ = [
    "BY_EVIDENCE",
    "GroundTruth",
    "LieOn",
    "Mask",
    "MaskRules",
    "same_proportions",
    "wrong_size",
]

_ROUNDING = 0.02  # of a factor between sizes
_JPEG = (".jpg", ".jpeg", ".jpe")
_FAINT = 15  # brightest level of what is black in a JPEG

LieOn = Literal["stored", "displayed"]
"""What masks of photos that EXIF turns lie on: the stored pixels, or the photo as displayed."""


class MaskRules(NamedTuple):
    """How the files of a folder are meant, where they alone do not tell.

    Attributes:
        colours: file of the classes' colours (CVAT's labelmap.txt, or lines ``name,r,g,b``); None
            for such a list in the folder or beside it.
        by: what counts in palette files, numbers or colours; "auto" for the numbers, unless all
            colours are those of other classes.
        lie_on: None for what sizes prove.
    """

    colours: Path | None = None
    by: MasksBy = "auto"
    lie_on: LieOn | None = None


BY_EVIDENCE = MaskRules()


class GroundTruth:
    """Ground truth of photos by name, from a folder of masks or a mapping name -> labels.

    A folder holds one mask per photo, of the photo's name (``SegmentationClass`` of VOC 2012 is
    one): ids 0 background, k + 1 class k, 255 ignore, where neither a legend nor colours say
    otherwise. The folders of MIT Object Discovery and of YouTube-Objects hold binary masks, which
    become the class of their folder. COCO's files of objects are drawn, the smallest object at each
    pixel (:mod:`tagseg.formats.masks.coco_masks`). Masks are read or drawn when asked for. Raises
    MaskError if the folder has none.

    Args:
        source: the folder, or labels uint8 (H, W) by name; a COCO file, or a folder that holds
            ``instances_*.json`` or has them in its ``annotations``.
        classes: the C foreground classes in label order.
        legend: what numbers and colours stand for (:attr:`Dataset.legend`).
        rules: how the folder's files are meant, where they alone do not tell.

    Attributes:
        notes: how the folder was understood, a line each, where that is not plain.
    """

    def __init__(
        self,
        source: Path | str | Mapping[str, Labels],
        classes: Sequence[str],
        *,
        legend: Legend | None = None,
        rules: MaskRules = BY_EVIDENCE,
    ) -> None:
        self.classes = tuple(classes)
        self.rules = rules
        self.notes: tuple[str, ...] = ()
        self._masks: dict[str, Mask]
        plain = Legend(len(self.classes))
        if isinstance(source, Mapping):
            self._masks = {name: Mask(labels, plain) for name, labels in source.items()}
        elif is_object_discovery(Path(source)):
            self._masks = _find_binary(Path(source), self.classes)
        elif is_youtube_objects(Path(source)):
            self._masks = _find_of_frames(Path(source), self.classes)
        elif files := instance_files(Path(source)):
            drawn, self.notes = drawn_masks(files, self.classes)
            self._masks = {name: Mask(mask, plain) for name, mask in drawn.items()}
        else:
            home, found = find_truth(Path(source))
            chosen, file = replace(legend or plain, by=rules.by), rules.colours or list_beside(home)
            if file is not None:
                is_given = rules.colours is not None
                chosen, self.notes = _with_list(file, chosen, self.classes, is_given)
            self._masks = {name: Mask(path, chosen) for name, path in found.items()}

    def with_target(self, target: GroundTruth) -> GroundTruth:
        """This ground truth, and that of the photos of a target (:mod:`tagseg.data.targets`).

        The target's masks keep their own numbers; what comes out are the classes of this ground
        truth, by name. Classes that are not among these become background. ``GroundTruth({},
        classes)`` has none of its own. Raises TagError if no class is in both.
        """
        columns = class_columns(target.classes, self.classes)
        ids = np.zeros(256, np.uint8)
        ids[1 : len(columns) + 1] = [0 if column is None else column + 1 for column in columns]
        ids[IGNORE] = IGNORE
        joined = copy(self)
        joined.notes += target.notes
        joined._masks = self._masks | {
            TARGET + name: mask.renumbered(ids) for name, mask in target._masks.items()
        }
        return joined

    def for_photos(self, photos: Mapping[str, Path | None]) -> GroundTruth:
        """The same, of these photos' names and files, whatever naming rule the folder has.

        ``x_mask`` is found for ``x``, and ``x`` for ``train/x`` if there is one ``x``; a note says
        so. Masks of other photos stay under their own names. A photo's own file is no mask of it.
        """
        own = {os.path.realpath(path) for path in photos.values() if path is not None}
        masks = {n: m for n, m in self._masks.items() if not own or m.real_path() not in own}
        found: dict[str, str] = {}
        notes: list[str] = []
        for start in (TARGET, ""):  # a target's masks are named for themselves
            of_part = {n.removeprefix(start): n for n in masks if _of_target(n) == bool(start)}
            wanted = {n.removeprefix(start): n for n in photos if _of_target(n) == bool(start)}
            by_name, said = match_names(of_part.keys(), wanted.keys())
            found |= {wanted[photo]: of_part[mask] for photo, mask in by_name.items()}
            notes += [f"{len(by_name)} masks are {said}"] if said else []
        if not notes and len(masks) == len(self._masks):
            return self
        used = set(found.values())
        others = {n: m for n, m in masks.items() if n not in used and n not in found}
        return self._with({**others, **{p: masks[m] for p, m in found.items()}}, notes)

    def turned(self, orientations: Mapping[str, int], notes: Collection[str] = ()) -> GroundTruth:
        """The same, with masks of stored pixels turned as EXIF ``orientations`` turn the photos."""
        masks = {
            name: replace(mask, orientation=orientations.get(name, 1))
            for name, mask in self._masks.items()
        }
        return self._with(masks, notes)

    def _with(self, masks: dict[str, Mask], notes: Collection[str]) -> GroundTruth:
        changed = copy(self)
        changed._masks, changed.notes = masks, (*self.notes, *notes)
        return changed

    def has(self, name: str) -> bool:
        """Whether photo ``name`` is annotated."""
        return name in self._masks

    def names(self) -> tuple[str, ...]:
        """The annotated photos' names."""
        return tuple(self._masks)

    def mask(self, name: str) -> Mask:
        """Where the mask of photo ``name`` is, and what its values mean."""
        return self._masks[name]

    def states(self) -> Iterator[tuple[str, str]]:
        """(name, state) of every mask, by name; the state changes when the mask does."""
        for name, mask in sorted(self._masks.items()):
            yield name, mask.state()

    def labels(self, name: str, shape: tuple[int, int]) -> Labels:
        """Labels of photo ``name``, uint8 (H, W) with (H, W) == ``shape``, the photo's size.

        Raises MaskError if there are none, of another size, or with ids of no class.
        """
        mask = self._masks.get(name)
        if mask is None:
            raise MaskError(f"no ground truth for photo '{name}'", do="leave it out of the list")
        return mask.labels(name, shape)


@dataclass(frozen=True)
class Mask:
    """One photo's mask: where it is and what its values mean.

    Attributes:
        source: a file, labels uint8 (H, W), or what is drawn.
        legend: what the mask's own numbers and colours stand for.
        object_id: what the object of a binary mask becomes; None for a mask of class ids.
        ids: uint8 (256,), label -> label of the list asked for; None: they are the same.
        orientation: EXIF's, by which the mask is turned.
        fitted: whether a mask of the photo's proportions is brought to its size.
    """

    source: Path | Labels | DrawnMask
    legend: Legend
    object_id: int | None = None
    ids: npt.NDArray[np.uint8] | None = None
    orientation: int = 1
    fitted: bool = False

    @property
    def where(self) -> Path | str | None:
        """The mask's file, or its place in one, if it has one."""
        if isinstance(self.source, DrawnMask):
            return self.source.where
        return self.source if isinstance(self.source, Path) else None

    @property
    def has_own_numbers(self) -> bool:
        """Whether its values mean what whoever saved it chose."""
        return self.object_id is None and not isinstance(self.source, DrawnMask)

    def real_path(self) -> str | None:
        """The mask's file without links."""
        return os.path.realpath(self.source) if isinstance(self.source, Path) else None

    def renumbered(self, ids: npt.NDArray[np.uint8]) -> Mask:
        """The same, with other labels."""
        return replace(self, ids=ids if self.ids is None else ids[self.ids])

    def labels(self, name: str, shape: tuple[int, int]) -> Labels:
        """Labels, uint8 (H, W) of ``shape``; MaskError if it does not hold such."""
        where = self.where or f"mask of '{name}'"
        raw = self._raw(where)
        values = turned(raw.values, self.orientation)
        if self.fitted and same_proportions(values.shape, shape):
            values = labels_at(values, (shape[0], shape[1]))
        if values.shape != tuple(shape):
            raise wrong_size(values.shape, shape, where)
        reading = self.read(raw.content)
        check_reading(reading, raw.content, self.legend, where)
        labels = reading.table()[values]
        return labels if self.ids is None else self.ids[labels]

    def content(self) -> MaskContent:
        """What the file, or the array, holds; MaskError if it is no mask."""
        return self._raw(self.where or "a mask").content

    def read(self, content: MaskContent) -> Reading:
        """What the values stand for, in labels of the mask's own classes."""
        if self.object_id is not None:  # its class may be a number over those of the list
            return Reading("number", {value: value for value in content.counts})
        return self.legend.read(content)

    def key(self) -> FileKey | None:
        """What tells whether the file that holds the mask has changed, None if none does."""
        if isinstance(self.source, DrawnMask):
            return self.source.key()
        try:
            return file_key(self.source) if isinstance(self.source, Path) else None
        except OSError:
            return None

    def state(self) -> str:
        """What changes when the mask, or its meaning, does."""
        if isinstance(self.source, DrawnMask):
            state = self.source.state()
        elif isinstance(self.source, Path):
            state = repr(file_key(self.source)[1:])
        else:
            state = digest_of_array(self.source)
        meaning = [] if self.object_id is None else [f"object {self.object_id}"]
        meaning += [] if self.ids is None else [digest_of_bytes(self.ids.tobytes())]
        meaning += [] if self.orientation == 1 else [f"turned {self.orientation}"]
        meaning += self._state_of_legend()
        return " ".join([state, *meaning])

    def _state_of_legend(self) -> list[str]:
        numbers, colours = self.legend.numbers or {}, self.legend.colours or {}
        if not numbers and not colours and self.legend.by == "auto":
            return []
        return [repr((sorted(numbers.items()), sorted(colours.items()), self.legend.by))]

    def _raw(self, where: object) -> RawMask:
        if isinstance(self.source, DrawnMask):
            return RawMask(self.source.draw(), {}, True, 1)
        if not isinstance(self.source, Path):
            _check_array(self.source, where)
            return RawMask(self.source, {}, True, 1)
        if self.object_id is None:
            return open_mask(self.source)
        return RawMask(_read_binary(self.source) * np.uint8(self.object_id), {}, True, 1)


def same_proportions(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether two sizes (H, W) differ by one factor, up to 2 %, which covers rounding."""
    if 0 in shape or 0 in wanted:
        return False
    tall, wide = shape[0] / wanted[0], shape[1] / wanted[1]
    return abs(tall - wide) <= _ROUNDING * max(tall, wide)


def wrong_size(shape: tuple[int, ...], wanted: tuple[int, ...], where: object) -> MaskError:
    """What is raised for a mask of another size than its photo."""
    size = " x ".join(map(str, shape))
    do = "give a uint8 mask of the photo's height and width"
    if shape == tuple(wanted)[::-1]:
        do += "; is it of the stored pixels of a photo that EXIF turns?"
    return MaskError(
        f"the mask is {size} (uint8), the photo {wanted[0]} x {wanted[1]}", where=where, do=do
    )


def _check_array(labels: Labels, where: object) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2:
        size = " x ".join(map(str, labels.shape))
        raise MaskError(
            f"the mask is {size} ({labels.dtype})",
            where=where,
            do="give a uint8 mask of the photo's height and width",
        )


def _with_list(
    file: Path, legend: Legend, classes: Sequence[str], is_given: bool
) -> tuple[Legend, tuple[str, ...]]:
    """The legend by the list that belongs to the masks, and what is to be said of it.

    A list that merely lies there and does not fit is told and left; one that is given must fit.
    """
    try:
        found = read_class_list(file)
        chosen, others = found.legend_of(legend, classes)
    except TagError as problem:
        if is_given:
            raise MaskError(problem.what, where=file, do=problem.do) from None
        return legend, (f"{file} is not used: {problem.what}",)
    if is_given and found.colours is None and not found.numbered:
        raise MaskError("has no colours", where=file, do="write lines such as cat,255,0,0")
    said = ["says which colour is which class"] if found.colours else []
    said += [f"in masks {meaning_of(chosen, classes)}"] if found.numbered else []
    said += [f"{', '.join(others)} count as background"] if others else []
    return chosen, (f"{file}: {'; '.join(said)}",) if said else ()


def _of_target(name: str) -> bool:
    return name.startswith(TARGET)


def _find_binary(folder: Path, classes: tuple[str, ...]) -> dict[str, Mask]:
    """The masks of Object Discovery, named as the photos: ``Airplane100/0001``."""
    places = [p for p in class_folders(folder).items() if (p[0] / MASKS).is_dir()]
    ids = {name: place + 1 for place, name in enumerate(classes)}
    strange = [name for _, name in places if name not in ids]
    if len(strange) == len(places):
        raise MaskError(
            f"these are masks of {strange[0]}, which is none of the classes",
            where=folder,
            do=f"have a class {strange[0]} in the class list",
        )
    found = {
        f"{place.name}/{name}": Mask(path, Legend(len(classes)), ids[of])
        for place, of in places
        if of in ids
        for name, path in find_masks(place / MASKS).items()
    }
    if not found:
        raise MaskError("no masks in its folders", where=folder, do=f"put them into {MASKS}")
    return found


def _find_of_frames(folder: Path, classes: tuple[str, ...]) -> dict[str, Mask]:
    """The masks of YouTube-Objects, named as its frames; they may be smaller than these."""
    labels = find_labels(folder)
    ids = {name: place + 1 for place, name in enumerate(classes)}
    strange = sorted({readable(shot[0]) for shot in labels} - ids.keys())
    found = {
        frame_name(shot, number): Mask(
            path, Legend(len(classes)), ids[readable(shot[0])], fitted=True
        )
        for shot, numbers in labels.items()
        if readable(shot[0]) in ids
        for number, path in numbers.items()
    }
    if strange and not found:
        raise MaskError(
            f"these are masks of {first_few(strange)}, which are none of the classes",
            where=folder,
            do=f"have a class {strange[0]} in the class list",
        )
    if not found:
        raise MaskError(
            "no masks in its folders", where=folder, do="put those of a shot into its folder labels"
        )
    return found


def _read_binary(path: Path) -> Labels:
    """A picture of 0 and 1, or of black and white, as uint8 (H, W) of 0 and 1."""
    try:
        values = decode_photo(path).max(axis=2)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None
    brightest = int(values.max())
    if path.suffix.lower() in _JPEG and brightest <= _FAINT:
        brightest = 0
    if 1 < brightest < 128:
        raise MaskError(
            f"holds values up to {brightest}: not a binary mask",
            where=path,
            do="write 0 for background and 255 for the object",
        )
    least = 1 if brightest == 1 else 128
    return (values >= least).astype(np.uint8)
