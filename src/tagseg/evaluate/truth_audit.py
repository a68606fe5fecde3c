"""Look at all masks of ground truth before anything long starts, as the audit looks at photos.

Sizes, numbers, colours, palettes and EXIF are compared with the photos and over all masks; tags
are compared with the classes in the masks, which tells a class list in another order. All of this
is for messages alone: nothing is trained or chosen by it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from tagseg.data.dataset import Dataset, FileKey
from tagseg.data.finding import find_masks
from tagseg.data.legends import Legend, MaskContent
from tagseg.data.mask_cache import MaskCache
from tagseg.data.orientation import Geometry, read_geometries
from tagseg.errors import MaskError
from tagseg.evaluate.truth_values import Seen, read_by_colour, wrong_values
from tagseg.formats.masks.ground_truth import (
    GroundTruth,
    LieOn,
    Mask,
    same_proportions,
    wrong_size,
)
from tagseg.maps import IGNORE, Tags

__all__ = ["TruthAudit", "audit_truth", "truth_for", "truth_of_masks"]

_WORTH_KEEPING = 2.0  # seconds of reading, from which on what was found is kept
_DOUBTFUL = 0.5  # share of photos whose mask and tags disagree


class _Photo(NamedTuple):
    """What is known of a photo beside its mask.

    Attributes:
        path: its file, if it has one.
        geometry: size and orientation, None if that is not known.
        tags: bool (C,), None if they are not known.
    """

    path: Path | None = None
    geometry: Geometry | None = None
    tags: Tags | None = None


@dataclass(frozen=True)
class TruthAudit:
    """What :func:`audit_truth` found.

    Attributes:
        truth: the ground truth as it is to be read for these photos.
        photos: number of photos.
        masks: number of photos with a mask.
        unused: masks of no photo here.
        per_class: number of masks in which each class is, by class.
        notes: how the masks were understood, where that is not plain.
        warnings: what looks odd.
        errors: what cannot be used.
    """

    truth: GroundTruth
    photos: int
    masks: int
    unused: int
    per_class: dict[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    errors: tuple[MaskError, ...]

    def raise_errors(self) -> None:
        """Raise the first error, which says how many more there are."""
        if self.errors:
            first, *rest = self.errors
            more = f" ({len(rest)} more: tagseg check --ground-truth lists all)" if rest else ""
            raise MaskError(first.what, where=first.where, do=first.do + more)

    def lines(self) -> list[str]:
        """The audit as lines for people."""
        counts = ", ".join(f"{name} {n}" for name, n in self.per_class.items())
        return [
            f"ground truth: {self.masks} of {self.photos} photos have a mask; "
            f"{self.unused} masks are of no photo here",
            f"masks per class: {counts}",
            *(f"note: {note}" for note in self.notes),
            *(f"warning: {text}" for text in self.warnings),
            *(f"error: {error}" for error in self.errors),
        ]

    def to_dict(self) -> dict[str, Any]:
        """All but the masks, for JSON."""
        return {
            "photos": self.photos,
            "masks": self.masks,
            "unused": self.unused,
            "masks_per_class": self.per_class,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "errors": [str(error) for error in self.errors],
        }


def audit_truth(
    truth: GroundTruth,
    photos: Dataset,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> TruthAudit:
    """Read the masks of all photos, and report what cannot be used and what looks odd.

    Args:
        truth: the ground truth; naming rules (``x_mask`` for ``x``) are found here.
        photos: the photos, of which the files' heads are read for sizes.
        workers: threads; -1 for as many as there are cores.
        progress: called with (done, total) after each mask.

    Raises MaskError if no photo has ground truth; other errors are in the result.
    """
    truth, paths = truth_for(truth, photos), _paths(photos)
    chosen = [i for i, name in enumerate(photos.names) if truth.has(name)]
    geometries = read_geometries(photos.sources[i] for i in chosen)
    known = {
        photos.names[i]: _Photo(
            paths[photos.names[i]], geometry, photos.tags[i] if photos.known[i] else None
        )
        for i, geometry in zip(chosen, geometries, strict=True)
    }
    others = {name: _Photo() for name in photos.names if name not in known}
    return _audit(truth, {**known, **others}, workers, progress)


def truth_for(truth: GroundTruth, photos: Dataset) -> GroundTruth:
    """``truth`` with its masks under the names of these photos."""
    return truth.for_photos(_paths(photos))


def _paths(photos: Dataset) -> dict[str, Path | None]:
    return {
        name: source if isinstance(source, Path) else None
        for name, source in zip(photos.names, photos.sources, strict=True)
    }


def _audit(
    truth: GroundTruth,
    photos: Mapping[str, _Photo],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> TruthAudit:
    names = [name for name in photos if truth.has(name)]
    if not names:
        raise MaskError(
            "no photo has ground truth",
            do="name the masks as the photos, and give the folder that they lie in",
        )
    masks = {name: truth.mask(name) for name in names}
    contents, damaged = _contents(masks, workers, progress)
    seen = [Seen(n, masks[n], content, photos[n].tags) for n, content in contents.items()]
    sizes = _compare_sizes(seen, photos, truth.rules.lie_on)
    wrong = tuple(wrong_values(seen, truth.classes))
    by_colour = read_by_colour(seen)
    present = {one.name: one.classes() for one in seen}
    tags = {one.name: one.tags for one in seen if one.tags is not None}
    truth = truth.turned(sizes.orientations, sizes.notes) if sizes.orientations else truth
    return TruthAudit(
        truth=truth,
        photos=len(photos),
        masks=len(names),
        unused=len(truth.names()) - len(names),
        per_class={
            c: sum(k in labels for labels in present.values())
            for k, c in enumerate(truth.classes, start=1)
        },
        notes=(*truth.notes, *_notes_on_colours(by_colour, truth.classes)),
        warnings=(
            *sizes.warnings,
            *(_warnings_of_tags(truth.classes, present, tags) if not wrong else ()),
        ),
        errors=(*damaged, *sizes.errors, *wrong),
    )


def truth_of_masks(
    truth: GroundTruth, predictions: Path, names: Collection[str] | None = None
) -> tuple[GroundTruth, tuple[str, ...]]:
    """The ground truth as it is to be read for a folder of predicted masks, and what is to be said.

    Raises MaskError if a mask cannot be used, or if the predictions are black and white or of
    palettes in disorder. Sizes, and what is missing, are left to the comparison.
    """
    files = find_masks(predictions)
    wanted = files if names is None else names
    truth = truth.for_photos(dict.fromkeys(wanted))
    chosen = [name for name in wanted if truth.has(name)]
    if not chosen:
        return truth, truth.notes
    plain = Legend(len(truth.classes))
    predicted = {name: Mask(files[name], plain) for name in chosen if name in files}
    contents, _ = _contents(predicted, -1, None)
    seen = [Seen(name, predicted[name], content, None) for name, content in contents.items()]
    for error in wrong_values(seen, truth.classes, strange=False):
        raise error
    found = _audit(truth, {name: _Photo() for name in wanted}, -1, None)
    found.raise_errors()
    return found.truth, (*found.notes, *found.warnings)


# --- reading -------------------------------------------------------------------------------------


def _contents(
    masks: Mapping[str, Mask], workers: int, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, MaskContent], list[MaskError]]:
    """What each mask holds, from the cache or the file, and what is damaged."""
    keys = {name: key for name, mask in masks.items() if (key := mask.key()) is not None}
    cache = MaskCache(_common_folder(keys.values())) if keys else None
    kept = cache.load() if cache is not None else {}
    run = Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    known = {name: kept[keys[name]] for name in masks if keys.get(name) in kept}
    start, found, damaged = time.monotonic(), {}, []
    looks = run(delayed(_look)(mask, known.get(name)) for name, mask in masks.items())
    for done, (name, look) in enumerate(zip(masks, looks, strict=True), start=1):
        if isinstance(look, MaskError):
            damaged.append(look)
        else:
            found[name] = look
        if progress is not None:
            progress(done, len(masks))
    if cache is not None and time.monotonic() - start > _WORTH_KEEPING:
        cache.save({keys[name]: found[name] for name in keys if name in found})
    return found, damaged


def _common_folder(keys: Collection[FileKey]) -> Path:
    return Path(os.path.commonpath({os.path.dirname(path) for path, *_ in keys}))


def _look(mask: Mask, known: MaskContent | None) -> MaskContent | MaskError:
    if known is not None and mask.object_id is None:
        return known
    try:
        return mask.content()
    except MaskError as problem:
        return problem


# --- sizes and EXIF ------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What the sizes say; ``orientations`` of the masks that are to be turned."""

    orientations: dict[str, int]
    notes: list[str]
    warnings: list[str]
    errors: list[MaskError]


def _compare_sizes(
    seen: Sequence[Seen], photos: Mapping[str, _Photo], lie_on: LieOn | None
) -> _Sizes:
    """Which masks are of the photo as displayed, of its stored pixels, or of neither."""
    wrong: list[tuple[Seen, Geometry]] = []
    by_size: dict[str, list[tuple[Seen, Geometry]]] = {"stored": [], "displayed": [], "either": []}
    for one in seen:
        geometry = photos[one.name].geometry
        if geometry is None:
            continue
        fits = _fits(one, geometry)
        if not fits or lie_on not in (None, *fits):
            wrong.append((one, geometry))
        elif geometry.orientation != 1:
            kind = fits[0] if len(fits) == 1 else "either"
            by_size[kind].append((one, geometry))
    errors = [wrong_size(one.content.shape, g.shape, one.where) for one, g in wrong[:1]]
    if len(wrong) > 1:
        first = errors[0]
        do = f"{first.do}; {len(wrong)} masks have another size than their photo"
        errors = [MaskError(first.what, where=first.where, do=do)]
    return _Sizes(*_turns(by_size, lie_on), errors)


def _fits(one: Seen, geometry: Geometry) -> list[LieOn]:
    fits: list[LieOn] = []
    if one.content.shape == geometry.shape:
        fits.append("displayed")
    if one.content.shape == geometry.stored:
        fits.append("stored")
    if one.mask.fitted and same_proportions(one.content.shape, geometry.shape):
        fits = ["displayed"]
    its_own = one.content.orientation == geometry.orientation != 1
    return ["stored"] if its_own and "stored" in fits else fits


def _turns(
    by_size: Mapping[str, list[tuple[Seen, Geometry]]], lie_on: LieOn | None
) -> tuple[dict[str, int], list[str], list[str]]:
    """The masks to turn, what to say of them, and of those that sizes do not tell."""
    stored, displayed, either = (by_size[kind] for kind in ("stored", "displayed", "either"))
    all_stored = lie_on == "stored" or (lie_on is None and bool(stored) and not displayed)
    turn = [*stored, *either] if all_stored else stored
    orientations = {one.name: geometry.orientation for one, geometry in turn}
    notes, warnings = [], []
    if turn and lie_on is None:
        said = "masks lie on the stored pixels of photos that EXIF turns, and are turned as these"
        said = f"{len(stored)} {said} ({_some(stored)})"
        if len(turn) > len(stored):
            said += f"; so are {len(either)} whose size does not tell (--masks-as displayed: none)"
        notes.append(said)
    if either and lie_on is None and not all_stored and not (displayed and not stored):
        warnings.append(
            f"{len(either)} masks are of photos that EXIF turns or mirrors ({_some(either)}): they "
            "are read as masks of the photos as displayed; if a tool without EXIF has drawn them "
            "on the stored pixels, use --masks-as stored (--masks-as displayed ends this warning)"
        )
    return orientations, notes, warnings


def _some(pairs: Sequence[tuple[Seen, Geometry]]) -> str:
    shown = ", ".join(f"{one.name}: orientation {g.orientation}" for one, g in pairs[:3])
    return shown + (", ..." if len(pairs) > 3 else "")


# --- classes and tags ----------------------------------------------------------------------------


def _notes_on_colours(by_colour: Sequence[Seen], classes: Sequence[str]) -> Iterator[str]:
    if by_colour:
        first = by_colour[0]
        number, label = next(
            (v, i)
            for v, i in first.reading.labels.items()
            if i is not None and i != first.mask.legend.label(v)
        )
        called = ["background", *classes][label] if label != IGNORE else "ignore"
        yield (
            f"{len(by_colour)} masks are read by the colours of their palette, which are in "
            f"another order than its numbers ({first.where}: number {number} has the colour "
            f"{first.content.colours[number]} of {called}); --masks-by number reads the "
            "numbers"
        )


def _warnings_of_tags(
    classes: Sequence[str], present: Mapping[str, frozenset[int]], tags: Mapping[str, Tags]
) -> Iterator[str]:
    """Masks and tags that contradict each other."""
    tagged = {
        name: frozenset((np.flatnonzero(row) + 1).tolist())
        for name, row in tags.items()
        if row.any()
    }
    if present and not any(present.values()):
        if tagged:
            yield f"no mask holds any class, though {len(tagged)} of their photos have tags"
        return
    for label, name in enumerate(classes, start=1):
        count = sum(label in of_photo for of_photo in tagged.values())
        if count and not any(label in of_mask for of_mask in present.values()):
            yield f"class '{name}' is tagged in {count} photos with masks, and no mask holds it"
    yield from _order_warning(classes, present, tagged)


def _order_warning(
    classes: Sequence[str],
    present: Mapping[str, frozenset[int]],
    tagged: Mapping[str, frozenset[int]],
) -> Iterator[str]:
    """Whether classes in masks are not the tagged ones, as with a class list in another order."""
    both = {name: (present[name], tags) for name, tags in tagged.items() if present[name]}
    apart = [name for name, (labels, tags) in both.items() if not labels & tags]
    doubtful = []
    for label in range(1, len(classes) + 1):
        of_label = [tags for labels, tags in both.values() if label in labels]
        without = sum(label not in tags for tags in of_label)
        if without >= 3 and without > _DOUBTFUL * len(of_label):
            doubtful.append((label, of_label))
    if not doubtful and len(apart) <= _DOUBTFUL * len(both):
        return
    called = ["background", *classes]
    if apart:
        labels, tags = both[apart[0]]
        example = f"{apart[0]}: mask {_named(labels, called)}, tags {_named(tags, called)}"
        said = f"in {len(apart)} of {len(both)} photos the mask holds none of the tags ({example})"
    else:
        said = "masks hold classes that are not tagged"
    likely = _likely(doubtful, called)
    yield f"{said}{likely}: are the classes in the order of the masks' numbers?"


def _likely(doubtful: Sequence[tuple[int, list[frozenset[int]]]], called: Sequence[str]) -> str:
    parts = []
    for label, of_label in doubtful[:5]:
        tag, count = Counter(tag for tags in of_label for tag in tags).most_common(1)[0]
        if tag != label and count > _DOUBTFUL * len(of_label):
            parts.append(
                f"{count} of {len(of_label)} photos with '{called[label]}' in the mask are tagged "
                f"'{called[tag]}'"
            )
    return "; " + ", ".join(parts) if parts else ""


def _named(labels: frozenset[int], called: Sequence[str]) -> str:
    return " and ".join(called[label] for label in sorted(labels)[:3])
