from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from tagseg.errors import ConfigError, ShapeError
from tagseg.priors.contour_map import ContourMap, watershed_basins

THRESHOLDS = (0.0, 0.05, 0.13, 0.3, 0.55, 0.8, 1.0)


def smooth(seed, shape=(24, 30), sigma=1.0):
    values = gaussian_filter(np.random.default_rng(seed).uniform(size=shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def drawn():
    """Three rooms: a wall of 0.8 with a lower stretch of 0.4 beside one of 0.3 with a 0.9 post."""
    picture = np.zeros((10, 15), np.float32)
    picture[:, 5] = [0.8] * 5 + [0.4] * 5
    picture[:, 10] = [0.3] * 9 + [0.9]
    return picture


def slow_regions(heights, basins, threshold):
    """Merge the weakest mean boundary while there is one up to the threshold; all pairs."""
    labels = basins.copy()
    while True:
        joints = {}
        for (y, x), own in np.ndenumerate(labels):
            for y2, x2 in ((y + 1, x), (y, x + 1)):
                if y2 < labels.shape[0] and x2 < labels.shape[1] and labels[y2, x2] != own:
                    pair = tuple(sorted((int(own), int(labels[y2, x2]))))
                    strength = max(float(heights[y, x]), float(heights[y2, x2]))
                    joints.setdefault(pair, []).append(strength)
        means = {pair: float(np.mean(values)) for pair, values in joints.items()}
        if not means or min(means.values()) > threshold:
            return labels
        one, two = min(means, key=means.get)
        labels[labels == two] = one


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


def check_regions(regions):
    n = regions.max() + 1
    assert regions.dtype == np.int32
    assert np.unique(regions).tolist() == list(range(n))
    pieces = label(regions + 1, connectivity=1)
    assert pieces.max() == n  # 4-connected


def test_drawn_rooms():
    rooms = ContourMap.of(drawn())
    assert rooms.strengths[-2:] == pytest.approx([(9 * 0.3 + 0.9) / 10, 0.6])
    three = rooms.regions(0.3)
    assert three.max() == 2
    assert len({int(three[4, column]) for column in (2, 7, 13)}) == 3
    two = rooms.regions(0.5)
    assert two.max() == 1
    assert two[4, 7] == two[4, 13] != two[4, 2]
    assert rooms.regions(0.6001).max() == 0


def test_merging_equals_the_slow_loop():
    for seed in range(4):
        heights = smooth(seed, (14, 15), 0.9)
        found = ContourMap.of(heights)
        assert found.basins.max() > 8
        for threshold in THRESHOLDS[1:-1]:
            expected = slow_regions(heights, found.basins, threshold)
            assert same_partition(found.regions(threshold), expected), (seed, threshold)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]),
    )
)
def test_regions_nest_and_cover(heights):
    whole = ContourMap.of(heights)
    assert (np.diff(whole.strengths) >= 0).all()
    finer = whole.basins
    check_regions(finer)
    for threshold in THRESHOLDS:
        coarser = whole.regions(threshold)
        check_regions(coarser)
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1).shape[1]
        assert pairs == finer.max() + 1  # each finer region lies in one coarser region
        finer = coarser
    assert whole.regions(1.0).max() == 0


def test_basins_are_those_of_their_minima():
    heights = smooth(0, (40, 50), 2.0)
    basins = watershed_basins(heights)
    padded = np.pad(heights, 1, constant_values=2)
    around = [padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]]
    minima = (heights < np.min(around, axis=0)).sum()
    assert basins.max() + 1 == minima
    check_regions(basins)


def test_a_constant_map_is_one_region():
    for shape in ((1, 1), (1, 8), (7, 9)):
        for level in (0, 0.5, 1):
            whole = ContourMap.of(np.full(shape, level, np.float32))
            assert whole.regions(0.0).max() == 0
            assert whole.strengths.shape == (0,)


def flat(oriented_level=0.0):
    return np.full((8, 10, 15), oriented_level, np.float32)


def test_oriented_strength_is_read_along_the_boundary():
    oriented = flat()
    oriented[0] = 0.7  # boundaries whose normal lies along the rows: upright ones
    upright = ContourMap.of(drawn(), oriented)
    np.testing.assert_allclose(upright.strengths[-2:], 0.7, rtol=1e-6)
    level = ContourMap.of(np.ascontiguousarray(drawn().T), np.ascontiguousarray(oriented.mT))
    np.testing.assert_allclose(level.strengths[-2:], 0, atol=1e-6)


def test_oriented_strength_of_a_slanted_boundary():
    y, x = np.mgrid[:40, :40]
    ridge = np.exp(-((y - x) ** 2) / 4).astype(np.float32)
    oriented = np.zeros((8, 20, 20), np.float32)  # a coarser grid
    oriented[6] = 0.6  # normal at 135 degrees
    assert ContourMap.of(ridge, oriented).strengths[-1] == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.1", None])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        ContourMap.of(drawn()).regions(threshold)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 4), np.int32),
        np.zeros((3, 4, 1), np.float32),
        np.zeros((0, 4), np.float32),
        np.full((3, 4), 1.5, np.float32),
        np.full((3, 4), np.nan, np.float32),
    ],
)
def test_maps_that_are_none(wrong):
    with pytest.raises(ShapeError, match="boundaries"):
        ContourMap.of(wrong)
    with pytest.raises(ShapeError, match="oriented"):
        ContourMap.of(drawn(), wrong if wrong.ndim == 2 else wrong.astype(int))
