"""What a segmenter is taught where a person has looked through masks.

The one place at which a review reaches a training: labels, the photos' tags, and how often a photo
is drawn. Without a review all of it is as it was, and so are the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.errors import TrainingError
from tagseg.maps import IGNORE, Labels
from tagseg.segment.fit import known_photos
from tagseg.stages.context import Run
from tagseg.stages.review import Review, foreground_of
from tagseg.stages.stage import Declared, LabelMaps, Plain, label_maps

__all__ = ["REVIEWED", "Taught", "drawn_photos", "reviewed_labels", "taught"]

REVIEWED = "reviewed-labels"
"""What the names of the stages end with whose labels a review has changed."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Telling(Plain):
    """Whether labels tell classes, or foreground alone."""

    by_class: bool


@dataclass(frozen=True)
class Taught:
    """What a training of a segmenter is given.

    Attributes:
        labels: training labels of all photos.
        photos: the photos; with the classes of accepted masks among their tags.
        drawn: which photos to draw from, those with accepted masks several times; None for all
            whose tags are known.
    """

    labels: LabelMaps
    photos: WorkingPhotos
    drawn: Indices | None = None


def taught(run: Run, targets: LabelMaps, *, prefix: str = "", by_class: bool = True) -> Taught:
    """``targets`` with what a person said about them in their place.

    A mask that was accepted is the photo's training labels, at working size; a photo whose masks
    were all rejected teaches nothing, and is not drawn.

    Args:
        prefix: of the stage's name, where a recipe teaches more than one network.
        by_class: False for labels that only tell foreground from background.
    """
    review = run.review
    if review is None or not review.of_masks:
        return Taught(targets, run.photos)
    labels = reviewed_labels(run, targets, prefix=prefix, by_class=by_class)
    photos = _told(run.photos, review)
    return Taught(labels, photos, drawn_photos(run, known_photos(photos)))


def reviewed_labels(
    run: Run, targets: LabelMaps, *, prefix: str = "", by_class: bool = True
) -> LabelMaps:
    """The labels of :func:`taught`, as a stage that depends on the review."""
    review = run.review
    if review is None or not review.of_masks:
        return targets

    def make(index: int) -> Labels:
        if index in review.rejected:
            return np.full_like(targets(index), IGNORE)
        if index not in review.accepted:
            return targets(index)
        mask = labels_at(review.accepted[index](), run.photos.image(index).shape[:2])
        return mask if by_class else foreground_of(mask)

    return label_maps(
        run,
        Declared(REVIEWED).prefixed(prefix),
        make,
        settings=[review.settings, _Telling(by_class)],
        inputs=[targets, review.key],
    )


def drawn_photos(run: Run, usual: Indices, *, by_tags: bool = True) -> Indices:
    """Indices to draw from: the ``usual`` ones, but for those of which the masks were rejected.

    Those with accepted masks stand there ``review_weight`` times: drawn so often more, their loss
    has that weight in expectation, whatever the loss is and however its batches are normalised.
    Photos that are known to hold no class are as sure as they, and are drawn as often.

    Args:
        by_tags: False for a recipe to which photos without tags are like others.

    Raises:
        TrainingError: nothing is left.
    """
    review = run.review
    if review is None or not review.of_masks:
        return usual
    left = np.setdiff1d(usual, np.fromiter(review.rejected, np.intp))
    if left.size == 0:
        raise TrainingError(
            "the masks of all photos were rejected, and none is left to learn from",
            do="accept or correct some in tagseg review",
        )
    sure = np.isin(left, np.fromiter(review.accepted, np.intp))
    if by_tags and review.accepted:
        photos = run.photos
        sure |= photos.dataset.known[left] & ~photos.tags[left].any(1)
    return np.repeat(left, np.where(sure, review.settings.review_weight, 1))


def _told(photos: WorkingPhotos, review: Review) -> WorkingPhotos:
    """The photos, with the classes of accepted masks among their tags.

    So losses that read tags do not push down what the mask shows; and photos of which no tags were
    known can teach. Earlier stages see the data set's tags.
    """
    tags, known = photos.tags.copy(), photos.dataset.known.copy()
    for index, shown in review.shown.items():
        tags[index] |= shown
        known[index] = True
    unsure, absent = (None if mark is None else mark & ~tags for _, mark in photos.dataset.marks())
    return photos.retold(
        replace(photos.dataset, tags=tags, known=known, unsure=unsure, absent=absent)
    )
