from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.measure import label as connected
from skimage.segmentation import felzenszwalb
from sklearn.metrics import normalized_mutual_info_score

from tagseg.data.images import decode_photo
from tagseg.data.scenes import SCENES, draw_scene
from tagseg.errors import ConfigError, ShapeError
from tagseg.priors.superpixels import (
    SuperpixelSettings,
    superpixel_levels,
    superpixel_neighbours,
    superpixels,
)

MSRC = Path(__file__).parents[3] / "shared" / "data" / "msrc_v2" / "JPEGImages"
MCOF = SuperpixelSettings()
DRFI = [
    SuperpixelSettings(scale, sigma, min_size)
    for sigma, scale, min_size in (
        (0.8, 100, 150),
        (0.8, 400, 300),
        (0.9, 200, 200),
        (0.9, 100, 200),
        (0.8, 300, 150),
        (1.0, 200, 150),
        (0.9, 300, 300),
        (1.0, 100, 150),
        (1.0, 500, 300),
        (0.9, 200, 300),
        (0.8, 600, 200),
        (1.0, 600, 300),
        (0.8, 200, 150),
        (1.0, 500, 200),
        (0.8, 400, 150),
    )
]


def scene(index, height=96, width=128):
    return draw_scene(SCENES, 3, index, height=height, width=width).image


def noise(seed, height, width, levels=256):
    return np.random.default_rng(seed).integers(0, levels, (height, width, 3), dtype=np.uint8)


def agreement(ours, theirs):
    return normalized_mutual_info_score(ours.ravel(), theirs.ravel())


def peer(image, one):
    return felzenszwalb(image, scale=one.scale, sigma=one.sigma, min_size=one.min_size)


def find(parent, pixel):
    while parent[pixel] != pixel:
        pixel = parent[pixel]
    return pixel


def loop_superpixels(image, one):
    """Algorithm 1 of the paper in float64, an edge at a time; then the absorption."""
    height, width = image.shape[:2]
    colours = gaussian_filter(image.astype(np.float64), (one.sigma, one.sigma, 0))
    edges = []
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1), (y + 1, x - 1)):
                if v < height and 0 <= u < width:
                    length = math.dist(colours[y, x], colours[v, u])
                    edges.append((length, y * width + x, v * width + u))
    edges.sort(key=lambda edge: edge[0])
    parent = list(range(height * width))
    size, inner = [1] * len(parent), [0.0] * len(parent)

    def join(a, b, length):
        parent[b] = a
        size[a] += size[b]
        inner[a] = length

    for length, p, q in edges:
        a, b = find(parent, p), find(parent, q)
        if a != b and length < min(inner[c] + one.scale / size[c] for c in (a, b)):
            join(a, b, length)
    for length, p, q in edges:
        a, b = find(parent, p), find(parent, q)
        if a != b and min(size[a], size[b]) < one.min_size:
            join(a, b, length)
    ids: dict[int, int] = {}
    roots = [find(parent, pixel) for pixel in range(len(parent))]
    return np.array([ids.setdefault(root, len(ids)) for root in roots]).reshape(height, width)


@pytest.mark.parametrize(
    "one",
    [
        SuperpixelSettings(100, 0.8, 20),
        SuperpixelSettings(300, 0.0, 1),
        SuperpixelSettings(40, 1.3, 60),
    ],
    ids=["usual", "sharp", "blurred"],
)
@pytest.mark.parametrize("index", [0, 1])
def test_equals_the_loop(one, index):
    image = scene(index)[30:66, 40:84] // 2 + noise(index, 36, 44, 40)
    expected = loop_superpixels(image, one)
    assert expected.max() > 3
    np.testing.assert_array_equal(superpixels(image, one), expected)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut"])
def test_agrees_with_skimage_on_photos(name):
    image = getattr(skimage.data, name)()[::3, ::3]
    for one in (MCOF, DRFI[1], DRFI[7]):
        assert agreement(superpixels(image, one), peer(image, one)) >= 0.99


@pytest.mark.parametrize("index", [0, 1, 2])
def test_agrees_with_skimage_on_scenes(index):
    image = scene(index, 144, 192)
    levels = [MCOF, DRFI[3], DRFI[7], DRFI[11]]
    found = superpixel_levels(image, levels)
    assert found[0].max() > 15
    for ours, one in zip(found, levels, strict=True):
        assert agreement(ours, peer(image, one)) >= 0.99


@pytest.mark.skipif(not MSRC.is_dir(), reason="MSRC is not on this machine")
def test_agrees_with_skimage_on_msrc():
    photos = [decode_photo(path) for path in sorted(MSRC.iterdir())[::120]]
    levels = [MCOF, DRFI[0], DRFI[11]]
    agreements = [
        agreement(superpixels(image, one), peer(image, one)) for image in photos for one in levels
    ]
    assert len(agreements) == 15
    assert min(agreements) >= 0.99


def test_levels_equal_single_calls():
    image = skimage.data.coffee()[::3, ::3]
    levels = [MCOF, *DRFI, MCOF]
    found = superpixel_levels(image, levels)
    assert len({ids.max() for ids in found}) > 8
    for ids, one in zip(found, levels, strict=True):
        np.testing.assert_array_equal(ids, superpixels(image, one))
    assert superpixel_levels(image, []) == []


def test_levels_are_maps_of_their_own():
    first, second = superpixel_levels(scene(0), [MCOF, MCOF])
    first[:] = -1
    assert second.min() == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    colours=st.sampled_from([2, 6, 256]),
    scale=st.floats(0.5, 2000),
    min_size=st.integers(1, 300),
)
def test_regions_are_what_is_promised(seed, height, width, colours, scale, min_size):
    image = noise(seed, height, width, colours)
    one = SuperpixelSettings(scale, 0.8, min_size)
    found = superpixels(image, one)
    assert (found.dtype, found.shape) == (np.int32, (height, width))
    values, first, sizes = np.unique(found, return_index=True, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(len(values)))
    assert (np.diff(first) > 0).all()
    assert sizes.min() >= min(min_size, height * width)
    assert connected(found + 1, connectivity=2).max() == len(values)
    np.testing.assert_array_equal(found, superpixels(image, one))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (40, 50)])
def test_one_colour_is_one_region(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    for found in superpixel_levels(image, [SuperpixelSettings(1e-6, 0.8, 1), *DRFI]):
        np.testing.assert_array_equal(found, np.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 3)])
def test_tiny_photos_fall_into_pixels_or_stay_whole(shape):
    image = noise(0, *shape)
    pixels = superpixels(image, SuperpixelSettings(1e-3, 0.0, 1))
    np.testing.assert_array_equal(pixels.ravel(), np.arange(pixels.size))
    assert superpixels(image, SuperpixelSettings(1e-3, 0.0, 100)).max() == 0


def test_two_halves_are_two_regions():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 12:] = 200
    found = superpixels(image, SuperpixelSettings(100, 0.0, 50))
    np.testing.assert_array_equal(found, np.tile(np.arange(30) >= 12, (20, 1)))


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda a: a.swapaxes(0, 1)])
def test_turns_with_the_photo(turn):
    image = skimage.data.chelsea()[::2, ::2]
    turned = superpixels(turn(image), MCOF)
    assert agreement(turned, turn(superpixels(image, MCOF))) >= 0.99


def test_the_order_of_channels_does_not_matter():
    image = skimage.data.coffee()[::3, ::3]
    assert agreement(superpixels(image), superpixels(image[..., ::-1])) >= 0.99


def test_more_scale_makes_fewer_regions():
    image = scene(4, 192, 256)
    counts = [superpixels(image, SuperpixelSettings(k, 0.8, 20)).max() for k in (30, 100, 300, 900)]
    assert (np.diff(counts) < 0).all()


class TestReferenceSide:
    def test_numbers_go_with_the_photo(self):
        image = scene(5, 192, 256)
        found = superpixels(image, SuperpixelSettings(100, 0.8, 30), reference_side=128)
        expected = superpixels(image, SuperpixelSettings(400, 0.8, 120))
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("name", ["coffee", "astronaut", "chelsea"])
    def test_a_smaller_copy_has_as_many_regions_or_some_more(self, name):
        image = getattr(skimage.data, name)()
        side = max(image.shape[:2])
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        count, of_half = (superpixels(a, reference_side=side).max() for a in (image, half))
        assert 1 <= of_half / count < 3  # without the rule a quarter to a third

    def test_the_longer_side_counts(self):
        image = scene(5, 192, 256)
        for turned in (image, image.swapaxes(0, 1)):
            same = superpixels(turned, MCOF, reference_side=256)
            np.testing.assert_array_equal(same, superpixels(turned, MCOF))

    def test_the_least_size_stays_a_pixel(self):
        image = noise(1, 8, 8)
        found = superpixels(image, SuperpixelSettings(1e-3, 0.0, 100), reference_side=8000)
        assert found.max() == 63

    @pytest.mark.parametrize("side", [0, -5])
    def test_wrong(self, side):
        with pytest.raises(ConfigError, match=f"reference_side is {side}"):
            superpixels(scene(0), reference_side=side)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 0),
        ("scale", -1.0),
        ("scale", np.inf),
        ("scale", np.nan),
        ("sigma", -0.1),
        ("sigma", 101),
        ("sigma", np.nan),
        ("min_size", 0),
        ("min_size", 2.5),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} is"):
        SuperpixelSettings(**{name: value})


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_no_photo(image):
    with pytest.raises(ShapeError, match="image"):
        superpixels(image)


class TestNeighbours:
    def loop(self, ids):
        pairs = set()
        for y in range(ids.shape[0]):
            for x in range(ids.shape[1]):
                for v, u in ((y, x + 1), (y + 1, x)):
                    if v < ids.shape[0] and u < ids.shape[1] and ids[y, x] != ids[v, u]:
                        pairs.add((min(ids[y, x], ids[v, u]), max(ids[y, x], ids[v, u])))
        return sorted(pairs)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 10_000),
        height=st.integers(1, 12),
        width=st.integers(1, 12),
        count=st.integers(1, 20),
    )
    def test_equals_the_loop(self, seed, height, width, count):
        ids = np.random.default_rng(seed).integers(0, count, (height, width), dtype=np.int32)
        found = superpixel_neighbours(ids)
        assert found.dtype == np.int32
        assert found.shape[1] == 2
        assert [tuple(pair) for pair in found] == self.loop(ids)

    def test_of_superpixels(self):
        ids = superpixels(scene(2))
        assert len(superpixel_neighbours(ids)) > ids.max() > 4
        assert [tuple(pair) for pair in superpixel_neighbours(ids)] == self.loop(ids)

    def test_corners_do_not_touch(self):
        ids = np.array([[0, 1], [2, 0]], np.int32)
        assert superpixel_neighbours(ids).tolist() == [[0, 1], [0, 2]]

    @pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
    def test_one_region_has_none(self, shape):
        assert superpixel_neighbours(np.zeros(shape, np.int32)).shape == (0, 2)

    def test_many_ids(self):
        ids = np.arange(80_000, dtype=np.int32).reshape(1, -1)
        assert superpixel_neighbours(ids)[-1].tolist() == [79_998, 79_999]

    @pytest.mark.parametrize(
        "ids",
        [
            np.zeros((2, 2), np.int64),
            np.zeros(4, np.int32),
            np.zeros((0, 3), np.int32),
            np.full((2, 2), -1, np.int32),
        ],
        ids=["type", "dimensions", "empty", "negative"],
    )
    def test_no_superpixels(self, ids):
        with pytest.raises(ShapeError, match="superpixels"):
            superpixel_neighbours(ids)
