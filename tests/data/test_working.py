from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tagseg.data import working
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos, argmax_at, labels_at, resized, working_image
from tagseg.errors import DataError
from tagseg.maps import Image

SIDES = st.integers(1, 90)


def photo(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photos(shapes: list[tuple[int, int]], side: int = 500) -> WorkingPhotos:
    images = [photo(*shape, seed) for seed, shape in enumerate(shapes)]
    tags = np.zeros((len(shapes), 2), bool)
    tags[::2, 0] = True
    return WorkingPhotos(Dataset.from_arrays(images, tags, ("a", "b")), side)


# One photo


@settings(derandomize=True, max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, side=st.integers(1, 70))
def test_the_longer_side_comes_down_to_side(height: int, width: int, side: int) -> None:
    image = photo(height, width)
    small = working_image(image, side)
    assert small.dtype == np.uint8
    if max(height, width) <= side:
        np.testing.assert_array_equal(small, image)
        return
    assert max(small.shape[:2]) == side
    assert min(small.shape[:2]) == max(1, round(min(height, width) * side / max(height, width)))


def test_shrinking_averages() -> None:
    image = photo(60, 80)
    blocks = image.reshape(15, 4, 20, 4, 3).mean((1, 3))
    np.testing.assert_allclose(working_image(image, 20), blocks, atol=1)


def test_labels_grow_by_nearest_neighbour() -> None:
    labels = np.array([[0, 3], [255, 7]], np.uint8)
    expected = labels.repeat(3, 0).repeat(2, 1)
    np.testing.assert_array_equal(labels_at(labels, (6, 4)), expected)
    assert labels_at(labels, (2, 2)) is labels


def test_labels_are_not_shifted() -> None:
    """A step of a third: rounding down would move borders by up to half a pixel."""
    ramp = np.arange(200, dtype=np.uint8)[None].repeat(2, 0)
    grown = labels_at(ramp, (2, 300))[0].astype(float)
    middles = (np.arange(300) + 0.5) * 200 / 300 - 0.5
    assert abs((grown - middles).mean()) < 0.1
    assert np.abs(grown - middles).max() <= 0.51


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    small=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    factor=st.tuples(st.floats(1, 5), st.floats(1, 5)),
    n_labels=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_argmax_at_is_the_argmax_of_the_upsampled_probabilities(
    small: tuple[int, int], factor: tuple[float, float], n_labels: int, seed: int
) -> None:
    shape = (round(small[0] * factor[0]), round(small[1] * factor[1]))
    scores = np.random.default_rng(seed).normal(size=(n_labels, *small)).astype(np.float32)
    probs = torch.softmax(torch.from_numpy(scores), 0)
    labels = argmax_at(probs.numpy(), shape)
    assert labels.shape == shape
    assert labels.dtype == np.uint8
    full = functional.interpolate(probs[None], shape, mode="bilinear", align_corners=False)[0]
    chosen = full.gather(0, torch.from_numpy(labels)[None].long())[0]
    np.testing.assert_allclose(chosen, full.max(0).values, atol=1e-5)


def test_ties_go_to_the_first_label_at_every_size() -> None:
    probs = np.full((3, 4, 4), 1 / 3, np.float32)
    assert not argmax_at(probs, (4, 4)).any()
    assert not argmax_at(probs, (9, 7)).any()


def test_a_probability_of_zero_everywhere_but_one_label() -> None:
    probs = np.zeros((3, 2, 2), np.float32)
    probs[2] = 1
    assert (argmax_at(probs, (5, 5)) == 2).all()


# Many photos


def test_the_same_photos_with_other_tags() -> None:
    before = photos([(40, 60), (30, 30)], side=20)
    tags = ~before.tags
    after = before.retold(replace(before.dataset, tags=tags))
    assert np.array_equal(after.tags, tags)
    assert not np.array_equal(before.tags, tags)
    assert after.side == before.side
    assert after.image(0) is before.image(0), "decoded once"
    assert before.full_shape(0) == after.full_shape(0) == (40, 60)


def test_photos_know_both_sizes() -> None:
    some = photos([(40, 80), (30, 20)], side=40)
    assert some.full_shape(0) == (40, 80)  # also before it was asked for
    assert some.image(0).shape == (20, 40, 3)
    assert some.image(1).shape == (30, 20, 3)
    assert some.full_shape(1) == (30, 20)
    assert len(some) == 2
    assert some.names == some.dataset.names
    assert some.classes == ("a", "b")
    np.testing.assert_array_equal(some.tags, some.dataset.tags)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    wide=st.lists(st.booleans(), max_size=15),
    size=st.integers(1, 5),
    data=st.data(),
)
def test_batches_hold_every_photo_once_in_order(
    wide: list[bool], size: int, data: st.DataObject
) -> None:
    some = photos([(6, 9) if w else (9, 6) for w in wide])
    chosen = None
    if wide and data.draw(st.booleans()):
        chosen = data.draw(st.lists(st.sampled_from(range(len(wide))), unique=True))
    batches = list(some.batches(size, chosen))
    order = [index for indices, _ in batches for index in indices]
    assert order == (list(range(len(wide))) if chosen is None else chosen)
    for indices, images in batches:
        assert 1 <= len(indices) == len(images) <= size
        for index, image in zip(indices, images, strict=True):
            np.testing.assert_array_equal(image, some.image(index))


def test_a_batch_is_closed_by_its_size_or_by_another_shape_only() -> None:
    shapes = [(6, 9)] * 5 + [(9, 6)] * 2 + [(6, 9)]
    groups = [indices for indices, _ in photos(shapes).batches(3)]
    assert groups == [[0, 1, 2], [3, 4], [5, 6], [7]]


def test_company_does_not_depend_on_what_was_read_before() -> None:
    """A resumed run reads some photos, skips some batches, and still meets the same ones."""
    shapes = [(6, 9), (6, 9), (9, 6), (6, 9), (6, 9), (6, 9)]
    fresh = [indices for indices, _ in photos(shapes).batches(2)]
    some = photos(shapes)
    for index in (4, 1):
        some.image(index)
    walk = some.batches(2)
    next(walk)
    walk.close()
    assert [indices for indices, _ in some.batches(2)] == fresh


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each photo was decoded."""
    counts: Counter[int] = Counter()
    original = Dataset.image

    def image(self: Any, index: int) -> Image:
        counts[index] += 1
        return original(self, index)

    monkeypatch.setattr(Dataset, "image", image)
    return counts


def test_photos_are_decoded_once(reads: Counter[int]) -> None:
    some = photos([(6, 9)] * 4)
    for _ in range(3):
        list(some.batches(2))
        some.full_shape(3)
    assert reads == {0: 1, 1: 1, 2: 1, 3: 1}


def test_memory_is_limited(reads: Counter[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_MEMORY", 2 * 6 * 9 * 3 + 100)
    some = photos([(6, 9)] * 4 + [(3, 10)])
    for _ in range(3):
        for index in range(5):
            np.testing.assert_array_equal(some.image(index), some.dataset.sources[index])
    for index in range(4):
        some.full_shape(index)  # sizes are remembered, also of photos that are not
    assert reads == {0: 1, 1: 1, 2: 3, 3: 3, 4: 1}


def test_what_is_kept_is_the_small_photo(
    reads: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "_MEMORY", 4 * 10 * 10 * 3)
    some = photos([(100, 100)] * 4, side=10)
    for _ in range(2):
        list(some.batches(4))
    assert set(reads.values()) == {1}


def test_resized_by_area_where_it_gets_narrower_and_bilinear_elsewhere():
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    assert resized(image, (16, 12)) is image
    for size, way in (((8, 6), cv2.INTER_AREA), ((24, 18), cv2.INTER_LINEAR)):
        expected = cv2.resize(image, size, interpolation=way)
        np.testing.assert_array_equal(resized(image, size), expected)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.sampled_from([(6, 9), (9, 6), (60, 90), (91, 60)]), max_size=15),
    size=st.integers(1, 5),
)
def test_runs_are_told_from_sizes_alone(shapes: list[tuple[int, int]], size: int) -> None:
    some = photos(shapes, side=40)
    sizes = np.array(shapes, np.int32).reshape(-1, 2)
    known = some.retold(replace(some.dataset, sizes=sizes))
    assert known.shapes().tolist() == [list(some.image(i).shape[:2]) for i in range(len(shapes))]
    bounds = known.runs(size)
    assert bounds.tolist() == some.runs(size).tolist()
    batches = list(some.batches(size))
    assert [list(range(a, b)) for a, b in pairwise(bounds)] == [indices for indices, _ in batches]
    for indices, images in batches:
        np.testing.assert_array_equal(known.stacked(indices), images)


def test_known_sizes_need_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    some = photos([(40, 80), (30, 20)], side=40)
    known = WorkingPhotos(replace(some.dataset, sizes=np.array([[40, 80], [30, 20]])), 40)
    monkeypatch.setattr(WorkingPhotos, "image", None)
    assert known.full_shape(0) == (40, 80)
    assert known.shapes().tolist() == [[20, 40], [30, 20]]


def test_a_photo_that_has_changed_since_is_told() -> None:
    some = photos([(40, 80), (30, 20)], side=40)
    wrong = some.retold(replace(some.dataset, sizes=np.array([[40, 80], [40, 80]])))
    assert wrong.runs(2).tolist() == [0, 2]
    with pytest.raises(DataError, match="1: has another size than when it was looked at"):
        wrong.stacked([0, 1])


def test_another_process_decodes_for_itself() -> None:
    some = photos([(40, 80)] * 3, side=40)
    some.image(1)
    copy = pickle.loads(pickle.dumps(some))
    assert not copy._kept
    np.testing.assert_array_equal(copy.image(1), some.image(1))
    assert copy.side == 40


# JPEGs at reduced scale


def files(folder: Path, shapes: dict[str, tuple[int, int]], side: int) -> WorkingPhotos:
    """Photos in files, whose sizes are known."""
    paths = [folder / name for name in shapes]
    for path, (height, width) in zip(paths, shapes.values(), strict=True):
        smooth = cv2.resize(photo(6, 8), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), smooth)
    n = len(paths)
    names = tuple(path.name for path in paths)
    sizes = np.array(list(shapes.values()), np.int32)
    known = np.ones(n, bool)
    return WorkingPhotos(Dataset(("a",), names, known[:, None], known, paths, sizes=sizes), side)


def test_large_jpegs_are_reduced_and_others_stay_to_the_bit(tmp_path: Path) -> None:
    shapes = {"a.jpg": (120, 160), "b.jpg": (60, 79), "c.png": (120, 160), "d.JPG": (80, 64)}
    some = files(tmp_path, shapes, side=40)
    unknown = some.retold(replace(some.dataset, sizes=None))
    unknown._kept = {}
    for index, name in enumerate(shapes):
        small = some.image(index)
        whole = working_image(some.dataset.image(index), 40)
        reduced = name in ("a.jpg", "d.JPG")
        assert small.shape == whole.shape == (*some.shapes()[index], 3)
        assert np.array_equal(small, whole) is not reduced
        assert np.abs(small.astype(int) - whole).mean() < 3  # of 85 between two photos
        assert some.full_shape(index) == shapes[name]
        np.testing.assert_array_equal(unknown.image(index), whole)


@pytest.mark.parametrize(
    ("name", "shape", "reduces"),
    [("a.jpg", (80, 60), True), ("a.jpg", (79, 60), False), ("a.png", (80, 60), False)],
)
def test_it_is_known_beforehand_whether_photos_are_reduced(
    tmp_path: Path, name: str, shape: tuple[int, int], reduces: bool
) -> None:
    some = files(tmp_path, {"small.jpg": (30, 20), name: shape}, side=40)
    assert some.reduces is reduces
    assert not some.retold(replace(some.dataset, sizes=None)).reduces
    assert not photos([(90, 60)], side=40).reduces


def test_a_large_jpeg_that_has_changed_since_is_told(tmp_path: Path) -> None:
    some = files(tmp_path, {"a.jpg": (120, 160), "b.jpg": (120, 160)}, side=40)
    assert some.stacked([0]).shape == (1, 30, 40, 3)
    files(tmp_path, {"b.jpg": (160, 120)}, side=40)
    with pytest.raises(DataError, match=r"b\.jpg: has another size than when it was looked at"):
        some.stacked([0, 1])
