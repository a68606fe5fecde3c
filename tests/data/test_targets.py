from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset
from tagseg.data.masks import write_mask
from tagseg.data.targets import class_columns, notes_on_classes, with_target
from tagseg.errors import ConfigError, DataError, MaskError, TagError
from tagseg.formats.loading import load_target
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.formats.tags.voc import VOC_CLASSES
from tagseg.maps import IGNORE

LEARNED = ("cat", "dog", "bird")


def photos(classes: tuple[str, ...], tags: list[list[str]], **names) -> Dataset:
    images = [np.full((3, 4, 3), i, np.uint8) for i in range(len(tags))]
    return Dataset.from_arrays(images, tags, classes, **names)


class TestJoining:
    def test_tags_and_names(self):
        learned = photos(LEARNED, [["cat"], ["bird"]])
        other = photos(("Bird ", "cow", "CAT", "dog"), [["CAT", "cow"], [], ["Bird ", "dog"]])
        joined, val = with_target(learned, other)
        assert joined.classes == LEARNED
        assert val == ("target/000000", "target/000001", "target/000002")
        assert joined.names == ("000000", "000001", *val)
        chosen = joined.select(val)
        assert chosen.tags.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
        assert chosen.known.all()
        assert np.array_equal(joined.image(4), other.image(2))
        assert joined.without(val).fingerprint() == learned.fingerprint()

    def test_what_is_not_known_stays_unknown(self):
        learned = photos(LEARNED, [["cat"]])
        without_birds = photos(("dog", "cat"), [["cat"], ["dog"]])
        joined, val = with_target(learned, without_birds)
        assert not joined.select(val).known.any()
        assert joined.select(val).tags.tolist() == [[1, 0, 0], [0, 1, 0]]
        untold = photos(LEARNED, [["cat"], []])
        untold = replace(untold, known=np.array([True, False]))
        joined, val = with_target(learned, untold)
        assert joined.known.tolist() == [True, True, False]

    def test_names_that_clash(self):
        learned = photos(LEARNED, [["cat"]], names=["target/a"])
        with pytest.raises(DataError, match="photo 'target/a' to learn from is called as the tar"):
            with_target(learned, photos(LEARNED, [["cat"]]))

    def test_an_empty_target(self):
        data = photos(LEARNED, [["cat"]])
        with pytest.raises(DataError, match="the target has no photos"):
            with_target(data, data.subset([]))


class TestClasses:
    def test_by_name(self):
        assert class_columns(("bird", "cow", "DOG"), LEARNED) == (2, None, 1)
        assert class_columns(("Cat", "cat"), ("cat", "Cat")) == (1, 0)
        assert class_columns(("CAT",), ("cat", "Cat")) == (0,)

    def test_none_in_common(self):
        with pytest.raises(TagError) as caught:
            class_columns(("airplane", "cow"), ("dog", "aeroplane"))
        assert str(caught.value) == (
            "the target has no class of those to learn: it has airplane, cow, not dog, aeroplane; "
            "call 'airplane' and 'aeroplane' alike"
        )
        with pytest.raises(TagError, match="check both class lists"):
            class_columns(("xyz",), ("dog",))

    def test_notes(self):
        assert notes_on_classes(("Dog", "cat", "BIRD"), LEARNED) == []
        assert notes_on_classes(("dog", "airplane", "xyz"), ("dog", "aeroplane", "train")) == [
            "classes of the target that are not learned count as background: airplane, xyz; "
            "is 'airplane' the same as 'aeroplane'?",
            "learned classes that the target does not have: aeroplane, train",
        ]


LABELS = np.array([[0, 1, 2], [IGNORE, 3, 0]], np.uint8)


class TestTruth:
    def test_numbers_are_turned_by_name(self):
        target = GroundTruth({"a": LABELS}, ["dog", "cow", "Cat"])
        truth = GroundTruth({"a": LABELS}, LEARNED).with_target(target)
        assert truth.classes == LEARNED
        assert truth.names() == ("a", "target/a")
        assert np.array_equal(truth.labels("a", (2, 3)), LABELS)
        expected = [[0, 2, 0], [IGNORE, 1, 0]]
        assert truth.labels("target/a", (2, 3)).tolist() == expected
        assert LABELS[0, 1] == 1, "the given labels are changed"

    def test_several_folders(self, tmp_path):
        for folder, labels in (("x", LABELS), ("y", LABELS[:, ::-1])):
            (tmp_path / folder).mkdir()
            write_mask(tmp_path / folder / "a.png", labels)
        target = GroundTruth(tmp_path / "y", ["bird", "dog", "cat"])
        truth = GroundTruth(tmp_path / "x", LEARNED).with_target(target)
        assert np.array_equal(truth.labels("a", (2, 3)), LABELS)
        assert truth.labels("target/a", (2, 3)).tolist() == [[2, 3, 0], [0, 1, IGNORE]]

    def test_ids_are_checked_against_the_targets_own_list(self):
        target = GroundTruth({"a": LABELS}, ["dog", "cat"])
        with pytest.raises(MaskError, match="holds class id 3, but there are 2 classes"):
            GroundTruth({}, LEARNED).with_target(target).labels("target/a", (2, 3))
        longer = GroundTruth({"a": LABELS}, ["dog", "cat", "cow"])
        GroundTruth({}, ("cat",)).with_target(longer).labels("target/a", (2, 3))

    def test_the_state_tells_of_the_target_and_its_order(self):
        plain = GroundTruth({"a": LABELS}, LEARNED)
        states = [
            tuple(GroundTruth({}, LEARNED).with_target(GroundTruth({"a": LABELS}, own)).states())
            for own in (LEARNED, LEARNED[::-1], ("x", *LEARNED[1:]))
        ]
        assert len({*states, tuple(plain.states())}) == 4

    def test_no_class_in_common(self):
        with pytest.raises(TagError, match="the target has no class of those to learn"):
            GroundTruth({}, LEARNED).with_target(GroundTruth({}, ["cow"]))

    @given(st.permutations(range(6)), st.integers(1, 6), st.integers(1, 6))
    @settings(max_examples=40, derandomize=True, deadline=None)
    def test_any_two_lists(self, order, n_learned, n_own):
        learned = [f"c{i}" for i in range(n_learned)]
        own = [f"C{i}" for i in order[:n_own]]
        labels = np.array([[*range(n_own + 1), IGNORE]], np.uint8)
        if not {name.lower() for name in own} & set(learned):
            return
        truth = GroundTruth({}, learned).with_target(GroundTruth({"a": labels}, own))
        found = truth.labels("target/a", labels.shape)[0].tolist()
        names = dict(enumerate(learned, 1))
        for k, name in enumerate(own, 1):
            assert names.get(found[k], "background") in (name.lower(), "background")
            assert (found[k] == 0) == (name.lower() not in learned)
        assert (found[0], found[-1]) == (0, IGNORE)


def write_photos(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PilImage.new("RGB", (4, 3)).save(folder / f"{name}.jpg")


class TestLoading:
    """Photos that are only predicted and scored need no tags, but a class list."""

    def test_photos_alone(self, tmp_path):
        write_photos(tmp_path / "JPEGImages", "a", "b", "c")
        with pytest.raises(TagError, match="nothing says which classes there are; write their na"):
            load_target(tmp_path)
        (tmp_path / "classes.txt").write_text("cow\ncat\n")
        (tmp_path / "val.txt").write_text("c\na\n")
        data = load_target(tmp_path)
        assert (data.classes, data.names) == (("cow", "cat"), ("a", "b", "c"))
        assert not data.known.any()
        assert load_target(tmp_path, split="val").names == ("c", "a")
        (tmp_path / "val.txt").write_text("d\n")
        with pytest.raises(TagError, match="JPEGImages: 1 of 1 listed photos are not here: d; add"):
            load_target(tmp_path, split="val")

    def test_photos_in_folders_that_are_no_classes(self, tmp_path):
        write_photos(tmp_path, "clip_1/a", "clip_2/a")
        (tmp_path / "classes.txt").write_text("cow\ncat\n")
        data = load_target(tmp_path)
        assert data.names == ("clip_1/a", "clip_2/a")
        assert not data.tags.any()

    def test_class_folders(self, tmp_path):
        write_photos(tmp_path, "cow/a", "cat/a")
        data = load_target(tmp_path)
        assert (data.classes, data.tags.sum()) == (("cat", "cow"), 2)
        assert data.known.all()

    def test_voc_without_annotations(self, tmp_path):
        write_photos(tmp_path / "JPEGImages", "a", "b")
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("b\n")
        data = load_target(tmp_path, split="val")
        assert (data.classes, data.names) == (VOC_CLASSES, ("b",))
        assert not data.known.any()

    def test_a_tag_file_may_leave_photos_out(self, tmp_path):
        write_photos(tmp_path, "a", "b", "c")
        (tmp_path / "tags.csv").write_text("image,tags\nb.jpg,cat\nc.jpg,\n")
        data = load_target(tmp_path)
        assert data.names == ("a", "b", "c")
        assert data.known.tolist() == [False, True, False]
        assert data.unlisted == 0

    def test_masks_among_the_photos_are_no_photos(self, tmp_path):
        write_photos(tmp_path, "a", "x/b")
        (tmp_path / "masks").mkdir()
        write_mask(tmp_path / "masks" / "a.png", LABELS)
        (tmp_path / "classes.txt").write_text("cat\n")
        assert load_target(tmp_path, masks=tmp_path / "masks").names == ("a", "x/b")
        assert load_target(tmp_path, masks=tmp_path / "x" / ".." / "masks").names == ("a", "x/b")
        for elsewhere in (None, tmp_path, tmp_path.parent, tmp_path / "mask"):
            assert load_target(tmp_path, masks=elsewhere).names == ("a", "masks/a", "x/b")

    def test_an_unfit_layout(self, tmp_path):
        write_photos(tmp_path, "n02691156/a")
        with pytest.raises(ConfigError, match="a target cannot have the layout 'imagenet'"):
            load_target(tmp_path, layout="imagenet")


class TestMarks:
    def test_marks_are_brought_to_the_classes_to_learn(self):
        learned, other = photos(LEARNED, [["cat"]]), photos(("Bird", "CAT", "dog"), [["CAT"], []])
        unsure = np.array([[True, False, False], [False, True, False]])
        joined, val = with_target(learned, replace(other, unsure=unsure))
        assert joined.unsure.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]
        assert joined.absent is None
        absent = np.array([[False, True, False]])
        joined, _ = with_target(replace(learned, absent=absent), other)
        assert joined.absent.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
        assert joined.unsure is None
        assert joined.select(val).absent is None

    def test_of_two_classes_that_are_one_a_tag_counts(self):
        other = photos(("cat", "Cat", "dog", "bird"), [["cat"]])
        unsure = np.array([[False, True, False, False]])
        joined, _ = with_target(photos(LEARNED, [["dog"]]), replace(other, unsure=unsure))
        assert joined.unsure is None
