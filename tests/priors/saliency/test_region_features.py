from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagseg.errors import ShapeError
from tagseg.priors.saliency.region_features import (
    FEATURE_NAMES,
    N_FEATURES,
    pixel_channels,
    region_features,
)

RNG = np.random.default_rng
COLOURS = ["red", "green", "blue", "lightness", "a", "b", "hue", "saturation", "value"]
ANGLES = [0, 30, 60, 90, 120, 150]
TEXTURES = [f"{kind} {angle}" for kind in ("bar", "edge") for angle in ANGLES]
TEXTURES += ["blob", "small spot", "large spot"]
HISTOGRAMS = ["RGB", "Lab", "HSV", "textons", "local binary patterns"]
ENDS = {"contrast": slice(0, 29), "backgroundness": slice(29, 58), "property": slice(58, 93)}


def photo(shape=(18, 24), seed=0):
    """Coloured steps and noise."""
    rng = RNG([seed, *shape])
    steps = rng.integers(0, 256, (-(-shape[0] // 5), -(-shape[1] // 5), 3))
    smooth = np.kron(steps, np.ones((5, 5, 1)))[: shape[0], : shape[1]]
    return np.clip(smooth + rng.normal(0, 12, (*shape, 3)), 0, 255).astype(np.uint8)


def partition(shape=(18, 24), count=8, seed=0):
    """Pixels by the nearest of some points; the last two regions are one pixel."""
    rng = RNG([seed, count])
    y, x = np.mgrid[: shape[0], : shape[1]]
    points = rng.random((count, 2)) * shape
    nearest = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(2)
    nearest[shape[0] // 2, shape[1] // 3] = count
    nearest[0, -1] = count + 1
    return np.unique(nearest, return_inverse=True)[1].reshape(shape).astype(np.int32)


def touching(superpixels):
    """Pairs of regions that share a side of a pixel."""
    height, width = superpixels.shape
    pairs = set()
    for y in range(height):
        for x in range(width):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < height and u < width and superpixels[y, x] != superpixels[v, u]:
                    pairs.add(tuple(sorted((int(superpixels[y, x]), int(superpixels[v, u])))))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def features(image, superpixels):
    return region_features(pixel_channels(image), superpixels, touching(superpixels))


def chi_square(one, other):
    return 0.5 * sum((a - b) ** 2 / (a + b) for a, b in zip(one, other, strict=True) if a + b > 0)


class SlowRegion:
    """A region as a list of its pixels."""

    def __init__(self, channels, pixels):
        self.pixels = pixels
        self.values = {
            name: [float(channels.values[pixel][c]) for pixel in pixels]
            for c, name in enumerate([*COLOURS, *TEXTURES, "local binary pattern"])
        }
        starts = [0, 512, 1024, 1536, 1551, 1807]
        self.histograms = {}
        for h, name in enumerate(HISTOGRAMS):
            counts = [0] * (starts[h + 1] - starts[h])
            for pixel in pixels:
                counts[int(channels.bins[pixel][h]) - starts[h]] += 1
            self.histograms[name] = [count / len(pixels) for count in counts]

    @property
    def centre(self):
        return tuple(
            sum(pixel[axis] for pixel in self.pixels) / len(self.pixels) for axis in (0, 1)
        )

    def differences(self, other):
        found = {}
        for name in [*COLOURS, *TEXTURES]:
            one, two = self.values[name], other.values[name]
            found[f"mean {name}"] = abs(sum(one) / len(one) - sum(two) / len(two))
        for name in HISTOGRAMS:
            distance = chi_square(self.histograms[name], other.histograms[name])
            found[f"histogram of {name}"] = distance
        return found


def percentile(values, percent):
    """The smallest value that at least so many percent do not exceed."""
    values = sorted(values)
    return values[math.ceil(percent * len(values) / 100) - 1]


def slow_properties(region, superpixels, number, areas, pairs):
    height, width = superpixels.shape
    rows, columns = [y for y, _ in region.pixels], [x for _, x in region.pixels]
    found = {
        "mean x": sum((x + 0.5) / width for x in columns) / len(columns),
        "mean y": sum((y + 0.5) / height for y in rows) / len(rows),
        "low x": (percentile(columns, 10) + 0.5) / width,
        "high x": (percentile(columns, 90) + 0.5) / width,
        "low y": (percentile(rows, 10) + 0.5) / height,
        "high y": (percentile(rows, 90) + 0.5) / height,
        "aspect ratio": (max(columns) - min(columns) + 1) / (max(rows) - min(rows) + 1),
        "area": len(region.pixels) / (height * width),
    }
    inside = set(region.pixels)
    around = [(y + v, x + u) for y, x in inside for v, u in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    found["perimeter"] = sum(pixel not in inside for pixel in around) / (width + height)
    beside = {i for pair in pairs if number in pair for i in pair} - {number}
    found["area of neighbours"] = sum(areas[i] for i in beside) / (height * width)
    for name, values in region.values.items():
        mean = sum(values) / len(values)
        found[f"variance of {name}"] = sum((v - mean) ** 2 for v in values) / len(values)
    return found


def slow_features(image, superpixels):
    """One dictionary a region, by the names of features."""
    channels, (height, width) = pixel_channels(image), superpixels.shape
    everywhere = [(y, x) for y in range(height) for x in range(width)]
    regions = [
        SlowRegion(channels, [p for p in everywhere if superpixels[p] == i])
        for i in range(superpixels.max() + 1)
    ]
    side = max(height, width)
    rim = max(1, round(15 * side / 400))
    border = [p for p in everywhere if min(*p, height - 1 - p[0], width - 1 - p[1]) < rim]
    border, areas = SlowRegion(channels, border), [len(region.pixels) for region in regions]
    rows = []
    for i, region in enumerate(regions):
        row = slow_properties(region, superpixels, i, areas, touching(superpixels).tolist())
        for name, value in region.differences(border).items():
            row[f"backgroundness: {name}"] = value
            row[f"contrast: {name}"] = 0.0
        others = [other for other in regions if other is not region]
        weights = [
            len(other.pixels) * math.exp(-math.dist(region.centre, other.centre) / side / 0.4)
            for other in others
        ]
        for other, weight in zip(others, weights, strict=True):
            for name, value in region.differences(other).items():
                row[f"contrast: {name}"] += weight / sum(weights) * value
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def both():
    image, superpixels = photo(), partition()
    return features(image, superpixels), slow_features(image, superpixels)


def test_there_are_93_features_by_three_kinds():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == N_FEATURES == 93
    for kind in ("contrast", "backgroundness"):
        assert all(name.startswith(f"{kind}: ") for name in FEATURE_NAMES[ENDS[kind]])
    assert not any(":" in name for name in FEATURE_NAMES[ENDS["property"]])


def test_features_are_a_row_a_region(both):
    fast, slow = both
    assert fast.shape == (10, 93)
    assert fast.dtype == np.float32
    assert {frozenset(row) for row in slow} == {frozenset(FEATURE_NAMES)}


@pytest.mark.parametrize("column", range(93), ids=[n.replace(" ", "-") for n in FEATURE_NAMES])
def test_each_feature_is_the_slow_one(both, column):
    fast, slow = both
    expected = np.array([row[FEATURE_NAMES[column]] for row in slow])
    assert np.ptp(expected) > 1e-6, "a feature that is the same everywhere shows nothing"
    np.testing.assert_allclose(fast[:, column], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 7), 3), ((6, 2), 4), ((31, 30), 5), ((15, 40), 20)],
    ids=["row", "narrow", "tall", "wide"],
)
def test_photos_of_other_shapes(shape, count):
    image, superpixels = photo(shape, 1), partition(shape, count, 1)
    rows = slow_features(image, superpixels)
    expected = [[row[name] for name in FEATURE_NAMES] for row in rows]
    np.testing.assert_allclose(features(image, superpixels), expected, rtol=2e-5, atol=1e-6)


def test_regions_of_one_pixel_each():
    image = photo((5, 6))
    superpixels = np.arange(30, dtype=np.int32).reshape(5, 6)
    found = dict(zip(FEATURE_NAMES, features(image, superpixels).T, strict=True))
    for name in (*COLOURS, *TEXTURES, "local binary pattern"):
        np.testing.assert_array_equal(found[f"variance of {name}"], 0)
    np.testing.assert_allclose(found["perimeter"], 4 / 11)
    np.testing.assert_array_equal(found["aspect ratio"], 1)
    np.testing.assert_allclose(found["area"], 1 / 30)
    for name in ("low x", "high x"):
        np.testing.assert_array_equal(found[name], found["mean x"])
    rows = slow_features(image, superpixels)
    expected = [[row[name] for name in FEATURE_NAMES] for row in rows]
    np.testing.assert_allclose(features(image, superpixels), expected, rtol=2e-5, atol=1e-6)


def test_the_whole_photo_as_one_region_has_no_contrast():
    image, superpixels = photo(), np.zeros((18, 24), np.int32)
    row = features(image, superpixels)
    np.testing.assert_array_equal(row[:, ENDS["contrast"]], 0)
    found = dict(zip(FEATURE_NAMES, row[0], strict=True))
    assert found["area"] == 1
    assert found["area of neighbours"] == 0
    assert found["perimeter"] == 2
    assert found["mean x"] == found["mean y"] == 0.5
    assert found["backgroundness: mean red"] > 0


def test_the_only_pixel_of_a_photo():
    row = features(photo((1, 1)), np.zeros((1, 1), np.int32))
    assert np.isfinite(row).all()
    np.testing.assert_allclose(row[:, : ENDS["property"].start], 0, atol=1e-6)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (201, 13, 77)])
def test_a_constant_photo_differs_in_nothing(colour):
    image = np.broadcast_to(np.array(colour, np.uint8), (18, 24, 3)).copy()
    found = features(image, partition())
    variances = [name.startswith("variance") for name in FEATURE_NAMES]
    np.testing.assert_allclose(found[:, : ENDS["property"].start], 0, atol=2e-6)
    np.testing.assert_allclose(found[:, variances], 0, atol=1e-9)
    assert np.ptp(found[:, FEATURE_NAMES.index("area")]) > 0


def test_a_region_that_is_the_border_is_background():
    image, superpixels = photo((20, 30)), np.zeros((20, 30), np.int32)
    superpixels[1:-1, 1:-1] = 1  # 15 * 30 / 400 is one pixel
    found = features(image, superpixels)[:, ENDS["backgroundness"]]
    np.testing.assert_allclose(found[0], 0, atol=1e-6)
    assert (found[1] > 0).sum() > 20


def test_greyscale_photos_have_no_colour():
    grey = photo()[..., :1]
    found = dict(zip(FEATURE_NAMES, features(np.repeat(grey, 3, 2), partition()).T, strict=True))
    for kind in ("contrast: mean", "backgroundness: mean", "variance of"):
        for name in ("a", "b", "hue", "saturation"):
            np.testing.assert_allclose(found[f"{kind} {name}"], 0, atol=1e-3)
        np.testing.assert_allclose(found[f"{kind} red"], found[f"{kind} blue"], rtol=1e-5)
    assert found["contrast: mean lightness"].min() > 0


def test_two_regions_see_each_other_alike():
    image, superpixels = photo(), np.zeros((18, 24), np.int32)
    superpixels[5:9, 7:15] = 1
    first, second = features(image, superpixels)[:, ENDS["contrast"]]
    np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_other_numbers_of_the_regions_give_other_rows(seed):
    image, superpixels = photo(seed=seed), partition(seed=seed)
    numbers = RNG(seed).permutation(superpixels.max() + 1).astype(np.int32)
    renumbered = features(image, numbers[superpixels])
    np.testing.assert_allclose(
        renumbered[numbers], features(image, superpixels), rtol=1e-5, atol=1e-6
    )


def test_features_of_place_and_shape_do_not_depend_on_the_photos_size():
    superpixels = partition((40, 60))
    large = np.kron(superpixels, np.ones((4, 4), np.int32)).astype(np.int32)
    flat = np.full((160, 240, 3), 90, np.uint8)
    names = ["mean x", "mean y", "perimeter", "aspect ratio", "area", "area of neighbours"]
    columns = [FEATURE_NAMES.index(name) for name in names]
    small = features(flat[:40, :60], superpixels)
    np.testing.assert_allclose(features(flat, large)[:, columns], small[:, columns], rtol=1e-5)


def test_a_region_in_several_parts_counts_all_of_them():
    superpixels = np.zeros((18, 24), np.int32)
    superpixels[2:4, 2:4] = superpixels[10:12, 20:22] = 1
    found = dict(zip(FEATURE_NAMES, features(photo(), superpixels)[1], strict=True))
    assert found["perimeter"] == pytest.approx(16 / 42)
    assert found["aspect ratio"] == pytest.approx(20 / 10)
    assert found["mean x"] == pytest.approx(12 / 24)


def partitions(sides):
    ids = arrays(np.int32, sides, elements=st.integers(0, 5))
    return st.tuples(
        arrays(np.uint8, (*sides, 3), elements=st.sampled_from([0, 1, 90, 254, 255])),
        ids.map(lambda a: np.unique(a, return_inverse=True)[1].reshape(a.shape).astype(np.int32)),
    )


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(partitions))
def test_features_of_any_photo_and_regions_are_finite_and_in_range(drawn):
    found = dict(zip(FEATURE_NAMES, features(*drawn).T, strict=True))
    for name, values in found.items():
        assert np.isfinite(values).all(), name
        assert (values >= 0).all(), name
        if "histogram" in name or name.endswith((" x", " y")) or name == "area":
            assert (values <= 1 + 1e-6).all(), name
    assert found["area"].sum() == pytest.approx(1, rel=1e-5)
    assert (found["low x"] <= found["high x"]).all()


def test_nothing_that_is_given_changes():
    channels, superpixels = pixel_channels(photo()), partition()
    pairs = touching(superpixels)
    before = [a.copy() for a in (channels.values, channels.bins, superpixels, pairs)]
    region_features(channels, superpixels, pairs)
    for kept, now in zip(before, (channels.values, channels.bins, superpixels, pairs), strict=True):
        np.testing.assert_array_equal(kept, now)


def refused(superpixels, pairs, match):
    with pytest.raises(ShapeError, match=match):
        region_features(pixel_channels(photo()), superpixels, pairs)


def test_superpixels_that_are_no_regions_of_the_photo_are_refused():
    superpixels, pairs = partition(), touching(partition())
    refused(superpixels.astype(np.int64), pairs, "int64")
    refused(superpixels[:-1], pairs, "the photo is")
    refused(superpixels - 1, pairs, "from -1")
    refused(np.where(superpixels == 3, 4, superpixels).astype(np.int32), pairs, "no region 3")
    refused(np.full_like(superpixels, 2**31 - 1), pairs, "ids from")


def test_neighbours_of_other_superpixels_are_refused():
    superpixels, pairs = partition(), touching(partition())
    refused(superpixels, pairs + 1, "neighbours hold ids")
    refused(superpixels, pairs - 1, "neighbours hold ids")
    refused(superpixels, pairs.ravel(), "neighbours are")
    refused(superpixels, pairs.astype(np.float64), "neighbours are")
