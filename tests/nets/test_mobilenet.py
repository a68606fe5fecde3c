from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from contracts import BackboneContract
from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone
from tagseg.nets.mobilenet import MobileNetV2, Stride2Padding
from tagseg.nets.weights import load_into, resolve

DATA = Path("/work/shared/data")
REAL = DATA / "weights/mobilenet_v2_imagenet.safetensors"


def randomised(net: MobileNetV2) -> MobileNetV2:
    """Batch norms that do something, so that a mistake in their place shows."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.0, 0.5)
    return net.eval()


def test_parameters_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        net = MobileNetV2()
    assert sum(parameter.numel() for parameter in net.parameters()) == 2_223_872
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.14.conv.0.0.weight"] == (576, 96, 1, 1)
    assert shapes["features.14.conv.3.running_var"] == (160,)
    assert shapes["features.18.0.weight"] == (1280, 320, 1, 1)


@pytest.mark.parametrize("padding", ["symmetric", "same_bottom_right"])
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(96, 128), (97, 123)])
def test_shapes(padding: str, stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = MobileNetV2(stride, padding).eval()  # type: ignore[arg-type]
        blocks = net.activations(torch.empty(2, 3, *size))
    positions = tuple(-(-side // stride) for side in size)
    assert blocks.block4.shape == (2, 576, *positions)
    assert blocks.block5.shape == (2, 1280, *positions)


def test_stride_8_refines_stride_16() -> None:
    torch.manual_seed(0)
    coarse, fine = randomised(MobileNetV2(16)), MobileNetV2(8).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 81, 100)
    with torch.inference_mode():
        at16, at8 = coarse.activations(x), fine.activations(x)
    torch.testing.assert_close(at8.block4[..., ::2, ::2], at16.block4)
    torch.testing.assert_close(at8.block5[..., ::2, ::2], at16.block5)
    assert at8.block5.min() >= 0
    assert at8.block5.max() <= 6


def test_block5_is_what_the_layers_give_in_order() -> None:
    torch.manual_seed(0)
    net, x = randomised(MobileNetV2(16)), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net.features(net.normalise(x)))


def test_bottom_right_is_tensorflows_padding_of_a_moved_photo() -> None:
    """Written out with explicit zero padding, on the grid that the network builds for itself."""
    torch.manual_seed(0)
    net, x = MobileNetV2(16, "same_bottom_right").eval(), torch.rand(1, 3, 48, 48)
    first = net.features[0][0]
    with torch.inference_mode():
        expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), first.weight, stride=2)
        torch.testing.assert_close(first(x), expected)
        moved = F.pad(net.normalise(x), (15, 1, 15, 1), mode="replicate")
        torch.testing.assert_close(net(x), net.features(moved)[..., :3, :3])


@pytest.mark.parametrize("padding", ["symmetric", "same_bottom_right"])
@pytest.mark.parametrize("stride", [8, 16])
def test_position_i_is_centred_on_pixel_stride_times_i(padding: str, stride: int) -> None:
    torch.manual_seed(0)
    net = randomised(MobileNetV2(stride, padding))  # type: ignore[arg-type]
    x = torch.rand(1, 3, 336, 352, requires_grad=True)
    row, column = 160 // stride, 176 // stride
    net.activations(x).block4[0, :, row, column].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()  # type: ignore[index]
    assert ((seen.amin(0) + seen.amax(0)) / 2).tolist() == [160, 176]


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(8, [2, 4, 8, 8, 8]), (16, [2, 4, 8, 16, 16]), (32, [2, 4, 8, 16, 32])],
)
def test_feature_blocks_are_the_filtered_maps_of_each_block(
    stride: int, strides: list[int]
) -> None:
    with torch.device("meta"):
        net = MobileNetV2(stride)
    blocks = net.feature_blocks()
    assert [block.stride for block in blocks] == strides
    assert [len(block.layers) for block in blocks] == [2, 2, 3, 7, 5]
    for name in (name for block in blocks for name in block.layers):
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Sequential)
        assert isinstance(layer[-1], nn.ReLU6)
        kernel = 1 if name == "features.18" else 3
        assert layer[0].kernel_size == (kernel, kernel)


def test_frozen_statistics_stay_in_training() -> None:
    torch.manual_seed(0)
    net, x = MobileNetV2(16), torch.rand(2, 3, 32, 32)
    net.train()(x)
    norm = net.features[0][1]
    assert norm.running_mean.abs().sum() > 0
    net.freeze_statistics()
    before = norm.running_mean.clone()
    training = net.train()(x)
    assert net.training
    torch.testing.assert_close(norm.running_mean, before)
    torch.testing.assert_close(training, net.eval()(x))


def test_unknown_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="no output stride 4; use 8, 16 or 32"):
        MobileNetV2(4)
    with pytest.raises(ConfigError, match="no stride2_padding 'valid'"):
        MobileNetV2(8, "valid")  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", ["symmetric", "same_bottom_right"])
class TestAtStride32(BackboneContract):
    @pytest.fixture
    def backbone(self, padding: Stride2Padding) -> Backbone:
        torch.manual_seed(0)
        return MobileNetV2(32, padding).eval()


def test_stride_16_refines_stride_32_which_has_block4_at_16() -> None:
    torch.manual_seed(0)
    coarse, fine = randomised(MobileNetV2(32)), MobileNetV2(16).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 81, 100)
    with torch.inference_mode():
        at32, at16 = coarse.activations(x), fine.activations(x)
    torch.testing.assert_close(at32.block4, at16.block4)
    torch.testing.assert_close(at16.block5[..., ::2, ::2], at32.block5)
    with pytest.raises(ConfigError, match="mobilenet_v2 has no dilated form at output stride 32"):
        MobileNetV2(32, dilated=True)


@pytest.mark.parametrize("padding", ["symmetric", "same_bottom_right"])
class TestWithoutDilation(BackboneContract):
    @pytest.fixture
    def backbone(self, padding: Stride2Padding) -> Backbone:
        torch.manual_seed(0)
        return MobileNetV2(8, padding, dilated=False).eval()


@pytest.mark.parametrize("stride", [8, 16])
def test_without_dilation_strides_become_1_and_kernels_stay(stride: int) -> None:
    """The layers of the dense network, with the dilations of the strided one."""
    torch.manual_seed(0)
    dense = randomised(MobileNetV2(stride))
    plain = MobileNetV2(stride, dilated=False).eval()
    plain.load_state_dict(dense.state_dict())
    assert (dense.dilated, plain.dilated) == (True, False)
    dilations = set()
    for ours, theirs in zip(convolutions(plain), convolutions(dense), strict=True):
        assert ours.stride == theirs.stride
        assert ours.dilation == (1, 1)
        dilations.add(theirs.dilation)
        theirs.dilation = (1, 1)
        theirs.padding = tuple(side // 2 for side in theirs.kernel_size)
    assert max(dilations) == (32 // stride, 32 // stride)
    x = torch.rand(1, 3, 64, 81)
    with torch.inference_mode():
        assert torch.equal(plain(x), dense(x))


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


def test_dilated_is_the_default() -> None:
    with torch.device("meta"):
        assert str(MobileNetV2()) == str(MobileNetV2(dilated=True))


@pytest.mark.skipif(not REAL.exists(), reason="real weights are not here")
@pytest.mark.parametrize(
    ("photo", "classes"),
    [("1_10_s.jpg", {345, 347}), ("1_26_s.jpg", {348}), ("15_10_s.jpg", {281})],
)
def test_real_weights_know_cow_sheep_and_cat(photo: str, classes: set[int]) -> None:
    weights = resolve(str(REAL), "mobilenet_v2")
    net = MobileNetV2(16)
    load_into(net, weights)
    picture = Image.open(DATA / "msrc_v2/JPEGImages" / photo).convert("RGB").resize((224, 224))
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        pooled = net.eval()(x).mean((2, 3))
    scores = F.linear(pooled, weights.state["classifier.1.weight"])
    scores += weights.state["classifier.1.bias"]
    assert classes & set(scores[0].topk(3).indices.tolist())
