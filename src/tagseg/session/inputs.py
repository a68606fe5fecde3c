"""The data of a run: photos to learn from, perhaps others to be scored, and the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tagseg.data.dataset import Dataset
from tagseg.data.legends import Legend
from tagseg.data.targets import notes_on_classes, with_target
from tagseg.errors import TagError, first_few
from tagseg.formats.folders.layouts import Layout
from tagseg.formats.folders.photo_tree import kind_of_split
from tagseg.formats.folders.selection import ALL_SPLITS, listed_photos
from tagseg.formats.loading import (
    MAX_MISSING,
    OpenedPhotos,
    Reading,
    Untagged,
    load_target,
    open_photos,
)
from tagseg.formats.masks.ground_truth import BY_EVIDENCE, GroundTruth, MaskRules

__all__ = ["Loaded", "Source", "Target", "ground_truth_of", "load_photos"]


class Source(NamedTuple):
    """A data set to learn from, as :func:`load_dataset` reads it.

    Attributes:
        train_list: of the photos to train on; None for all but those of ``val``, or, where folders
            are called as splits, for those of ``train``.
        val: list of the photos to score; of the target, if there is one. None for none, or, where
            folders are called as splits and no list is given, for those of ``val``.
        masks: folder of ground truth, whose pictures are no photos.
        how: what else there is to say.
    """

    folder: Path
    tags: Path | None = None
    classes: Path | None = None
    untagged: Untagged | None = None
    layout: Layout = "auto"
    synsets: Path | None = None
    train_list: str | None = None
    val: str | None = None
    masks: Path | None = None
    how: Reading = Reading()

    def open(self) -> OpenedPhotos:
        """The photos that are there."""
        return open_photos(
            self.folder,
            tags=self.tags,
            layout=self.layout,
            synsets=self.synsets,
            masks=self.masks,
            how=self.how,
            search=True,
        )


class Target(NamedTuple):
    """Another data set, to be predicted and scored, as :func:`load_target` reads it."""

    folder: Path
    tags: Path | None = None
    layout: Layout = "auto"
    masks: Path | None = None
    allow_missing: float = MAX_MISSING

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
    """All photos, the names of those to score, and the target's own classes if there is one.

    ``target_legend`` is what stands for these classes in the target's masks.
    """

    photos: Dataset
    val: tuple[str, ...]
    target_classes: tuple[str, ...] | None
    target_legend: Legend | None = None


def load_photos(
    source: Source, target: Target | None = None, *, say: Callable[[str], None] = lambda note: None
) -> Loaded:
    """The photos for training and validation together.

    ``say`` is told how they were understood, and where the classes of a target differ.
    """
    loaded = _load(source, target)
    for note in loaded.photos.notes:
        say(note)
    if source.untagged != "unknown":
        _check_some_training_tag(loaded, source)
    if loaded.target_classes is not None:
        for note in notes_on_classes(loaded.target_classes, loaded.photos.classes):
            say(f"note: {note}")
    return loaded


def _check_some_training_tag(loaded: Loaded, source: Source) -> None:
    """Raise TagError if there is nothing to learn from: not one tag outside ``val``."""
    training = loaded.photos.without(loaded.val)
    if len(training) and not training.tags.any():
        raise TagError(
            f"not one of {len(training)} training photos has a tag",
            where=source.tags or source.folder,
            do="check the lists and the tags",
        )


def _load(source: Source, target: Target | None) -> Loaded:
    opened = source.open()
    splits = opened.place.splits()
    train, val = _lists(source, splits, with_val=target is None)

    def load(split: str | list[str] | None) -> Dataset:
        return opened.load(split, classes=source.classes, untagged=source.untagged)

    if target is not None:
        learned = _with_note(load(train), splits, ())
        other = target.load(source.val)
        return Loaded(*with_target(learned, other), other.classes, other.legend)
    if val is None:
        return Loaded(_with_note(load(train), splits, ()), (), None)
    dataset, held_out = load(None if train is None else [train, val]), load(val)
    notes = dict.fromkeys((*dataset.notes, *held_out.notes))
    if train is not None:
        notes |= dict.fromkeys(_in_both(listed_photos(opened.place, train).names, held_out.names))
    dataset = replace(dataset, notes=tuple(notes))
    return Loaded(_with_note(dataset, splits, held_out.names), held_out.names, None)


def _in_both(train: Sequence[str], val: Sequence[str]) -> Iterator[str]:
    """What to say of photos that are in both lists."""
    both = sorted(set(train) & set(val))
    if both:
        number = f"{len(both)} photos are" if len(both) > 1 else "1 photo is"
        yield f"{number} in both --train and --val, and not trained on: {first_few(both)}"


def _lists(
    source: Source, splits: Iterable[str], *, with_val: bool
) -> tuple[str | None, str | None]:
    """Lists of training and of validation: the user's, or else folders that are called so.

    None for all photos, and for none to validate with.
    """
    train, val = source.train_list, source.val if with_val else None
    if train is None:
        train = _of_kind(splits, "train")
        if val is None and with_val and train is not None:
            val = _of_kind(splits, "val")
    return train, val


def _of_kind(splits: Iterable[str], kind: str) -> str | None:
    found = [split for split in splits if kind_of_split(split) == kind]
    return found[0] if len(found) == 1 else None


def _with_note(
    dataset: Dataset, splits: Mapping[str, tuple[str, ...]], val: Collection[str]
) -> Dataset:
    """The dataset, with a line on what becomes of each folder of a split."""
    if not splits:
        return dataset
    held_out = set(val)
    learned = set(dataset.names) - held_out
    told = [f"{split} {_uses(names, learned, held_out)}" for split, names in splits.items()]
    advice = f"--train, --val take these names; --train {ALL_SPLITS} trains on all but --val"
    return replace(dataset, notes=(*dataset.notes, f"splits: {', '.join(told)}; {advice}"))


def _uses(names: Sequence[str], learned: Set[str], held_out: Set[str]) -> str:
    """Such as ``24 (training)``, ``10 (8 training, 2 left out)``."""
    numbers = {
        "training": sum(name in learned for name in names),
        "validation": sum(name in held_out for name in names),
    }
    numbers["left out"] = len(names) - sum(numbers.values())
    uses = {use: number for use, number in numbers.items() if number}
    if len(uses) == 1:
        return f"{len(names)} ({next(iter(uses))})"
    return f"{len(names)} ({', '.join(f'{number} {use}' for use, number in uses.items())})"


def ground_truth_of(
    loaded: Loaded,
    ground_truth: Path | None,
    of_target: Path | None = None,
    rules: MaskRules = BY_EVIDENCE,
) -> GroundTruth | None:
    """The ground truth that was given, of both data sets together; masks are read by ``rules``."""
    classes, legend = loaded.photos.classes, loaded.photos.legend
    truth = None
    if ground_truth is not None:
        truth = GroundTruth(ground_truth, classes, legend=legend, rules=rules)
    if of_target is None or loaded.target_classes is None:
        return truth
    truth = truth if truth is not None else GroundTruth({}, classes, rules=rules)
    own, legend = loaded.target_classes, loaded.target_legend
    return truth.with_target(GroundTruth(of_target, own, legend=legend, rules=rules))
