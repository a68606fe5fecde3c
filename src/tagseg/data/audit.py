"""Look at every photo before anything long starts: what can be used, and what looks odd."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from tagseg.data.dataset import Dataset
from tagseg.data.depth import WHITE, Depth, Levels
from tagseg.data.digests import (
    DIGEST_SIZE,
    Digests,
    digest_of_array,
    digest_of_bytes,
    file_key,
    groups_of_equal,
    small_key,
    state_of,
)
from tagseg.data.images import look_at_photo
from tagseg.data.paths import Paths
from tagseg.data.photo_index import PhotoIndex
from tagseg.data.pictures import read_bytes
from tagseg.errors import DataError, ImageError, first_few
from tagseg.input_files import LIMITS

__all__ = ["Audit", "audit"]

_FEW_PHOTOS = 10
_SMALL_SIDE = 32
_COMMON_SHARE = 0.8
_BLOCK = 16  # photos that a worker looks at in one go
_MANY_PHOTOS, _MANY_WORKERS = 1000, 3  # from which on processes are worth their start
_MOST_GROUPS = 10  # of equal photos that are told one by one
_MOST_NAMED, _MOST_OF_A_KIND = 1000, 100  # in a run's record, which does not grow with the photos

Size = tuple[int, int]


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    Attributes:
        dataset: the photos that can be used, with the rule for those of 16 bits.
        skipped: (name, reason) of the others.
        per_class: number of usable photos per class, in class order.
        train_per_class, val_per_class: those to train on, and those to validate with.
        per_tag_count: number of tags -> number of photos.
        sizes: smallest, median and largest (height, width), by number of pixels.
        negatives: photos known to hold none of the classes.
        unknown: photos about whose tags nothing is known.
        unsure, absent: how often it is said of a class that nobody knows whether it is in a photo,
            and that it surely is not.
        unlisted: photos in the folder without an entry in the tag file.
        val: number of validation photos.
        depth: how photos of 16 bits are read; None if there are none.
        with_more: photos that are animated or have several pages.
        duplicates: names of photos with the same content, group by group.
        digests: content digests of the files, for :meth:`Dataset.fingerprint`.
        index: what was found of each file, for the next look.
        notes: what is done with the photos that is not plain.
        warnings: what looks odd, in plain words.
    """

    dataset: Dataset
    skipped: tuple[tuple[str, str], ...]
    per_class: dict[str, int]
    train_per_class: dict[str, int]
    val_per_class: dict[str, int]
    per_tag_count: dict[int, int]
    sizes: tuple[Size, Size, Size]
    negatives: int
    unknown: int
    unsure: int
    absent: int
    unlisted: int
    val: int
    depth: Depth | None
    with_more: int
    duplicates: tuple[tuple[str, ...], ...]
    digests: Digests
    index: PhotoIndex
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All but the photos, digests and index, for JSON: of many names the first."""
        smallest, middle, largest = (list(size) for size in self.sizes)
        return {
            "photos": len(self.dataset),
            "validation_photos": self.val,
            "classes": list(self.dataset.classes),
            **_named("skipped", [{"name": name, "reason": why} for name, why in self.skipped]),
            "photos_per_class": self.per_class,
            "training_photos_per_class": self.train_per_class,
            "validation_photos_per_class": self.val_per_class,
            "photos_per_number_of_tags": {str(k): n for k, n in self.per_tag_count.items()},
            "sizes": {"min": smallest, "median": middle, "max": largest},
            "negatives": self.negatives,
            "unknown": self.unknown,
            **{name: n for name, n in (("unsure", self.unsure), ("absent", self.absent)) if n},
            "unlisted": self.unlisted,
            "photos_of_16_bits": 0 if self.depth is None else self.depth.photos,
            "white": self.dataset.white,
            "photos_with_more_pictures": self.with_more,
            **_named("duplicates", [list(group[:_MOST_OF_A_KIND]) for group in self.duplicates]),
            "notes": [*self.dataset.notes, *self.notes],
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """The audit as lines for people."""
        smallest, middle, largest = (f"{h} x {w}" for h, w in self.sizes)
        tag_counts = ", ".join(f"{n} with {k}" for k, n in self.per_tag_count.items())
        return [
            *self.counts(),
            f"tags per photo: {tag_counts}",
            f"height x width: {smallest} (smallest), {middle} (median), {largest} (largest)",
            f"without tags: {self.negatives} negative, {self.unknown} unknown",
            *self._marks(),
            f"left out, because not in the tag file: {self.unlisted}",
            f"skipped: {len(self.skipped)}",
            *(f"  {name}: {reason}" for name, reason in self.skipped),
            *self._words(),
        ]

    def _marks(self) -> list[str]:
        """What is said of photos and classes beside tags, where anything is."""
        if not self.unsure and not self.absent:
            return []
        return [f"said of classes in photos: {self.unsure} not known, {self.absent} surely absent"]

    def first_words(self) -> list[str]:
        """What a run begins with: counts, how photos are read, and what looks odd."""
        skipped = [f"skipped: {_some_of(self.skipped)}"] if self.skipped else []
        return [*self.counts(), *self._marks(), *skipped, *self._words()]

    def _words(self) -> list[str]:
        return [f"note: {t}" for t in self.notes] + [f"warning: {t}" for t in self.warnings]

    def counts(self) -> list[str]:
        """Photos in all and of each class, and those for training and for validation apart."""
        lines = [
            f"{len(self.dataset)} photos, {len(self.per_class)} classes",
            f"photos per class: {_listed(self.per_class)}",
        ]
        if self.val:
            train = len(self.dataset) - self.val
            lines.append(f"train: {train} photos: {_listed(self.train_per_class)}")
            lines.append(f"val: {self.val} photos: {_listed(self.val_per_class)}")
        return lines


def _named(what: str, entries: list[Any]) -> dict[str, Any]:
    """The first entries, and how many there are if there are more."""
    more = {f"{what}_in_all": len(entries)} if len(entries) > _MOST_NAMED else {}
    return {what: entries[:_MOST_NAMED], **more}


class _Looks:
    """What is found of N photos, in columns; 0 and "" where a photo cannot be used."""

    def __init__(self, n: int) -> None:
        self.reasons: dict[int, str] = {}  # why a photo cannot be used
        self.levels: dict[int, Levels] = {}  # of photos of 16 bits
        self.shapes = np.zeros((n, 2), np.int32)
        self.digests = np.zeros((n, DIGEST_SIZE), np.uint8)
        self.keys = np.zeros(n, np.uint64)
        self.is_file = np.zeros(n, bool)
        self.more = np.zeros(n, bool)

    def __setitem__(self, place: slice, part: _Looks) -> None:
        """Take over what was found of the photos at ``place``."""
        for name in ("shapes", "digests", "keys", "is_file", "more"):
            getattr(self, name)[place] = getattr(part, name)
        self.reasons |= {place.start + i: reason for i, reason in part.reasons.items()}
        self.levels |= {place.start + i: levels for i, levels in part.levels.items()}

    def recall(self, dataset: Dataset, index: PhotoIndex) -> npt.NDArray[np.bool_]:
        """Fill in the files that are as they were before; which ones (N,)."""
        recalled = np.zeros(len(self.keys), bool)
        if index.max_pixels != dataset.max_pixels or not isinstance(dataset.sources, Paths):
            return recalled
        known, rows = index.places(np.fromiter(map(state_of, dataset.sources), np.uint64))
        recalled[known] = self.is_file[known] = True
        self.keys[known], self.shapes[known] = index.states[rows], index.sizes[rows]
        self.digests[known], self.more[known] = index.digests[rows], index.pages[rows]
        return recalled

    def index(self, usable: npt.NDArray[np.intp], max_pixels: int) -> PhotoIndex:
        """Columns of the files that can be used and need not be looked at again."""
        plain = np.ones(len(self.keys), bool)
        plain[list(self.levels)] = False
        files = usable[self.is_file[usable] & plain[usable]]
        files = files[np.argsort(self.keys[files])]
        return PhotoIndex(
            self.keys[files], self.shapes[files], self.digests[files], self.more[files], max_pixels
        )

    def look_at(self, i: int, source: Path | npt.NDArray[np.uint8], max_pixels: int) -> None:
        """Fill in photo ``i``."""
        try:
            if isinstance(source, np.ndarray):
                self._note(i, source.shape[:2], digest_of_array(source))
            else:
                self._look_at_file(i, source, max_pixels)
        except ImageError as problem:
            self.reasons[i] = problem.what
        except OSError as problem:  # gone since it was listed
            if problem.errno in LIMITS:
                raise
            self.reasons[i] = problem.strerror or "cannot be read"

    def _look_at_file(self, i: int, path: Path, max_pixels: int) -> None:
        data = read_bytes(path)
        seen = look_at_photo(data, max_pixels=max_pixels)
        self.keys[i], self.is_file[i] = small_key(file_key(path)), True
        self.more[i] = seen.more
        if seen.levels is not None:
            self.levels[i] = seen.levels
        self._note(i, (seen.height, seen.width), digest_of_bytes(data))

    def _note(self, i: int, shape: tuple[int, ...], digest: str) -> None:
        self.shapes[i] = shape
        self.digests[i] = np.frombuffer(bytes.fromhex(digest), np.uint8)


def audit(
    dataset: Dataset,
    *,
    allow_skipped: float = 0.01,
    workers: int = 1,
    val: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    known: PhotoIndex | None = None,
) -> Audit:
    """Decode every photo once, and report what can be used and what looks odd.

    Args:
        dataset: the photos, training and validation together.
        allow_skipped: share of photos, 0..1, that may be unusable.
        workers: threads.
        val: names of the validation photos, whose content should not be in the rest.
        progress: called with (done, total) after each photo.
        known: what a look before has found; files that are as they were are not decoded again.

    Raises DataError if more photos than allowed, or all, cannot be used.
    """
    if not len(dataset):
        raise DataError("the dataset has no photos", do="check the folder and the list")
    looks = _look_at_all(dataset, workers, progress, known)
    skipped = [(dataset.names[i], reason) for i, reason in sorted(looks.reasons.items())]
    _check_skipped(skipped, len(dataset), allow_skipped)
    usable = np.delete(np.arange(len(dataset)), list(looks.reasons))
    depth = Depth.of((dataset.names[i], levels) for i, levels in sorted(looks.levels.items()))
    shapes, files = looks.shapes[usable], usable[looks.is_file[usable]]
    white = WHITE if depth is None else depth.white
    good = replace(dataset.subset(usable), white=white, sizes=shapes)
    equal = groups_of_equal(looks.digests[usable])
    held_out = np.fromiter((name in val for name in good.names), bool, len(good))
    numbers, photos = np.unique(good.tags.sum(1), return_counts=True)
    untagged = ~good.tags.any(1)
    with_more = int(np.count_nonzero(looks.more[usable]))
    return Audit(
        dataset=good,
        skipped=tuple(skipped),
        per_class=_per_class(good, np.ones(len(good), bool)),
        train_per_class=_per_class(good, ~held_out),
        val_per_class=_per_class(good, held_out),
        per_tag_count={int(k): int(n) for k, n in zip(numbers, photos, strict=True)},
        sizes=_sizes(shapes),
        negatives=int(np.count_nonzero(untagged & good.known)),
        unknown=int(np.count_nonzero(~good.known)),
        **{name: 0 if m is None else int(np.count_nonzero(m)) for name, m in good.marks()},
        unlisted=good.unlisted,
        val=int(np.count_nonzero(held_out)),
        depth=depth,
        with_more=with_more,
        duplicates=tuple(tuple(good.names[i] for i in group) for group in equal),
        digests=Digests(looks.keys[files], looks.digests[files]),
        index=looks.index(usable, dataset.max_pixels),
        notes=tuple(_notes(good, held_out, depth, with_more)),
        warnings=tuple(_warnings(good, held_out, depth, shapes, equal)),
    )


def _look_at_all(
    dataset: Dataset,
    workers: int,
    progress: Callable[[int, int], None] | None,
    known: PhotoIndex | None,
) -> _Looks:
    total, done = len(dataset), 0
    looks = _Looks(total)
    recalled = np.zeros(total, bool) if known is None else looks.recall(dataset, known)
    left = total - int(recalled.sum())
    places = list(_blocks(~recalled))
    # Decoders release the interpreter lock, but for a third of the time that a photo takes it is
    # held; so threads keep two or three cores busy. They need no start, and share arrays.
    many = left >= _MANY_PHOTOS and workers >= _MANY_WORKERS and isinstance(dataset.sources, Paths)
    run = Parallel(workers, backend="loky" if many else "threading", return_as="generator")
    blocks = (delayed(_look_at)(dataset.sources[place], dataset.max_pixels) for place in places)
    if progress is not None:
        for done in range(1, total - left + 1):
            progress(done, total)
    for place, part in zip(places, run(blocks), strict=True):
        looks[place] = part
        for _ in range(place.start, place.stop):
            done += 1
            if progress is not None:
                progress(done, total)
    return looks


def _blocks(wanted: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Neighbours that are wanted (N,), up to 16 in each block."""
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0))
    for first, behind in edges.reshape(-1, 2).tolist():
        for start in range(first, behind, _BLOCK):
            yield slice(start, min(start + _BLOCK, behind))


def _look_at(sources: Sequence[Path | npt.NDArray[np.uint8]], max_pixels: int) -> _Looks:
    looks = _Looks(len(sources))
    for i, source in enumerate(sources):
        looks.look_at(i, source, max_pixels)
    return looks


def _check_skipped(skipped: list[tuple[str, str]], total: int, allowed: float) -> None:
    if len(skipped) <= allowed * total and len(skipped) < total:
        return
    first = ", ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    share = -(-len(skipped) * 100 // total) / 100
    advice = "mend or remove them"
    if len(skipped) < total:
        advice += f", or go on without them: --allow-skipped {share:.2f}"
    raise DataError(f"{len(skipped)} of {total} photos cannot be used: {first}", do=advice)


def _per_class(dataset: Dataset, chosen: npt.NDArray[np.bool_]) -> dict[str, int]:
    counts = dataset.tags[chosen].sum(0)
    return {name: int(n) for name, n in zip(dataset.classes, counts, strict=True)}


def _sizes(shapes: npt.NDArray[np.int32]) -> tuple[Size, Size, Size]:
    order = np.argsort(shapes.astype(np.int64).prod(1), kind="stable")
    smallest, middle, largest = (
        (int(shapes[i, 0]), int(shapes[i, 1])) for i in order[[0, len(order) // 2, -1]]
    )
    return smallest, middle, largest


def _notes(
    dataset: Dataset, held_out: npt.NDArray[np.bool_], depth: Depth | None, with_more: int
) -> Iterator[str]:
    """How photos are read, and which classes cannot be scored."""
    if depth is not None:
        yield depth.line(len(dataset))
    if with_more:
        are = "photos are" if with_more > 1 else "photo is"
        yield f"{with_more} {are} animated or of several pages: the first picture counts"
    if not (held_out & dataset.known).any():
        return
    train, val = _per_class(dataset, ~held_out), _per_class(dataset, held_out)
    absent = [name for name in dataset.classes if train[name] and not val[name]]
    if absent:
        yield f"no validation photo has {first_few(absent)}"


def _warnings(
    dataset: Dataset,
    held_out: npt.NDArray[np.bool_],
    depth: Depth | None,
    shapes: npt.NDArray[np.int32],
    equal: Sequence[npt.NDArray[np.intp]],
) -> Iterator[str]:
    yield from _class_warnings(dataset, held_out)
    small = [dataset.names[i] for i in np.flatnonzero(shapes.min(1) < _SMALL_SIDE)]
    if small:
        yield f"{_some(small)} less than {_SMALL_SIDE} pixels high or wide"
    if depth is not None and depth.dark:
        yield (
            f"{_some(list(depth.dark))} nearly black where {depth.white} is white; photos of "
            "several devices? bring them to one range of values"
        )
    yield from _duplicate_warnings(dataset, held_out, equal)


def _class_warnings(dataset: Dataset, held_out: npt.NDArray[np.bool_]) -> Iterator[str]:
    train, val = _per_class(dataset, ~held_out), _per_class(dataset, held_out)
    for name in dataset.classes:
        count, total = train[name], train[name] + val[name]
        if total == 0:
            yield f"class '{name}' has no photos"
        elif count == 0:
            where = f"all {total} are" if total > 1 else "its only one is"
            yield (
                f"class '{name}' has no training photos: {where} for validation; it cannot be "
                "learned"
            )
        elif total < _FEW_PHOTOS:
            yield f"class '{name}' has only {total} photo{'s' if total > 1 else ''}"
        elif count < _FEW_PHOTOS:
            yield f"class '{name}' has only {count} photo{'s' if count > 1 else ''} to train on"
        elif total > _COMMON_SHARE * len(dataset):
            percent = 100 * total // len(dataset)
            yield f"class '{name}' is in {percent} % of all photos; little tells it from background"
    by_fold: dict[str, str] = {}
    for name in dataset.classes:
        other = by_fold.setdefault(name.casefold(), name)
        if other != name:
            yield f"classes '{other}' and '{name}' differ in capitals only"


def _duplicate_warnings(
    dataset: Dataset, held_out: npt.NDArray[np.bool_], equal: Sequence[npt.NDArray[np.intp]]
) -> Iterator[str]:
    """A line for each group of equal photos; of many groups, for the worst ones."""
    texts: list[tuple[int, str]] = []
    for group in equal:
        names = first_few([dataset.names[i] for i in group[:4]])
        problems = []
        if (dataset.tags[group] != dataset.tags[group[0]]).any():
            problems.append("with different tags")
        if 0 < np.count_nonzero(held_out[group]) < len(group):
            problems.append("both in training and in validation")
        text = "; ".join([f"the same photo {len(group)} times: {names}", *problems])
        texts.append((len(problems), text))
    if len(texts) > _MOST_GROUPS:
        texts.sort(key=lambda pair: -pair[0])
    yield from (text for _, text in texts[:_MOST_GROUPS])
    rest = texts[_MOST_GROUPS:]
    if rest:
        photos, worse = sum(map(len, equal)), sum(problems > 0 for problems, _ in rest)
        yield (
            f"and {len(rest)} more photos several times, {worse} of them with different tags or in "
            f"training and validation both; {photos} files in all"
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _some_of(skipped: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    return f"{len(skipped)} photos: {shown}" + (", ..." if len(skipped) > 3 else "")


def _some(names: list[str]) -> str:
    return f"{len(names)} photo{'s are' if len(names) > 1 else ' is'} ({first_few(names)})"
