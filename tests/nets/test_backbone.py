from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from contracts import BackboneContract
from tagseg.nets.backbone import (
    Activations,
    Backbone,
    FeatureBlock,
    Preprocessing,
    upsample_grid,
)
from tagseg.nets.tiny import Tiny


def loop_upsampled(grid, shape, stride):
    """Position (i, j) lies on pixel (stride * i, stride * j); bilinear between, constant beyond."""
    h, w = grid.shape
    out = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = min(row / stride, h - 1), min(column / stride, w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            top = (1 - fx) * grid[y0, x0] + fx * grid[y0, x1]
            bottom = (1 - fx) * grid[y1, x0] + fx * grid[y1, x1]
            out[row, column] = (1 - fy) * top + fy * bottom
    return out


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    stride=st.sampled_from([1, 2, 8, 16]),
)
def test_equals_the_loop(grid: tuple[int, int], shape: tuple[int, int], stride: int) -> None:
    """At any size: also where the photo ends before the grid, or goes on far behind it."""
    values = np.random.default_rng(0).normal(size=(2, 3, *grid))
    ours = upsample_grid(torch.from_numpy(values).float(), shape, stride)
    assert ours.shape == (2, 3, *shape)
    for photo in range(2):
        for channel in range(3):
            expected = loop_upsampled(values[photo, channel], shape, stride)
            np.testing.assert_allclose(ours[photo, channel], expected, atol=1e-5)


def test_without_a_stride_maps_are_spread_from_edge_to_edge() -> None:
    maps = torch.rand(1, 2, 3, 4)
    expected = functional.interpolate(maps, (9, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample_grid(maps, (9, 20), None), expected)


@pytest.mark.parametrize("stride", [8, 16])
def test_what_a_backbone_sees_comes_back_to_its_place(stride: int) -> None:
    """A bright spot on pixel (48, 32), where a position lies, has its maximum there again."""
    torch.manual_seed(0)
    backbone = Tiny(stride).eval()
    for block in backbone.children():
        for convolution in (block.conv1, block.conv2):
            torch.nn.init.zeros_(convolution.weight)
            convolution.weight.data[0, 0] = torch.tensor([1.0, 2.0, 1.0]).outer(
                torch.tensor([1.0, 2.0, 1.0])
            )
    backbone.set_preprocessing(Preprocessing((0.0,) * 3, (1.0,) * 3))
    x = torch.zeros(1, 3, 97, 90)
    x[..., 48, 32] = 1
    with torch.inference_mode():
        full = upsample_grid(backbone(x)[:, :1], (97, 90), stride)[0, 0]
    row, column = divmod(int(full.argmax()), 90)
    assert (row, column) == (48, 32)


def test_preprocessing_follows_the_network_to_another_type() -> None:
    backbone = Tiny().double()
    assert backbone.normalise(torch.rand(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
    assert "_mean" not in backbone.state_dict()  # names stay those of the weights files


def test_normalise_is_the_formula() -> None:
    backbone = Tiny()
    backbone.set_preprocessing(Preprocessing((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)))
    x = torch.rand(1, 3, 2, 2)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        expected = (x[:, channel] - mean) / std
        torch.testing.assert_close(backbone.normalise(x)[:, channel], expected)


def test_feature_blocks_must_be_named() -> None:
    class Nameless(Backbone):
        def activations(self, x: Tensor) -> Activations:
            return Activations(x, x)

    with pytest.raises(TypeError, match="feature_blocks"):
        Nameless(8)  # type: ignore[abstract]


def test_the_contract_notices_blocks_of_another_stride_or_sign() -> None:
    class Finer(Tiny):
        def feature_blocks(self) -> tuple[FeatureBlock, ...]:
            first, second, third, *rest = super().feature_blocks()
            return (first, second, third._replace(stride=4), *rest)

    class Signed(Tiny):
        def feature_blocks(self) -> tuple[FeatureBlock, ...]:
            first, *rest = super().feature_blocks()
            return (first._replace(layers=("block1.norm1",)), *rest)

    for broken in (Finer, Signed):
        with pytest.raises(AssertionError):
            BackboneContract().test_feature_blocks(broken().eval(), (40, 57))
