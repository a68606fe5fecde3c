"""Stand-ins for data that are not at hand: what they hold is what they say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagseg.formats.loading import load_dataset
from tool_modules import load_tool

KINDS = ("cells", "defects", "land")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    home = tmp_path_factory.mktemp("stand_ins")
    for kind in KINDS:
        load_tool("stand_ins").write(kind, home / kind, 24, 8)
    return home


def masks_of(folder):
    return [np.array(Image.open(path)) for path in sorted((folder / "masks").glob("*.png"))]


@pytest.mark.parametrize("kind", KINDS)
def test_tags_say_what_the_masks_hold(written, kind):
    folder = written / kind
    data = load_dataset(
        folder / "photos",
        tags=folder / "tags.csv",
        classes=load_tool("stand_ins").KINDS[kind].classes,
        untagged="negative",
    )
    masks = masks_of(folder)
    assert len(data) == len(masks) == 32
    for tags, mask in zip(data.tags, masks, strict=True):
        assert np.flatnonzero(tags).tolist() == [k - 1 for k in np.unique(mask) if k]
    assert data.tags.any(0).all()
    assert len((folder / "val.txt").read_text().split()) == 8


def test_each_photo_of_cells_shows_one_and_no_photo_is_free(written):
    sizes = [
        (np.unique(mask[mask > 0]).size, (mask > 0).mean()) for mask in masks_of(written / "cells")
    ]
    assert {count for count, _ in sizes} == {1}
    assert all(0.02 < share < 0.25 for _, share in sizes)


def test_defects_are_small_and_some_photos_are_free(written):
    shares = np.array([(mask > 0).mean() for mask in masks_of(written / "defects")])
    assert 0.2 < (shares == 0).mean() < 0.6
    assert np.median(shares[shares > 0]) < 0.03
    photo = np.array(Image.open(written / "defects" / "photos" / "defects0000.jpg")).astype(int)
    assert abs(photo - photo.mean(2, keepdims=True)).max() < 3  # grey


def test_a_seed_draws_the_same_again(written, tmp_path):
    load_tool("stand_ins").write("land", tmp_path / "again", 3, 0)
    for name in ("land0000", "land0002"):
        again, before = (
            np.array(Image.open(home / "masks" / f"{name}.png"))
            for home in (tmp_path / "again", written / "land")
        )
        assert np.array_equal(again, before)
