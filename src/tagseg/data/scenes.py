"""Generated scenes with exact masks: the built-in data and the test bed of every recipe.

Three kinds. ``scenes``: zero to three objects of 8 classes that occlude one another, on varied
backgrounds, with salient distractors that belong to no class; boats mostly stand on water and
aeroplanes mostly in the sky, as in real photos. ``single``: one object of the same 8 classes.
``objects``: one object of 16 other classes, the stand-in for ImageNet on which the ``tiny``
backbone is pre-trained. A scene is a function of (kind, seed, index) alone. ``objects`` also stand
in for a data set of boxed salient objects, with annotators who disagree.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset
from tagseg.data.drawing import (
    DRAW,
    NOBODY,
    Placed,
    draw_object,
    exposed,
    random_light,
    random_stream,
    random_surroundings,
)
from tagseg.data.masks import write_mask
from tagseg.data.shapes import DISTRACTORS, SCENE_OBJECTS, SINGLE_OBJECTS, Shape
from tagseg.data.textures import background
from tagseg.errors import DataError
from tagseg.maps import Image, Labels, label_of_tag

__all__ = [
    "OBJECTS",
    "SCENES",
    "SINGLE",
    "Scene",
    "SceneKind",
    "annotated_boxes",
    "draw_scene",
    "scene_dataset",
    "whole_folder",
    "write_box_scenes",
    "write_scenes",
]

# How far annotators' edges are off, in shares of the box's width or height (standard deviation),
# and how many of the annotators are hasty.
_CAREFUL, _HASTY, _HASTY_RATE = 0.03, 0.1, 0.15


@dataclass(frozen=True)
class SceneKind:
    """What a set of scenes is made of: its classes and how many objects a picture holds."""

    name: str
    shapes: Mapping[str, Shape]
    object_counts: tuple[float, ...]  # probability of 0, 1, 2, ... objects
    distractor_rate: float
    sizes: tuple[float, float]  # half an object's width over the picture's height, when alone

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self.shapes)


SCENES = SceneKind("scenes", SCENE_OBJECTS, (0.04, 0.43, 0.35, 0.18), 0.45, (0.28, 0.5))
SINGLE = SceneKind("single", SCENE_OBJECTS, (0.0, 1.0), 0.2, (0.28, 0.5))
OBJECTS = SceneKind("objects", SINGLE_OBJECTS, (0.0, 1.0), 0.2, (0.22, 0.5))


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3), its exact labels (H, W), and its classes as bool tags (C,)."""

    image: Image
    labels: Labels
    tags: npt.NDArray[np.bool_]


def draw_scene(
    kind: SceneKind, seed: int, index: int, *, height: int = 96, width: int = 128
) -> Scene:
    """Picture ``index`` of the set ``seed``: the same arguments always give the same pixels."""
    for attempt in range(20):
        rng = random_stream(kind.name, seed, index, attempt)
        scene = _try_scene(kind, rng, height, width)
        if scene is not None:
            return scene
    raise DataError(
        f"no legible scene in 20 attempts at {width} x {height}", do="use a larger size"
    )


def scene_dataset(
    kind: SceneKind, count: int, *, seed: int = 0, height: int = 96, width: int = 128
) -> tuple[Dataset, dict[str, Labels]]:
    """``count`` scenes in memory: a dataset of photos and tags, and their labels by photo name."""
    scenes = [draw_scene(kind, seed, i, height=height, width=width) for i in range(count)]
    names = [f"{kind.name}_{seed}_{i:06d}" for i in range(count)]
    dataset = Dataset.from_arrays(
        [s.image for s in scenes], np.stack([s.tags for s in scenes]), kind.classes, names
    )
    return dataset, {name: s.labels for name, s in zip(names, scenes, strict=True)}


def write_scenes(
    folder: Path,
    *,
    train: int = 2000,
    val: int = 300,
    seed: int = 0,
    kind: SceneKind = SCENES,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write a training and a validation set in the layout of VOC 2012, with tags.csv beside it.

    Written under a temporary name and renamed, so that a folder is either whole or not there.
    Raises DataError if it is there already or cannot be written.
    """
    with whole_folder(folder) as partial:
        _write_sets(partial, {"train": train, "val": val}, seed, kind, advance)


def annotated_boxes(
    scene: Scene, seed: int, index: int, annotators: int = 3
) -> npt.NDArray[np.int64]:
    """Boxes (annotators, 4) of the one object in picture ``index`` of the set ``seed``.

    Left, top, right, bottom in pixels; right - left is the width. Each edge is off by about 3 % of
    the box, a hasty annotator's by 10 %. What hides the object does not count to it. Raises
    DataError for a scene without exactly one class.
    """
    if scene.tags.sum() != 1:
        raise DataError(
            f"a scene of {scene.tags.sum()} classes has no main object", do="use the kind 'objects'"
        )
    rng = random_stream("boxes", seed, index)
    ys, xs = np.nonzero(scene.labels)
    exact = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    sides = np.tile(exact[2:] - exact[:2], 2)
    hasty = rng.random((annotators, 1)) < _HASTY_RATE
    errors = rng.normal(0, np.where(hasty, _HASTY, _CAREFUL), (annotators, 4))
    # An error of half the side would leave nothing of the box.
    boxes = np.rint(exact + sides * np.clip(errors, -0.3, 0.3)).astype(np.int64)
    height, width = scene.labels.shape
    return np.clip(boxes, 0, (width, height, width, height))


def write_box_scenes(
    folder: Path,
    *,
    count: int = 1000,
    seed: int = 100,
    annotators: int = 3,
    kind: SceneKind = OBJECTS,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write pictures of one salient object each and boxes of it by several annotators.

    ``JPEGImages`` and the boxes, in MSRA's text format without classes (``boxes.txt``) and with
    them as CSV (``boxes.csv``); exact masks in ``SegmentationClass``, for evaluation only. Other
    things in the pictures are not boxed. Written as a whole, as :func:`write_scenes` does.
    """
    with whole_folder(folder) as partial:
        for part in ("JPEGImages", "SegmentationClass"):
            (partial / part).mkdir(parents=True)
        records = [str(count)]
        rows = ["image,width,height,left,top,right,bottom,annotator,class"]
        for i in range(count):
            name = f"box_{i:05d}"
            scene = draw_scene(kind, seed, i)
            boxes = annotated_boxes(scene, seed, i, annotators)
            _write_pixels(partial, name, scene)
            height, width = scene.labels.shape
            groups = "; ".join(" ".join(map(str, box)) for box in boxes)
            records += [f"JPEGImages\\{name}.jpg", f"{width} {height}", f"{groups};", ""]
            label = kind.classes[int(np.argmax(scene.tags))]
            rows += [
                f"JPEGImages/{name}.jpg,{width},{height},{','.join(map(str, box))},{who},{label}"
                for who, box in enumerate(boxes, start=1)
            ]
            advance()
        (partial / "boxes.txt").write_text("\n".join(records), encoding="utf-8")
        (partial / "boxes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` at the end, or vanishes if there is an error."""
    if folder.exists():
        raise DataError("exists already", where=folder, do="choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        partial.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be written: {reason}", where=folder, do="check it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_sets(
    folder: Path, counts: Mapping[str, int], seed: int, kind: SceneKind, advance: Callable[[], None]
) -> None:
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    rows = ["image,tags"]
    for split, offset in (("train", 0), ("val", 1_000_000)):
        names = [f"{split}_{i:05d}" for i in range(counts[split])]
        for i, name in enumerate(names):
            scene = draw_scene(kind, seed, offset + i)
            _write_scene(folder, name, scene, kind.classes)
            present = [kind.classes[t] for t in np.flatnonzero(scene.tags)]
            rows.append(f"{name}.jpg,{';'.join(present)}")
            advance()
        listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "classes.txt").write_text(
        "\n".join(("background", *kind.classes)) + "\n", encoding="utf-8"
    )


def _try_scene(kind: SceneKind, rng: np.random.Generator, height: int, width: int) -> Scene | None:
    h, w = height * DRAW, width * DRAW
    placed = _arrange(kind, rng, h, w)
    present = {kind.classes[item.tag] for item in placed if item.tag >= 0}
    canvas = background(rng, h, w, random_surroundings(rng, present))
    owner = np.full((h, w), NOBODY, np.int16)
    areas = [draw_object(rng, canvas, owner, number, item) for number, item in enumerate(placed)]
    owner = owner[::DRAW, ::DRAW]
    labels = np.zeros((height, width), np.uint8)
    for number, item in enumerate(placed):
        if item.tag < 0:
            continue
        visible = owner == number
        count = int(visible.sum())
        if count < 0.012 * visible.size or count < 0.4 * areas[number] / DRAW**2:
            return None
        labels[visible] = label_of_tag(item.tag)
    tags = np.zeros(len(kind.classes), bool)
    tags[[item.tag for item in placed if item.tag >= 0]] = True
    return Scene(_photograph(rng, canvas), labels, tags)


def _arrange(kind: SceneKind, rng: np.random.Generator, h: int, w: int) -> list[Placed]:
    count = int(rng.choice(len(kind.object_counts), p=kind.object_counts))
    shapes = list(kind.shapes.values())
    tags = [int(t) for t in rng.choice(len(shapes), size=count, replace=rng.random() < 0.15)]
    tags += [-1] * int(rng.binomial(2, kind.distractor_rate))
    shrink = 1.0 - 0.17 * max(0, count - 1)
    placed = []
    for slot, tag in enumerate(tags):
        shape = shapes[tag] if tag >= 0 else DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        half = h * rng.uniform(*kind.sizes) * (shrink if tag >= 0 else 0.45)
        centre = (slot + 0.5) / max(1, count) if tag >= 0 else rng.uniform(0.05, 0.95)
        x = np.clip(w * (centre + rng.normal(0, 0.1)), 0.7 * half, w - 0.7 * half)
        y = np.clip(h * rng.uniform(0.3, 0.75), 0.7 * half, h - 0.7 * half)
        turn = float(rng.normal(0, 0.12))
        placed.append(Placed(shape(rng), tag, float(x), float(y), half, rng.random() < 0.5, turn))
    return [placed[i] for i in rng.permutation(len(placed))]


def _photograph(rng: np.random.Generator, canvas: npt.NDArray[np.float32]) -> Image:
    """Exposure, colour cast, uneven light, a soft lens and sensor noise."""
    light = random_light(rng, *canvas.shape[:2])
    soft = exposed(canvas, light, float(rng.uniform(0.3, 0.7)))
    noisy = soft + rng.standard_normal(soft.shape, dtype=np.float32) * rng.uniform(2, 7)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _write_pixels(folder: Path, name: str, scene: Scene) -> None:
    PilImage.fromarray(scene.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
    write_mask(folder / "SegmentationClass" / f"{name}.png", scene.labels)


def _write_scene(folder: Path, name: str, scene: Scene, classes: tuple[str, ...]) -> None:
    _write_pixels(folder, name, scene)
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = f"{name}.jpg"
    for tag in np.flatnonzero(scene.tags):
        entry = ET.SubElement(root, "object")
        ET.SubElement(entry, "name").text = classes[tag]
        _add_box(entry, scene.labels == label_of_tag(int(tag)))
    ET.ElementTree(root).write(folder / "Annotations" / f"{name}.xml")


def _add_box(entry: ET.Element, inside: npt.NDArray[np.bool_]) -> None:
    """VOC's pixel coordinates start at 1 and include the last pixel."""
    ys, xs = np.nonzero(inside)
    box = ET.SubElement(entry, "bndbox")
    for key, value in (
        ("xmin", xs.min()),
        ("ymin", ys.min()),
        ("xmax", xs.max()),
        ("ymax", ys.max()),
    ):
        ET.SubElement(box, key).text = str(int(value) + 1)
