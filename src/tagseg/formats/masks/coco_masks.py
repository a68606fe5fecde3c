"""COCO's objects as masks: the label of the smallest object at each pixel, drawn when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.data.digests import FileKey, digest_of_bytes
from tagseg.data.finding import without_suffix
from tagseg.data.pictures import MAX_PIXELS
from tagseg.errors import MaskError, TagError, first_few
from tagseg.formats.coco.instances import Instances, read_instances
from tagseg.formats.coco.regions import Covered, covered
from tagseg.formats.folders.coco import folder_of_photos
from tagseg.maps import IGNORE, Labels

__all__ = ["DrawnMask", "draw_objects", "drawn_masks"]


@dataclass(frozen=True, eq=False)
class DrawnMask:
    """The mask of one image of a COCO file.

    Attributes:
        instances: the file.
        image: place of the image.
        labels: uint8 (K,), the label of each category; 0 for one that is no class.
    """

    instances: Instances
    image: int
    labels: npt.NDArray[np.uint8]

    @property
    def where(self) -> str:
        """For messages."""
        return self.instances.where(self.image)

    def draw(self) -> Labels:
        """Labels, uint8 (H, W) of the size that the file gives; MaskError if it cannot be drawn."""
        height, width = map(int, self.instances.shapes[self.image])
        if not height * width:
            raise MaskError("has no height and width", where=self.where, do="give them there")
        if height * width > MAX_PIXELS:
            what = f"is {height} x {width}, over the limit of {MAX_PIXELS:,} pixels"
            raise MaskError(what, where=self.where, do="check height and width")
        classes, crowds = self.instances.classes, self.instances.crowds
        try:
            objects = [
                (
                    covered(entry.get("segmentation"), (height, width), where),
                    IGNORE if crowds[one] else int(self.labels[classes[one]]),
                )
                for where, one, entry in self.instances.objects(self.image)
                if self.labels[classes[one]] or not crowds[one]
            ]
        except TagError as problem:
            raise MaskError(problem.what, where=problem.where, do=problem.do) from None
        return draw_objects(objects, (height, width))

    def key(self) -> FileKey:
        """What changes when the mask does: file and image, and the file's state."""
        path, size, time = self.instances.key or (str(self.instances.path), 0, 0)
        return f"{path}#{self.image}:{digest_of_bytes(self.labels.tobytes())}", size, time

    def state(self) -> str:
        """The same without the file's folder."""
        path, *state = self.key()
        return repr((Path(path).name, *state))


def draw_objects(objects: Sequence[tuple[Covered, int]], shape: tuple[int, int]) -> Labels:
    """The label of the smallest object at each pixel (Saleh et al. 2017, 4.1), uint8 (H, W).

    Of equal ones that which comes first. Crowds, of label 255, are below all others: where no
    single object is drawn, the pixel does not count. Background, 0, is where nothing is.

    Args:
        objects: pixels of each object and its label.
        shape: height and width.
    """
    sizes = [int(region.pixels.sum()) for region, _ in objects]
    order = sorted(range(len(objects)), key=lambda i: (objects[i][1] != IGNORE, -sizes[i], -i))
    labels = np.zeros(shape, np.uint8)
    for i in order:
        (left, pixels), label = objects[i]
        labels[:, left : left + pixels.shape[1]][pixels] = label
    return labels


def drawn_masks(
    files: Sequence[Path], classes: Sequence[str]
) -> tuple[dict[str, DrawnMask], tuple[str, ...]]:
    """The masks of all images of COCO files by the photos' names, and what is to be said of them.

    Categories meet ``classes`` by name; others count as background. Raises MaskError for files that
    cannot be used, and if no category is a class.
    """
    found: dict[str, DrawnMask] = {}
    notes: list[str] = []
    for file in files:
        instances = _instances_of(file)
        names, labels = instances.categories, _labels_of(instances, classes)
        others = [name for name in names if name not in classes]
        crowds = int(instances.crowds.sum())
        said = f"ground truth of {len(instances.names)} photos, the smallest object at each pixel"
        said += f"; crowds, which do not count: {crowds}" if crowds else ""
        said += f"; {first_few(others)} count as background" if others else ""
        notes.append(f"{file.name}: {said}")
        home = folder_of_photos(file)
        for image, written in enumerate(instances.names):
            name = f"{home}/" * bool(home) + without_suffix(written.replace("\\", "/"))
            if name in found:
                what = f"'{written}' is named twice"
                raise MaskError(what, where=instances.where(image), do="keep one of the images")
            found[name] = DrawnMask(instances, image, labels)
    return found, tuple(notes)


def _instances_of(file: Path) -> Instances:
    try:
        instances = read_instances(file)
    except TagError as problem:
        raise MaskError(problem.what, where=problem.where, do=problem.do) from None
    if instances is None:
        what = "is no COCO file: it has no lists images, annotations and categories"
        raise MaskError(what, where=file, do="give instances_*.json, or a folder of masks")
    return instances


def _labels_of(instances: Instances, classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    place = {name: label for label, name in enumerate(classes, start=1)}
    labels = np.array([place.get(name, 0) for name in instances.categories], np.uint8)
    if not labels.any():
        raise MaskError(
            f"its categories ({first_few(instances.categories)}) are none of the classes "
            f"({first_few(classes)})",
            where=instances.path,
            do="check the class list",
        )
    return labels
