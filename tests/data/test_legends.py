"""What numbers and colours of masks stand for: palettes in order and in disorder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data.legends import Legend, MaskContent, voc_palette
from tagseg.data.masks import check_reading, open_mask
from tagseg.errors import MaskError

IDS = np.array([[0, 1, 2, 0], [2, 2, 0, 255]], np.uint8)
TWO = Legend(2)
VOC = [tuple(colour) for colour in voc_palette().tolist()]
OWN = {(0, 0, 0): 0, (48, 112, 32): 1, (176, 112, 32): 2}


def palette_file(path: Path, ids: np.ndarray, palette: list[tuple[int, ...]]) -> Path:
    picture = PilImage.fromarray(ids)
    picture.putpalette([value for colour in palette for value in colour])
    picture.save(path)
    return path


def read(path: Path, legend: Legend = TWO) -> tuple[str, np.ndarray]:
    raw = open_mask(path)
    reading = legend.read(raw.content)
    check_reading(reading, raw.content, legend, path)
    return reading.by, reading.table()[raw.values]


class TestPalettes:
    """Numbers count, unless all colours are of the colour map and say something else."""

    def test_reordered(self, tmp_path):
        for order in ([0, 2, 1, 255], [255, 1, 2, 0], [2, 0, 255, 1]):
            index = np.zeros(256, np.uint8)
            index[order] = range(4)
            path = palette_file(tmp_path / "a.png", index[IDS], [VOC[i] for i in order])
            by, labels = read(path)
            assert by == "colour"
            assert np.array_equal(labels, IDS)
            with pytest.raises(MaskError, match="holds class id 3"):
                read(path, Legend(2, by="number"))

    def test_quantised(self, tmp_path):
        PilImage.fromarray(voc_palette()[IDS]).quantize(8).save(tmp_path / "a.png")
        assert np.array_equal(read(tmp_path / "a.png")[1], IDS)

    def test_gif(self, tmp_path):
        """Pillow orders a GIF's palette by itself."""
        PilImage.fromarray(voc_palette()[IDS]).quantize(8).save(tmp_path / "a.gif")
        assert np.array_equal(read(tmp_path / "a.gif")[1], IDS)

    @pytest.mark.parametrize(
        "palette",
        [
            VOC,
            VOC[:3],
            [(i, i, i) for i in range(256)],
            [(0, 0, 0), (128, 128, 128), (255, 255, 255)],
            [(120, 120, 120), (180, 120, 120), (6, 230, 230)],  # ADE20K's
            [(0, 0, 0), (0, 128, 0), (128, 0, 0), (255, 105, 180)],  # a tool's own: pink is unused
            [(7, 9, 3), (200, 10, 1), (3, 60, 222)],
        ],
    )
    def test_numbers_as_before(self, tmp_path, palette):
        ids = np.where(IDS == 255, 0, IDS).astype(np.uint8)
        by, labels = read(palette_file(tmp_path / "a.png", ids, palette))
        assert by == "number"
        assert np.array_equal(labels, ids)

    def test_by_flag(self, tmp_path):
        path = palette_file(tmp_path / "a.png", IDS % 3, [VOC[0], VOC[2], VOC[1]])
        assert read(path, Legend(2, by="colour"))[1].max() == 2
        assert np.array_equal(read(path, Legend(2, by="number"))[1], IDS % 3)
        grey = tmp_path / "b.png"
        PilImage.fromarray(IDS).save(grey)
        assert np.array_equal(read(grey, Legend(2, by="colour"))[1], IDS)

    def test_colours_of_a_tool(self, tmp_path):
        colours = list(OWN)
        path = palette_file(tmp_path / "a.png", IDS % 3, [colours[i] for i in (0, 2, 1)])
        by, labels = read(path, Legend(2, colours=OWN))
        assert by == "colour"
        assert np.array_equal(labels, np.array([0, 2, 1])[IDS % 3])

    def test_nearly_voc_colours_are_noticed(self, tmp_path):
        near = [(1, 0, 0), (2, 127, 1), (126, 0, 2)]
        content = open_mask(palette_file(tmp_path / "a.png", IDS % 3, near)).content
        assert TWO.read(content).by == "number"
        assert TWO.seems_in_disorder(content)
        assert not Legend(2, by="number").seems_in_disorder(content)
        for fine in (VOC, [(0, 0, 0), (127, 1, 0), (0, 127, 2)], [(i, i, i) for i in range(3)]):
            content = open_mask(palette_file(tmp_path / "a.png", IDS % 3, fine)).content
            assert not TWO.seems_in_disorder(content)


class TestRgb:
    def save(self, path: Path, colours: np.ndarray) -> Path:
        PilImage.fromarray(colours.astype(np.uint8)).save(path)
        return path

    def test_a_tools_colours(self, tmp_path):
        path = self.save(tmp_path / "a.png", np.array(list(OWN))[IDS % 3])
        assert np.array_equal(read(path, Legend(2, colours=OWN))[1], IDS % 3)
        with pytest.raises(
            MaskError,
            match=r"colour \(48, 112, 32\) is not of the VOC palette; .*"
            "--colours FILE",
        ):
            read(path)

    def test_vocs_colours_though_the_list_has_others(self, tmp_path):
        path = self.save(tmp_path / "a.png", voc_palette()[IDS])
        assert np.array_equal(read(path, Legend(2, colours=OWN))[1], IDS)

    def test_a_colour_beside_the_list(self, tmp_path):
        mixed = np.array([(0, 0, 0), (48, 112, 32), VOC[1]])[IDS % 3]
        path = self.save(tmp_path / "a.png", mixed)
        with pytest.raises(MaskError, match=r"colour \(128, 0, 0\) is not of labelmap\.txt"):
            read(path, Legend(2, colours=OWN, source="labelmap.txt"))

    def test_grey_is_numbers(self, tmp_path):
        path = self.save(tmp_path / "a.png", np.repeat((IDS % 3)[..., None], 3, axis=2))
        assert np.array_equal(read(path)[1], IDS % 3)

    def test_white_is_nothing_unless_it_is_said(self, tmp_path):
        path = self.save(tmp_path / "a.png", np.repeat((IDS > 0)[..., None] * 255, 3, axis=2))
        with pytest.raises(MaskError, match=r"colour \(255, 255, 255\) is not of the VOC"):
            read(path, Legend(1))
        assert np.array_equal(read(path, Legend(1, {0: 0, 255: 1}))[1], IDS > 0)


def test_numbers_of_the_list(tmp_path):
    PilImage.fromarray(IDS).save(tmp_path / "a.png")
    legend = Legend(1, {0: 0, 1: 255, 2: 1, 255: 255}, source="c.txt")
    assert read(tmp_path / "a.png", legend)[1].tolist() == [[0, 255, 1, 0], [1, 1, 0, 255]]
    PilImage.fromarray(IDS + np.uint8(3)).save(tmp_path / "a.png")
    with pytest.raises(MaskError, match=r"holds number 3, which c\.txt does not have"):
        read(tmp_path / "a.png", legend)


@given(st.permutations([0, 1, 2, 3, 255]), st.data())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_any_order_of_vocs_colours_is_read_as_meant(order, data):
    """Whatever an optimiser makes of the palette, and whichever labels occur."""
    used = data.draw(st.sets(st.sampled_from([0, 1, 2, 3]), min_size=2))
    kept = [label for label in order if label in used]
    content = MaskContent(
        (1, 9), dict.fromkeys(range(len(kept)), 1), dict(enumerate(VOC[i] for i in kept))
    )
    assert [Legend(3).read(content).labels[i] for i in range(len(kept))] == kept


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=4, max_size=4, unique=True))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_any_colours_of_a_tool(colours):
    legend = Legend(3, colours={colour: label for label, colour in enumerate(colours)})
    content = MaskContent((1, 9), dict.fromkeys(range(4), 1), dict(enumerate(colours[::-1])), False)
    assert legend.read(content).labels == {0: 3, 1: 2, 2: 1, 3: 0}
