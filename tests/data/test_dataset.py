from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset, file_key
from tagseg.errors import DataError, ImageError, ShapeError, TagError

RNG = np.random.default_rng(1)


def arrays(n: int = 4) -> Dataset:
    images = [RNG.integers(0, 256, (3 + i, 5, 3), dtype=np.uint8) for i in range(n)]
    tags = [["cat"], ["dog", "cat"], [], ["dog"]][:n]
    return Dataset.from_arrays(images, tags, ["cat", "dog"], names=list("abcd")[:n])


def on_disk(folder: Path) -> Dataset:
    paths = []
    for i in range(3):
        paths.append(folder / f"{i}.png")
        PilImage.new("RGB", (4, 3), (i, 0, 0)).save(paths[-1])
    tags = np.eye(3, 2, dtype=bool)
    return Dataset(("cat", "dog"), ("0", "1", "2"), tags, np.ones(3, bool), tuple(paths))


def test_from_lists_of_names():
    data = arrays()
    assert len(data) == 4
    assert data.tags.tolist() == [[True, False], [True, True], [False, False], [False, True]]
    assert data.known.all()
    assert data.image(2).shape == (5, 5, 3)


def test_from_a_matrix_and_default_names():
    image = np.zeros((2, 2, 3), np.uint8)
    data = Dataset.from_arrays([image, image], np.eye(2, dtype=bool), ["cat", "dog"])
    assert data.names == ("000000", "000001")


def test_image_is_decoded_from_the_file(tmp_path):
    data = on_disk(tmp_path)
    assert (data.image(2) == [2, 0, 0]).all()
    with pytest.raises(ImageError, match="more than the limit of 5"):
        replace(data, max_pixels=5).image(0)


def test_subset_keeps_order_and_everything_together():
    data = arrays()
    part = data.subset([3, 0])
    assert part.names == ("d", "a")
    assert part.tags.tolist() == [[False, True], [True, False]]
    assert np.array_equal(part.image(0), data.image(3))
    assert data.subset(np.flatnonzero(data.tags[:, 0])).names == ("a", "b")
    assert len(data.subset([])) == 0


def test_select_and_without():
    data = arrays()
    assert data.select(["c", "a"]).names == ("c", "a")
    assert data.without(["b", "not there"]).names == ("a", "c", "d")
    with pytest.raises(DataError, match="2 of 3 listed photos are not in the data: x, y"):
        data.select(["a", "x", "y"])


class TestFingerprint:
    def test_is_the_same_for_the_same(self):
        data = arrays()
        copy = replace(data, sources=tuple(np.array(s) for s in data.sources))
        assert copy.fingerprint() == data.fingerprint()

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: replace(d, classes=("cat", "cow")),
            lambda d: replace(d, names=("a", "b", "c", "e")),
            lambda d: replace(d, tags=~d.tags),
            lambda d: replace(d, known=~d.known),
            lambda d: replace(d, sources=(d.sources[0] ^ 1, *d.sources[1:])),
            lambda d: replace(d, sources=(d.sources[0].reshape(5, 3, 3), *d.sources[1:])),
            lambda d: d.subset([1, 0, 2, 3]),
        ],
    )
    def test_changes_with_everything_that_counts(self, change):
        data = arrays()
        assert change(data).fingerprint() != data.fingerprint()

    def test_names_do_not_run_into_each_other(self):
        data = arrays(2)
        one = replace(data, names=("ab", "c")).fingerprint()
        assert one != replace(data, names=("a", "bc")).fingerprint()

    def test_changes_with_a_files_bytes(self, tmp_path):
        data = on_disk(tmp_path)
        before = data.fingerprint()
        PilImage.new("RGB", (4, 3), (9, 9, 9)).save(tmp_path / "1.png")
        assert data.fingerprint() != before
        (tmp_path / "1.png").unlink()
        assert data.fingerprint() != before  # and does not fail

    def test_known_digests_spare_the_reading_until_the_file_changes(self, tmp_path):
        data = on_disk(tmp_path)
        before = data.fingerprint()
        known = {file_key(path): "elsewhere" for path in data.sources}
        assert data.fingerprint(known) != before
        for path in data.sources:
            os.utime(path, ns=(1, 1))
        assert data.fingerprint(known) == before


class TestChecks:
    def make(self, **changes: object) -> Dataset:
        return replace(arrays(2), **changes)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"classes": ()}, TagError, "there are no classes"),
            ({"classes": tuple(map(str, range(255)))}, TagError, "there are 255 classes"),
            ({"classes": ("cat", "cat")}, TagError, "class 'cat' is listed twice"),
            ({"classes": ("background", "cat")}, TagError, "called background"),
            ({"names": ("a", "a")}, DataError, "photo 'a' is listed twice"),
            ({"names": ("a", "../b")}, DataError, "'../b' cannot be a photo's name"),
            ({"names": ("a", "/b")}, DataError, "'/b' cannot be a photo's name"),
            ({"names": ("a", "")}, DataError, "'' cannot be a photo's name"),
            ({"tags": np.zeros((2, 3), bool)}, ShapeError, r"tags is bool \(2, 3\)"),
            ({"tags": np.zeros((2, 2), int)}, ShapeError, r"tags is int64 \(2, 2\)"),
            ({"known": np.ones(3, bool)}, ShapeError, r"known is bool \(3,\)"),
            ({"sources": ()}, ShapeError, "0 photos, but 2 names"),
        ],
    )
    def test_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            self.make(**changes)

    def test_most_classes_that_labels_have_room_for(self):
        classes = tuple(map(str, range(254)))
        assert len(self.make(classes=classes, tags=np.zeros((2, 254), bool)).classes) == 254

    def test_arrays(self):
        image = np.zeros((2, 2, 3), np.uint8)
        with pytest.raises(TagError, match="tag 'cow' of photo 0 is not a class"):
            Dataset.from_arrays([image], [["cow"]], ["cat"])
        with pytest.raises(TagError, match="the tags of photo 0 are one string"):
            Dataset.from_arrays([image], ["cat"], ["cat"])
        with pytest.raises(ShapeError, match="photo 1 is a float64 array"):
            Dataset.from_arrays([image, image / 2], [[], []], ["cat"])


class TestMarks:
    def marked(self, **marks: np.ndarray) -> Dataset:
        images = [np.full((3, 4, 3), i, np.uint8) for i in range(3)]
        found = Dataset.from_arrays(images, [["cat"], ["dog"], []], ("cat", "dog"))
        return replace(found, **marks)

    def mark(self, *places: tuple[int, int]) -> np.ndarray:
        found = np.zeros((3, 2), bool)
        for place in places:
            found[place] = True
        return found

    def test_a_mark_that_nothing_has_is_none(self) -> None:
        found = self.marked(unsure=self.mark(), absent=self.mark((0, 1)))
        assert found.unsure is None
        assert found.absent is not None

    def test_parts_keep_their_marks(self) -> None:
        found = self.marked(unsure=self.mark((2, 0)), absent=self.mark((0, 1)))
        part = found.without([found.names[0]])
        assert part.unsure is not None
        assert part.unsure.tolist() == [[False, False], [True, False]]
        assert part.absent is None
        assert found.select([found.names[1]]).unsure is None

    def test_what_nobody_knows_changes_the_fingerprint_and_nothing_else_does(self) -> None:
        plain = self.marked()
        known_before = "f15f57f045e199c2"
        assert plain.fingerprint()[:16] == known_before
        assert self.marked(unsure=self.mark()).fingerprint() == plain.fingerprint()
        assert self.marked(absent=self.mark((0, 1))).fingerprint() == plain.fingerprint()
        unsure = {self.marked(unsure=self.mark((i, 1 - i))).fingerprint() for i in range(2)}
        assert len(unsure | {plain.fingerprint()}) == 3

    def test_a_class_is_not_tagged_and_marked(self) -> None:
        with pytest.raises(TagError, match="class 0 of photo 0 is tagged and unsure"):
            self.marked(unsure=self.mark((0, 0)))

    def test_a_mark_has_the_shape_of_the_tags(self) -> None:
        with pytest.raises(ShapeError, match="absent"):
            self.marked(absent=np.zeros((3, 3), bool))
