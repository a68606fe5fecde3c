"""The data of a run: photos to learn from, perhaps others to be scored, and the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tagseg.data.dataset import Dataset
from tagseg.data.targets import notes_on_classes, with_target
from tagseg.formats.ground_truth import GroundTruth
from tagseg.formats.layouts import Layout
from tagseg.formats.loading import Untagged, load_dataset, load_target

__all__ = ["Loaded", "Source", "Target", "ground_truth_of", "load_photos"]


class Source(NamedTuple):
    """A data set to learn from, as :func:`load_dataset` reads it.

    Attributes:
        train_list: of the photos to train on; None for all but those of ``val``.
        val: list of the photos to score; of the target, if there is one.
        allow_missing: share of the tagged photos that may be missing.
    """

    folder: Path
    tags: Path | None = None
    classes: Path | None = None
    untagged: Untagged | None = None
    layout: Layout = "auto"
    synsets: Path | None = None
    train_list: str | None = None
    val: str | None = None
    allow_missing: float = 0.01

    def load(self, split: str | list[str] | None) -> Dataset:
        """The photos of a list, of several, or all."""
        return load_dataset(
            self.folder,
            tags=self.tags,
            classes=self.classes,
            untagged=self.untagged,
            layout=self.layout,
            split=split,
            synsets=self.synsets,
            allow_missing=self.allow_missing,
        )


class Target(NamedTuple):
    """Another data set, to be predicted and scored, as :func:`load_target` reads it."""

    folder: Path
    tags: Path | None = None
    layout: Layout = "auto"
    masks: Path | None = None
    allow_missing: float = 0.01

    def load(self, split: str | None) -> Dataset:
        """The photos of a list, or all."""
        return load_target(
            self.folder,
            tags=self.tags,
            layout=self.layout,
            split=split,
            masks=self.masks,
            allow_missing=self.allow_missing,
        )


class Loaded(NamedTuple):
    """All photos, the names of those to score, and the target's own classes if there is one."""

    photos: Dataset
    val: tuple[str, ...]
    target_classes: tuple[str, ...] | None


def load_photos(
    source: Source, target: Target | None = None, *, say: Callable[[str], None] = lambda note: None
) -> Loaded:
    """The photos for training and validation together.

    ``say`` is told how they were understood, and where the classes of a target differ.
    """
    loaded = _load(source, target, say)
    for note in loaded.photos.notes:
        say(note)
    return loaded


def _load(source: Source, target: Target | None, say: Callable[[str], None]) -> Loaded:
    if target is not None:
        return _load_both(source, target, say)
    train_list, val = source.train_list, source.val
    if val is None:
        return Loaded(source.load(train_list), (), None)
    dataset = source.load(None if train_list is None else [train_list, val])
    held_out = source.load(val)
    notes = dict.fromkeys((*dataset.notes, *held_out.notes))
    if train_list is not None:
        notes |= dict.fromkeys(_in_both(source.load(train_list).names, held_out.names))
    return Loaded(replace(dataset, notes=tuple(notes)), held_out.names, None)


def _in_both(train: Sequence[str], val: Sequence[str]) -> Iterator[str]:
    """What to say of photos that are in both lists."""
    both = sorted(set(train) & set(val))
    if both:
        shown = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        number = f"{len(both)} photos are" if len(both) > 1 else "1 photo is"
        yield f"{number} in both --train and --val, and not trained on: {shown}"


def ground_truth_of(
    loaded: Loaded, ground_truth: Path | None, of_target: Path | None = None
) -> GroundTruth | None:
    """The ground truth that was given, of both data sets together."""
    classes = loaded.photos.classes
    truth = GroundTruth(ground_truth, classes) if ground_truth is not None else None
    if of_target is None or loaded.target_classes is None:
        return truth
    truth = truth if truth is not None else GroundTruth({}, classes)
    return truth.with_target(GroundTruth(of_target, loaded.target_classes))


def _load_both(source: Source, target: Target, say: Callable[[str], None]) -> Loaded:
    learned, other = source.load(source.train_list), target.load(source.val)
    photos, names = with_target(learned, other)
    for note in notes_on_classes(other.classes, learned.classes):
        say(f"note: {note}")
    return Loaded(photos, names, other.classes)
