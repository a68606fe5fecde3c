"""Remove some tags of a tag file, or make some of them wrong, to measure what that costs.

python tools/spoil_tags.py TAGS.csv SPOILED.csv --remove 0.4
python tools/spoil_tags.py TAGS.csv SPOILED.csv --wrong 0.2 --kind near --only train.txt

A wrong tag is one that another class took the place of: any that the photo does not have (symmetric
noise), or the next of the class list (near-class confusion, as the pair flips of Han et al.,
Co-teaching, NeurIPS 2018); with --near FILE, whose lines are CLASS,CLASS, the one that is named
there. What was done is in SPOILED.csv.record.csv, to be compared with wrong_tags.csv of a run.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tagseg.errors import ConfigError, TagError
from tagseg.formats.lists.class_lists import read_class_list
from tagseg.formats.tags.tag_files import read_tag_file
from tagseg.formats.tags.tag_rows import Hints

Tags = dict[str, tuple[str, ...]]


class Change(NamedTuple):
    """What was done to one tag of a photo: ``now`` is the class that took its place, or empty."""

    image: str
    was: str
    now: str


class Noise(NamedTuple):
    """How tags are spoiled: fractions of all tags, and what is taken for what (None: anything)."""

    remove: float = 0.0
    wrong: float = 0.0
    near: Mapping[str, str] | None = None


def spoiled(
    tags: Tags, classes: Sequence[str], noise: Noise, *, seed: int = 0, only: Collection[str] = ()
) -> tuple[Tags, list[Change]]:
    """The tags of photos after ``noise``, which is drawn by ``seed``, and every change.

    Args:
        tags: classes of each photo.
        classes: all of them.
        only: photos whose tags may change; all if it is empty.

    Raises:
        ConfigError: the fractions are none, or more than all.
    """
    if min(noise.remove, noise.wrong) < 0 or noise.remove + noise.wrong > 1:
        raise ConfigError(
            f"remove is {noise.remove}, wrong {noise.wrong}", do="give fractions, up to 1 together"
        )
    rng = np.random.default_rng(seed)
    every = [(n, tag) for n, own in tags.items() if not only or n in only for tag in own]
    order = rng.permutation(len(every))
    n_removed, n_wrong = round(noise.remove * len(every)), round(noise.wrong * len(every))
    found: dict[str, list[str]] = {name: list(own) for name, own in tags.items()}
    changes = []
    for place, chosen in enumerate(order[: n_removed + n_wrong].tolist()):
        name, tag = every[chosen]
        now = "" if place < n_removed else taken_for(tag, found[name], classes, noise.near, rng)
        if place >= n_removed and not now:
            continue  # the photo has the near class already
        found[name][found[name].index(tag) : found[name].index(tag) + 1] = [now] if now else []
        changes.append(Change(name, tag, now))
    return {name: tuple(own) for name, own in found.items()}, changes


def taken_for(
    tag: str,
    own: Collection[str],
    classes: Sequence[str],
    near: Mapping[str, str] | None,
    rng: np.random.Generator,
) -> str:
    """The class that a tag is taken for: of those that the photo does not have, or the near one."""
    if near is not None:
        other = near.get(tag, "")
        return other if other not in own else ""
    others = [name for name in classes if name not in own]
    return str(rng.choice(others)) if others else ""


def next_in_list(classes: Sequence[str]) -> dict[str, str]:
    """The next class of the list for each; the first for the last."""
    return dict(zip(classes, (*classes[1:], classes[0]), strict=True))


def read_near(file: Path, classes: Collection[str]) -> dict[str, str]:
    """Lines of two classes: the first is taken for the second."""
    pairs = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        names = [name.strip() for name in line.split(",")]
        if len(names) != 2 or not set(names) <= set(classes):
            raise TagError(f"'{line}' is no pair of classes", where=file, do="write CLASS,CLASS")
        pairs[names[0]] = names[1]
    return pairs


def read(tags: Path, classes: Path | None) -> tuple[Tags, tuple[str, ...]]:
    """Tags by photo, and the class list: as given, beside the tags, or the names that there are."""
    beside = tags.parent / "classes.txt"
    file = classes if classes is not None else beside if beside.is_file() else None
    known = read_class_list(file).names if file is not None else None
    rows = read_tag_file(tags, Hints(classes=known)).rows
    names = known or tuple(sorted({tag for row in rows for tag in row.tags}))
    return {row.image: row.tags for row in rows}, names


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def listed(file: Path, names: Collection[str]) -> set[str]:
    """The photos of a list, with or without the suffix that they have in the tag file."""
    wanted = {line.strip() for line in file.read_text(encoding="utf-8").splitlines()}
    return {name for name in names if {name, name.rpartition(".")[0]} & wanted}


def main() -> None:
    """Read, spoil, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tags", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--remove", type=float, default=0.0, help="fraction of tags to remove")
    parser.add_argument("--wrong", type=float, default=0.0, help="fraction of tags to make wrong")
    parser.add_argument("--kind", choices=("symmetric", "near"), default="symmetric")
    parser.add_argument("--near", type=Path, help="pairs of classes; default: the next in the list")
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--only", type=Path, help="list of photos whose tags may change")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tags, classes = read(args.tags, args.classes)
    near = None
    if args.kind == "near":
        near = read_near(args.near, classes) if args.near is not None else next_in_list(classes)
    only = listed(args.only, tags) if args.only is not None else ()
    noise = Noise(args.remove, args.wrong, near)
    result, changes = spoiled(tags, classes, noise, seed=args.seed, only=only)
    write(args.out, ("image", "tags"), [(name, ";".join(own)) for name, own in result.items()])
    record = args.out.with_name(f"{args.out.name}.record.csv")
    write(record, Change._fields, changes)
    print(f"{len(changes)} tags changed; {args.out}, {record}")


if __name__ == "__main__":
    main()
