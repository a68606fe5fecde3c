"""What tests of reviewing share: a finished run, written without training, and its photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PilImage

from tagseg.cli import _parsed_train
from tagseg.data.masks import encode_mask
from tagseg.maps import Labels
from tagseg.run.workspace import Workspace
from tagseg.session.run_to_review import RunToReview, open_run
from tagseg.web.reviewing import Reviewing

CLASSES = ("cat", "dog")
TAGS: dict[str, tuple[str, ...]] = {
    "a": ("cat",),
    "b": ("dog",),
    "c": ("cat", "dog"),
    "d": (),
    "e": ("cat",),
    "f": ("dog",),
}
SHAPE = (24, 32)
JUDGED = {"a": [0.5], "b": [0.2], "c": [0.9, None], "e": [0.7], "f": [0.6]}
COMMAND = "tagseg train photos --untagged negative --val val.txt --out run"


class Made(NamedTuple):
    """Where a run and its photos are."""

    run: Path
    photos: Path


def labels_for(names: Sequence[str], shape: tuple[int, int] = SHAPE, first: int = 4) -> Labels:
    """A column of each class, from pixel ``first`` on."""
    labels = np.zeros(shape, np.uint8)
    for place, name in enumerate(names):
        left = first + place * shape[1] // 3
        labels[4:-4, left : left + shape[1] // 4] = CLASSES.index(name) + 1
    return labels


def write_photos(folder: Path, names: Sequence[str], shape: tuple[int, int] = SHAPE) -> Path:
    """Photos of noise in two halves, so that they have regions, and their tags."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 30, (*shape, 3)).astype(np.uint8)
        pixels[:, shape[1] // 2 :] += 150
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def write_tags(folder: Path, tags: Mapping[str, Sequence[str]]) -> None:
    lines = [f"{name}.png,{';'.join(names)}\n" for name, names in tags.items()]
    (folder / "tags.csv").write_text("image,tags\n" + "".join(lines))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def make_run(
    home: Path,
    tags: Mapping[str, Sequence[str]] = TAGS,
    *,
    judge: bool = True,
    candidates: bool = True,
    regions: bool = False,
    command: str = COMMAND,
    shape: tuple[int, int] = SHAPE,
    files: Mapping[str, str] | None = None,
) -> Made:
    """A run in ``home/run`` on ``home/photos``, where the last photo of ``tags`` is for ``val``."""
    *train, held_out = tags
    photos = write_photos(home / "photos", list(tags), shape)
    write_tags(photos, tags)
    (photos / "val.txt").write_text(f"{held_out}\n")
    run = home / "run"
    settings: dict[str, Any] = {"command": command, "options": {"backbone": "tiny"}}
    settings |= {} if files is None else {"files": dict(files)}
    with Workspace.open(run, recipe="union", settings=settings, classes=CLASSES) as work:
        _write_stages(work, {n: tags[n] for n in train}, shape, judge, candidates, regions)
    return Made(run, photos)


def _write_stages(
    work: Workspace,
    tags: Mapping[str, Sequence[str]],
    shape: tuple[int, int],
    judge: bool,
    candidates: bool,
    regions: bool,
) -> None:
    half = (shape[0] // 2, shape[1] // 2)
    if candidates:
        kept = {
            "first-labels": ("labels", {n: labels_for(t, half, 3) for n, t in tags.items()}),
            "saliency": ("labels", {n: np.full(half, 9 * i, np.uint8) for i, n in enumerate(tags)}),
            "objects": ("labels", {n: labels_for(CLASSES[:1], half) for n in tags}),
            "answers": ("answers", {n: labels_for(t, half, 2) for n, t in tags.items()}),
            "again": ("labels", {n: labels_for(t, half, 2) for n, t in tags.items()}),
        }
        for name, (store, maps) in kept.items():
            with work.stage(name, config={}, inputs=["photos"]) as stage:
                for photo, labels in maps.items():
                    stage.maps(store).put_bytes(photo, encode_mask(labels))
    if regions:
        with work.stage("regions", config={}, inputs=["photos"]) as stage:
            for photo in tags:
                found = (np.indices(half)[1] // 8).astype(np.int32)
                stage.maps("regions").put(photo, regions=found)
    with work.stage("masks", config={}, inputs=["photos"]) as stage:
        for photo, names in tags.items():
            path = stage.path(f"masks/{photo}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_mask(labels_for(names, shape)))
    with work.stage("predictions", config={}, inputs=["val"]) as stage:
        stage.maps("raw").put_bytes("f", encode_mask(labels_for(("dog",), half)))
    if judge:
        with work.stage("expected-quality", config={}, inputs=["masks"]) as stage:
            stage.save_json("found", _judged(tags))


def _judged(tags: Mapping[str, Sequence[str]]) -> list[list[list[float | None]]]:
    return [
        [
            [([*JUDGED.get(photo, ()), 0.4, 0.4])[names.index(name)], 0.1]
            for photo, names in tags.items()
            if name in names
        ]
        for name in CLASSES
    ]


def opened(made: Made, photos: Path | None = None) -> RunToReview:
    return open_run(made.run, photos, _parsed_train)


@contextmanager
def reviewing_of(made: Made, review: Path | None = None) -> Iterator[Reviewing]:
    """Reviewing of a run, closed at the end."""
    place = review if review is not None else made.run / "review.jsonl"
    reviewing = Reviewing(opened(made), place)
    try:
        yield reviewing
    finally:
        reviewing.close()
