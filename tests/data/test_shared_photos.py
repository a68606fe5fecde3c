from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from tagseg.data.dataset import Dataset
from tagseg.data.shared_photos import SharedPhotos
from tagseg.data.working import WorkingPhotos

SHAPES = np.array([[4, 6], [3, 5], [8, 2]], np.int64)
BYTES = [72, 45, 48]


def photo(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*SHAPES[index], 3), np.uint8)


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (71, 0), (72, 1), (164, 2), (165, 3)])
def test_the_first_photos_that_a_budget_allows_are_kept(budget: int, kept: int) -> None:
    shared = SharedPhotos(SHAPES, budget)
    assert (shared.bytes, shared.all_bytes) == (sum(BYTES[:kept]), 165)
    for index in (2, 0, 1):
        assert shared.get(index) is None
        shared.put(index, photo(index))
    for index in range(3):
        found = shared.get(index)
        assert (found is not None) is (index < kept)
        if found is not None:
            np.testing.assert_array_equal(found, photo(index))


def test_a_photo_of_another_size_is_not_kept() -> None:
    shared = SharedPhotos(SHAPES, 1000)
    shared.put(0, photo(1))
    assert shared.get(0) is None


def test_no_photos() -> None:
    assert SharedPhotos(np.empty((0, 2), np.int64), 100).get(0) is None


def photos() -> WorkingPhotos:
    images = [photo(index) for index in range(3)]
    dataset = Dataset.from_arrays(images, np.ones((3, 1), bool), ("a",))
    return WorkingPhotos(replace(dataset, sizes=SHAPES.astype(np.int32)), 100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_forked_process_decodes_is_there_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    some = photos()
    some.share(1000)
    child = os.fork()
    if child == 0:
        some.image(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.setattr(Dataset, "image", None)  # nothing is decoded here
    np.testing.assert_array_equal(some.image(1), photo(1))
    np.testing.assert_array_equal(some.retold(some.dataset).image(1), photo(1))
    with pytest.raises(TypeError):
        some.image(0)


def test_photos_beyond_the_budget_are_decoded_each_time() -> None:
    some = photos()
    some.share(80)
    for _ in range(2):
        for index in range(3):
            np.testing.assert_array_equal(some.image(index), photo(index))
    assert not some._kept


def test_a_copy_decodes_for_itself() -> None:
    some = photos()
    some.share(1000)
    some.image(0)
    copy = pickle.loads(pickle.dumps(some))
    assert copy._shared is None
    np.testing.assert_array_equal(copy.image(0), photo(0))
