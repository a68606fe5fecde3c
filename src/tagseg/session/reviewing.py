"""A review as a run is given it: its tags for the data set, its masks for the training photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.text import tidy_name
from tagseg.data.working import WorkingPhotos
from tagseg.errors import DataError, TagError, choose_from, first_few, printable
from tagseg.formats.review import (
    Accepted,
    Rejected,
    ReviewFile,
    Standing,
    read_review,
    read_reviewed_mask,
    standing_acts,
)
from tagseg.maps import IGNORE, Labels, Tags, label_of_tag, tags_of_labels
from tagseg.run.engine import map_photos
from tagseg.run.progress import Progress
from tagseg.stages.review import Acts, Review, ReviewSettings

__all__ = ["FOREGROUND", "OpenReview", "ReviewSource", "open_review"]

FOREGROUND = "foreground"
"""The only class of a review of masks that tell objects of any class from the background."""

_COUNTED = {"right": "right", "pick": "picked", "corrected": "corrected"}
Table = npt.NDArray[np.uint8]  # (256,), label of the data set for each value of a mask


@dataclass(frozen=True)
class ReviewSource:
    """A file of ``tagseg review``, and how much the masks count that it accepts."""

    file: Path | str
    settings: ReviewSettings = field(default_factory=ReviewSettings)


@dataclass(frozen=True)
class OpenReview:
    """A review whose acts fit a data set; no mask was opened yet.

    Attributes:
        file: as it was read.
        standing: the acts that count, by photo, of photos to train on.
        labels: what the values of its masks are among the data set's labels.
        settings: how much accepted masks count.
    """

    file: ReviewFile
    standing: Mapping[str, Standing]
    labels: Table
    settings: ReviewSettings

    def retagged(self, photos: Dataset) -> Dataset:
        """The data set with its tags as the review has them.

        Tags that were not known before are known where a person has added or removed some.
        """
        column = {tidy_name(name): i for i, name in enumerate(photos.classes)}
        tags, known = photos.tags.copy(), photos.known.copy()
        marks = {name: _of_shape(mark, tags) for name, mark in photos.marks()}
        index = {name: i for i, name in enumerate(photos.names)}
        for name, (_, change) in self.standing.items():
            if change is None or not (change.add or change.remove):
                continue
            row = index[name]
            added = [column[tidy_name(one)] for one in change.add]
            removed = [column[tidy_name(one)] for one in change.remove]
            tags[row, added], tags[row, removed], known[row] = True, False, True
            marks["absent"][row, added], marks["absent"][row, removed] = False, True
            marks["unsure"][row, added + removed] = False
        return replace(
            photos, tags=tags, known=known, unsure=marks["unsure"], absent=marks["absent"]
        )

    def of(self, photos: WorkingPhotos, progress: Progress, workers: int = 1) -> Review:
        """The review of the photos that a run trains on; every mask is read once, and checked.

        Raises:
            MaskError: a mask is missing, was changed, or does not fit its photo.
        """
        index = {name: i for i, name in enumerate(photos.names)}
        standing = {index[name]: acts for name, acts in self.standing.items() if name in index}
        _say_if_any(progress, sorted(self.standing.keys() - index), "photos that cannot be used")
        accepted: dict[int, Callable[[], Labels]] = {}
        for place, (act, _) in sorted(standing.items()):
            if isinstance(act, Accepted):
                accepted[place] = partial(self._mask, act, photos, place)
        rejected = frozenset(i for i, s in standing.items() if isinstance(s.mask, Rejected))
        both = {photos.names[i]: standing[i].mask for i in sorted({*accepted, *rejected})}
        kept = {name: act for name, act in both.items() if isinstance(act, Accepted)}
        return Review(
            accepted,
            _shown(photos, accepted, progress, workers),
            rejected,
            key=self._key(both),
            accepted_key=self._key(kept),
            settings=self.settings,
            acts=_counted(standing.values(), len(self.file.acts)),
        )

    def _mask(self, act: Accepted, photos: WorkingPhotos, index: int) -> Labels:
        shape = photos.full_shape(index)
        return self.labels[read_reviewed_mask(self.file, act, shape)]

    def _key(self, acts: Mapping[str, object]) -> str:
        """Hash of which masks count for which photos, and of what their values mean."""
        total = blake2b(self.labels.tobytes(), digest_size=16)
        for name, act in acts.items():
            digest = act.sha256 if isinstance(act, Accepted) else "wrong"
            total.update(f"{name}\0{digest}\n".encode())
        return total.hexdigest()


def open_review(
    source: ReviewSource,
    photos: Dataset,
    val: Collection[str],
    progress: Progress,
    *,
    by_class: bool = True,
) -> OpenReview:
    """Read a review and see that it is one of these photos; acts on validation photos do nothing.

    Args:
        by_class: False for a recipe whose labels tell foreground from background alone.

    Raises:
        DataError: the file is damaged, or names a photo or a class that is not there.
    """
    file = read_review(Path(source.file))
    for note in file.notes:
        progress.say(f"note: {note}")
    labels = _labels_in(file, photos.classes, by_class=by_class)
    standing = standing_acts(file.acts)
    _check_names(file, photos)
    held_out = [name for name in standing if name in frozenset(val)]
    _say_if_any(progress, held_out, "validation photos, of which nothing is learned")
    left = {name: acts for name, acts in standing.items() if name not in frozenset(held_out)}
    return OpenReview(file, left, labels, source.settings)


def _labels_in(file: ReviewFile, classes: Collection[str], *, by_class: bool) -> Table:
    """The data set's label of each value, matched by the classes' names; 255 stays."""
    table = np.full(256, IGNORE, np.uint8)
    table[0] = 0
    known = {tidy_name(name): label_of_tag(i) for i, name in enumerate(classes)}
    if not by_class and file.classes == (FOREGROUND,) and FOREGROUND not in known:
        table[1] = 1
        return table
    for value, name in enumerate(file.classes, start=1):
        if tidy_name(name) not in known:
            raise TagError(
                f"the review's class '{printable(name[:80])}' is not one of the data set",
                where=f"{file.path}, line 1",
                do=choose_from(known, name[:80]),
            )
        table[value] = known[tidy_name(name)]
    return table


def _check_names(file: ReviewFile, photos: Dataset) -> None:
    known = frozenset(photos.names)
    for act in file.acts:
        if act.photo not in known:
            raise DataError(
                f"photo '{printable(act.photo[:200])}' is not in the data set",
                where=f"{file.path}, line {act.line}",
                do="give the photos that were reviewed, or take its lines out",
            )


def _shown(
    photos: WorkingPhotos,
    accepted: Mapping[int, Callable[[], Labels]],
    progress: Progress,
    workers: int,
) -> dict[int, Tags]:
    """Classes that the masks show, all of which are read for it; says where tags lack some."""
    if not accepted:
        return {}
    work = [(photos.names[index], index) for index in accepted]
    with progress.task("checking the review", len(work)) as ticks:
        found = map_photos(
            lambda item: tags_of_labels(accepted[item[1]](), len(photos.classes)),
            iter(work),  # errors tell the name
            workers=workers,
            progress=ticks,
        )
        shown = {index: tags for (_, index), tags in zip(work, found, strict=True)}
    known, own = photos.dataset.known, photos.tags
    odd = [photos.names[i] for i, tags in shown.items() if known[i] and (tags & ~own[i]).any()]
    if odd:
        progress.say(
            "note: some accepted masks show classes that their photos' tags lack, which only the "
            "segmenter is taught; change the tags in the review, too "
            f"({len(odd)}): {printable(first_few(odd))}"
        )
    return shown


def _say_if_any(progress: Progress, names: Collection[str], what: str) -> None:
    if names:
        shown = printable(first_few(names))
        progress.say(f"note: acts of the review that do nothing, as they are on {what}: {shown}")


def _of_shape(mark: npt.NDArray[np.bool_] | None, tags: npt.NDArray[np.bool_]) -> npt.NDArray:
    return np.zeros_like(tags) if mark is None else mark.copy()


def _counted(standing: Collection[Standing], acts: int) -> Acts:
    """How many acts count, and how many there are."""
    found = Counter(_kinds(standing))
    return Acts(
        right=found["right"],
        picked=found["picked"],
        corrected=found["corrected"],
        wrong=found["wrong"],
        tags=found["tags"],
        photos=len(standing),
        acts=acts,
    )


def _kinds(standing: Collection[Standing]) -> Iterator[str]:
    for mask, tags in standing:
        if isinstance(mask, Accepted):
            yield _COUNTED[mask.how]
        elif isinstance(mask, Rejected):
            yield "wrong"
        if tags is not None and (tags.add or tags.remove):
            yield "tags"
