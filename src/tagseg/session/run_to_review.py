"""What a person looks through: the training photos of a run, their masks and other label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.working import working_image
from tagseg.errors import DataError, TagsegError, first_few
from tagseg.formats.review import Standing, read_review, standing_acts
from tagseg.maps import Image
from tagseg.priors.superpixels import SuperpixelSettings, superpixel_levels
from tagseg.run.mask_files import MaskFiles
from tagseg.run.workspace import Workspace
from tagseg.session.inputs import load_photos
from tagseg.session.label_maps import (
    FINAL,
    LabelMapsOfRun,
    find_label_maps,
    stored_regions,
    tell_classes,
)
from tagseg.session.photo_trust import Measure, measure_of
from tagseg.session.recorded import ParseTrain, RecordedCommand, recorded_command
from tagseg.session.reviewing import FOREGROUND
from tagseg.tar_members import is_there

__all__ = ["MOST_MAPS", "RunToReview", "open_run", "regions_of"]

MOST_MAPS = 9
"""Label maps of a photo that are offered, as many as there are number keys."""

_LEVELS = (
    SuperpixelSettings(scale=50, min_size=30),
    SuperpixelSettings(scale=120, min_size=90),
    SuperpixelSettings(scale=300, min_size=300),
)
_REFERENCE = 320  # longer side for which these are meant
_SEEN_AT = 640  # longer side at which superpixels are found


@dataclass(frozen=True)
class RunToReview:
    """A finished run, ready to be looked through.

    Attributes:
        folder: as the user wrote it.
        classes: in label order.
        photos: the training photos that have a mask, with the tags of the data set.
        home: folder that the photos lie in.
        maps: what the run kept, the final masks first, :data:`MOST_MAPS` at most.
        crisp: crisp regions of a photo at working size, if the run keeps them.
        measure: by which the least trusted photos come first.
        command: that the run was made with.
        notes: what should be said at the start, a line each.
        by_class: False for masks that only tell objects from background; the one class is then
            :data:`FOREGROUND`, and every photo has it.
    """

    folder: Path
    classes: tuple[str, ...]
    photos: Dataset
    home: Path
    maps: tuple[LabelMapsOfRun, ...]
    crisp: Callable[[str], npt.NDArray[np.int32]] | None
    measure: Measure
    command: RecordedCommand
    notes: tuple[str, ...]
    by_class: bool = True


def open_run(run: Path, photos: Path | None, parse: ParseTrain) -> RunToReview:
    """Open a finished run for looking through its masks.

    Args:
        run: its folder.
        photos: folder of its photos; None for that of the command that it was made with.
        parse: reads that command.

    Raises:
        WorkspaceError: there is no finished run.
        DataError: its photos are not found, or are others.
    """
    work = Workspace.read(run)
    work.finished(FINAL)
    command = recorded_command(work, run, photos, parse)
    loaded = load_photos(command.source())
    known, notes = _with_masks(loaded.photos, loaded.val, work)
    by_class = tell_classes(work, known)
    if not by_class:
        known = _of_objects(known)
    maps = find_label_maps(work, known)
    return RunToReview(
        run,
        known.classes,
        known,
        command.photos,
        tuple(maps[:MOST_MAPS]),
        stored_regions(work),
        measure_of(run, work, _as_trained(known, command), maps),
        command,
        tuple(notes),
        by_class,
    )


def _with_masks(
    photos: Dataset, val: tuple[str, ...], work: Workspace
) -> tuple[Dataset, list[str]]:
    """The training photos that the run has masks of, with tags of the run's classes."""
    masks = MaskFiles(work.finished(FINAL).path(FINAL))
    training = _of_classes(photos.without(val), tuple(work.classes), work.folder)
    there = [name for name in training.names if name in masks]
    if not there:
        raise DataError(
            f"the run has a mask of none of these photos ({first_few(training.names)})",
            where=work.folder,
            do="give the photos that it learned from: --photos DIR",
        )
    known = training.select(there)
    here = [i for i, source in enumerate(known.sources) if not _is_gone(source)]
    out = {
        "photos of which it made no mask": len(training) - len(there),
        "photos that are not there any more": len(there) - len(here),
        "photos for validation, as no run is trained on them": len(val),
    }
    return known.subset(here), [f"left out: {n} {what}" for what, n in out.items() if n]


def _is_gone(source: object) -> bool:
    return isinstance(source, Path) and not is_there(source)


def _of_classes(photos: Dataset, classes: tuple[str, ...], run: Path) -> Dataset:
    """The same photos, their tags in the order of the run's classes."""
    if photos.classes == classes:
        return photos
    column = {name: place for place, name in enumerate(photos.classes)}
    if not column.keys() & set(classes):
        raise DataError(
            f"the photos have other classes ({first_few(photos.classes)}) than the run "
            f"({first_few(classes)})",
            where=run,
            do="give the photos that it learned from: --photos DIR",
        )
    kept = [name in column for name in classes]
    places = [column.get(name, 0) for name in classes]
    marks: dict[str, Any] = {
        name: None if mark is None else mark[:, places] & kept for name, mark in photos.marks()
    }
    tags = photos.tags[:, places] & kept
    return replace(photos, classes=classes, tags=tags, legend=None, **marks)


def _as_trained(photos: Dataset, command: RecordedCommand) -> Dataset:
    """The photos with the tags that the run learned with, which an earlier review has changed."""
    if "review" not in command.given:
        return photos
    try:
        standing = standing_acts(read_review(command.given["review"][1]).acts)
    except TagsegError:  # it is gone: who comes first is then told in another way
        return photos
    column, tags = {name: c for c, name in enumerate(photos.classes)}, photos.tags.copy()
    for row, name in zip(tags, photos.names, strict=True):
        said = standing.get(name, Standing()).tags
        for there, names in ((True, said.add), (False, said.remove)) if said is not None else ():
            row[[column[each] for each in names if each in column]] = there
    return replace(photos, tags=tags, unsure=None, absent=None)


def _of_objects(photos: Dataset) -> Dataset:
    """The same photos, each with some object."""
    tags = np.ones((len(photos), 1), bool)
    return replace(photos, classes=(FOREGROUND,), tags=tags, legend=None, unsure=None, absent=None)


def regions_of(image: Image) -> list[npt.NDArray[np.int32]]:
    """Superpixels of a photo (H, W, 3), fine to coarse, at a size of their own."""
    small = working_image(np.ascontiguousarray(image), _SEEN_AT)
    return superpixel_levels(small, list(_LEVELS), reference_side=_REFERENCE)
