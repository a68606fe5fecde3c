"""Which files tell the tags of a folder's photos, and the tags of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagseg.errors import TagError
from tagseg.formats.tags.annotation_folders import annotation_folders, read_annotation_folders
from tagseg.formats.tags.photo_names import PhotoNames
from tagseg.formats.tags.tag_files import read_tag_file
from tagseg.formats.tags.tag_rows import Hints, TagFile

__all__ = ["find_tag_files", "read_tags_of_photos", "together"]

_NAMES = (
    *("_classes.csv", "labels.csv", "train.csv", "train_labels.csv", "metadata.csv"),
    *("annotations.csv", "_annotations.csv", "tags.tsv", "labels.tsv", "tags.txt"),
    *("_annotations.coco.json", "annotations.json", "instances_*.json", "result.json"),
    *("coco.json", "labels.json", "tags.json", "tags.jsonl", "labels.jsonl"),
    *("annotations.xml", "tags.xlsx", "labels.xlsx", "metadata.xlsx"),
)
_IN_SPLITS = (
    *("_classes.csv", "metadata.csv", "metadata.jsonl", "_annotations.csv", "tags.csv"),
    *("_annotations.coco.json", "labels.csv", "annotations.json"),
)
_ANNOTATIONS = ("annotations", "Annotations")


@dataclass(frozen=True)
class _Candidate:
    """Files that belong together, and what they say, or why they cannot be read."""

    files: tuple[Path, ...]
    said: TagFile | None = None
    problem: TagError | None = None


def read_tags_of_photos(
    files: Sequence[Path],
    photos: Mapping[str, Path],
    name_of: Callable[[str], str],
    classes: tuple[str, ...] | None = None,
    separator: str | None = None,
) -> TagFile:
    """What tag files, or folders of annotations, say of ``photos`` (name -> path), by their names.

    Several files are joined; names in one may be relative to its folder. TagError for files that
    cannot be read or understood.
    """
    root = _root(photos)
    if files[0].is_dir():
        return read_annotation_folders(files, photos, root)
    names = PhotoNames(photos, name_of)
    known = (*photos, *(classes or ()))
    hints = Hints(classes, separator, names.is_photo, known)
    parts = [
        names.renamed(read_tag_file(file, hints), _folder_within(file, root)) for file in files
    ]
    said = together(parts)
    return replace(said, notes=(*_absent_classes(files, root, parts), *said.notes))


def find_tag_files(
    folder: Path,
    photos: Mapping[str, Path],
    name_of: Callable[[str], str],
    class_of: Callable[[str], str | None] = lambda name: name.rpartition("/")[0] or None,
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files, or folders of annotations, that name the photos in ``folder``; and notes.

    No files if there are none; notes say which is taken, and which cannot be.

    Files of usual names are read and count if they name photos that are there. They do not if they
    say the same as class folders, of which ``class_of`` tells a photo's. TagError if several
    sources fit, and where the only one that is there cannot be read.
    """
    candidates = [_read(files, photos, name_of) for files in _groups(folder, photos)]
    good = [c for c in candidates if c.said is not None and _names_photos(c.said, photos)]
    if any(_as_folders(c.said, photos, class_of) for c in good if c.said is not None):
        return (), ()
    if len(good) > 1:
        shown = ", ".join(_shown(c.files, folder) for c in good)
        raise TagError(
            f"several files tell the tags of these photos: {shown}",
            where=folder,
            do="choose one with --tags FILE",
        )
    if good:
        note = f"tags are taken from {_shown(good[0].files, folder)}, which names these photos"
        return good[0].files, (note,)
    in_folders = any("/" in name for name in photos)
    problems = [c.problem for c in candidates if c.problem is not None]
    for problem in problems:
        if not in_folders or "pixel value" in problem.what or "may be photo" in problem.what:
            raise problem
    return (), tuple(f"not used: {problem}" for problem in problems)


def _groups(folder: Path, photos: Mapping[str, Path]) -> Iterator[tuple[Path, ...]]:
    places = [folder, *(folder / name for name in _ANNOTATIONS)]
    seen: set[Path] = set()
    for pattern in _NAMES:
        for place in places:
            files = tuple(sorted(p for p in place.glob(pattern) if p.is_file()))
            fresh = tuple(p for p in files if p.resolve() not in seen)
            seen.update(p.resolve() for p in fresh)
            if fresh:
                yield fresh
    homes = {path.parent for path in photos.values()}
    inner = sorted({p for home in homes for p in _between(home, folder)})
    for name in _IN_SPLITS:
        files = tuple(place / name for place in inner if (place / name).is_file())
        files = tuple(file for file in files if file.resolve() not in seen)
        if files:
            yield files
    # What lies beside the folder that was given is not asked.
    beside = annotation_folders(photos, _root(photos)).values()
    yield from (group for group in beside if all(p.is_relative_to(folder) for p in group))


def _between(inner: Path, outer: Path) -> list[Path]:
    """``inner`` and the folders above it, below ``outer``."""
    return [p for p in (inner, *inner.parents) if p != outer and p.is_relative_to(outer)]


def _read(
    files: tuple[Path, ...], photos: Mapping[str, Path], name_of: Callable[[str], str]
) -> _Candidate:
    try:
        return _Candidate(files, read_tags_of_photos(files, photos, name_of))
    except TagError as problem:
        return _Candidate(files, problem=problem)


def _names_photos(said: TagFile, photos: Mapping[str, Path]) -> bool:
    """Whether at least half of the rows, or of the photos, meet."""
    named = {row.image for row in said.rows}
    there = sum(name in photos for name in named)
    return there > 0 and 2 * there >= min(len(named), len(photos))


def _as_folders(
    said: TagFile, photos: Mapping[str, Path], class_of: Callable[[str], str | None]
) -> bool:
    """Whether each photo's only tag is the class of its folder."""
    rows = [row for row in said.rows if row.image in photos and "/" in row.image]
    if any(row.absent or row.unsure for row in rows):
        return False
    return bool(rows) and all(row.tags == (class_of(row.image),) for row in rows)


def _shown(files: Iterable[Path], folder: Path) -> str:
    names = [str(f.relative_to(folder)) if f.is_relative_to(folder) else f.name for f in files]
    return " with ".join(name if name != "." else "files beside the photos" for name in names[:3])


def together(parts: Sequence[TagFile]) -> TagFile:
    """What several files say, as if it were one."""
    if len(parts) == 1:
        return parts[0]
    lists = [part.classes for part in parts if part.classes is not None]
    classes = tuple(dict.fromkeys(name for names in lists for name in names))
    return TagFile(
        tuple(row for part in parts for row in part.rows),
        classes if lists else None,
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        merge=any(part.merge for part in parts),
    )


def _absent_classes(files: Sequence[Path], root: Path, parts: Sequence[TagFile]) -> list[str]:
    """Which of several files do not have all of the classes."""
    found = [{tag for row in part.rows for tag in row.tags} for part in parts]
    every = set().union(*found)
    return [
        f"{_shown([file], root)} has no photo of {', '.join(sorted(every - names))}"
        for file, names in zip(files, found, strict=True)
        if names and names != every
    ]


def _root(photos: Mapping[str, Path]) -> Path:
    """The folder of which the photos' names are relative."""
    name, path = next(iter(photos.items()))
    return path.parents[name.count("/")]


def _folder_within(file: Path, root: Path) -> str:
    """The folder of a tag file among the photos, empty if it is not below them."""
    inside = file.parent != root and file.parent.is_relative_to(root)
    return file.parent.relative_to(root).as_posix() if inside else ""
