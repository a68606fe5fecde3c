"""What the numbers and colours of a mask file stand for.

A file is looked at as a :class:`MaskContent`, its values with their colours; a :class:`Legend`
turns these into labels: 0 background, k + 1 class k, 255 ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.maps import IGNORE

__all__ = [
    "VOC_NUMBERS",
    "Colour",
    "Legend",
    "MaskContent",
    "MasksBy",
    "Reading",
    "lists_own_colours",
    "voc_palette",
]

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

MasksBy = Literal["auto", "number", "colour"]
"""What counts in a palette file; ``auto`` for what the colours prove."""

_NEAR = 4  # a quantiser moves a colour by no more; VOC's differ by 32 at least
_PADDING = {(0, 0, 0), (255, 255, 255)}  # what writers fill palettes up with


@dataclass(frozen=True)
class MaskContent:
    """What a mask file holds, before anything is said about its meaning.

    Attributes:
        shape: height and width, pixels.
        counts: value -> number of pixels, for the values that occur.
        colours: value -> colour, for the same values; empty for a file without colours.
        numbered: the values are numbers of the file; False: they only count an RGB file's colours.
        own_palette: the palette lists colours, beside those that occur, that are not of VOC's.
        orientation: EXIF's, 1 to 8, as the mask's own file says; 1 for none.
    """

    shape: tuple[int, int]
    counts: Mapping[int, int]
    colours: Mapping[int, Colour] = field(default_factory=dict)
    numbered: bool = True
    own_palette: bool = False
    orientation: int = 1

    @property
    def is_black_and_white(self) -> bool:
        """Whether 255 stands for white, and not for what the VOC palette has there."""
        return self.colours.get(IGNORE, (IGNORE,) * 3) == (IGNORE,) * 3


class Reading(NamedTuple):
    """How a mask was read.

    Attributes:
        by: whether its numbers count, or the colours, which say something else.
        labels: value -> label; None for a value that stands for nothing.
    """

    by: Literal["number", "colour"]
    labels: dict[int, int | None]

    @property
    def strange(self) -> list[int]:
        """The values that stand for nothing."""
        return [value for value, label in self.labels.items() if label is None]

    def table(self) -> npt.NDArray[np.uint8]:
        """value -> label as uint8 (256,), for indexing; nothing may be strange."""
        found = np.zeros(256, np.uint8)
        for value, label in self.labels.items():
            found[value] = IGNORE if label is None else label
        return found


@dataclass(frozen=True)
class Legend:
    """What numbers and colours stand for.

    Attributes:
        n_classes: labels go from 0 to this, and 255.
        numbers: label of each number; None: a number is its label.
        colours: label of each colour; None: the VOC palette's, by their numbers there.
        by: what counts in palette files.
        source: what says so, for messages.
    """

    n_classes: int
    numbers: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    by: MasksBy = "auto"
    source: str = ""

    def label(self, number: int) -> int | None:
        """What ``number`` stands for; None for nothing."""
        if self.numbers is not None:
            return self.numbers.get(number)
        return number if number <= self.n_classes or number == IGNORE else None

    def colour_map(self) -> Mapping[Colour, int]:
        """Label of each colour."""
        return self.colours if self.colours is not None else self._voc_colours

    def read(self, content: MaskContent) -> Reading:
        """How a file is read: by its numbers, unless its colours prove that they are in disorder.

        They do if all that occur are in the colour map and say something else. For the VOC palette,
        which is not known to be meant, they must not all be grey, nor stand beside other colours.
        RGB files are read by the colour map, else by VOC's colours, else as numbers if all is grey.
        """
        by_number = self._by_number({value: value for value in content.counts})
        if not content.numbered:
            return self._by_rgb(content)
        if not content.colours or self.by == "number":
            return by_number
        if self.by == "colour":
            return self._by_colour(content.colours, self.colour_map())
        for colours in self._colour_maps():
            found = self._by_colour(content.colours, colours)
            proves = colours is self.colours or not (
                content.own_palette or _is_grey(content.colours.values())
            )
            has_colour = any(map(any, content.colours.values()))
            if proves and has_colour and not found.strange and found.labels != by_number.labels:
                return found
        return by_number

    def seems_in_disorder(self, content: MaskContent) -> bool:
        """Whether a palette's colours are nearly those of other classes than its numbers are."""
        if not content.numbered or not content.colours or self.by != "auto":
            return False
        by_number = self.read(content)
        if by_number.by == "colour" or _is_grey(content.colours.values()):
            return False
        return any(self._is_near(content, colours, by_number) for colours in self._colour_maps())

    def _is_near(
        self, content: MaskContent, colours: Mapping[Colour, int], by_number: Reading
    ) -> bool:
        known = np.array(list(colours), int)
        used = np.array(list(content.colours.values()), int)
        far = np.abs(used[:, None] - known[None]).max(axis=2)
        nearest = far.argmin(axis=1)
        if (far.min(axis=1) > _NEAR).any() or len(set(nearest.tolist())) < len(used):
            return False
        labels = list(colours.values())
        found = {v: labels[i] for v, i in zip(content.colours, nearest.tolist(), strict=True)}
        return found != by_number.labels

    def _colour_maps(self) -> list[Mapping[Colour, int]]:
        voc = self._voc_colours
        return [voc] if self.colours is None else [self.colours, voc]

    @cached_property
    def _voc_colours(self) -> Mapping[Colour, int]:
        labels = {number: self.label(number) for number in range(256)}
        return {_VOC[n]: label for n, label in labels.items() if label is not None}

    def _by_rgb(self, content: MaskContent) -> Reading:
        found = [self._by_colour(content.colours, self.colour_map())]
        inked = {colour for colour in content.colours.values() if any(colour)}
        if self.colours is not None and not inked & self.colours.keys():
            found.append(self._by_colour(content.colours, self._voc_colours))
        if all(r == g == b for r, g, b in content.colours.values()):
            found.append(self._by_grey(content))
        return next((reading for reading in found if not reading.strange), found[0])

    def _by_grey(self, content: MaskContent) -> Reading:
        """Grey as numbers; but white is white, unless it is said that 255 means something."""
        found = self._by_number({value: grey for value, (grey, _, _) in content.colours.items()})
        if self.numbers is None:
            white = [value for value, (grey, _, _) in content.colours.items() if grey == IGNORE]
            found.labels.update(dict.fromkeys(white))
        return found

    def _by_number(self, numbers: Mapping[int, int]) -> Reading:
        return Reading("number", {value: self.label(number) for value, number in numbers.items()})

    def _by_colour(self, colours: Mapping[int, Colour], known: Mapping[Colour, int]) -> Reading:
        return Reading("colour", {value: known.get(colour) for value, colour in colours.items()})


@cache
def voc_palette() -> npt.NDArray[np.uint8]:
    """The PASCAL VOC colours, uint8 (256, 3), read-only: bits 0-2 of the id fill R, G, B."""
    ids = np.arange(256, dtype=np.uint16)
    palette = np.zeros((256, 3), np.uint16)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> channel) & 1) << (7 - step)
        ids >>= 3
    colours = palette.astype(np.uint8)
    colours.setflags(write=False)
    return colours


def lists_own_colours(palette: Mapping[int, Colour], used: Iterable[int]) -> bool:
    """Whether a palette holds, beside the values ``used``, colours that VOC's does not have."""
    rest = palette.keys() - set(used)
    return any(
        palette[value] not in VOC_NUMBERS
        and palette[value] not in _PADDING
        and palette[value] != (value,) * 3
        for value in rest
    )


def _is_grey(colours: Iterable[Colour]) -> bool:
    return all(r == g == b for r, g, b in colours)


_VOC: tuple[Colour, ...] = tuple((r, g, b) for r, g, b in voc_palette().tolist())
VOC_NUMBERS: Mapping[Colour, int] = {colour: number for number, colour in enumerate(_VOC)}
"""The number of each colour of the VOC palette."""
