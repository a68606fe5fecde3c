from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts import mirror_symmetric
from tagseg.errors import ConfigError
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, Preprocessing
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.resnet import ResNet101
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16


class Sampled(Backbone):
    """Every ``output_stride``-th pixel through one 1x1 convolution."""

    name = "sampled"
    out_channels = 4
    block4_channels = 4

    def __init__(self, output_stride: int = 8) -> None:
        super().__init__(output_stride)
        self.project = nn.Conv2d(3, 4, 1)

    def activations(self, x: Tensor) -> Activations:
        step = self.output_stride
        features = self.project(self.normalise(x)[..., ::step, ::step]).relu()
        return Activations(features, features)

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()


def net_of(backbone: Backbone, **options: object) -> AsppNet:
    torch.manual_seed(0)
    return AsppNet(backbone, 3, **options).double().eval()  # type: ignore[arg-type]


# The branches


def dilated_3x3(x: Tensor, weight: Tensor, bias: Tensor, rate: int) -> Tensor:
    """A 3x3 convolution tap by tap: (C, h, w) -> (outputs, h, w), zeros beyond the borders."""
    _, height, width = x.shape
    result = bias[:, None, None].repeat(1, height, width)
    for row in range(height):
        for column in range(width):
            for i in range(3):
                for j in range(3):
                    y, z = row + (i - 1) * rate, column + (j - 1) * rate
                    if 0 <= y < height and 0 <= z < width:
                        result[:, row, column] += weight[:, :, i, j] @ x[:, y, z]
    return result


def summed_by_hand(net: AsppNet, features: Tensor, rates: tuple[int, ...]) -> Tensor:
    state = {name: value.detach() for name, value in net.branches.state_dict().items()}
    total = torch.zeros(3, *features.shape[1:], dtype=torch.float64)
    for k, rate in enumerate(rates):
        if f"{k}.fc6.weight" not in state:
            total += dilated_3x3(features, state[f"{k}.fc8.weight"], state[f"{k}.fc8.bias"], rate)
            continue
        x = dilated_3x3(features, state[f"{k}.fc6.weight"], state[f"{k}.fc6.bias"], rate)
        x = x.clamp(min=0)
        for name in ("fc7", "fc8"):
            weight, bias = state[f"{k}.{name}.weight"], state[f"{k}.{name}.bias"]
            x = torch.einsum("oc,chw->ohw", weight[:, :, 0, 0], x) + bias[:, None, None]
            x = x.clamp(min=0) if name == "fc7" else x
        total += x
    return total


@pytest.mark.parametrize("width", [None, 5])
@pytest.mark.parametrize("rates", [(1, 3), (6, 12, 18, 24), (2,)])
def test_scores_are_the_sum_of_the_branches(width: int | None, rates: tuple[int, ...]) -> None:
    net = net_of(Sampled(), rates=rates, width=width)
    for parameter in net.branches.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(2, 3, 8 * 15, 8 * 13, dtype=torch.float64)
    with torch.inference_mode():
        features, coarse = net.backbone(x), net.coarse(x)
    assert coarse.shape == (2, 3, 15, 13)
    for photo in range(2):
        expected = summed_by_hand(net, features[photo], rates)
        torch.testing.assert_close(coarse[photo], expected)


def test_branches_have_the_papers_layers() -> None:
    with torch.device("meta"):
        vgg, other = AsppNet(Vgg16(), 21), AsppNet(ResNet101(), 21)
        shapes = [tuple(tensor.shape) for tensor in vgg.branches[2].state_dict().values()]
        assert vgg.coarse(torch.empty(1, 3, 321, 321)).shape == (1, 21, 41, 41)
        assert other.coarse(torch.empty(1, 3, 321, 321)).shape == (1, 21, 41, 41)
    assert shapes[::2] == [(1024, 512, 3, 3), (1024, 1024, 1, 1), (21, 1024, 1, 1)]
    assert shapes[1::2] == [(1024,), (1024,), (21,)]
    assert vgg.dilations == other.dilations == (6, 12, 18, 24)
    assert [tuple(p.shape) for p in other.branches.parameters()] == [(21, 2048, 3, 3), (21,)] * 4
    dropouts = [module.p for module in vgg.modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [0.5] * 8
    assert not any(isinstance(module, nn.Dropout) for module in other.branches.modules())


def test_dropout_is_for_training() -> None:
    net, x = net_of(Sampled(), width=8), torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for parameter in net.branches.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("scale", [0.01, 0.256, 0.4, 0.64, 1.0, 1.5])
def test_rates_scale_as_the_dilation_of_fc6_does(stride: int, scale: float) -> None:
    net = AsppNet(Sampled(stride), 3, rates=(12, 6), view_scale=scale)
    fc6 = SegmentationNet(Sampled(stride), 3, "large", width=4, view_scale=scale).fc6
    assert net.dilations == (fc6.dilation[0], max(1, round(6 * 8 / stride * scale)))
    x = torch.rand(1, 3, 64, 72)
    assert net.coarse(x).shape[2:] == (-(-64 // stride), -(-72 // stride))


def test_rates_at_other_strides() -> None:
    dilations = {stride: AsppNet(Sampled(stride), 3).dilations for stride in (8, 16, 32)}
    assert dilations == {8: (6, 12, 18, 24), 16: (3, 6, 9, 12), 32: (2, 3, 4, 6)}


# Image size


@settings(derandomize=True, max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), stride=st.sampled_from([8, 16, 32]))
def test_logits_have_the_size_of_the_input(height: int, width: int, stride: int) -> None:
    net = AsppNet(Sampled(stride), 3).eval()
    with torch.inference_mode():
        x = torch.rand(1, 3, height, width)
        assert net(x).shape == (1, 3, height, width)
        assert net.coarse(x).shape == (1, 3, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("stride", [8, 16])
def test_position_i_of_the_scores_lies_on_pixel_stride_times_i(stride: int) -> None:
    net = net_of(Sampled(stride))
    x = torch.rand(1, 3, 4 * stride + 1, 6 * stride + 3, dtype=torch.float64)
    with torch.inference_mode():
        coarse, full = net.coarse(x), net(x)
    torch.testing.assert_close(full[..., ::stride, ::stride], coarse)
    halves = (coarse[..., :-1] + coarse[..., 1:]) / 2
    between = full[..., ::stride, stride // 2 :: stride][..., : halves.shape[3]]
    torch.testing.assert_close(between, halves)


def test_scores_behind_pools_are_spread_from_edge_to_edge() -> None:
    net = AsppNet(Sampled(16), 3)
    net.backbone.grid_stride = None  # as Vgg16(32) has it
    x = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        expected = F.interpolate(net.coarse(x), (64, 48), mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("width", [None, 6])
def test_mirrored_photos_have_mirrored_logits(width: int | None) -> None:
    torch.manual_seed(0)
    net = mirror_symmetric(AsppNet(Tiny(8), 3, rates=(1, 2), width=width).double().eval())
    x = torch.rand(1, 3, 33, 49, dtype=torch.float64)
    with torch.inference_mode():
        logits = net(x)
        torch.testing.assert_close(net(x.flip(3)).flip(3), logits)
    assert not torch.allclose(logits.flip(3), logits)


def test_preprocessing_is_the_backbones() -> None:
    net = net_of(Tiny(8))
    x = torch.rand(1, 3, 33, 33, dtype=torch.float64)
    with torch.inference_mode():
        default = net(x)
        net.backbone.set_preprocessing(Preprocessing((0.0,) * 3, (1.0,) * 3))
        mean = torch.tensor(Preprocessing().mean).view(1, 3, 1, 1)
        std = torch.tensor(Preprocessing().std).view(1, 3, 1, 1)
        assert not torch.allclose(net(x), default)
        torch.testing.assert_close(net((x - mean) / std), default, atol=1e-7, rtol=1e-5)


# Training


@pytest.mark.parametrize("width", [None, 6])
def test_parameter_groups_hold_every_parameter_once(width: int | None) -> None:
    net = AsppNet(Sampled(), 3, width=width)
    groups = {group["name"]: group["params"] for group in net.parameter_groups()}
    assert list(groups) == ["backbone", "head", "score", "score_bias"]
    held = [id(p) for params in groups.values() for p in params]  # type: ignore[attr-defined]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in net.parameters()}
    count = {name: len(params) for name, params in groups.items()}  # type: ignore[arg-type]
    head = 0 if width is None else 16
    assert count == {"backbone": 2, "head": head, "score": 4, "score_bias": 4}
    assert all(p.shape == (3,) for p in groups["score_bias"])  # type: ignore[attr-defined]
    assert all(p.shape[0] == 3 and p.ndim == 4 for p in groups["score"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [None, 300])
def test_last_layers_start_small_and_without_bias(width: int | None) -> None:
    torch.manual_seed(0)
    net = AsppNet(Tiny(), 5, width=width)
    for branch in net.branches:
        score = branch[-1]  # type: ignore[index]
        assert 0.0085 < score.weight.std() < 0.0115
        assert abs(score.weight.mean()) < 0.002
        assert not score.bias.any()
    first = [branch[0].weight for branch in net.branches]  # type: ignore[index]
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("width", [None, 6])
def test_gradients_reach_every_parameter(width: int | None) -> None:
    torch.manual_seed(0)
    net = AsppNet(Tiny(), 3, rates=(1, 2), width=width, dropout=0.1)
    net(torch.rand(2, 3, 40, 40)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_labels": 1}, "1 labels"),
        ({"rates": ()}, r"rates \(\)"),
        ({"rates": (6, 0)}, r"rates \(6, 0\)"),
        ({"width": 0}, "width of 0"),
        ({"dropout": 1.0}, "dropout of 1.0"),
        ({"view_scale": 0.0}, "a view scale of 0.0"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AsppNet(**{"backbone": Sampled(), "n_labels": 3, **change})  # type: ignore[arg-type]
