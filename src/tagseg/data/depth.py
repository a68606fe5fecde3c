"""How bright is white in photos of 16 bits? Many such files use 8, 10, 12 or 14 of them only.

Microscopes, X-ray detectors and depth cameras write what their sensor counts into 16 bits; divided
by 65,535 / 255, their photos are black. So the values of all 16-bit photos of a data set are
counted together, and one rule holds for all: white is 2**bits - 1 for the fewest bits of
:data:`BITS` that hold all values but one in 10,000 (dead pixels, marks). What is brighter is white.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tagseg.errors import first_few

__all__ = ["BITS", "WHITE", "Depth", "Levels", "notes_on_new", "scaled"]

WHITE = 65535
"""The value that is white where nothing tells otherwise."""

BITS = (8, 10, 12, 14, 16)
"""What sensors count in."""

_EXCEPTIONS = 10_000  # one in so many values may be above white
_MUCH_DARKER = 4  # bits: a sixteenth of the range


class Levels(NamedTuple):
    """How the values of 16-bit photos are spread.

    Attributes:
        greatest: the greatest value.
        above: how many are greater than 2**bits - 1, for each of :data:`BITS`.
        total: number of values.
    """

    greatest: int = 0
    above: tuple[int, ...] = (0,) * len(BITS)
    total: int = 0

    @classmethod
    def of(cls, values: npt.NDArray[np.unsignedinteger]) -> Self:
        """Those of an array of whole numbers, 0 to 65535."""
        above = tuple(int(np.count_nonzero(values > white_of(bits))) for bits in BITS)
        return cls(int(values.max(initial=0)), above, values.size)

    def joined(self, other: Levels) -> Levels:
        """Those of both together."""
        above = tuple(a + b for a, b in zip(self.above, other.above, strict=True))
        return Levels(max(self.greatest, other.greatest), above, self.total + other.total)

    @property
    def bits(self) -> int:
        """The fewest bits that hold all values but one in 10,000."""
        few = self.total // _EXCEPTIONS
        return next(bits for bits, n in zip(BITS, self.above, strict=True) if n <= few)


class Depth(NamedTuple):
    """The rule for the 16-bit photos of a data set, and what it comes of.

    Attributes:
        photos: number of 16-bit photos.
        levels: of all of them.
        dark: names of photos that use far fewer bits than the rule gives them.
    """

    photos: int
    levels: Levels
    dark: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[tuple[str, Levels]]) -> Self | None:
        """That of 16-bit photos by name; None if there are none."""
        photos = list(found)
        if not photos:
            return None
        pooled = Levels()
        for _, levels in photos:
            pooled = pooled.joined(levels)
        dark = (name for name, one in photos if one.bits <= pooled.bits - _MUCH_DARKER)
        return cls(len(photos), pooled, tuple(dark))

    @property
    def white(self) -> int:
        """The value that is shown as white."""
        return white_of(self.levels.bits)

    def line(self, of: int) -> str:
        """The rule in words, for a data set of ``of`` photos."""
        which = "all photos have" if self.photos == of else f"{self.photos} of {of} photos have"
        bits = self.levels.bits
        used = f"{which} 16 bits, of which {bits} are used (values up to {self.levels.greatest})"
        clipped = self.levels.above[BITS.index(bits)]
        more = f"; {100 * clipped / self.levels.total:.2g} % of the values are brighter"
        return f"{used}: {self.white} is shown as white{more if clipped else ''}"


def white_of(bits: int) -> int:
    """The greatest value of so many bits."""
    return (1 << bits) - 1


def notes_on_new(found: Sequence[tuple[str, Levels]], white: int) -> list[str]:
    """What to tell of 16-bit photos, by name, that do not fit to ``white``, which others taught."""
    rule = f"where {white} is white, as in the photos that the segmenter has learned from"
    bright = [name for name, levels in found if white_of(levels.bits) > white]
    dark = [name for name, one in found if white_of(one.bits) << _MUCH_DARKER <= white]
    texts = (
        (bright, f"have brighter values, which are shown as white, {rule}"),
        (dark, f"are nearly black {rule}"),
    )
    return [f"{len(names)} photos ({first_few(names)}) {text}" for names, text in texts if names]


def scaled(values: npt.NDArray[np.unsignedinteger], white: int) -> npt.NDArray[np.uint8]:
    """Values 0 to 65535 of any shape in 8 bits, so that ``white`` and more becomes 255."""
    return _table(white)[values]


@lru_cache(4)
def _table(white: int) -> npt.NDArray[np.uint8]:
    values = np.arange(WHITE + 1, dtype=np.int64)
    return np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
