"""What the folders of photos mean: classes, splits, or a place."""

from __future__ import annotations

import pytest

from tagseg.formats.folders.photo_tree import kind_of_split, read_tree

# Folders -> (split, class) of each.
PLAIN = {
    "class folders": {"cat": (None, "cat"), "dog": (None, "dog")},
    "photos beside": {"": (None, None), "cat": (None, "cat")},
    "deeper": {"cat": (None, "cat"), "dog/more": (None, "dog")},
    "one class": {"cat": (None, "cat")},
    "VOC's class train": {"train": (None, "train"), "bus": (None, "bus"), "car": (None, "car")},
    "a class test": {"test": (None, "test"), "control": (None, "control")},
    "splits": {
        "train/cat": ("train", "cat"),
        "train/dog": ("train", "dog"),
        "valid/cat": ("valid", "cat"),
        "test/dog": ("test", "dog"),
    },
    "one split": {"train/cat": ("train", "cat"), "train/dog": ("train", "dog")},
    "a test without classes": {
        "train/cat": ("train", "cat"),
        "train/dog": ("train", "dog"),
        "test": ("test", None),
    },
    "splits without classes": {"train": ("train", None), "val": ("val", None)},
    "images in splits": {"train/images": ("train", None), "valid/images": ("valid", None)},
    "splits in images": {
        "images/training/cat": ("training", "cat"),
        "images/validation/cat": ("validation", "cat"),
    },
    "twice": {
        "training_set/training_set/cats": ("training_set", "cats"),
        "test_set/test_set/cats": ("test_set", "cats"),
    },
    "years": {"train2017/cat": ("train2017", "cat"), "val2017/cat": ("val2017", "cat")},
    "splits in classes": {
        "cat/train": ("train", "cat"),
        "cat/test": ("test", "cat"),
        "dog/train": ("train", "dog"),
    },
    "images in classes": {"cat/images": (None, "cat"), "dog/images": (None, "dog")},
    "more in a class of a split": {
        "train/cat/a": ("train", "cat"),
        "train/dog": ("train", "dog"),
        "val/cat": ("val", "cat"),
    },
    "images alone": {"images": (None, None)},
    "images among classes": {"images": (None, "images"), "cat": (None, "cat")},
    "classes in images": {"images/cat": (None, "cat"), "images/dog": (None, "dog")},
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain(case):
    tree = read_tree(PLAIN[case], "auto")
    assert tree.doubt == ""
    found = {folder: (tree.splits[folder], tree.classes[folder]) for folder in PLAIN[case]}
    assert found == PLAIN[case]


DOUBTS = {
    "cities": (
        ["train/aachen", "val/frankfurt"],
        "folders train, val may be classes, or splits with the classes aachen, frankfurt",
    ),
    "splits and another": (
        ["train/cat", "valid/cat", "unlabeled"],
        "folders train, valid are called as splits, but beside them are folders unlabeled",
    ),
    "splits and photos": (
        ["train/cat", "valid/cat", ""],
        "folders train, valid are called as splits, but beside them are photos",
    ),
    "places": (
        ["a/benign", "a/malignant", "b/benign", "b/malignant"],
        "classes may be the folders a, b, or benign, malignant in each of them",
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_two_readings(case):
    folders, doubt = DOUBTS[case]
    assert read_tree(folders, "auto").doubt == doubt


def test_what_the_user_says():
    folders = ["a/benign", "a/malignant/x", "b/benign"]
    first = read_tree(folders, "folders")
    assert [first.classes[f] for f in folders] == ["a", "a", "b"]
    split = read_tree(folders, "split_folders")
    assert [split.classes[f] for f in folders] == ["benign", "malignant", "benign"]
    assert [split.splits[f] for f in folders] == ["a", "a", "b"]
    last = read_tree(folders, "inner_folders")
    assert [last.classes[f] for f in folders] == ["benign", "x", "benign"]
    assert {tree.doubt for tree in (first, split, last)} == {""}
    splits = read_tree(["train", "val/cat"], "inner_folders")
    assert list(splits.classes.values()) == [None, "cat"]
    assert read_tree(["train", "val"], "folders").class_of("train/a") == "train"


def test_inner_folders_that_do_not_count_are_named():
    (note,) = read_tree(["cat/one", "cat/two", "dog"], "auto").notes
    assert note == (
        "classes are the first folders (cat, dog), not those inside (one, two): --layout "
        "inner_folders takes the folders that hold the photos"
    )
    tree = read_tree(["pets/cat", "pets/dog"], "auto")
    assert tree.class_of("pets/dog/a") == "dog"
    assert tree.notes[0].startswith("classes are the folders in pets, which is the only one")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("valid", "val"),
        ("dev", "val"),
        ("testing", "test"),
        ("seg_test", "test"),
        ("trainSet", "train"),
        ("train_data", "train"),
        ("imagesTr", "train"),
        ("images_test", "test"),
        ("train_val", None),
        ("trainer", None),
        ("steam train", None),
        ("contest", None),
        ("data", None),
    ],
)
def test_names_of_splits(name, kind):
    assert kind_of_split(name) == kind
