"""Human annotation, class ids per pixel: the only door to it.

Only ``evaluate`` and the recipe ``full_supervision`` may import this module. No other training
code may read ground truth, and thresholds are never tuned on it silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tagseg.data.dataset import digest_of_array, file_key
from tagseg.data.images import find_masks, read_mask
from tagseg.errors import MaskError
from tagseg.maps import IGNORE, Labels

__all__ = ["GroundTruth"]


class GroundTruth:
    """Ground truth of photos by name, from a folder of masks or a mapping name -> labels.

    A folder holds one mask per photo, of the photo's name (``SegmentationClass`` of VOC 2012 is
    one): ids 0 background, k + 1 class k, 255 ignore. Masks are read when asked for.
    Raises MaskError if the folder has none.
    """

    def __init__(self, source: Path | str | Mapping[str, Labels], classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._masks: Mapping[str, Path | Labels]
        if isinstance(source, Mapping):
            self._masks = dict(source)
            return
        folder = Path(source)
        if not folder.is_dir():
            raise MaskError("this folder does not exist", where=folder, do="check the path")
        self._masks = find_masks(folder)
        if not self._masks:
            raise MaskError("no masks in this folder", where=folder, do="give the folder of masks")

    def has(self, name: str) -> bool:
        """Whether photo ``name`` is annotated."""
        return name in self._masks

    def names(self) -> tuple[str, ...]:
        """The annotated photos' names."""
        return tuple(self._masks)

    def states(self) -> Iterator[tuple[str, str]]:
        """(name, state) of every mask, by name; the state changes when the mask does."""
        for name, source in sorted(self._masks.items()):
            if isinstance(source, Path):
                yield name, repr(file_key(source)[1:])
            else:
                yield name, digest_of_array(source)

    def labels(self, name: str, shape: tuple[int, int]) -> Labels:
        """Labels of photo ``name``, uint8 (H, W) with (H, W) == ``shape``, the photo's size.

        Raises MaskError if there are none, of another size, or with ids of no class.
        """
        source = self._masks.get(name)
        if source is None:
            raise MaskError(f"no ground truth for photo '{name}'", do="leave it out of the list")
        where: object = source if isinstance(source, Path) else f"mask of '{name}'"
        labels = read_mask(source) if isinstance(source, Path) else source
        return self._checked(labels, shape, where)

    def _checked(self, labels: Labels, shape: tuple[int, int], where: object) -> Labels:
        if labels.dtype != np.uint8 or labels.shape != tuple(shape):
            size = " x ".join(map(str, labels.shape))
            raise MaskError(
                f"the mask is {size} ({labels.dtype}), the photo {shape[0]} x {shape[1]}",
                where=where,
                do="give a uint8 mask of the photo's height and width",
            )
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        wrong = present[(present > len(self.classes)) & (present != IGNORE)]
        if wrong.size:
            raise MaskError(
                f"holds class id {wrong[0]}, but there are {len(self.classes)} classes",
                where=where,
                do="check the class list, or mark such pixels 255",
            )
        return labels
