from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PilImage

from tagseg.data.masks import (
    decode_mask,
    encode_mask,
    open_mask,
    read_mask,
    voc_palette,
    write_mask,
)
from tagseg.errors import MaskError, ShapeError


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 255),
    )
)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_bytes_round_trip(labels):
    assert np.array_equal(decode_mask(encode_mask(labels)), labels)


def test_file_round_trip_is_palettised_and_leaves_no_other_file(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "a.png", labels)
    write_mask(tmp_path / "a.png", labels.T.copy())  # replaces
    assert os.listdir(tmp_path) == ["a.png"]
    assert np.array_equal(read_mask(tmp_path / "a.png"), labels.T)
    with PilImage.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.array(picture.getpalette()).reshape(-1, 3), voc_palette())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_mask(tmp_path / "a.png", np.ones((2, 2), np.uint8))

    def fail(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MaskError, match=r"a\.png: cannot be written: No space left"):
        write_mask(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert os.listdir(tmp_path) == ["a.png"]
    assert (read_mask(tmp_path / "a.png") == 1).all()


def test_writing_to_no_folder(tmp_path):
    with pytest.raises(MaskError, match="cannot be written: No such file"):
        write_mask(tmp_path / "no" / "a.png", np.zeros((2, 2), np.uint8))


def test_wrong_arrays_are_refused(tmp_path):
    with pytest.raises(ShapeError):
        write_mask(tmp_path / "a.png", np.zeros((2, 2), np.int64))
    assert not list(tmp_path.iterdir())


def test_palette():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for index, colour in {**known, 255: (224, 224, 192)}.items():
        assert tuple(voc_palette()[index]) == colour
    assert len({tuple(c) for c in voc_palette().tolist()}) == 256


def test_all_kinds_of_files(tmp_path):
    ids = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    pictures = {
        "grey": PilImage.fromarray(ids),
        "16 bit": PilImage.fromarray(ids.astype(np.uint16)),
        "colours": PilImage.fromarray(voc_palette()[ids]),
        "opaque": PilImage.fromarray(voc_palette()[ids]).convert("RGBA"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), ids), name
    PilImage.fromarray(ids.astype(np.int32)).save(tmp_path / "32 bit.tif")
    assert np.array_equal(read_mask(tmp_path / "32 bit.tif"), ids)


def test_one_bit_is_zero_and_one(tmp_path):
    bits = np.array([[True, False]])
    PilImage.fromarray(bits).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[1, 0]]


def test_few_colours_with_a_short_palette(tmp_path):
    picture = PilImage.fromarray(np.array([[0, 3, 1]], np.uint8))
    picture.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 7, 7, 7])
    picture.save(tmp_path / "a.png", bits=2)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 3, 1]]


@given(
    st.sampled_from(["PNG", "GIF", "BMP", "TIFF"]),
    st.sampled_from(["L", "P", "RGB", "1"]),
    st.integers(0, 200),
    st.binary(max_size=4),
    st.integers(0, 60),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_mutated_files_raise_nothing_but_one_line(tmp_path_factory, form, mode, place, junk, cut):
    path = tmp_path_factory.mktemp("masks") / "a"
    labels = np.arange(40, dtype=np.uint8).reshape(5, 8) % 3
    picture = PilImage.fromarray(labels * (1 if mode != "1" else 127))
    picture.convert(mode).save(path, form)
    data = path.read_bytes()
    path.write_bytes(data[:place] + junk + data[place + cut :])
    try:
        content, said = open_mask(path).content, "fine"
    except MaskError as problem:
        content, said = None, str(problem)
    assert len(said.splitlines()) == 1
    assert content is None or sum(content.counts.values()) == np.prod(content.shape)


class TestContent:
    """What a file holds, before anything is said of its meaning."""

    def test_grey(self, tmp_path):
        PilImage.fromarray(np.array([[0, 7, 7]], np.uint8)).save(tmp_path / "a.png")
        content = open_mask(tmp_path / "a.png").content
        assert (content.shape, content.counts, content.colours) == ((1, 3), {0: 1, 7: 2}, {})
        assert content.numbered

    def test_palette_and_what_it_lists_beside(self, tmp_path):
        picture = PilImage.fromarray(np.array([[0, 2, 2]], np.uint8))
        for third, is_own in (((128, 0, 0), False), ((1, 200, 9), True)):
            picture.putpalette([0, 0, 0, *third, 9, 9, 8])
            picture.save(tmp_path / "a.png")
            content = open_mask(tmp_path / "a.png").content
            assert content.colours == {0: (0, 0, 0), 2: (9, 9, 8)}
            assert content.own_palette == is_own

    def test_rgb(self, tmp_path):
        rgb = np.array([[(5, 6, 7), (0, 0, 0), (5, 6, 7)]], np.uint8)
        PilImage.fromarray(rgb).save(tmp_path / "a.png")
        content = open_mask(tmp_path / "a.png").content
        assert content.colours == {0: (0, 0, 0), 1: (5, 6, 7)}
        assert (content.counts, content.numbered) == ({0: 1, 1: 2}, False)

    def test_grey_with_alpha(self, tmp_path):
        values = np.stack([np.array([[0, 2]], np.uint8), np.full((1, 2), 255, np.uint8)], axis=2)
        PilImage.fromarray(values).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png").tolist() == [[0, 2]]

    def test_a_smoothed_mask(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        PilImage.fromarray(noise).save(tmp_path / "a.png")
        with pytest.raises(MaskError, match=r"a photo, or a smoothed mask; give masks without"):
            open_mask(tmp_path / "a.png")
