from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Prior, PriorContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.nets.backbone import Activations, Backbone
from tagseg.nets.tiny import Tiny
from tagseg.priors.activations import channel_means, foreground_probability

torch.set_num_threads(1)


def loop_resize(grid, shape):
    """Bilinear with half-pixel centres, clamped at the border, one pixel at a time."""
    (h, w), (height, width) = grid.shape, shape
    out = np.zeros(shape)
    for i in range(height):
        for j in range(width):
            y = max((i + 0.5) * h / height - 0.5, 0)
            x = max((j + 0.5) * w / width - 0.5, 0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            top = (1 - fx) * grid[y0, x0] + fx * grid[y0, x1]
            bottom = (1 - fx) * grid[y1, x0] + fx * grid[y1, x1]
            out[i, j] = (1 - fy) * top + fy * bottom
    return out


def loop_foreground(block4, block5, shape, scale_each=False):
    """Section 3.1.1: resize each channel to the image, average, sum the two, scale to [0, 1]."""

    def scaled(m):
        return (m - m.min()) / (m.max() - m.min())

    maps = [
        sum(loop_resize(channel.astype(np.float64), shape) for channel in block) / len(block)
        for block in (block4, block5)
    ]
    if scale_each:
        maps = [scaled(m) for m in maps]
    return scaled(maps[0] + maps[1])


def blocks(seed):
    rng = np.random.default_rng(seed)
    block4 = rng.random((6, 4, 5), dtype=np.float32) * 9
    return block4, rng.random((8, 2, 3), dtype=np.float32)


@pytest.mark.parametrize("scale_each", [False, True])
def test_equals_the_loop(scale_each):
    block4, block5 = blocks(0)
    ours = foreground_probability(block4, block5, (11, 13), scale_each=scale_each)
    expected = loop_foreground(block4, block5, (11, 13), scale_each)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert ours.min() == 0
    assert ours.max() == 1


def test_channel_means_are_enough():
    block4, block5 = blocks(1)
    full = foreground_probability(block4, block5, (16, 20))
    np.testing.assert_allclose(
        foreground_probability(block4.mean(0), block5.mean(0), (16, 20)), full, atol=1e-6
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 1000))
def test_mirrors_with_the_photo_and_ignores_the_unit(seed, factor):
    block4, block5 = blocks(seed)
    plain = foreground_probability(block4, block5, (9, 14))
    mirrored = foreground_probability(block4[..., ::-1], block5[..., ::-1], (9, 14))
    np.testing.assert_allclose(mirrored[:, ::-1], plain, atol=1e-5)
    scaled = foreground_probability(block4 * factor, block5 * factor, (9, 14))
    np.testing.assert_allclose(scaled, plain, atol=1e-5)


def test_same_place_at_any_size():
    block4, block5 = blocks(2)
    small = foreground_probability(block4, block5, (8, 12))
    large = foreground_probability(block4, block5, (24, 36))
    assert np.corrcoef(large[1::3, 1::3].ravel(), small.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e-20, 12345.678])
def test_constant_activations_become_zeros_not_amplified_rounding(value):
    flat = np.full((3, 5), value, dtype=np.float32)
    for scale_each in (False, True):
        assert not foreground_probability(flat, flat, (37, 41), scale_each=scale_each).any()


def test_larger_block_decides_unless_each_is_scaled():
    strong, weak = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    strong[0, 0], weak[1, 1] = 100, 1
    raw = foreground_probability(strong, weak, (2, 2))
    each = foreground_probability(strong, weak, (2, 2), scale_each=True)
    assert raw[1, 1] == pytest.approx(0.01)
    assert each[1, 1] == each[0, 0] == 1


def test_saturation_frees_the_rest_of_an_outlier():
    ramp = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    ramp[-1, -1] = 50
    zeros = np.zeros_like(ramp)
    plain = foreground_probability(ramp, zeros, (10, 10))
    freed = foreground_probability(ramp, zeros, (10, 10), saturate=0.02)
    assert plain[-1, -2] < 0.02
    assert (freed == 0).sum() == (freed == 1).sum() == 2
    np.testing.assert_array_equal(freed.ravel().argsort(kind="stable")[2:-2], np.arange(2, 98))
    assert freed[5, 0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("saturate", [-0.1, 0.5, float("nan")])
def test_saturation_out_of_range_is_refused(saturate):
    with pytest.raises(ConfigError, match="saturate is"):
        foreground_probability(np.eye(2), np.eye(2), (4, 4), saturate=saturate)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.zeros(3), "has shape"),
        (np.zeros((0, 2, 2)), "has shape"),
        (np.full((2, 2), np.nan), "NaN"),
    ],
)
def test_unusable_blocks_are_named(block, message):
    with pytest.raises(ShapeError, match=f"block5.*{message}"):
        foreground_probability(np.ones((2, 2)), block, (4, 4))


class TwoBlocks(Backbone):
    name, out_channels, block4_channels = "two", 3, 2

    def __init__(self) -> None:
        super().__init__(8)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def feature_blocks(self) -> tuple[()]:
        return ()

    def activations(self, x):
        block4 = torch.stack((x[:, 0], 3 * x[:, 0]), 1) * self.scale
        return Activations(block4.bfloat16(), x[:, :, ::2, ::2] * self.scale)


def test_channel_means_average_in_float32_without_a_graph():
    x = torch.rand(2, 3, 4, 6)
    mean4, mean5 = channel_means(TwoBlocks(), x)
    assert mean4.dtype == mean5.dtype == torch.float32
    assert not mean4.requires_grad
    torch.testing.assert_close(mean4, 4 * x[:, 0], rtol=1e-2, atol=0)
    torch.testing.assert_close(mean5, 2 * x[:, :, ::2, ::2].mean(1))
    expected = (2 * x[:, 0]).bfloat16().double() + (6 * x[:, 0]).bfloat16().double()
    torch.testing.assert_close(mean4.double(), expected / 2, rtol=1e-7, atol=0)  # not rounded again


def test_with_strides_each_block_lies_on_its_own_grid():
    """Two spots on the same pixel, one in each block, meet although the grids differ."""
    block4, block5 = np.zeros((5, 7), np.float32), np.zeros((3, 4), np.float32)
    block4[2, 4], block5[1, 2] = 1, 1  # both on pixel (16, 32)
    prior = foreground_probability(block4, block5, (40, 56), strides=(8, 16))
    assert np.argwhere(prior == 1).tolist() == [[16, 32]]
    assert prior[16, 24] == pytest.approx((0 + 0.5) / 2)
    assert prior[20, 32] == pytest.approx((0.5 + 0.75) / 2)


class TestActivations(PriorContract):
    @pytest.fixture
    def prior(self) -> Prior:
        torch.manual_seed(0)
        backbone = Tiny().eval()

        def prior(photo):
            x = torch.from_numpy(photo)[None].permute(0, 3, 1, 2).float() / 255
            blocks = [block[0] for block in channel_means(backbone, x)]
            return foreground_probability(*blocks, photo.shape[:2], strides=(8, 8))

        return prior
