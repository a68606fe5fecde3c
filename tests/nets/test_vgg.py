from __future__ import annotations

import pytest
import torch

from tagseg.errors import ConfigError
from tagseg.nets.vgg import Vgg16


def test_parameters_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        state = Vgg16().state_dict()
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    expected = {f"features.{i}.{kind}" for i in convolutions for kind in ("weight", "bias")}
    assert set(state) == expected
    assert sum(tensor.numel() for tensor in state.values()) == 14_714_688
    assert state["features.17.weight"].shape == (512, 256, 3, 3)


@pytest.mark.parametrize(
    ("stride", "size", "block5"),
    [(8, (321, 321), (41, 41)), (16, (321, 321), (21, 21)), (8, (224, 320), (28, 40))],
)
def test_shapes(stride: int, size: tuple[int, int], block5: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = Vgg16(stride)
        blocks = net.activations(torch.empty(2, 3, *size))
        head_input = net(torch.empty(2, 3, *size))
    at_stride8 = tuple(-(-side // 8) for side in size)
    assert blocks.block4.shape == (2, 512, *at_stride8)
    assert blocks.block5.shape == (2, 512, *block5)
    assert head_input.shape == blocks.block5.shape


def test_stride_8_refines_stride_16() -> None:
    torch.manual_seed(0)
    coarse, fine = Vgg16(16), Vgg16(8)
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 65, 50)
    with torch.inference_mode():
        at16, at8 = coarse.activations(x), fine.activations(x)
    torch.testing.assert_close(at8.block4, at16.block4)
    torch.testing.assert_close(at8.block5[..., ::2, ::2], at16.block5)
    assert at8.block5.min() >= 0
    assert at8.block5.max() > 0


def test_head_input_is_the_maximum_of_3x3_neighbours() -> None:
    torch.manual_seed(0)
    net, x = Vgg16(8), torch.rand(1, 3, 40, 48)
    with torch.inference_mode():
        block5, pooled = net.activations(x).block5[0], net(x)[0]
    for row in range(5):
        for column in range(6):
            near = block5[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            torch.testing.assert_close(pooled[:, row, column], near.amax((1, 2)))


def test_position_i_is_centred_on_pixel_8i() -> None:
    torch.manual_seed(0)
    net, x = Vgg16(8), torch.rand(1, 3, 129, 129, requires_grad=True)
    net.activations(x).block4[0, :, 8, 7].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()  # type: ignore[index]
    assert ((seen.amin(0) + seen.amax(0)) / 2).tolist() == [64, 56]


def test_other_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match="no output stride 32; use 8 or 16"):
        Vgg16(32)
