"""Look at every photo before anything long starts: what can be used, and what looks odd."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from tagseg.data.dataset import Dataset, FileKey, digest_of_array, digest_of_bytes, file_key
from tagseg.data.images import decode_photo
from tagseg.data.pictures import read_bytes
from tagseg.errors import DataError, ImageError

__all__ = ["Audit", "audit"]

_FEW_PHOTOS = 10
_SMALL_SIDE = 32
_COMMON_SHARE = 0.8


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    Attributes:
        dataset: the photos that can be used.
        skipped: (name, reason) of the others.
        per_class: number of usable photos per class, in class order.
        per_tag_count: number of tags -> number of photos.
        sizes: smallest, median and largest (height, width), by number of pixels.
        negatives: photos known to hold none of the classes.
        unknown: photos about whose tags nothing is known.
        unlisted: photos in the folder without an entry in the tag file.
        duplicates: names of photos with the same content, group by group.
        digests: content digests of the files, for :meth:`Dataset.fingerprint`.
        warnings: what looks odd, in plain words.
    """

    dataset: Dataset
    skipped: tuple[tuple[str, str], ...]
    per_class: dict[str, int]
    per_tag_count: dict[int, int]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    negatives: int
    unknown: int
    unlisted: int
    duplicates: tuple[tuple[str, ...], ...]
    digests: dict[FileKey, str]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All but the photos and digests, for JSON."""
        smallest, middle, largest = (list(size) for size in self.sizes)
        return {
            "photos": len(self.dataset),
            "classes": list(self.dataset.classes),
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
            "photos_per_class": self.per_class,
            "photos_per_number_of_tags": {str(k): n for k, n in self.per_tag_count.items()},
            "sizes": {"min": smallest, "median": middle, "max": largest},
            "negatives": self.negatives,
            "unknown": self.unknown,
            "unlisted": self.unlisted,
            "duplicates": [list(group) for group in self.duplicates],
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """The audit as lines for people."""
        smallest, middle, largest = (f"{h} x {w}" for h, w in self.sizes)
        counts = ", ".join(f"{name} {n}" for name, n in self.per_class.items())
        tag_counts = ", ".join(f"{n} with {k}" for k, n in self.per_tag_count.items())
        return [
            f"{len(self.dataset)} photos, {len(self.per_class)} classes",
            f"photos per class: {counts}",
            f"tags per photo: {tag_counts}",
            f"height x width: {smallest} (smallest), {middle} (median), {largest} (largest)",
            f"without tags: {self.negatives} negative, {self.unknown} unknown",
            f"left out, because not in the tag file: {self.unlisted}",
            f"skipped: {len(self.skipped)}",
            *(f"  {name}: {reason}" for name, reason in self.skipped),
            *(f"warning: {text}" for text in self.warnings),
        ]


class _Look(NamedTuple):
    """One photo's outcome; ``reason`` is set if it cannot be used."""

    reason: str
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    key: FileKey | None = None


def audit(
    dataset: Dataset,
    *,
    allow_skipped: float = 0.01,
    workers: int = 1,
    val: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Decode every photo once, and report what can be used and what looks odd.

    Args:
        dataset: the photos, training and validation together.
        allow_skipped: share of photos, 0..1, that may be unusable.
        workers: threads.
        val: names of the validation photos, whose content should not be in the rest.
        progress: called with (done, total) after each photo.

    Raises DataError if more photos than allowed, or all, cannot be used.
    """
    if not len(dataset):
        raise DataError("the dataset has no photos", do="check the folder and the list")
    looks = list(_look_at_all(dataset, workers, progress))
    skipped = [(n, k.reason) for n, k in zip(dataset.names, looks, strict=True) if k.reason]
    _check_skipped(skipped, len(dataset), allow_skipped)
    usable = [i for i, look in enumerate(looks) if not look.reason]
    good, kept = dataset.subset(usable), [looks[i] for i in usable]
    duplicates = _duplicates(good, kept)
    counts = {c: int(n) for c, n in zip(good.classes, good.tags.sum(0), strict=True)}
    numbers, photos = np.unique(good.tags.sum(1), return_counts=True)
    untagged = ~good.tags.any(1)
    return Audit(
        dataset=good,
        skipped=tuple(skipped),
        per_class=counts,
        per_tag_count={int(k): int(n) for k, n in zip(numbers, photos, strict=True)},
        sizes=_sizes([look.size for look in kept]),
        negatives=int(np.count_nonzero(untagged & good.known)),
        unknown=int(np.count_nonzero(~good.known)),
        unlisted=good.unlisted,
        duplicates=duplicates,
        digests={look.key: look.digest for look in kept if look.key is not None},
        warnings=tuple(_warnings(good, kept, counts, duplicates, frozenset(val))),
    )


def _look_at_all(
    dataset: Dataset, workers: int, progress: Callable[[int, int], None] | None
) -> Iterator[_Look]:
    # Threads: decoders release the lock, and photos given as arrays need not be copied.
    run = Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    looks = run(delayed(_look_at)(source, dataset.max_pixels) for source in dataset.sources)
    for done, look in enumerate(looks, start=1):
        if progress is not None:
            progress(done, len(dataset))
        yield look


def _look_at(source: Path | np.ndarray, max_pixels: int) -> _Look:
    if isinstance(source, np.ndarray):
        return _Look("", source.shape[:2], digest_of_array(source))
    try:
        data = read_bytes(source)
        height, width, _ = decode_photo(data, max_pixels=max_pixels).shape
        return _Look("", (height, width), digest_of_bytes(data), file_key(source))
    except ImageError as problem:
        return _Look(problem.what)
    except OSError as problem:  # gone since it was listed
        return _Look(problem.strerror or "cannot be read")


def _check_skipped(skipped: list[tuple[str, str]], total: int, allowed: float) -> None:
    if len(skipped) <= allowed * total and len(skipped) < total:
        return
    first = ", ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    share = -(-len(skipped) * 100 // total) / 100
    advice = "mend or remove them"
    if len(skipped) < total:
        advice += f", or go on without them: --allow-skipped {share:.2f}"
    raise DataError(f"{len(skipped)} of {total} photos cannot be used: {first}", do=advice)


def _sizes(
    sizes: list[tuple[int, int]],
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _duplicates(dataset: Dataset, looks: list[_Look]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, look in zip(dataset.names, looks, strict=True):
        groups[look.digest].append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _warnings(
    dataset: Dataset,
    looks: list[_Look],
    counts: dict[str, int],
    duplicates: tuple[tuple[str, ...], ...],
    val: frozenset[str],
) -> Iterator[str]:
    yield from _class_warnings(dataset, counts)
    small = [n for n, k in zip(dataset.names, looks, strict=True) if min(k.size) < _SMALL_SIDE]
    if small:
        yield f"{_some(small)} less than {_SMALL_SIDE} pixels high or wide"
    yield from _duplicate_warnings(dataset, duplicates, val)


def _class_warnings(dataset: Dataset, counts: dict[str, int]) -> Iterator[str]:
    for name, count in counts.items():
        if count == 0:
            yield f"class '{name}' has no photos"
        elif count < _FEW_PHOTOS:
            yield f"class '{name}' has only {count} photo{'s' if count > 1 else ''}"
        elif count > _COMMON_SHARE * len(dataset):
            percent = 100 * count // len(dataset)
            yield f"class '{name}' is in {percent} % of all photos; little tells it from background"
    by_fold: dict[str, str] = {}
    for name in counts:
        other = by_fold.setdefault(name.casefold(), name)
        if other != name:
            yield f"classes '{other}' and '{name}' differ in capitals only"


def _duplicate_warnings(
    dataset: Dataset, duplicates: tuple[tuple[str, ...], ...], val: frozenset[str]
) -> Iterator[str]:
    tags = {name: row.tobytes() for name, row in zip(dataset.names, dataset.tags, strict=True)}
    for group in duplicates:
        names = ", ".join(group[:3]) + (", ..." if len(group) > 3 else "")
        text = f"the same photo {len(group)} times: {names}"
        if len({tags[name] for name in group}) > 1:
            text += "; with different tags"
        if 0 < len(val.intersection(group)) < len(group):
            text += "; both in training and in validation"
        yield text


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} photo{'s are' if len(names) > 1 else ' is'} ({shown})"
