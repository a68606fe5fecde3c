from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import rgb2hsv, rgb2lab

from tagseg.errors import ShapeError
from tagseg.priors.saliency.pixel_channels import (
    CHANNEL_NAMES,
    HISTOGRAM_NAMES,
    HISTOGRAM_STARTS,
    leung_malik_filters,
    pixel_channels,
)

RNG = np.random.default_rng
SHAPES = [(18, 24), (7, 5), (1, 1), (1, 9), (2, 2)]
SHAPE_IDS = ["x".join(map(str, shape)) for shape in SHAPES]
TEXTURE = slice(9, 24)
SILENCE = 1e-5


def photo(shape, seed=0):
    """Coloured steps and noise."""
    rng = RNG([seed, *shape])
    steps = rng.integers(0, 256, (-(-shape[0] // 5), -(-shape[1] // 5), 3))
    smooth = np.kron(steps, np.ones((5, 5, 1)))[: shape[0], : shape[1]]
    return np.clip(smooth + rng.normal(0, 12, (*shape, 3)), 0, 255).astype(np.uint8)


def mirrored(i, size):
    """Index of the pixel that stands for pixel i of a line: dcb|abcd|cba."""
    if size == 1:
        return 0
    while not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i


def correlated(plane, kernel):
    """Sum over a kernel's window, pixel by pixel."""
    height, width = plane.shape
    reach = len(kernel) // 2
    out = np.zeros(plane.shape)
    for y in range(height):
        for x in range(width):
            rows = [mirrored(y + d, height) for d in range(-reach, reach + 1)]
            columns = [mirrored(x + d, width) for d in range(-reach, reach + 1)]
            out[y, x] = (plane[np.ix_(rows, columns)] * kernel).sum()
    return out


def slow_blur(image):
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    planes = [correlated(image[..., c].astype(np.float64), kernel) for c in range(3)]
    return np.floor(np.stack(planes, 2) + 0.5)


def slow_grey(blurred):
    return np.floor(blurred @ [0.299, 0.587, 0.114] + 0.5)


def gaussian(distance, sigma):
    return math.exp(-(distance**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


def slow_filter(formula):
    bank = np.array([[formula(x, y) for x in range(-9, 10)] for y in range(-9, 10)])
    bank -= bank.mean()
    return bank / np.abs(bank).sum()


def slow_filters():
    """Derivatives of Gaussians by finite differences, so that no formula is shared."""
    sigma, tiny = math.sqrt(2), 1e-3
    first = lambda d: (gaussian(d + tiny, sigma) - gaussian(d - tiny, sigma)) / (2 * tiny)  # noqa: E731
    second = lambda d: (first(d + tiny) - first(d - tiny)) / (2 * tiny)  # noqa: E731
    filters = []
    for derivative in (second, first):
        for k in range(6):
            c, s = math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)
            filters.append(
                slow_filter(
                    lambda x, y, c=c, s=s, f=derivative: (
                        gaussian(c * x + s * y, 3 * sigma) * f(c * y - s * x)
                    )
                )
            )

    def laplacian(x, y, scale):
        blob = lambda u, v: gaussian(u, scale) * gaussian(v, scale)  # noqa: E731
        around = blob(x + tiny, y) + blob(x - tiny, y) + blob(x, y + tiny) + blob(x, y - tiny)
        return (around - 4 * blob(x, y)) / tiny**2

    filters.append(slow_filter(lambda x, y: gaussian(x, sigma) * gaussian(y, sigma)))
    filters.append(slow_filter(lambda x, y: laplacian(x, y, sigma)))
    filters.append(slow_filter(lambda x, y: laplacian(x, y, 3 * sigma)))
    return np.stack(filters)


def slow_texture(grey):
    return np.stack([np.abs(correlated(grey / 255, f)) for f in slow_filters()], 2)


def slow_pattern(grey, y, x):
    height, width = grey.shape
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    around = [grey[mirrored(y + dy, height), mirrored(x + dx, width)] for dy, dx in ring]
    return sum(2**bit for bit, light in enumerate(around) if light >= grey[y, x])


def test_names_say_which_channel_and_which_bins():
    assert len(CHANNEL_NAMES) == len(set(CHANNEL_NAMES)) == 25
    assert len(HISTOGRAM_NAMES) == 5
    assert np.diff(HISTOGRAM_STARTS).tolist() == [512, 512, 512, 15, 256]


def test_filters_are_those_of_the_formulas():
    np.testing.assert_allclose(leung_malik_filters(), slow_filters(), atol=2e-6)


def test_filters_answer_their_own_orientation():
    """A bright line is strongest in the bar that lies along it, a step in the edge along it."""
    y, x = np.mgrid[-9:10, -9:10]
    for k in range(6):
        angle = k * math.pi / 6
        across = y * math.cos(angle) - x * math.sin(angle)
        line, step = np.exp(-(across**2) / 4), (across > 0) * 1.0
        answers = np.abs((leung_malik_filters() * line).sum((1, 2)))
        assert answers[:6].argmax() == k
        answers = np.abs((leung_malik_filters() * step).sum((1, 2)))
        assert answers[6:12].argmax() == k


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_colours_are_those_of_the_blurred_photo(shape):
    image = photo(shape)
    values, rgb = pixel_channels(image).values, slow_blur(image) / 255
    assert values.shape == (*shape, 25)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[..., :3], rgb, atol=1e-6)
    low, high = np.array([0, -86.2, -107.9]), np.array([100, 98.3, 94.5])
    np.testing.assert_allclose(values[..., 3:6], (rgb2lab(rgb) - low) / (high - low), atol=2e-3)
    np.testing.assert_allclose(values[..., 6:9], rgb2hsv(rgb), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_texture_is_the_absolute_response_of_each_filter(shape):
    image = photo(shape)
    expected = slow_texture(slow_grey(slow_blur(image)))
    np.testing.assert_allclose(pixel_channels(image).values[..., TEXTURE], expected, atol=SILENCE)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_patterns_say_which_neighbours_are_not_darker(shape):
    image = photo(shape)
    channels, grey = pixel_channels(image), slow_grey(slow_blur(image))
    expected = [[slow_pattern(grey, y, x) for x in range(shape[1])] for y in range(shape[0])]
    np.testing.assert_array_equal(channels.bins[..., 4] - HISTOGRAM_STARTS[4], expected)
    np.testing.assert_allclose(channels.values[..., 24], np.array(expected) / 255, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_colours_fall_into_8_levels_a_channel(shape):
    channels = pixel_channels(photo(shape))
    assert channels.bins.dtype == np.int16
    for histogram in range(3):
        colours = channels.values[..., 3 * histogram : 3 * histogram + 3].astype(np.float64)
        first, second, third = np.moveaxis(np.minimum(np.floor(colours * 8), 7), 2, 0)
        expected = first + 8 * second + 64 * third + 512 * histogram
        np.testing.assert_array_equal(channels.bins[..., histogram], expected)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=SHAPE_IDS[:2])
def test_a_texton_is_the_strongest_filter(shape):
    image = photo(shape)
    expected = slow_texture(slow_grey(slow_blur(image)))
    best, second = np.sort(expected, axis=2)[..., :-3:-1].transpose(2, 0, 1)
    clear = best - second > 2 * SILENCE
    textons = pixel_channels(image).bins[..., 3] - HISTOGRAM_STARTS[3]
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(textons[clear], expected.argmax(2)[clear])
    assert len(np.unique(textons)) > 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (201, 13, 77)])
def test_a_constant_photo_has_one_bin_and_no_texture(colour):
    image = np.broadcast_to(np.array(colour, np.uint8), (40, 61, 3)).copy()
    channels = pixel_channels(image)
    assert not channels.values[..., TEXTURE].any()
    np.testing.assert_array_equal(channels.bins, np.broadcast_to(channels.bins[0, 0], (40, 61, 5)))
    assert np.ptp(channels.values, axis=(0, 1)).max() < 1e-6


def test_greys_have_no_colour_and_one_level_of_a_and_b():
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 9)
    channels = pixel_channels(np.broadcast_to(ramp[None, :, None], (12, ramp.size, 3)).copy())
    assert not channels.values[..., 6:8].any()  # hue, saturation
    # OpenCV interpolates a table: a tenth of a unit of a and b.
    assert np.ptp(channels.values[..., 4:6], axis=(0, 1)).max() < 1e-3
    assert len(np.unique((channels.bins[..., 1] - HISTOGRAM_STARTS[1]) // 8)) == 1


def test_all_colours_have_bins():
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 1, 3)
    for colour in colours[:: len(colours) // 300]:
        channels = pixel_channels(np.broadcast_to(colour[0], (2, 2, 3)).copy())
        starts, ends = np.array(HISTOGRAM_STARTS[:-1]), np.array(HISTOGRAM_STARTS[1:])
        assert ((channels.bins >= starts) & (channels.bins < ends)).all()
        assert (channels.values >= -1e-3).all()
        assert (channels.values <= 1 + 1e-3).all()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda sides: arrays(np.uint8, (*sides, 3))
    )
)
def test_channels_of_any_photo_are_finite_and_bins_in_range(image):
    channels = pixel_channels(image)
    starts, ends = np.array(HISTOGRAM_STARTS[:-1]), np.array(HISTOGRAM_STARTS[1:])
    assert np.isfinite(channels.values).all()
    assert ((channels.bins >= starts) & (channels.bins < ends)).all()


def test_a_photo_is_left_as_it_was():
    image = photo((9, 9))
    before = image.copy()
    pixel_channels(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_photo_is_refused(image):
    with pytest.raises(ShapeError):
        pixel_channels(image)
