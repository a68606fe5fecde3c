"""Human annotation, class ids per pixel: the only door to it.

Only ``evaluate`` and the recipe ``full_supervision`` may import this module. No other training
code may read ground truth, and thresholds are never tuned on it silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import digest_of_array, digest_of_bytes, file_key
from tagseg.data.finding import find_masks
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask
from tagseg.data.targets import TARGET, class_columns
from tagseg.errors import ImageError, MaskError
from tagseg.formats.object_discovery import MASKS, class_folders, is_object_discovery
from tagseg.maps import IGNORE, Labels

__all__ = ["GroundTruth"]


class GroundTruth:
    """Ground truth of photos by name, from a folder of masks or a mapping name -> labels.

    A folder holds one mask per photo, of the photo's name (``SegmentationClass`` of VOC 2012 is
    one): ids 0 background, k + 1 class k, 255 ignore. The folder of MIT Object Discovery holds
    binary masks, which become the class of their folder. Masks are read when asked for.
    Raises MaskError if the folder has none.
    """

    def __init__(self, source: Path | str | Mapping[str, Labels], classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._masks: dict[str, _Mask]
        if isinstance(source, Mapping):
            n = len(self.classes)
            self._masks = {name: _Mask(labels, n) for name, labels in source.items()}
        else:
            self._masks = _find(Path(source), self.classes)

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
        joined = GroundTruth({}, self.classes)
        joined._masks = self._masks | {
            TARGET + name: mask.renumbered(ids) for name, mask in target._masks.items()
        }
        return joined

    def has(self, name: str) -> bool:
        """Whether photo ``name`` is annotated."""
        return name in self._masks

    def names(self) -> tuple[str, ...]:
        """The annotated photos' names."""
        return tuple(self._masks)

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
class _Mask:
    """One photo's mask: where it is and what its numbers mean.

    Attributes:
        source: a file, or labels uint8 (H, W).
        n_classes: of the class list that the mask's own numbers are of.
        object_id: what the object of a binary mask becomes; None for a mask of class ids.
        ids: uint8 (256,), own number -> class id of the list asked for; None: they are the same.
    """

    source: Path | Labels
    n_classes: int
    object_id: int | None = None
    ids: npt.NDArray[np.uint8] | None = None

    def renumbered(self, ids: npt.NDArray[np.uint8]) -> _Mask:
        together = ids if self.ids is None else ids[self.ids]
        return _Mask(self.source, self.n_classes, self.object_id, together)

    def labels(self, name: str, shape: tuple[int, int]) -> Labels:
        where: object = self.source if isinstance(self.source, Path) else f"mask of '{name}'"
        labels = self._checked(self._read(), shape, where)
        return labels if self.ids is None else self.ids[labels]

    def state(self) -> str:
        if isinstance(self.source, Path):
            state = repr(file_key(self.source)[1:])
        else:
            state = digest_of_array(self.source)
        meaning = [] if self.object_id is None else [f"object {self.object_id}"]
        meaning += [] if self.ids is None else [digest_of_bytes(self.ids.tobytes())]
        return " ".join([state, *meaning])

    def _read(self) -> Labels:
        if not isinstance(self.source, Path):
            return self.source
        if self.object_id is None:
            return read_mask(self.source)
        return _read_binary(self.source) * np.uint8(self.object_id)

    def _checked(self, labels: Labels, shape: tuple[int, int], where: object) -> Labels:
        if labels.dtype != np.uint8 or labels.shape != tuple(shape):
            size = " x ".join(map(str, labels.shape))
            raise MaskError(
                f"the mask is {size} ({labels.dtype}), the photo {shape[0]} x {shape[1]}",
                where=where,
                do="give a uint8 mask of the photo's height and width",
            )
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        wrong = present[(present > self.n_classes) & (present != IGNORE)]
        if wrong.size:
            raise MaskError(
                f"holds class id {wrong[0]}, but there are {self.n_classes} classes",
                where=where,
                do="check the class list, or mark such pixels 255",
            )
        return labels


def _find(folder: Path, classes: tuple[str, ...]) -> dict[str, _Mask]:
    if not folder.is_dir():
        raise MaskError("this folder does not exist", where=folder, do="check the path")
    if is_object_discovery(folder):
        return _find_binary(folder, classes)
    found = {name: _Mask(path, len(classes)) for name, path in find_masks(folder).items()}
    if not found:
        raise MaskError("no masks in this folder", where=folder, do="give the folder of masks")
    return found


def _find_binary(folder: Path, classes: tuple[str, ...]) -> dict[str, _Mask]:
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
        f"{place.name}/{name}": _Mask(path, len(classes), ids[of])
        for place, of in places
        if of in ids
        for name, path in find_masks(place / MASKS).items()
    }
    if not found:
        raise MaskError("no masks in its folders", where=folder, do=f"put them into {MASKS}")
    return found


def _read_binary(path: Path) -> Labels:
    """A picture of 0 and 1, or of black and white, as uint8 (H, W) of 0 and 1."""
    try:
        values = decode_photo(path).max(axis=2)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None
    brightest = int(values.max())
    if 1 < brightest < 128:
        raise MaskError(
            f"holds values up to {brightest}: not a binary mask",
            where=path,
            do="write 0 for background and 255 for the object",
        )
    least = 1 if brightest == 1 else 128
    return (values >= least).astype(np.uint8)
