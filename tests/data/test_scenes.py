from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tagseg.data import scenes
from tagseg.data.masks import read_mask
from tagseg.data.scenes import (
    OBJECTS,
    SCENES,
    SINGLE,
    Scene,
    SceneKind,
    annotated_boxes,
    draw_scene,
    scene_dataset,
    write_box_scenes,
    write_scenes,
)
from tagseg.data.shapes import Part
from tagseg.data.textures import Material
from tagseg.errors import DataError
from tagseg.formats.boxes import read_boxes
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import tags_of_labels


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [draw_scene(SCENES, 0, i) for i in range(300)]


def digest(scene: Scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()


def test_scenes_and_objects_share_no_class() -> None:
    assert len(SCENES.classes) >= 8
    assert len(OBJECTS.classes) >= 12
    assert not set(SCENES.classes) & set(OBJECTS.classes)


@pytest.mark.parametrize("kind", [SCENES, SINGLE, OBJECTS], ids=lambda kind: kind.name)
def test_the_same_arguments_give_the_same_pixels(kind: SceneKind) -> None:
    first = [digest(draw_scene(kind, 3, i)) for i in range(5)]
    assert [digest(draw_scene(kind, 3, i)) for i in (4, 3, 2, 1, 0)] == first[::-1]
    others = [digest(draw_scene(kind, seed, i)) for seed in (3, 4) for i in range(5)]
    assert len(set(others)) == 10


def test_another_process_gives_the_same_pixels() -> None:
    code = (
        "import hashlib; from tagseg.data.scenes import *; s = draw_scene(SCENES, 3, 7);"
        "print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(draw_scene(SCENES, 3, 7))


@pytest.mark.parametrize("kind", [SCENES, SINGLE, OBJECTS], ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [(96, 128), (64, 64), (300, 400)])
def test_tags_are_the_classes_in_the_labels(kind: SceneKind, size: tuple[int, int]) -> None:
    for i in range(30 if size[0] < 200 else 3):
        scene = draw_scene(kind, 1, i, height=size[0], width=size[1])
        assert scene.image.shape == (*size, 3)
        assert scene.labels.shape == size
        assert scene.image.dtype == scene.labels.dtype == np.uint8
        assert scene.labels.max() <= len(kind.classes)  # nothing is 255: the masks are complete
        np.testing.assert_array_equal(scene.tags, tags_of_labels(scene.labels, len(kind.classes)))


def test_scenes_hold_no_object_to_three_and_all_classes(many: list[Scene]) -> None:
    tags = np.stack([scene.tags for scene in many])
    counts = np.bincount(tags.sum(1), minlength=4)
    assert len(counts) == 4
    assert counts[0] > 0
    assert counts[2:].sum() > 90
    assert (tags.sum(0) > 25).all()
    covered = np.mean([(scene.labels > 0).mean() for scene in many])
    assert 0.1 < covered < 0.4


def test_objects_hold_one_object() -> None:
    found = [draw_scene(OBJECTS, 0, i).tags for i in range(120)]
    assert all(tags.sum() == 1 for tags in found)
    assert np.stack(found).any(0).all()


def test_single_scenes_hold_one_object_of_the_classes_of_scenes() -> None:
    assert SINGLE.classes == SCENES.classes
    found = [draw_scene(SINGLE, 0, i) for i in range(120)]
    tags = np.stack([scene.tags for scene in found])
    assert (tags.sum(1) == 1).all()
    assert tags.any(0).all()
    pieces = [cv2.connectedComponents((s.labels > 0).astype(np.uint8))[0] - 1 for s in found]
    assert np.mean([count == 1 for count in pieces]) > 0.75  # a distractor may cut one in two
    # Larger than where there are three, and not the first pictures of the other set.
    assert np.mean([(scene.labels > 0).mean() for scene in found]) > 0.12
    assert digest(found[0]) != digest(draw_scene(SCENES, 0, 0))


def test_boats_are_on_water_and_aeroplanes_in_the_sky(many: list[Scene]) -> None:
    """Background near the lower edge, and below the usual horizon, is bluer than without them."""
    water = _blue_background(many, "boat", slice(-24, None))
    ashore = [scene for scene in many if not scene.tags[SCENES.classes.index("boat")]]
    sky = _blue_background(ashore, "aeroplane", slice(50, 66))
    assert water[True] > 0.75 > 0.45 > water[False]
    assert sky[True] > sky[False] + 0.15


def _blue_background(many: list[Scene], name: str, rows: slice) -> dict[bool, float]:
    """Share of photos with and without class ``name`` whose background in ``rows`` is blue."""
    blue: dict[bool, list[bool]] = {True: [], False: []}
    for scene in many:
        pixels = scene.image[rows][scene.labels[rows] == 0].astype(float)
        if len(pixels) > 50:
            present = bool(scene.tags[SCENES.classes.index(name)])
            blue[present].append(pixels[:, 2].mean() - pixels[:, 0].mean() > 15)
    return {present: float(np.mean(found)) for present, found in blue.items()}


# Masks


def _coloured(red: float, green: float, blue: float) -> Any:
    """A box of one loud colour."""
    colour = np.array([red, green, blue], np.float32)
    box = np.array([(-1, -0.7), (1, -0.7), (1, 0.7), (-1, 0.7)], float)
    return lambda rng: [Part(box, Material(colour, colour))]


LOUD = SceneKind(
    "loud",
    {"red": _coloured(255, 0, 0), "green": _coloured(0, 255, 0), "blue": _coloured(0, 0, 255)},
    (0.0, 0.3, 0.4, 0.3),
    0.0,
    (0.25, 0.4),
)


def test_masks_are_exact_under_occlusion() -> None:
    overlaps = 0
    for i in range(40):
        scene = draw_scene(LOUD, 0, i)
        for tag in np.flatnonzero(scene.tags):
            inside = cv2.erode((scene.labels == tag + 1).astype(np.uint8), np.ones((5, 5))) > 0
            colours = scene.image[inside].astype(int)
            others = np.delete(colours, tag, axis=1)
            assert (colours[:, tag] > others.max(1) + 60).all()
        outside = cv2.erode((scene.labels == 0).astype(np.uint8), np.ones((5, 5))) > 0
        colours = np.sort(scene.image[outside].astype(int), axis=1)
        assert (colours[:, 2] - colours[:, 1] > 150).mean() < 0.01
        touching = cv2.dilate((scene.labels == 1).astype(np.uint8), np.ones((3, 3))) > 0
        overlaps += bool((touching & (scene.labels > 1)).any())
    assert overlaps > 3


def test_distractors_are_seen_but_get_no_label() -> None:
    empty = replace(SCENES, object_counts=(1.0,), distractor_rate=0.0)
    distracted = replace(SCENES, object_counts=(1.0,), distractor_rate=1.0)
    edges = {}
    for kind in (empty, distracted):
        made = [draw_scene(kind, 0, i) for i in range(25)]
        assert not any(scene.labels.any() or scene.tags.any() for scene in made)
        edges[kind.distractor_rate] = np.mean(
            [cv2.Canny(cv2.GaussianBlur(s.image, (0, 0), 1.5), 60, 120).mean() for s in made]
        )
    assert edges[1.0] > 1.5 * edges[0.0]


def test_distractors_hide_what_is_behind_them(monkeypatch: Any) -> None:
    """A grey distractor in front of a red object: its pixels are not labelled red."""
    grey = np.array([128, 128, 128], np.float32)
    disc = np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], float)
    monkeypatch.setattr(scenes, "DISTRACTORS", (lambda rng: [Part(disc, Material(grey, grey))],))
    kind = replace(LOUD, shapes={"red": _coloured(255, 0, 0)}, object_counts=(0, 1.0))
    holes = 0
    for i in range(30):
        scene = draw_scene(replace(kind, distractor_rate=1.0), 0, i)
        inside = cv2.erode((scene.labels == 1).astype(np.uint8), np.ones((5, 5))) > 0
        colours = scene.image[inside].astype(int)
        assert (colours[:, 0] > colours[:, 1:].max(1) + 60).all()
        box = np.argwhere(scene.labels == 1)
        top, left = box.min(0)
        bottom, right = box.max(0) + 1
        holes += (scene.labels[top:bottom, left:right] == 1).mean() < 0.7
    assert holes > 2


def test_a_size_that_shows_nothing_is_refused() -> None:
    invisible = replace(LOUD, sizes=(0.001, 0.002))
    with pytest.raises(
        DataError, match="no legible scene in 20 attempts at 128 x 96; use a larger"
    ):
        draw_scene(invisible, 0, 0)


# Sets of scenes


def test_scene_dataset_holds_the_scenes() -> None:
    dataset, labels = scene_dataset(SCENES, 6, seed=2, height=64, width=80)
    assert dataset.classes == SCENES.classes
    assert len(dataset) == len(set(dataset.names)) == 6
    assert dataset.known.all()
    for i, name in enumerate(dataset.names):
        scene = draw_scene(SCENES, 2, i, height=64, width=80)
        np.testing.assert_array_equal(dataset.image(i), scene.image)
        np.testing.assert_array_equal(labels[name], scene.labels)
        np.testing.assert_array_equal(dataset.tags[i], scene.tags)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "new" / "set"
    write_scenes(folder, train=25, val=3, seed=4)
    return folder


@pytest.mark.parametrize("layout", ["auto", "csv", "voc"])
def test_written_scenes_load_in_both_layouts(written: Path, layout: Any) -> None:
    expected, labels = scene_dataset(SCENES, 25, seed=4)
    assert not expected.tags.any(1).all()  # photos without any class are among them
    dataset = load_dataset(written, layout=layout, split="train", untagged="negative")
    assert dataset.classes == SCENES.classes
    np.testing.assert_array_equal(dataset.tags, expected.tags)
    assert dataset.known.all()
    truth = GroundTruth(written / "SegmentationClass", dataset.classes)
    for i, name in enumerate(dataset.names):
        np.testing.assert_array_equal(truth.labels(name, (96, 128)), labels[expected.names[i]])
        error = np.abs(dataset.image(i).astype(int) - expected.image(i))
        assert error.mean() < 6  # JPEG


def test_validation_photos_are_others(written: Path) -> None:
    train, val = (load_dataset(written, split=s, untagged="negative") for s in ("train", "val"))
    assert len(val) == 3
    assert not set(train.names) & set(val.names)
    assert len(load_dataset(written, untagged="negative")) == 28
    pixels = [dataset.image(0) for dataset in (train, val)]
    assert not np.array_equal(*pixels)


def test_boxes_enclose_the_objects(written: Path) -> None:
    import xml.etree.ElementTree as ET

    truth = GroundTruth(written / "SegmentationClass", SCENES.classes)
    entry = ET.parse(written / "Annotations" / "train_00000.xml").getroot().find("object")
    assert entry is not None
    inside = truth.labels("train_00000", (96, 128)) == (
        SCENES.classes.index(str(entry.findtext("name"))) + 1
    )
    ys, xs = np.nonzero(inside)
    box = [int(entry.findtext(f"bndbox/{key}") or -1) for key in ("xmin", "ymin", "xmax", "ymax")]
    assert box == [xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1]


def test_every_scene_is_announced(tmp_path: Path) -> None:
    calls: list[None] = []
    write_scenes(tmp_path / "set", train=2, val=1, advance=lambda: calls.append(None))
    assert len(calls) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_set_is_whole_or_not_there(tmp_path: Path, monkeypatch: Any, error: Any) -> None:
    folder = tmp_path / "set"
    (tmp_path / "set.partial").mkdir()
    (tmp_path / "set.partial" / "junk").touch()  # of a run that was killed
    calls: list[int] = []

    def failing(*args: Any, **settings: Any) -> Scene:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return draw_scene(*args, **settings)

    monkeypatch.setattr(scenes, "draw_scene", failing)
    with pytest.raises((KeyboardInterrupt, DataError)) as caught:
        write_scenes(folder, train=4, val=1)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert (
            str(caught.value) == f"{folder}: cannot be written: No space left on device; check it"
        )
    monkeypatch.undo()
    write_scenes(folder, train=4, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not (folder / "junk").exists()
    assert len(list((folder / "JPEGImages").iterdir())) == 5


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already; choose another folder"):
        write_scenes(tmp_path, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# Boxed objects


def exact_box(scene: Scene) -> list[int]:
    ys, xs = np.nonzero(scene.labels)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_annotators_are_near_the_object_and_disagree() -> None:
    errors = []
    for i in range(200):
        scene = draw_scene(OBJECTS, 0, i)
        boxes = annotated_boxes(scene, 0, i, 4)
        exact = np.array(exact_box(scene))
        sides = np.tile(exact[2:] - exact[:2], 2)
        assert boxes.shape == (4, 4)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (128, 96)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(np.unique(boxes, axis=0)) > 1
        errors.append((boxes - exact) / sides)
    off = np.abs(np.concatenate(errors))
    assert 0.015 < np.median(off) < 0.04
    assert 0.1 < np.quantile(off, 0.98) < off.max() < 0.35
    np.testing.assert_allclose(np.concatenate(errors).mean(0), 0, atol=0.02)  # no side is preferred


def test_boxes_are_a_function_of_seed_and_index() -> None:
    scene = draw_scene(OBJECTS, 0, 1)
    first = annotated_boxes(scene, 0, 1)
    np.testing.assert_array_equal(annotated_boxes(scene, 0, 1), first)
    assert not np.array_equal(annotated_boxes(scene, 0, 2), first)
    assert not np.array_equal(annotated_boxes(scene, 1, 1), first)


def test_distractors_are_not_boxed() -> None:
    """The boxes keep to the object, however many other things stand around it."""
    crowded = replace(OBJECTS, distractor_rate=1.0)
    for i in range(40):
        scene = draw_scene(crowded, 0, i)
        left, top, right, bottom = exact_box(scene)
        mean = annotated_boxes(scene, 0, i, 50).mean(0)
        np.testing.assert_allclose(mean[[0, 2]], [left, right], atol=0.05 * (right - left) + 0.5)
        np.testing.assert_allclose(mean[[1, 3]], [top, bottom], atol=0.05 * (bottom - top) + 0.5)


def test_a_scene_without_one_main_object_has_no_boxes() -> None:
    empty = draw_scene(replace(OBJECTS, object_counts=(1.0,)), 0, 0)
    with pytest.raises(DataError, match="a scene of 0 classes has no main object"):
        annotated_boxes(empty, 0, 0)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes") / "set"
    write_box_scenes(folder, count=20, seed=3, annotators=4)
    return folder


def test_written_boxes_are_read_in_both_formats(boxed: Path) -> None:
    text, table = (read_boxes(boxed / name) for name in ("boxes.txt", "boxes.csv"))
    assert len(text) == len(table) == 20
    assert text.skipped == table.skipped == ()
    assert text.classes == ()
    for i, (one, other) in enumerate(zip(text.photos, table.photos, strict=True)):
        scene = draw_scene(OBJECTS, 3, i)
        expected = annotated_boxes(scene, 3, i, 4)
        assert one.shape == other.shape == scene.labels.shape
        for photo in (one, other):
            np.testing.assert_array_equal(photo.objects, [expected])
        assert other.classes == (OBJECTS.classes[int(np.argmax(scene.tags))],)
        mask = read_mask(boxed / "SegmentationClass" / f"{one.name}.png")
        np.testing.assert_array_equal(mask, scene.labels)
        error = np.abs(text.dataset().image(i).astype(int) - scene.image)
        assert error.mean() < 6  # JPEG


def test_boxed_objects_are_of_no_target_class(boxed: Path) -> None:
    found = read_boxes(boxed / "boxes.csv")
    assert len(found.classes) > 5
    assert found.without_classes(SCENES.classes).digest == found.digest


def test_every_boxed_scene_is_announced(tmp_path: Path) -> None:
    calls: list[None] = []
    write_box_scenes(tmp_path / "set", count=3, advance=lambda: calls.append(None))
    assert len(calls) == 3


def test_a_set_of_boxes_is_whole_or_not_there(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        write_box_scenes(tmp_path / "set", count=3, advance=full)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="exists already"):
        write_box_scenes(tmp_path, count=3)
