from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts import BackboneContract
from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone, upsample_grid
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


# The original geometry


@pytest.mark.parametrize("size", [(1, 1), (33, 2), (321, 321), (500, 500), (32, 64)])
def test_stride_32_takes_any_size(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = Vgg16(32)
        x = torch.empty(2, 3, *size)
        blocks, pool5 = net.activations(x), net(x)
    for maps, stride in ((blocks.block4, 8), (blocks.block5, 16), (pool5, 32)):
        assert maps.shape == (2, 512, *(-(-side // stride) for side in size))


def torchvision_layers() -> nn.Sequential:
    """The layer list of torchvision's vgg16().features, with 2x2 pools."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if entry == 0:
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(channels, entry, kernel_size=3, padding=1), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers)


def test_stride_32_is_torchvisions_network() -> None:
    torch.manual_seed(0)
    net, plain = Vgg16(32), torchvision_layers()
    plain.load_state_dict(net.features.state_dict())
    assert net.grid_stride is None
    x = torch.rand(1, 3, 64, 32)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.inference_mode():
        normal = (x - mean) / std
        torch.testing.assert_close(net.activations(x).block4, plain[:23](normal))
        torch.testing.assert_close(net.activations(x).block5, plain[:30](normal))
        torch.testing.assert_close(net(x), plain(normal))
        assert net(x).max() > 0


def cut_to_pools(net: Vgg16) -> nn.Sequential:
    return nn.Sequential(*(layer for layer in net.features if isinstance(layer, nn.MaxPool2d)))


def test_pools_at_stride_32_round_up_and_mirror() -> None:
    """Position i is the maximum of pixels 32 i to 32 i + 31, as many as there are."""
    with torch.device("meta"):
        pools = cut_to_pools(Vgg16(32))
    x = torch.rand(1, 1, 70, 33)
    pooled = pools(x)
    assert pooled.shape == (1, 1, 3, 2)
    for row in range(3):
        for column in range(2):
            cell = x[0, 0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert pooled[0, 0, row, column] == cell.max()
    fitting = torch.rand(1, 1, 96, 64)
    assert torch.equal(pools(fitting.flip(3)).flip(3), pools(fitting))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_grid_stride_brings_maps_back_to_their_place(stride: int) -> None:
    """Cells that are lit alike on both sides of the middle stay so on a grid that fits."""
    with torch.device("meta"):
        net = Vgg16(stride)
    length = 4 * stride + (net.grid_stride is not None)
    x = torch.rand(1, 1, length, length)
    x = x + x.flip(3)
    full = upsample_grid(cut_to_pools(net)(x), (length, length), net.grid_stride)
    torch.testing.assert_close(full.flip(3), full, atol=1e-5, rtol=0)
    assert net.grid_stride in (stride, None)


@pytest.mark.parametrize("stride", [0, 4, 64])
def test_other_strides_are_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"no output stride {stride}; use 8, 16 or 32"):
        Vgg16(stride)


@pytest.mark.parametrize("size", [(40, 57), (33, 16), (64, 96), (1, 1)])
def test_feature_blocks_at_stride_32(size: tuple[int, int]) -> None:
    """The contract's other tests want a grid that begins on pixel 0."""
    torch.manual_seed(0)
    BackboneContract().test_feature_blocks(Vgg16(32).eval(), size)


@pytest.mark.parametrize(
    ("stride", "strides"), [(8, [1, 2, 4, 8, 8]), (16, [1, 2, 4, 8, 16]), (32, [1, 2, 4, 8, 16])]
)
def test_feature_blocks_are_the_relus_of_vgg(stride: int, strides: list[int]) -> None:
    with torch.device("meta"):
        net = Vgg16(stride)
    blocks = net.feature_blocks()
    assert [block.stride for block in blocks] == strides
    assert [len(block.layers) for block in blocks] == [2, 2, 3, 3, 3]
    named = [net.get_submodule(name) for block in blocks for name in block.layers]
    assert named == [layer for layer in net.features if isinstance(layer, nn.ReLU)]


# The original geometry at the strides of the seeders of Oh et al.


@pytest.mark.parametrize("stride", [8, 16])
class TestWithoutDilation(BackboneContract):
    @pytest.fixture
    def backbone(self, stride: int) -> Backbone:
        torch.manual_seed(0)
        return Vgg16(stride, dilated=False).eval()


@pytest.mark.parametrize("stride", [8, 16])
def test_without_dilation_the_last_pools_are_left_out(stride: int) -> None:
    """Torchvision's network without pool5 and, at stride 8, pool4; its names hold."""
    torch.manual_seed(0)
    net, plain = Vgg16(stride, dilated=False), torchvision_layers()
    plain.load_state_dict(net.features.state_dict())
    assert (net.dilated, net.grid_stride) == (False, None)
    kept = [layer for i, layer in enumerate(plain) if i != 30 and (i != 23 or stride == 16)]
    x = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        expected = nn.Sequential(*kept)(net.normalise(x))
        assert expected.shape == (1, 512, 64 // stride, 32 // stride)
        torch.testing.assert_close(net(x), expected)
        torch.testing.assert_close(net.activations(x).block5, expected)
        torch.testing.assert_close(net.activations(x).block4, plain[:23](net.normalise(x)))


def test_without_dilation_sizes_round_up() -> None:
    for stride, size in ((8, 41), (16, 21), (32, 11)):
        with torch.device("meta"):
            pooled = Vgg16(stride, dilated=False)(torch.empty(1, 3, 321, 321))
        assert pooled.shape == (1, 512, size, size)


@pytest.mark.parametrize(("stride", "dilated"), [(8, True), (16, True), (32, False)])
def test_the_default_is_deeplabs_geometry_or_the_whole_network(stride: int, dilated: bool) -> None:
    with torch.device("meta"):
        default, told = Vgg16(stride), Vgg16(stride, dilated=dilated)
    assert default.dilated is told.dilated is dilated
    assert str(default.features) == str(told.features)


def test_stride_32_has_no_dilated_form() -> None:
    with pytest.raises(ConfigError, match="no dilated form at output stride 32; use 8 or 16"):
        Vgg16(32, dilated=True)
