"""YouTube-Objects v1.0 (Prest et al. 2012), and the masks of its frames (Jain and Grauman 2014).

Frames lie in ``CLASS/data/VIDEO/shots/SHOT/frame0001.jpg``; the one tag of a frame is the class of
its video. Masks lie in a tree of the same folders, ``.../SHOT/labels/00001.jpg``, black and white,
the frames that they are of perhaps beside them in ``.../SHOT/images``. The two trees may be one, or
stand side by side in a folder (``v1`` and ``youtube_masks``), or apart.

Frames with a mask validate. No other frame of their shots is taken: "there is no overlap between
this subset and the shots from which we extracted the training data" (Saleh et al. 2017, 4.1). Of
the others "we uniformly extracted around 2200 frames per class".
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tagseg.data.finding import Listing, is_picture
from tagseg.data.text import readable
from tagseg.errors import DataError, first_few
from tagseg.formats.folders.photo_tree import Tree

__all__ = [
    "AS_PUBLISHED",
    "FRAMES_PER_CLASS",
    "FrameChoice",
    "FramesFound",
    "Shot",
    "find_frames",
    "find_labels",
    "frame_name",
    "is_youtube_objects",
    "shot_of_frame",
]

FRAMES_PER_CLASS = 2200
"""Saleh et al. 2017, 4.1."""

_LABELS, _IMAGES = "labels", "images"
_NUMBER = re.compile(r"(\d+)$")
Shot = tuple[str, str, str]
"""Class, video and number of a shot, as their folders are called."""

Shots = Mapping[Shot, Mapping[int, Path]]
"""Files of each shot by their numbers."""


class FrameChoice(NamedTuple):
    """Which frames are taken.

    Attributes:
        masks: a folder of ground truth that the user names; only names are looked at.
        per_class: most training frames of a class, spread evenly; 0 for all, None for
            :data:`FRAMES_PER_CLASS`.
    """

    masks: Path | None = None
    per_class: int | None = None


AS_PUBLISHED = FrameChoice()
"""As Saleh et al. have them, by what the folder itself holds."""


class FramesFound(NamedTuple):
    """Frames that were chosen.

    Attributes:
        home: the folder of the classes.
        listing: their files, and how many were left out.
        tree: their classes and splits.
        notes: what should be said, a line each.
    """

    home: Path
    listing: Listing
    tree: Tree
    notes: tuple[str, ...]


def is_youtube_objects(folder: Path) -> bool:
    """Whether ``folder`` holds such a tree, or folders of such trees."""
    return folder.is_dir() and bool(_trees(folder))


def find_frames(folder: Path, choice: FrameChoice) -> FramesFound:
    """The frames to train on and those to validate with; DataError if there are none.

    A frame is called ``CLASS/data/VIDEO/shots/SHOT/frame0001``, wherever in the shot it lies.
    """
    home = _home(folder)
    shots = {shot: _numbered(_frames_of(home, shot)) for shot in _shots(home)}
    if not any(shots.values()):
        raise DataError(
            "no frames in folders CLASS/data/VIDEO/shots/SHOT",
            where=home,
            do="check the path, or use another layout",
        )
    labels = find_labels(folder)
    if choice.masks is not None:
        labels |= find_labels(choice.masks)
    limit = FRAMES_PER_CLASS if choice.per_class is None else choice.per_class
    masked = {shot: frames for shot, frames in shots.items() if shot in labels}
    free = {shot: frames for shot, frames in shots.items() if shot not in labels}
    val = {shot: _only(frames, labels[shot]) for shot, frames in masked.items()}
    train = _evenly_of_each_class(free, limit)
    left_out = {
        f"beyond {limit:,} training frames a class": _count(free) - _count(train),
        "without a mask in shots with masks": _count(masked) - _count(val),
    }
    return FramesFound(
        home,
        Listing(_files(train | val), {why: n for why, n in left_out.items() if n}),
        _tree(train, val),
        tuple(_notes(home, shots, labels)),
    )


def find_labels(folder: Path) -> dict[Shot, dict[int, Path]]:
    """Masks of a tree, or of those in ``folder``: (class, video, shot) -> number -> file."""
    found: dict[Shot, dict[int, Path]] = {}
    for tree in _trees(folder):
        for shot in _shots(tree):
            files = list(_pictures(_folder(tree, shot) / _LABELS))
            if files:
                found.setdefault(shot, {}).update(_numbered(files))
    return found


def _home(folder: Path) -> Path:
    """The tree of frames: of several the one that has frames without masks."""
    trees = _trees(folder)
    if len(trees) < 2:
        return trees[0] if trees else folder
    shots = {tree: list(_shots(tree)) for tree in trees}
    framed = [t for t in trees if any(any(_frames_of(t, shot)) for shot in shots[t])]
    unmasked = [
        t for t in framed if any(not (_folder(t, shot) / _LABELS).is_dir() for shot in shots[t])
    ]
    found = unmasked or framed
    if len(found) > 1:
        raise DataError(
            f"several folders hold frames: {first_few(tree.name for tree in found)}",
            where=folder,
            do="give the one to learn from, and that of the masks with --ground-truth",
        )
    return found[0] if found else folder


def _trees(folder: Path) -> list[Path]:
    """``folder``, if it holds classes of videos, else the folders in it that do."""
    if not folder.is_dir():
        return []
    return [folder] if _is_tree(folder) else [p for p in _folders(folder) if _is_tree(p)]


def _is_tree(folder: Path) -> bool:
    """Whether a folder in it has videos in shots."""
    return any(
        (video / "shots").is_dir()
        for of_class in _folders(folder)
        for video in _folders(of_class / "data")
    )


def _shots(tree: Path) -> Iterator[Shot]:
    for of_class in _folders(tree):
        for video in _folders(of_class / "data"):
            for shot in _folders(video / "shots"):
                yield of_class.name, video.name, shot.name


def _folder(tree: Path, shot: Shot) -> Path:
    of_class, video, number = shot
    return tree / of_class / "data" / video / "shots" / number


def _frames_of(tree: Path, shot: Shot) -> list[Path]:
    """The pictures of a shot, in its folder or, if there are none, in ``images`` in it."""
    folder = _folder(tree, shot)
    return list(_pictures(folder)) or list(_pictures(folder / _IMAGES))


def _numbered(files: Sequence[Path]) -> dict[int, Path]:
    """Number of the frame -> its file; DataError if two have the same."""
    found: dict[int, Path] = {}
    for file in files:
        number = _NUMBER.search(file.stem)
        if number is None:
            raise DataError(
                f"'{readable(file.name)}' has no number of a frame at its end",
                where=readable(str(file.parent)),
                do="call frames frame0001.jpg and masks 00001.jpg, or take it away",
            )
        first = found.setdefault(int(number[1]), file)
        if first is not file:
            raise DataError(
                f"{first.name} and {file.name} are both frame {int(number[1])}",
                where=readable(str(file.parent)),
                do="remove one",
            )
    return dict(sorted(found.items()))


def frame_name(shot: Shot, number: int) -> str:
    """``CLASS/data/VIDEO/shots/SHOT/frame0001``, as the frame is called everywhere."""
    of_class, video, name = map(readable, shot)
    return f"{of_class}/data/{video}/shots/{name}/frame{number:04d}"


def _only(frames: Mapping[int, Path], numbers: Container[int]) -> dict[int, Path]:
    return {number: file for number, file in frames.items() if number in numbers}


def _files(shots: Shots) -> dict[str, Path]:
    """Name with suffix -> file, sorted."""
    files = {
        frame_name(shot, number) + file.suffix: file
        for shot, frames in shots.items()
        for number, file in frames.items()
    }
    return dict(sorted(files.items()))


def shot_of_frame(name: str) -> str:
    """The shot of a frame that :func:`frame_name` names; "" for any other name."""
    shot, _, frame = name.rpartition("/")
    parts = shot.split("/")
    is_frame = len(parts) == 5 and (parts[1], parts[3]) == ("data", "shots")
    return shot if is_frame and frame.startswith("frame") else ""


def _evenly_of_each_class(shots: Shots, limit: int) -> dict[Shot, dict[int, Path]]:
    """At most ``limit`` frames of each class (0: all), evenly over its videos one after another."""
    by_class: dict[str, list[tuple[Shot, int]]] = defaultdict(list)
    for shot, frames in shots.items():
        by_class[shot[0]] += [(shot, number) for number in frames]
    chosen: dict[Shot, dict[int, Path]] = defaultdict(dict)
    for listed in by_class.values():
        total = len(listed)
        count = min(limit, total) or total
        for i in range(count):
            shot, number = listed[(2 * i + 1) * total // (2 * count)]  # middles of equal parts
            chosen[shot][number] = shots[shot][number]
    return dict(chosen)


def _tree(*splits: Shots) -> Tree:
    """Classes and splits of the shots to train on and of those to validate with."""
    of = {
        frame_name(shot, 0).rpartition("/")[0]: (readable(shot[0]), split)
        for split, shots in zip(("train", "val"), splits, strict=True)
        for shot, frames in shots.items()
        if frames
    }
    return Tree({f: c for f, (c, _) in of.items()}, {f: split for f, (_, split) in of.items()})


def _notes(
    home: Path,
    shots: Shots,
    labels: Shots,
) -> Iterator[str]:
    """How much there is, and what is missing."""
    filled = [shot for shot, frames in shots.items() if frames]
    videos = {shot[:2] for shot in filled}
    classes = Counter(of_class for of_class, _ in videos)
    yield (
        f"{_count(shots):,} frames in {len(filled):,} shots of {len(videos):,} videos of "
        f"{len(classes)} classes"
    )
    if len(filled) < len(shots):
        empty = ["/".join(shot) for shot in shots if not shots[shot]]
        yield f"{len(empty)} shots hold no frames: {first_few(empty)}"
    without = sorted({p.name for p in _folders(home) if (p / "data").is_dir()} - classes.keys())
    if without:
        yield f"no frames of {first_few(without)}: left out of the classes"
    lost = [
        frame_name(shot, number)
        for shot, numbers in labels.items()
        for number in numbers
        if number not in shots.get(shot, {})
    ]
    if lost:
        yield f"{len(lost)} masks are of frames that are not here: {first_few(lost)}"


def _count(shots: Shots) -> int:
    return sum(map(len, shots.values()))


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder that are not hidden, by name; none if it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [folder / name for name in sorted(names)]


def _pictures(folder: Path) -> Iterator[Path]:
    """Pictures in a folder that are not hidden, by name; none if it is not there."""
    if folder.is_dir():
        for name in sorted(os.listdir(folder)):
            if is_picture(name) and not name.startswith("."):
                yield folder / name
