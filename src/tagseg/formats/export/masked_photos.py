"""What a format is given: photos with their labels, the classes, and what the user wished for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tagseg.data.legends import Colour, voc_palette
from tagseg.maps import IGNORE, Labels

__all__ = [
    "ClassTable",
    "Export",
    "Format",
    "MaskedPhoto",
    "Per",
    "PhotosBy",
    "Piece",
    "Shapes",
    "used_labels",
]

PhotosBy = Literal["copy", "link", "name"]
"""Photos are copied into the export, linked from it, or only named in it."""

Shapes = Literal["masks", "polygons"]
"""What a region is written as: its pixels, or its outline."""

Per = Literal["region", "class"]
"""What one annotation is: a connected region, or all pixels of a class in a photo."""


@dataclass(frozen=True)
class ClassTable:
    """The foreground classes in label order, and a colour for each.

    Attributes:
        names: class k has label k + 1.
        colours: of the classes; by default those of the VOC palette.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()

    @cached_property
    def palette(self) -> tuple[Colour, ...]:
        """The colours of labels 0 to 255."""
        colours: list[Colour] = [(r, g, b) for r, g, b in voc_palette().tolist()]
        colours[1 : len(self.colours) + 1] = self.colours
        return tuple(colours)

    def name(self, label: int) -> str:
        """The name of a class by its label."""
        return self.names[label - 1]

    def hex_colours(self) -> tuple[str, ...]:
        """The classes' colours as ``#rrggbb``."""
        return tuple("#{:02x}{:02x}{:02x}".format(*c) for c in self._of_classes())

    def label_map(self, *, unknown: bool = False) -> str:
        """The classes with their colours, in the form of CVAT's and datumaro's labelmap.txt.

        Args:
            unknown: name the colour of pixels of label 255, too.
        """
        rows = list(zip(("background", *self.names), self.palette, strict=False))
        rows += [("ignored", self.palette[IGNORE])] if unknown else []
        lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in rows]
        return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])

    def coloured(self) -> Iterator[tuple[str, Colour]]:
        """Name and colour of each class."""
        return zip(self.names, self._of_classes(), strict=True)

    def _of_classes(self) -> tuple[Colour, ...]:
        return self.palette[1 : len(self.names) + 1]


@dataclass(frozen=True, eq=False)
class MaskedPhoto:
    """One photo and its labels.

    Attributes:
        name: relative posix path without suffix.
        file: the same with the photo's suffix.
        source: where the photo is; None where only the mask is known.
        labels: uint8 (H, W), of the photo as it is displayed.
    """

    name: str
    file: str
    source: Path | None
    labels: Labels

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.labels.shape[0])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.labels.shape[1])


@dataclass(frozen=True)
class Export:
    """An export in the making.

    Attributes:
        folder: where files are written.
        home: where the folder will lie when it is done.
        classes: what labels stand for.
        photos: whether photos are copied, linked or named.
        shapes, per: of the annotations, where the format leaves a choice.
        photo_bytes: size of all photos, to share them out among files.
    """

    folder: Path
    home: Path
    classes: ClassTable
    photos: PhotosBy
    shapes: Shapes = "masks"
    per: Per = "region"
    photo_bytes: int = 0


@dataclass(frozen=True)
class Piece:
    """What one photo comes to.

    Attributes:
        files: relative path -> content, of the photo's own files.
        entry: its part of a file that all photos share.
        regions: number of annotations, or of classes where there are none.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    entry: Any = None
    regions: int = 0


@dataclass(frozen=True)
class Format:
    """How masks are written for one tool.

    Attributes:
        title: as messages call it.
        one: a photo's :class:`Piece`; called in threads.
        whole: writes what all photos share, from their entries in order; entries that it does not
            take are taken afterwards.
        photos_in: folder of copied and linked photos; None where they go into other files.
        photos_by: what may become of photos, the default first.
        annotations: what regions may be written as, and what an annotation may then be, each time
            the default first; empty where the pixels are kept as they are.
        keeps_unknown: whether pixels of label 255 stay what they are.
        needs_photos: False where masks alone are enough.
        suffixes: of photos that the tool opens; empty for no limit that matters.
        check: raises ConfigError, before any work, if a library is missing.
    """

    title: str
    one: Callable[[MaskedPhoto, Export], Piece]
    whole: Callable[[Iterator[Any], Export], None]
    photos_in: str | None
    photos_by: tuple[PhotosBy, ...]
    annotations: Mapping[Shapes, tuple[Per, ...]] = field(default_factory=dict)
    keeps_unknown: bool = False
    needs_photos: bool = True
    suffixes: frozenset[str] = frozenset()
    check: Callable[[Export], None] = lambda export: None


def used_labels(labels: Labels) -> list[int]:
    """Labels of classes that occur, in order."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return [int(label) for label in np.flatnonzero(counts[1:255]) + 1]
