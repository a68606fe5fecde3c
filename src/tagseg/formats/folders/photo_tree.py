"""What the folders of photos mean: classes, splits, or nothing but a place.

Only folders' names are looked at, and which of them recur. A folder of splits (train, val, test)
is told from a class called "train" by its neighbours, which are splits, too, and by the folders
inside, which are the same in several. Where that does not decide, both readings are named.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tagseg.errors import first_few

__all__ = ["CONTAINERS", "Tree", "Way", "is_split", "kind_of_split", "read_tree"]

Folders = tuple[str, ...]
"""The folders that a photo lies in, from the top."""

_KINDS = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "test": ("test", "testing", "tst", "ts"),
}
_SPLITS = {word: kind for kind, words in _KINDS.items() for word in words}
_FILLERS = frozenset(
    ["set", "data", "dataset", "images", "image", "imgs", "img", "photos", "split", "seg", "cls"]
)
CONTAINERS = frozenset(
    ["images", "image", "imgs", "img", "jpegimages", "pngimages", "photos", "photo", "pictures"]
    + ["pics", "data", "dataset", "leftimg8bit", "jpg", "jpeg", "png", "input", "inputs"]
)
"""Names, in small letters, of folders that say that there are pictures, and no more."""


class Way(NamedTuple):
    """How folders are read: the place of the split and of the class, None for none."""

    split: int | None
    of_class: int | None


@dataclass(frozen=True)
class Tree:
    """What the folders mean.

    Attributes:
        classes: folder (relative, posix) -> class of the photos in it, None for none.
        splits: folder -> split, None for none.
        doubt: what else they may mean, and the flags; "" where it is plain.
        notes: what should be said, a line each.
    """

    classes: Mapping[str, str | None] = field(default_factory=dict)
    splits: Mapping[str, str | None] = field(default_factory=dict)
    doubt: str = ""
    notes: tuple[str, ...] = ()

    def class_of(self, name: str) -> str | None:
        """The class that a photo's folders say."""
        return self.classes.get(name.rpartition("/")[0])

    def split_of(self, name: str) -> str | None:
        """The split that a photo's folders say."""
        return self.splits.get(name.rpartition("/")[0])


def kind_of_split(folder: str) -> str | None:
    """``train``, ``val`` or ``test`` for a folder called so, such as ``valid``, ``train2017``."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", folder).lower())
    kinds = [_SPLITS[word] for word in words if word in _SPLITS]
    others = [word for word in words if word not in _SPLITS and word not in _FILLERS]
    return kinds[0] if len(kinds) == 1 and not others else None


def is_split(folder: str) -> bool:
    """Whether a folder is called as one of a split."""
    return kind_of_split(folder) is not None


def read_tree(folders: Collection[str], layout: str) -> Tree:
    """The meaning of the folders that hold photos.

    Args:
        folders: relative posix paths, "" for the top.
        layout: ``folders``: the first is the class; ``split_folders``: the first is the split, the
            second the class; ``inner_folders``: the last is the class; else what they look like.
    """
    paths = {tuple(folder.split("/")) if folder else (): folder for folder in folders}
    if layout == "folders":
        return _tree(paths, {path: path for path in paths}, Way(None, 0))
    short = _without_containers(paths)
    if layout == "split_folders":
        return _tree(paths, short, Way(0, 1))
    if layout == "inner_folders":
        return _tree(paths, short, Way(_place_of_splits(short.values()), -1))
    return _guessed(paths, short)


def _guessed(paths: Mapping[Folders, str], short: Mapping[Folders, Folders]) -> Tree:
    shown = set(short.values())
    place = _place_of_splits(shown)
    if place == 1:
        return _tree(paths, short, Way(1, 0))
    if place == 0:
        tree = _tree(paths, short, Way(0, 1))
        return Tree(tree.classes, tree.splits, _doubt_of_splits(shown), tree.notes)
    way, note = _way_of_classes(shown)
    tree = _tree(paths, short, way)
    return Tree(tree.classes, tree.splits, _doubt_of_classes(shown), note)


def _without_containers(paths: Iterable[Folders]) -> dict[Folders, Folders]:
    """Each path without folders such as ``images`` that are alone in theirs, or ``train/train``."""
    below: dict[Folders, set[str]] = defaultdict(set)
    for path in paths:
        for i, name in enumerate(path):
            below[path[:i]].add(name)
    hold = set(paths)

    def says_something(path: Folders, i: int) -> bool:
        home, names = path[:i], below[path[:i]]
        if home in hold:
            return True
        alone = len(names) == 1
        again = alone and i > 0 and path[i].lower() == path[i - 1].lower()
        return not again and not all(name.lower() in CONTAINERS for name in names)

    return {
        path: tuple(name for i, name in enumerate(path) if says_something(path, i)) for path in hold
    }


def _place_of_splits(paths: Iterable[Folders]) -> int | None:
    """0 if all first folders are splits, 1 if all second ones are, below classes."""
    shown = set(paths)
    if not shown:
        return None
    if all(path and is_split(path[0]) for path in shown):
        return 0
    return 1 if all(len(path) > 1 and is_split(path[1]) for path in shown) else None


def _tree(paths: Mapping[Folders, str], short: Mapping[Folders, Folders], way: Way) -> Tree:
    def part(path: Folders, place: int | None) -> str | None:
        shown = short[path]
        if place is None or not -len(shown) <= place < len(shown):
            return None
        return None if place < 0 and way.split == 0 and len(shown) < 2 else shown[place]

    classes = {folder: part(path, way.of_class) for path, folder in paths.items()}
    splits = {folder: part(path, way.split) for path, folder in paths.items()}
    return Tree(classes, splits, notes=tuple(_unlike_splits(classes, splits)))


def _unlike_splits(
    classes: Mapping[str, str | None], splits: Mapping[str, str | None]
) -> Iterator[str]:
    """Which splits do not have all of the classes."""
    found: dict[str, set[str]] = defaultdict(set)
    for folder, split in splits.items():
        name = classes[folder]
        if split is not None and name is not None:
            found[split].add(name)
    every = set().union(*found.values())
    for split in sorted(found):
        if found[split] != every:
            yield f"{split} has no photos of {first_few(sorted(every - found[split]))}"


def _inner(paths: Iterable[Folders]) -> dict[str, set[str]]:
    """First folder -> second ones."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        if path:
            found[path[0]].update(path[1:2])
    return dict(found)


def _doubt_of_splits(paths: set[Folders]) -> str:
    """Whether folders that are called as splits may be classes."""
    inner = _inner(paths)
    filled = [names for names in inner.values() if names]
    shared = any(a & b for i, a in enumerate(filled) for b in filled[:i])
    if len(filled) < 2 or shared:
        return ""
    names = first_few(sorted(set().union(*filled)))
    return f"folders {first_few(sorted(inner))} may be classes, or splits with the classes {names}"


def _doubt_of_classes(paths: set[Folders]) -> str:
    """Whether the classes may be the inner folders, or splits lie beside other folders."""
    inner = _inner(paths)
    splits = sorted(name for name in inner if is_split(name))
    others = sorted(set(inner) - set(splits))
    if len({kind_of_split(name) for name in splits}) > 1:
        beside = f"folders {first_few(others)}" if others else "photos"
        return f"folders {first_few(splits)} are called as splits, but beside them are {beside}"
    same = {frozenset(names) for names in inner.values()}
    deep = all(len(path) > 1 for path in paths)
    if deep and len(inner) > 1 and len(same) == 1 and len(next(iter(same))) > 1:
        names = first_few(sorted(next(iter(same))))
        return f"classes may be the folders {first_few(sorted(inner))}, or {names} in each of them"
    return ""


def _way_of_classes(paths: set[Folders]) -> tuple[Way, tuple[str, ...]]:
    """The first folder is the class, unless there is one alone that holds several."""
    inner = _inner(paths)
    names = sorted(set().union(*inner.values())) if inner else []
    if not names or () in paths:
        return Way(None, 0), ()
    if len(inner) > 1 or any(len(path) == 1 for path in paths) or len(names) == 1:
        first = first_few(sorted(inner))
        return Way(None, 0), (
            f"classes are the first folders ({first}), not those inside ({first_few(names)}): "
            "--layout inner_folders takes the folders that hold the photos",
        )
    top = next(iter(inner))
    return Way(None, 1), (
        f"classes are the folders in {top}, which is the only one: --layout folders takes it as "
        "the class",
    )
