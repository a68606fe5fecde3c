"""Masks as the page shows them."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image as PilImage

from review_runs import SHAPE, labels_for, make_run, opened, reviewing_of
from tagseg.errors import MaskError
from tagseg.maps import IGNORE
from tagseg.web.review_masks import MaskFolder
from tagseg.web.shown_masks import ShownMasks, over_photo, packed, page_colours


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    made = make_run(tmp_path_factory.mktemp("shown"))
    run = opened(made)
    return ShownMasks(run, MaskFolder(made.run / "r.jsonl", "run", run.classes))


def test_candidates_are_at_the_photos_size(shown):
    assert shown.shape(0) == SHAPE
    assert shown.candidate(0, 0).tolist() == labels_for(("cat",)).tolist()
    assert shown.candidate(0, 1).shape == SHAPE
    for number in (-1, 3):
        with pytest.raises(MaskError, match="no such candidate"):
            shown.candidate(0, number)


def test_a_class_that_was_taken_off_is_not_sure(shown):
    both = labels_for(("cat", "dog"))
    found = shown.candidate(2, 0, [2])
    assert np.array_equal(found == IGNORE, both == 2)
    assert np.array_equal(found == 1, both == 1)


def test_what_is_the_same_is_told(shown):
    assert shown.same(0) == [0, 1, 2]
    assert shown.same(3) == [0, 0, 0]  # nothing is in it


def test_a_photo_without_a_candidate(tmp_path):
    tags = dict.fromkeys("abcz", ("cat", "dog"))
    made = make_run(tmp_path, tags)
    with reviewing_of(made) as reviewing:
        maps = reviewing.run.maps[2]
        object.__setattr__(maps, "read", lambda name: {"a": labels_for(("cat",))}[name])
        assert reviewing.shown.same(1) == [0, 1, None, 3]
        with pytest.raises(MaskError, match="for this photo"):
            reviewing.shown.candidate(1, 2)


def test_a_picture_over_the_photo_is_clear_where_nothing_is():
    labels = labels_for(("cat", "dog"), (60, 80))
    labels[:10, :10] = IGNORE
    colours = page_colours(2)
    pictures = {}
    for outline in (False, True):
        picture = PilImage.open(io.BytesIO(over_photo(labels, 40, colours, outline=outline)))
        assert picture.size == (40, 30)
        pictures[outline] = np.asarray(picture.convert("RGBA"))
    fill, outline = pictures[False], pictures[True]
    assert fill[29, 0, 3] == 0
    middle = (15, 5)
    assert fill[middle].tolist() == [*colours[1].tolist(), 255]
    assert outline[middle][3] == 0
    assert 0 < np.count_nonzero(outline[..., 3]) < np.count_nonzero(fill[..., 3])
    assert {tuple(c) for c in fill[:5, :5].reshape(-1, 4)[:, :3][fill[:5, :5, 3].ravel() > 0]} == {
        (255, 255, 255)
    }


def test_colours_are_all_different():
    colours = page_colours(254)
    assert len(np.unique(colours[1:21], axis=0)) == 20
    near = np.linalg.norm(np.diff(colours[1:21].astype(float), axis=0), axis=1)
    assert near.min() > 60


def test_maps_are_packed_with_their_size():
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = zlib.decompress(packed(labels))
    assert np.frombuffer(content[:8], "<u4").tolist() == [3, 2]
    assert content[8:] == bytes(range(6))
