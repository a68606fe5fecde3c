from __future__ import annotations

import dataclasses
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from contracts import Prior, PriorContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.priors.saliency.minimum_barrier import (
    MinimumBarrierSettings,
    barrier_distance,
    border_contrast,
    minimum_barrier_saliency,
)

RNG = np.random.default_rng
SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SMALL = SIDES.flatmap(lambda sides: arrays(np.float32, sides, elements=st.sampled_from(range(7))))


def exact_distance(channel):
    """Least width of an interval of values within which a path reaches the border."""
    height, width = channel.shape
    border = np.zeros(channel.shape, bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    levels, best = np.unique(channel), np.full((height, width), np.inf)
    for low in levels:
        for high in levels[levels >= low]:
            components, _ = label((channel >= low) & (channel <= high))
            reached = np.isin(components, components[border & (components > 0)]) & (components > 0)
            best[reached] = np.minimum(best[reached], high - low)
    return best


def slow_distance(channel, passes):
    """Algorithm 1 as it is written: every pixel with two of its neighbours, one after the other."""
    height, width = channel.shape
    value = channel.astype(np.float64)
    inner = [(y, x) for y in range(1, height - 1) for x in range(1, width - 1)]
    distance = np.zeros((height, width))
    for pixel in inner:
        distance[pixel] = np.inf
    upper, lower = value.copy(), value.copy()
    for scan in range(passes):
        step = -1 if scan % 2 == 0 else 1
        for y, x in inner if step < 0 else inner[::-1]:
            for other in ((y + step, x), (y, x + step)):
                high, low = max(upper[other], value[y, x]), min(lower[other], value[y, x])
                if high - low < distance[y, x]:
                    distance[y, x], upper[y, x], lower[y, x] = high - low, high, low
    return distance


def slow_contrast(lab, margin, regularisation):
    height, width, _ = lab.shape
    r = max(1, round(margin * max(height, width)))
    colours = lab.astype(np.float64)
    parts = [colours[:r], colours[max(height - r, 0) :], colours[:, :r]]
    parts.append(colours[:, max(width - r, 0) :])
    maps = []
    for part in parts:
        known = [colour for row in part for colour in row]
        mean = sum(known) / len(known)
        spread = sum(np.outer(c - mean, c - mean) for c in known) / len(known)
        inverse = np.linalg.inv(spread + regularisation * np.eye(3))
        one = np.zeros((height, width))
        for y in range(height):
            for x in range(width):
                away = colours[y, x] - mean
                one[y, x] = np.sqrt(away @ inverse @ away)
        maps.append(one / one.max() if one.max() else one)
    total = sum(maps) - np.max(maps, axis=0)
    return total / total.max() if total.max() else total


def grown(marker, limit):
    """Reconstruction by dilation: the marker spreads to the eight neighbours, below the limit."""
    height, width = limit.shape
    while True:
        wider = marker.copy()
        for y in range(height):
            for x in range(width):
                around = marker[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                wider[y, x] = min(around.max(), limit[y, x])
        if (wider == marker).all():
            return marker
        marker = wider


def eroded(values, width):
    half, (rows, columns) = width // 2, values.shape
    out = np.empty_like(values)
    for y in range(rows):
        for x in range(columns):
            out[y, x] = values[
                max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1
            ].min()
    return out


def stretched(values):
    return (values - values.min()) / (values.max() - values.min())


def slow_saliency(image, s):
    """The whole method in float64 loops, for photos that are not made smaller."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    found = sum(slow_distance(lab[..., c], s.passes) for c in range(3))
    found = found / found.max()
    if s.border_contrast:
        found = found + slow_contrast(lab, s.margin, s.regularisation)
    height, width = found.shape
    if s.centred:
        away = np.zeros((height, width))
        for y in range(height):
            for x in range(width):
                down, right = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
                away[y, x] = (down**2 + right**2) ** 0.5
        found = found * (1 - away / away.max())
    found = stretched(found)
    if s.smoothing:
        size = max(3, int(s.smoothing * found.mean() ** 0.5 * max(height, width) / s.side))
        size += 1 - size % 2
        opened = grown(eroded(found, size), found)
        closed = 1 - grown(eroded(1 - opened, size), 1 - opened)
        found = stretched(closed)
    upper = found >= 0.5
    middle = (found[upper].mean() + found[~upper].mean()) / 2
    return stretched(1 / (1 + np.exp(-s.contrast * (found - middle))))


def disc(height=90, width=120, noise=6.0):
    y, x = np.mgrid[:height, :width]
    inside = (y - 0.55 * height) ** 2 + (x - 0.45 * width) ** 2 < (0.22 * height) ** 2
    photo = np.where(inside[..., None], (200.0, 60.0, 40.0), (60.0, 120.0, 60.0))
    photo += RNG(0).normal(0, noise, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8), inside


class TestContract(PriorContract):
    @pytest.fixture
    def prior(self) -> Prior:
        return minimum_barrier_saliency


@settings(derandomize=True, deadline=None, max_examples=60)
@given(SMALL)
def test_raster_scans_are_algorithm_1(channel):
    before = channel.copy()
    for passes in (1, 2, 3):
        found = barrier_distance(channel, passes)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, slow_distance(channel, passes))
    np.testing.assert_array_equal(channel, before)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(SMALL)
def test_raster_scans_come_down_to_the_distance_and_no_lower(channel):
    exact, scans = exact_distance(channel), [barrier_distance(channel, n) for n in (1, 2, 3, 8)]
    for coarse, fine in pairwise(scans):
        assert (fine <= coarse).all()
    assert (scans[-1] >= exact).all()
    assert np.isfinite(scans[0]).all()


def test_raster_scans_are_close_to_the_distance():
    noise = cv2.GaussianBlur(RNG(3).normal(0, 60, (24, 30)), (0, 0), 2)
    channel = noise.round().astype(np.float32)
    exact, found = exact_distance(channel), barrier_distance(channel, 3)
    assert exact.max() > 5
    assert (found == exact).mean() > 0.7
    assert (found - exact).mean() < 0.05 * exact.max()


def test_the_distance_of_plain_figures():
    channel = np.full((30, 40), 50, np.float32)
    channel[8:20, 10:25] = 90  # a box,
    channel[11:15, 13:18] = 20  # one in it, below the ground: its barrier is from 20 to 90
    channel[:12, 30] = 200  # and a stroke that reaches the border
    expected = np.zeros((30, 40))
    expected[8:20, 10:25], expected[11:15, 13:18] = 40, 70
    np.testing.assert_array_equal(barrier_distance(channel, 3), expected)
    np.testing.assert_array_equal(exact_distance(channel), expected)
    np.testing.assert_array_equal(barrier_distance(-channel, 3), expected)


def test_a_path_that_winds_takes_more_scans():
    """In a spiral corridor the distance is 0, which the first scans cannot know."""
    channel = np.full((11, 11), 9, np.float32)
    channel[:10, 1] = channel[9, 1:10] = channel[1:10, 9] = channel[1, 3:10] = 0
    channel[1:8, 3] = channel[7, 3:8] = channel[3:8, 7] = channel[3, 5:8] = channel[3:6, 5] = 0
    assert exact_distance(channel)[5, 5] == 0
    assert [barrier_distance(channel, n)[5, 5] for n in (1, 3, 5)] == [9, 9, 0]


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_border_contrast_is_its_equation(margin):
    lab = RNG(5).integers(0, 256, (9, 13, 3), np.uint8)
    for regularisation in (50.0, 0.5):
        found = border_contrast(lab, margin, regularisation)
        np.testing.assert_allclose(found, slow_contrast(lab, margin, regularisation), atol=1e-9)


def test_an_object_at_one_border_still_stands_out():
    """The border that it fills is its own background; the other three outvote that one."""
    lab = np.full((40, 60, 3), 100, np.uint8)
    lab[30:, 10:50] = 200
    found = border_contrast(lab, 0.1, 50.0)
    assert found[30:, 10:50].min() > 0.9
    assert found[:30].max() < 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"border_contrast": False, "passes": 2},
        {"centred": False, "side": 150, "margin": 0.3},
        {"smoothing": 0.0, "contrast": 4.0, "regularisation": 2.0},
    ],
)
def test_the_whole_is_the_method_in_loops(changes):
    image = disc(24, 31, noise=25)[0]
    how = MinimumBarrierSettings(**changes)
    expected = slow_saliency(image, how)
    np.testing.assert_allclose(minimum_barrier_saliency(image, how), expected, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"centred": False}, {"border_contrast": False}])
def test_a_disc_is_found(changes):
    image, inside = disc()
    found = minimum_barrier_saliency(image, MinimumBarrierSettings(**changes)) >= 0.5
    assert (found & inside).sum() / (found | inside).sum() > 0.9


def test_large_photos_are_worked_on_at_their_side():
    small, inside = disc(150, 200, noise=0)
    image = cv2.resize(small, (800, 600), interpolation=cv2.INTER_NEAREST)
    found = minimum_barrier_saliency(image, MinimumBarrierSettings(side=200))
    alone = minimum_barrier_saliency(small, MinimumBarrierSettings(side=200))
    assert found.shape == (600, 800)
    assert (found.min(), found.max()) == (0, 1)
    np.testing.assert_allclose(cv2.resize(found, (200, 150)), alone, atol=0.3)
    wide = cv2.resize(inside.astype(np.uint8), (800, 600), interpolation=cv2.INTER_NEAREST) > 0
    assert ((found >= 0.5) == wide).mean() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (3, 3), (40, 50), (700, 2)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (17, 200, 90)])
def test_one_colour_says_nothing(size, colour):
    image = np.full((*size, 3), colour, np.uint8)
    for centred in (True, False):
        found = minimum_barrier_saliency(image, MinimumBarrierSettings(centred=centred))
        assert found.shape == size
        assert not found.any()


def test_grey_photos():
    grey = np.repeat(disc()[0][..., :1], 3, axis=2)
    found, inside = minimum_barrier_saliency(grey) >= 0.5, disc()[1]
    assert (found & inside).sum() / (found | inside).sum() > 0.9


def test_mirror_images_have_mirrored_maps():
    """As near as scans that begin at another corner can be."""
    image = disc(noise=15)[0]
    own, other = (
        minimum_barrier_saliency(i) for i in (image, np.ascontiguousarray(image[:, ::-1]))
    )
    assert np.abs(own - other[:, ::-1]).mean() < 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", 0),
        ("passes", 0),
        ("passes", 2.5),
        ("margin", 0.0),
        ("margin", 0.6),
        ("regularisation", 0.0),
        ("contrast", -1.0),
        ("contrast", np.nan),
        ("smoothing", -0.1),
        ("smoothing", np.inf),
    ],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is "):
        dataclasses.replace(MinimumBarrierSettings(), **{name: value})


@pytest.mark.parametrize("image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), None])
def test_what_is_no_photo(image):
    with pytest.raises(ShapeError, match="give a uint8 array"):
        minimum_barrier_saliency(image)
