"""What the values of ground truth's masks show: numbers of no class, black and white, palettes.

Everything here looks at all masks together, as one mask alone seldom proves anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tagseg.data.legends import VOC_NUMBERS, Colour, Legend, MaskContent, Reading
from tagseg.data.masks import check_reading
from tagseg.errors import MaskError
from tagseg.formats.masks.ground_truth import Mask
from tagseg.formats.tags.voc import VOC_CLASSES
from tagseg.maps import IGNORE, Tags

__all__ = ["Seen", "read_by_colour", "wrong_values"]

_MANY_NUMBERS = 16  # of no class: smoothing blends numbers


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo's mask, what it holds and how that is read.

    Attributes:
        name: the photo's.
        tags: bool (C,) of the photo, None where they are not known.
    """

    name: str
    mask: Mask
    content: MaskContent
    tags: Tags | None

    @cached_property
    def reading(self) -> Reading:
        """What the values stand for."""
        return self.mask.read(self.content)

    @property
    def where(self) -> object:
        """For messages."""
        return self.mask.where or f"mask of '{self.name}'"

    def numbers(self) -> frozenset[int] | None:
        """The file's numbers, grey ones of RGB files too; None for a file of other colours."""
        content = self.content
        if content.numbered:
            return frozenset(content.counts)
        greys = {r for r, g, b in content.colours.values() if r == g == b}
        return frozenset(greys) if len(greys) == len(content.colours) else None

    def classes(self, reading: Reading | None = None) -> frozenset[int]:
        """The labels of classes that occur, of the list asked for."""
        labels = {
            i for i in (reading or self.reading).labels.values() if i not in (None, 0, IGNORE)
        }
        if self.mask.ids is not None:
            labels = {int(self.mask.ids[label]) for label in labels if label is not None} - {0}
        return frozenset(label for label in labels if label is not None)


def wrong_values(
    seen: Sequence[Seen], classes: Sequence[str], *, strange: bool = True
) -> Iterator[MaskError]:
    """An error for each thing that is wrong with the values of the masks.

    ``strange`` False leaves out numbers and colours that stand for nothing.
    """
    groups: dict[int, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.mask.has_own_numbers:
            groups[id(one.mask.legend)].append(one)
    for group in groups.values():
        binary = _black_and_white(group, classes)
        if binary is not None:
            yield binary
            continue
        if strange:
            yield from _strange(group, classes)
        yield from _disorder(group)


def read_by_colour(seen: Sequence[Seen]) -> list[Seen]:
    """The palette files whose colours are read, not their numbers, and say something else."""
    return [
        one
        for one in seen
        if one.content.numbered
        and one.reading.by == "colour"
        and any(label != one.mask.legend.label(n) for n, label in one.reading.labels.items())
    ]


def _black_and_white(group: Sequence[Seen], classes: Sequence[str]) -> MaskError | None:
    """Masks of 0 and 255 alone: 255 would not count, and it surely is the object.

    Unless nothing but photos without any class has it, where it may well be what does not count.
    """
    numbers = [one.numbers() for one in group]
    every = frozenset().union(*(n for n in numbers if n is not None))
    if None in numbers or every != {0, IGNORE} or group[0].mask.legend.numbers is not None:
        return None
    white = [one for one, n in zip(group, numbers, strict=True) if n and IGNORE in n]
    if not all(one.content.is_black_and_white for one in white if one.content.numbered):
        return None
    if all(one.tags is not None and not one.tags.any() for one in white):
        return None
    holds = "hold nothing but 0 and 255" if len(group) > 1 else "holds nothing but 0 and 255"
    if group[0].mask.legend.n_classes == 1 and len(classes) == 1:
        name = classes[0]
        return MaskError(
            f"its {len(group)} masks {holds}, and 255 is for pixels that do not count",
            where=_folder(group),
            do=f"if 255 is '{name}', write the line '255: {name}' into the class list "
            "(--classes FILE); else save masks of 0 and 1",
        )
    return MaskError(
        f"its {len(group)} masks {holds}, and 255 is for pixels that do not count: "
        f"no class of {len(classes)} can be told",
        where=_folder(group),
        do="save masks of class numbers: 0 background, 1 the first class",
    )


def _folder(group: Sequence[Seen]) -> object:
    file = group[0].mask.where
    return file.parent if isinstance(file, Path) else "ground truth"


def _strange(group: Sequence[Seen], classes: Sequence[str]) -> Iterator[MaskError]:
    """Numbers and colours that stand for nothing: one error for all masks of a legend."""
    wrong = [one for one in group if one.reading.strange]
    if not wrong:
        return
    first, counts = wrong[0], Counter[object]()
    for one in wrong:
        reading = one.reading
        colours = one.content.colours
        counts.update(colours[v] if reading.by == "colour" else v for v in reading.strange)
    try:
        check_reading(first.reading, first.content, first.mask.legend, first.where)
    except MaskError as problem:
        advice = [problem.do, *_hints(group, counts, classes)]
        if len(wrong) > 1 or len(counts) > 1:
            listed = ", ".join(f"{value} in {n}" for value, n in counts.most_common(8))
            more = ", ..." if len(counts) > 8 else ""
            advice.append(f"such values are in {len(wrong)} masks: {listed}{more}")
        yield MaskError(problem.what, where=problem.where, do="; ".join(advice))


def _hints(
    group: Sequence[Seen], counts: Mapping[object, int], classes: Sequence[str]
) -> Iterator[str]:
    """What the numbers look like: VOC's, classes at equal steps, or blends of numbers."""
    legend = group[0].mask.legend
    voc = {VOC_NUMBERS.get(v) if isinstance(v, tuple) else v for v in counts}
    own = {name.casefold() for name in classes}
    of_voc = {i: name for i, name in enumerate(VOC_CLASSES, start=1) if name in own}
    if legend.numbers is None and voc <= of_voc.keys():
        said = " and ".join(f"'{i}: {name}'" for i, name in of_voc.items())
        yield f"if these are VOC's numbers, write lines {said} into the class list"
        return
    numbers = [n for one in group if (n := one.numbers()) is not None]
    if len(numbers) < len(group) or legend.numbers is not None:
        return
    every = sorted(frozenset().union(*numbers) - {0})
    if len(counts) >= _MANY_NUMBERS:
        yield "so many numbers come from smoothing: resize masks with the nearest pixel"
    elif len(every) == legend.n_classes:
        said = ", ".join(map(str, every))
        yield (
            f"if {said} are the classes in their order, write '{every[0]}: NAME' and so on "
            "into the class list (--classes FILE)"
        )


def _disorder(group: Sequence[Seen]) -> Iterator[MaskError]:
    """Palettes whose order cannot be trusted, and where the colours alone do not help."""
    palettes = [one for one in group if one.content.numbered and one.content.colours]
    if not palettes or palettes[0].mask.legend.by != "auto":
        return
    do = "say what counts: --masks-by colour (--colours FILE for a tool's own) or number"
    near = [one for one in palettes if one.mask.legend.seems_in_disorder(one.content)]
    if near:
        yield MaskError(
            f"the palette's colours are nearly those of other classes than its numbers "
            f"(so it is in {len(near)} masks)",
            where=near[0].where,
            do=do,
        )
        return
    by_colour = read_by_colour(palettes)
    others = [one for one in palettes if not _is_known(one)] if by_colour else []
    if others:
        yield MaskError(
            f"the palette has colours of its own, while {by_colour[0].where} and {len(by_colour)} "
            "masks in all seem to have VOC's in another order",
            where=others[0].where,
            do=do,
        )
    elif by_colour and _agrees_more_by_number(by_colour):
        yield MaskError(
            f"the palette's colours are of other classes than its numbers, and the tags speak for "
            f"the numbers (so it is in {len(by_colour)} masks)",
            where=by_colour[0].where,
            do=do,
        )
    else:
        yield from _moving_colour([one for one in palettes if one not in by_colour], do)


def _is_known(one: Seen) -> bool:
    """Whether a palette's colours are all of the colour maps, or grey."""
    legend, colours = one.mask.legend, set(one.content.colours.values())
    voc = Legend(legend.n_classes, legend.numbers).colour_map()
    is_grey = all(r == g == b for r, g, b in colours)
    return is_grey or colours <= voc.keys() or colours <= legend.colour_map().keys()


def _agrees_more_by_number(seen: Sequence[Seen]) -> bool:
    """Whether tags and masks agree clearly better if the palettes' numbers are read."""
    by_colour, by_number = [], []
    for one in seen:
        if one.tags is None or not one.tags.any():
            continue
        tags = set((np.flatnonzero(one.tags) + 1).tolist())
        plain = Reading("number", {v: one.mask.legend.label(v) for v in one.content.counts})
        by_colour.append(bool(tags & one.classes()))
        by_number.append(bool(tags & one.classes(plain)) and not plain.strange)
    return bool(by_number) and np.mean(by_number) > np.mean(by_colour) + 0.3


def _moving_colour(palettes: Sequence[Seen], do: str) -> Iterator[MaskError]:
    """A colour that has one number here and another there: palettes in an order of their own."""
    numbers: dict[Colour, tuple[int, Seen]] = {}
    for one in palettes:
        for number, colour in one.content.colours.items():
            first, other = numbers.setdefault(colour, (number, one))
            if first != number and len(set(colour)) > 1:
                yield MaskError(
                    f"colour {colour} has number {number}, and number {first} in {other.where}",
                    where=one.where,
                    do=do,
                )
                return
