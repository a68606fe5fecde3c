from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts import BackboneContract, mirror_symmetric
from tagseg.errors import ConfigError
from tagseg.localize.backprop import ClassSaliency
from tagseg.nets.backbone import Backbone
from tagseg.nets.gap import GapClassifier
from tagseg.nets.resnet import ResNet, ResNet50, ResNet101

FC = 2048 * 1000 + 1000  # of torchvision's networks, which end in a classifier
NETS = {"resnet50": ResNet50, "resnet101": ResNet101}


@cache
def state_of(name: str) -> dict[str, Tensor]:
    """Weights in float64 whose batch norms do something and keep the scale through all blocks."""
    torch.manual_seed(0)
    net = NETS[name]().double()
    for label, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            last = label.endswith("bn3")
            nn.init.uniform_(module.weight, 0.5 - 0.3 * last, 1.5 - last)
            nn.init.uniform_(module.bias, -0.2, 0.3)
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
    return net.state_dict()


def made(
    name: str,
    stride: int,
    dilated: bool | None = None,
    dtype: torch.dtype = torch.float64,
) -> ResNet:
    with torch.device("meta"):
        net = NETS[name](stride, dilated=dilated)
    state = {label: tensor.clone() for label, tensor in state_of(name).items()}
    net.load_state_dict(state, assign=True)
    for buffer in ("_mean", "_std"):  # they have no place in a state
        setattr(net, buffer, torch.empty(1, 3, 1, 1))
    net.set_preprocessing(net.preprocessing)
    return net.to(dtype).eval()


@pytest.mark.parametrize(
    ("name", "stride", "dilated"),
    [
        ("resnet50", 8, False),
        ("resnet50", 32, None),
        ("resnet101", 8, None),
    ],
)
class TestResNet(BackboneContract):
    @pytest.fixture
    def backbone(self, name: str, stride: int, dilated: bool | None) -> Backbone:
        torch.manual_seed(0)
        return made(name, stride, dilated, torch.float32)


# torchvision's network


@pytest.mark.parametrize(
    ("name", "parameters", "counts"),
    [("resnet50", 25_557_032, (3, 4, 6, 3)), ("resnet101", 44_549_160, (3, 4, 23, 3))],
)
def test_parameters_are_those_of_torchvision(
    name: str, parameters: int, counts: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        net = NETS[name]()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters - FC
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{kind}" for kind in norm)}
    for layer, count in enumerate(counts, start=1):
        for block in range(count):
            prefix = f"layer{layer}.{block}"
            pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
            pairs += [("downsample.0", "downsample.1")] if block == 0 else []
            for convolution, bn in pairs:
                expected.add(f"{prefix}.{convolution}.weight")
                expected |= {f"{prefix}.{bn}.{kind}" for kind in norm}
    state = net.state_dict()
    assert set(state) == expected
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer3.0.conv1.weight"] == (256, 512, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{kind}"].view(1, -1, 1, 1)
        for kind in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def by_hand(x: Tensor, state: dict[str, Tensor], counts: tuple[int, ...]) -> list[Tensor]:
    """The outputs of layer3 and layer4 of a plain ResNet v1.5, from the state dict alone."""
    x = norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), state, "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    ends = []
    for layer, count in enumerate(counts, start=1):
        for block in range(count):
            at = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = norm(F.conv2d(x, state[f"{at}.conv1.weight"]), state, f"{at}.bn1").relu()
            y = F.conv2d(y, state[f"{at}.conv2.weight"], stride=stride, padding=1)
            y = norm(y, state, f"{at}.bn2").relu()
            y = norm(F.conv2d(y, state[f"{at}.conv3.weight"]), state, f"{at}.bn3")
            if block == 0:
                x = F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=stride)
                x = norm(x, state, f"{at}.downsample.1")
            x = (x + y).relu()
        ends.append(x)
    return ends[2:]


def test_stride_32_is_the_plain_network() -> None:
    net = made("resnet50", 32)
    x = torch.rand(2, 3, 65, 50, dtype=torch.float64)
    with torch.inference_mode():
        layer3, layer4 = by_hand(net.normalise(x), state_of("resnet50"), (3, 4, 6, 3))
        block4, block5 = net.activations(x)
        torch.testing.assert_close(block4, layer3)
        torch.testing.assert_close(block5, layer4)
        torch.testing.assert_close(net(x), layer4)
    assert 0.01 < block5.std() < 100


# Dilation


def dilations(net: ResNet) -> list[set[int]]:
    """Of the first and of the other blocks of layer3 and of layer4."""
    found = []
    for layer in (net.layer3, net.layer4):
        for blocks in (layer[:1], layer[1:]):
            found.append({block.conv2.dilation[0] for block in blocks})
    return found


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("stride", "dilated", "expected"),
    [
        (8, None, [1, 2, 2, 4]),
        (8, True, [1, 2, 2, 4]),
        (16, None, [1, 1, 1, 2]),
        (32, None, [1, 1, 1, 1]),
        (8, False, [1, 1, 1, 1]),
    ],
)
def test_the_first_block_of_a_stage_has_the_dilation_before(
    name: str, stride: int, dilated: bool | None, expected: list[int]
) -> None:
    with torch.device("meta"):
        net = NETS[name](stride, dilated=dilated)
    assert dilations(net) == [{dilation} for dilation in expected]
    assert net.dilated is (dilated is not False and stride < 32)
    total = 1
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            total *= module.stride[0]
    assert 2 * total == stride  # and the pool


@pytest.mark.parametrize("size", [(97, 123), (64, 33)])
def test_a_dense_grid_refines_the_strided_ones(size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        at8, at16, at32 = (made("resnet50", stride).activations(x) for stride in (8, 16, 32))
        torch.testing.assert_close(at8.block4[..., ::2, ::2], at16.block4)
        torch.testing.assert_close(at16.block4, at32.block4)
        torch.testing.assert_close(at8.block5[..., ::2, ::2], at16.block5)
        torch.testing.assert_close(at8.block5[..., ::4, ::4], at32.block5)
        undilated = made("resnet50", 8, False)(x)
    assert at8.block5[..., 1::2, :].std() > 0
    assert undilated.shape == at8.block5.shape
    assert not torch.allclose(undilated[..., ::4, ::4], at32.block5)


# The grid


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("stride", "size", "block4", "block5"),
    [
        (8, (321, 321), (41, 41), (41, 41)),
        (16, (321, 321), (21, 21), (21, 21)),
        (32, (321, 321), (21, 21), (11, 11)),
        (8, (225, 320), (29, 40), (29, 40)),
        (8, (1, 2), (1, 1), (1, 1)),
    ],
)
def test_shapes(
    name: str, stride: int, size: tuple[int, int], block4: tuple[int, int], block5: tuple[int, int]
) -> None:
    with torch.device("meta"):
        net = NETS[name](stride)
        blocks = net.activations(torch.empty(2, 3, *size))
    assert blocks.block4.shape == (2, 1024, *block4)
    assert blocks.block5.shape == (2, 2048, *block5)


@pytest.mark.parametrize(("stride", "dilated"), [(8, True), (8, False), (16, True), (32, False)])
def test_mirrored_photos_have_mirrored_features(stride: int, dilated: bool) -> None:
    """With whole kernels and padding: pixels 0 and n * stride are the ends of the grid."""
    net = mirror_symmetric(made("resnet50", stride, dilated))
    x = torch.rand(1, 3, 40, 4 * stride + 1, dtype=torch.float64)
    with torch.inference_mode():
        features, mirrored = net(x), net(x.flip(3)).flip(3)
        torch.testing.assert_close(mirrored, features)
        shifted = net(x.roll(1, 3).flip(3)).flip(3)
    assert not torch.allclose(shifted, features, rtol=1e-3)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_an_impulse_on_pixel_stride_times_i_moves_position_i_alone(stride: int) -> None:
    """With kernels cut to their centres: the pool gives each of its pixels to one position."""
    net = made("resnet50", stride)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            middle = module.kernel_size[0] // 2
            tap = module.weight.data[:, :, middle, middle].clone()
            module.weight.data.zero_()
            module.weight.data[:, :, middle, middle] = tap * module.kernel_size[0]
    x = torch.full((1, 3, 4 * stride + 1, 4 * stride + 1), 0.5, dtype=torch.float64)
    with torch.inference_mode():
        before = net(x)
        for row, column in ((0, 0), (2, 3), (4, 1)):
            changed = x.clone()
            changed[..., stride * row, stride * column] = torch.tensor([3.0, -2.0, 1.0])
            differs = (net(changed) != before).any(1)[0].nonzero()
            assert differs.tolist() == [[row, column]]


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(8, [2, 4, 8, 8, 8]), (16, [2, 4, 8, 16, 16]), (32, [2, 4, 8, 16, 32])],
)
def test_feature_blocks_are_the_relus_that_end_conv1_and_the_bottlenecks(
    stride: int, strides: list[int]
) -> None:
    with torch.device("meta"):
        net = ResNet101(stride)
    blocks = net.feature_blocks()
    assert [block.stride for block in blocks] == strides
    assert [len(block.layers) for block in blocks] == [1, 3, 4, 23, 3]
    assert blocks[0].layers == ("relu",)
    assert blocks[3].layers[-1] == "layer3.22"


# Class saliency


@pytest.mark.parametrize("block", [0, 2, 3])
def test_plain_saliency_at_a_block_is_autograds_gradient(block: int) -> None:
    torch.manual_seed(0)
    net = GapClassifier(made("resnet50", 16), 3, hidden_layers=0).double().eval()
    layers = [f"backbone.{name}" for name in net.backbone.feature_blocks()[block].layers]
    x = torch.rand(2, 3, 33, 49, dtype=torch.float64)
    found = ClassSaliency(net, "plain", layers).forward(x).gradients([2, 0])
    assert list(found) == layers
    outputs: dict[str, Tensor] = {}
    for name in layers:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update({name: output})
        )
    for place, label in enumerate((2, 0)):
        score = net.class_maps(x)[:, label].sum()
        expected = torch.autograd.grad(score, list(outputs.values()))
        for name, gradient in zip(layers, expected, strict=True):
            assert gradient.abs().max() > 0
            torch.testing.assert_close(found[name][:, place], gradient)


@pytest.mark.parametrize("method", ["guided", "excitation"])
def test_the_other_methods_run(method: str) -> None:
    torch.manual_seed(0)
    net = GapClassifier(made("resnet50", 16, dtype=torch.float32), 3, hidden_layers=0).eval()
    layers = [f"backbone.{block.layers[-1]}" for block in net.backbone.feature_blocks()]
    record = ClassSaliency(net, method, layers).forward(torch.rand(1, 3, 33, 49))  # type: ignore[arg-type]
    for saliency in record.saliency([1]).values():
        assert torch.isfinite(saliency).all()
        assert saliency.max() > 0
        assert method == "guided" or saliency.min() >= 0


# Training


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    net = ResNet50(16).train()
    net(torch.rand(2, 3, 33, 33)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_frozen_statistics_stay_in_training() -> None:
    net = made("resnet50", 32, dtype=torch.float32)
    x = torch.rand(2, 3, 40, 40)
    evaluated = net(x)
    net.train()
    assert not torch.allclose(net(x), evaluated, rtol=1e-2)
    net = made("resnet50", 32, dtype=torch.float32)
    net.freeze_statistics()
    before = net.bn1.running_mean.clone()  # type: ignore[union-attr]
    training = net.train()(x)
    assert net.training
    torch.testing.assert_close(net.bn1.running_mean, before)
    torch.testing.assert_close(training, evaluated)
    training.sum().backward()
    assert net.bn1.weight.grad is not None


def test_a_copy_is_a_network_of_its_own() -> None:
    net = made("resnet50", 32, dtype=torch.float32)
    other = copy.deepcopy(net)
    nn.init.zeros_(other.conv1.weight)
    assert net.conv1.weight.abs().max() > 0


@pytest.mark.parametrize("name", NETS)
def test_unknown_geometries_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no output stride 4; use 8, 16 or 32"):
        NETS[name](4)
    with pytest.raises(ConfigError, match=f"{name} has no dilated form at output stride 32"):
        NETS[name](32, dilated=True)
