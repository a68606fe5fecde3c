"""The data of a run: lists of photos, another data set as target, and ground truth of both."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from photo_trees import photos
from tagseg.data.masks import read_mask, write_mask
from tagseg.data.scenes import SCENES
from tagseg.errors import ConfigError, MaskError, TagError, TagsegError
from tagseg.formats.loading import Reading
from tagseg.maps import IGNORE
from tagseg.session.inputs import Source, Target, ground_truth_of, load_photos

TRAIN = tuple(f"train_{i:05d}" for i in range(24))
VAL = tuple(f"val_{i:05d}" for i in range(8))
OTHER = tuple(f"target/{name}" for name in VAL)
STRANGE = "Unicorn"
OWN = (STRANGE, *(name.upper() for name in reversed(SCENES.classes)))  # of the target
SHAPE = (96, 128)
READ = "read as voc: 32 photos in JPEGImages, tags from Annotations"
READ_TARGET = "target: read as photos: 8 photos, no tags"
MASKS_OF_TARGET = (
    "target: left out: 8 pictures as masks, such as masks/val_00000.png beside val_00000.jpg "
    "(--ground-truth DIR scores with masks)"
)
MASKS_SAID = "target: left out: 8 pictures excluded by a flag"


@pytest.fixture(scope="module")
def target(scenes, tmp_path_factory) -> Path:
    """The scenes to validate with, as others have them: classes in another order, no tags."""
    folder = tmp_path_factory.mktemp("data") / "other"
    (folder / "masks").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(OWN))
    (folder / "few.txt").write_text("val_00006\nval_00002.jpg\n")
    for name in VAL:
        shutil.copy(scenes / "JPEGImages" / f"{name}.jpg", folder)
        write_mask(folder / "masks" / f"{name}.png", _renumbered(_truth(scenes, name)))
    labels = read_mask(folder / "masks" / f"{VAL[0]}.png")
    labels[:5, :5] = 1 + OWN.index(STRANGE)
    write_mask(folder / "masks" / f"{VAL[0]}.png", labels)
    return folder


def _truth(scenes: Path, name: str) -> np.ndarray:
    return read_mask(scenes / "SegmentationClass" / f"{name}.png")


def _renumbered(labels: np.ndarray) -> np.ndarray:
    """Ids of SCENES as ids of the target's own classes."""
    found = labels.copy()
    for index, name in enumerate(SCENES.classes):
        found[labels == index + 1] = 1 + OWN.index(name.upper())
    return found


# One data set


@pytest.mark.parametrize(
    ("train_list", "val", "names", "held_out"),
    [
        (None, None, TRAIN + VAL, ()),
        (None, "val", TRAIN + VAL, VAL),
        ("train", None, TRAIN, ()),
        ("train", "val", TRAIN + VAL, VAL),
        ("some.txt", "val", ("train_00003", "train_00001", *VAL), VAL),
        ("some.txt", "few.txt", ("train_00003", "train_00001", "val_00005"), ("val_00005",)),
        (None, "few.txt", TRAIN + VAL, ("val_00005",)),
    ],
)
def test_lists(scenes, tmp_path, train_list, val, names, held_out):
    (tmp_path / "some.txt").write_text("train_00003.jpg\ntrain_00001\n")
    (tmp_path / "few.txt").write_text("val_00005\n")
    train_list, val = (
        str(tmp_path / given) if given and given.endswith(".txt") else given
        for given in (train_list, val)
    )
    said: list[str] = []
    source = Source(scenes, untagged="negative", train_list=train_list, val=val)
    found = load_photos(source, say=said.append)
    in_order = train_list is not None
    assert (found.photos.names if in_order else tuple(sorted(found.photos.names))) == names
    assert found.val == held_out
    assert found.target_classes is None
    assert found.photos.classes == SCENES.classes
    assert said == [READ]


def test_a_photo_of_both_lists_is_there_once(scenes, tmp_path):
    (tmp_path / "mixed.txt").write_text("train_00003\nval_00005\n")
    source = Source(scenes, untagged="negative", train_list=str(tmp_path / "mixed.txt"), val="val")
    found = load_photos(source)
    assert sorted(found.photos.names) == ["train_00003", *VAL]
    assert found.val == VAL


def test_what_a_source_says_is_what_is_loaded(scenes, tmp_path):
    """Tags, classes, untagged, layout and synsets come through."""
    names = tuple(reversed(SCENES.classes))
    (tmp_path / "classes.txt").write_text("\n".join(names))
    (tmp_path / "tags.csv").write_text(f"image,tags\ntrain_00001,{names[0]}\ntrain_00002,\n")
    tags, classes = tmp_path / "tags.csv", tmp_path / "classes.txt"
    found = load_photos(Source(scenes, tags, classes, "unknown")).photos
    assert found.classes == names
    assert found.names == ("train_00001", "train_00002")
    assert found.tags.tolist() == [[True] + 7 * [False], 8 * [False]]
    assert found.known.tolist() == [True, False]
    negative = load_photos(Source(scenes, tags, classes, "negative")).photos
    assert negative.known.tolist() == [True, True]
    with pytest.raises(TagError, match="1 of 2 photos have no tags"):
        load_photos(Source(scenes, tags, classes))
    with pytest.raises(TagsegError, match="no photos in folders Airplane, Car, Horse"):
        load_photos(Source(scenes, untagged="negative", layout="object_discovery"))
    with pytest.raises(ConfigError, match="needs a list of synsets"):
        load_photos(Source(scenes, layout="imagenet"))
    with pytest.raises(TagError, match="cannot be read"):
        load_photos(Source(scenes, synsets=tmp_path / "no.txt"))


@pytest.mark.parametrize("field", ["train_list", "val"])
def test_a_list_that_is_not_there(scenes, field):
    source = Source(scenes, untagged="negative", **{field: "vla"})
    with pytest.raises(TagError, match="there is no list 'vla'"):
        load_photos(source)


# Folders of splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> Path:
    names = ("train/cat/1", "train/dog/2", "valid/cat/3", "valid/dog/4", "test/cat/5")
    return photos(tmp_path_factory.mktemp("splits"), *(f"{name}.jpg" for name in names))


IN_TRAIN = ("train/cat/1", "train/dog/2")
IN_VALID = ("valid/cat/3", "valid/dog/4")
NAMES_OF_SPLITS = "; --train, --val take these names; --train all trains on all but --val"


@pytest.mark.parametrize(
    ("train_list", "val", "learned", "held_out", "uses"),
    [
        (None, None, IN_TRAIN, IN_VALID, ("left out", "training", "validation")),
        (None, "test", IN_TRAIN, ("test/cat/5",), ("validation", "training", "left out")),
        ("train", None, IN_TRAIN, (), ("left out", "training", "left out")),
        ("all", "val", ("test/cat/5", *IN_TRAIN), IN_VALID, ("training", "training", "validation")),
        ("all", None, ("test/cat/5", *IN_TRAIN, *IN_VALID), (), ("training",) * 3),
        ("valid", "train", IN_VALID, IN_TRAIN, ("left out", "validation", "training")),
    ],
)
def test_folders_of_splits(splits, train_list, val, learned, held_out, uses):
    said: list[str] = []
    source = Source(splits, train_list=train_list, val=val)
    found = load_photos(source, say=said.append)
    assert sorted(found.photos.without(held_out).names) == sorted(learned)
    assert found.val == held_out
    told = "test 1 ({}), train 2 ({}), valid 2 ({})".format(*uses)
    assert f"splits: {told}{NAMES_OF_SPLITS}" in said


def test_folders_without_a_train_are_all_trained_on(tmp_path):
    said: list[str] = []
    photos(tmp_path, "valid/cat/1.jpg", "test/cat/2.jpg", "test/dog/3.jpg")
    found = load_photos(Source(tmp_path), say=said.append)
    assert (len(found.photos), found.val) == (3, ())
    assert f"splits: test 2 (training), valid 1 (training){NAMES_OF_SPLITS}" in said


def test_a_test_without_tags_needs_no_flag(tmp_path):
    photos(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg")
    assert load_photos(Source(tmp_path)).photos.names == ("train/cat/1", "train/dog/2")


def test_splits_beside_a_target(splits, target):
    (target / "classes.txt").write_text("cat\ndog")
    found = load_photos(Source(splits), Target(target, masks=target / "masks"))
    (target / "classes.txt").write_text("\n".join(OWN))
    assert found.photos.without(found.val).names == IN_TRAIN


def test_masks_among_the_photos(tmp_path):
    """Pictures in the folder of ground truth are no photos, whatever they look like."""
    photos(tmp_path, "cat/a.jpg", "dog/b.jpg", "truth/cat/a.png")
    found = load_photos(Source(tmp_path, masks=tmp_path / "truth"))
    assert found.photos.classes == ("cat", "dog")
    found = load_photos(Source(tmp_path, how=Reading(exclude=("truth", "b.jpg"))))
    assert found.photos.names == ("cat/a",)
    photos(tmp_path / "alone", "images/a.jpg")
    source = Source(tmp_path / "alone", untagged="unknown", masks=tmp_path / "alone" / "images")
    assert load_photos(source).photos.names == ("a",), "their own folder"


# Another as target


@pytest.mark.parametrize(
    ("train_list", "learned"), [(None, TRAIN + VAL), ("train", TRAIN), ("val", VAL)]
)
def test_all_photos_of_a_target_are_scored(scenes, target, train_list, learned):
    """And those of the source are learned from, by its own list."""
    source = Source(scenes, untagged="negative", train_list=train_list)
    found = load_photos(source, Target(target, masks=target / "masks"))
    names = found.photos.names
    assert tuple(sorted(names[: len(learned)])) == learned
    assert sorted(names[len(learned) :]) == sorted(found.val) == list(OTHER)
    assert found.target_classes == OWN
    assert found.photos.classes == SCENES.classes
    assert not found.photos.known[len(learned) :].any()


def test_val_is_a_list_of_the_target(scenes, target):
    source = Source(scenes, untagged="negative", train_list="train", val="few")
    found = load_photos(source, Target(target, masks=target / "masks"))
    assert found.val == ("target/val_00006", "target/val_00002")
    assert len(found.photos) == len(TRAIN) + 2
    with pytest.raises(TagError, match="there is no list 'val'"):
        load_photos(source._replace(val="val"), Target(target))


def test_masks_among_the_targets_photos_are_no_photos(scenes, target):
    source = Source(scenes, untagged="negative", train_list="train")
    said: list[str] = []
    found = load_photos(source, Target(target), say=said.append)
    assert sorted(found.val) == list(OTHER), "they look like masks, though nobody said so"
    assert MASKS_OF_TARGET in said


def test_tags_of_a_target_meet_the_classes_by_name(scenes, target, tmp_path):
    first = SCENES.classes[0]
    (tmp_path / "tags.csv").write_text(
        f"image,tags\nval_00001,{first.upper()};{STRANGE}\nval_00002,{STRANGE}\n"
    )
    source = Source(scenes, untagged="negative", train_list="train")
    found = load_photos(source, Target(target, tmp_path / "tags.csv", masks=target / "masks"))
    tags = dict(zip(found.photos.names, found.photos.tags, strict=True))
    known = dict(zip(found.photos.names, found.photos.known, strict=True))
    assert np.flatnonzero(tags["target/val_00001"]).tolist() == [0]
    assert not tags["target/val_00002"].any()
    assert known["target/val_00001"]
    assert not known["target/val_00003"]


def test_notes_on_classes_that_differ(scenes, target, tmp_path):
    """Those of the target that are not learned, and learned ones that it has not."""
    source = Source(scenes, untagged="negative", train_list="train")
    said: list[str] = []
    load_photos(source, Target(target, masks=target / "masks"), say=said.append)
    note = "note: classes of the target that are not learned count as background: Unicorn"
    assert said == [READ, READ_TARGET, MASKS_SAID, note]
    other = tmp_path / "fewer"
    shutil.copytree(target, other)
    (other / "classes.txt").write_text("\n".join(name.upper() for name in SCENES.classes[2:]))
    said = []
    load_photos(source, Target(other), say=said.append)
    absent = ", ".join(SCENES.classes[:2])
    note = f"note: learned classes that the target does not have: {absent}"
    assert said == [READ, READ_TARGET, MASKS_OF_TARGET, note]
    said = []
    load_photos(source, Target(scenes, masks=scenes / "SegmentationClass"), say=said.append)
    assert said == [READ, f"target: {READ}"], "the same classes"


def test_without_a_listener_notes_are_dropped(scenes, target, capsys):
    load_photos(Source(scenes, untagged="negative"), Target(target, masks=target / "masks"))
    assert capsys.readouterr() == ("", "")


def test_layout_of_a_target(scenes, target):
    with pytest.raises(ConfigError, match="a target cannot have the layout 'imagenet'"):
        load_photos(Source(scenes, untagged="negative"), Target(target, layout="imagenet"))


# Ground truth


@pytest.fixture(scope="module")
def loaded(scenes, target):
    source = Source(scenes, untagged="negative", train_list="train")
    return load_photos(source, Target(target, masks=target / "masks"))


def test_no_ground_truth(scenes, loaded):
    assert ground_truth_of(loaded, None) is None
    alone = load_photos(Source(scenes, untagged="negative", val="val"))
    assert ground_truth_of(alone, None) is None


def test_ground_truth_of_the_photos_to_learn_from_alone(scenes, loaded):
    truth = ground_truth_of(loaded, scenes / "SegmentationClass")
    assert truth is not None
    assert truth.classes == SCENES.classes
    assert all(map(truth.has, TRAIN))
    assert not any(map(truth.has, OTHER))
    assert np.array_equal(truth.labels(TRAIN[3], SHAPE), _truth(scenes, TRAIN[3]))


def test_ground_truth_of_the_target_alone(scenes, target, loaded):
    """Its own numbers become those of the learned classes; a class that is not is background."""
    truth = ground_truth_of(loaded, None, target / "masks")
    assert truth is not None
    assert truth.classes == SCENES.classes
    assert sorted(truth.names()) == list(OTHER)
    for name in VAL[1:]:
        assert np.array_equal(truth.labels(f"target/{name}", SHAPE), _truth(scenes, name))
    expected = _truth(scenes, VAL[0])
    expected[:5, :5] = 0
    assert np.array_equal(truth.labels(OTHER[0], SHAPE), expected)
    shown = {int(v) for name in OTHER for v in np.unique(truth.labels(name, SHAPE))}
    assert len(shown - {0, IGNORE}) > 3


def test_ground_truth_of_both(scenes, target, loaded):
    """Each by its own numbers."""
    truth = ground_truth_of(loaded, scenes / "SegmentationClass", target / "masks")
    assert truth is not None
    assert truth.classes == SCENES.classes
    assert all(map(truth.has, loaded.photos.names))
    for name, other in ((TRAIN[3], TRAIN[3]), (OTHER[3], VAL[3])):
        assert np.array_equal(truth.labels(name, SHAPE), _truth(scenes, other))


def test_ground_truth_of_a_target_that_is_not_there(scenes, target):
    """Without a target, its masks are nobody's."""
    alone = load_photos(Source(scenes, untagged="negative", val="val"))
    assert ground_truth_of(alone, None, target / "masks") is None
    truth = ground_truth_of(alone, scenes / "SegmentationClass", target / "masks")
    assert truth is not None
    assert not any(map(truth.has, OTHER))
    assert all(map(truth.has, VAL))


@pytest.mark.parametrize("missing", [("no", None), (None, "no"), ("no", "masks")])
def test_folders_of_masks_that_are_not_there(target, loaded, missing):
    own, of_target = (None if name is None else target / name for name in missing)
    with pytest.raises(MaskError, match="no: this folder does not exist; check the path"):
        ground_truth_of(loaded, own, of_target)


# Tags


def _photos_with_tags(folder: Path, text: str) -> Path:
    for name in "abc":
        PilImage.new("RGB", (4, 3)).save(folder / f"{name}.png")
    (folder / "tags.csv").write_text(text)
    return folder


def test_how_tags_were_understood_is_said(tmp_path):
    folder = _photos_with_tags(tmp_path, "file;labels\na;cat, dog\nb;cat\nc;dog\n")
    said: list[str] = []
    load_photos(Source(folder), say=said.append)
    assert said == [
        "read as csv: 3 photos, tags from tags.csv",
        "tags.csv: photos in column 'file', tags in column 'labels', separated by semicolons",
        "tags.csv: tags are separated by ',': 2 classes, cat, dog",
    ]


def test_the_separator_can_be_said(tmp_path):
    folder = _photos_with_tags(tmp_path, "image,tags\na,cat dog\nb,cat\nc,cat\n")
    assert load_photos(Source(folder)).photos.classes == ("cat", "cat dog")
    assert load_photos(Source(folder, how=Reading(tag_separator=" "))).photos.classes == (
        "cat",
        "dog",
    )


def test_nothing_to_learn_from(tmp_path):
    folder = _photos_with_tags(tmp_path, "filename, cat\na, 1\nb, 0\nc, 0\n")
    (folder / "val.txt").write_text("a\n")
    with pytest.raises(TagError, match="not one of 2 training photos has a tag"):
        load_photos(Source(folder, val="val"))
    assert len(load_photos(Source(folder)).photos) == 3
