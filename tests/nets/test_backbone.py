from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from contracts import BackboneContract
from tagseg.errors import ConfigError
from tagseg.localize import (
    ClassSaliency,
    DcsmSettings,
    DistinctSeeder,
    GradientSeeder,
    class_activation_maps,
)
from tagseg.nets.backbone import (
    Activations,
    Backbone,
    FeatureBlock,
    FineTuning,
    Preprocessing,
    upsample_grid,
)
from tagseg.nets.efficientnet_lite import EfficientNetLite0
from tagseg.nets.gap import GapClassifier
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.resnet import ResNet50
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16


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


def parameters_of(backbone: Backbone, trained: bool) -> set[str]:
    return {name for name, p in backbone.named_parameters() if p.requires_grad is trained}


def test_the_last_blocks_learn_and_the_others_compute_as_in_evaluation() -> None:
    net = Tiny()
    net.fine_tune(FineTuning(2))
    net.train()
    assert {name.split(".")[0] for name in parameters_of(net, True)} == {"block4", "block5"}
    assert {name.split(".")[0] for name in parameters_of(net, False)} == {
        f"block{i}" for i in (1, 2, 3)
    }
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.rand(2, 3, 32, 32))
    moved = {
        name.split(".")[0]
        for name, value in net.named_buffers()
        if not torch.equal(value, statistics[name])
    }
    assert moved == {"block4", "block5"}
    assert net.fine_tuning == FineTuning(2)


def test_blocks_that_were_frozen_may_learn_again() -> None:
    net = Tiny()
    net.fine_tune(FineTuning(0))
    assert parameters_of(net, True) == set()
    net.fine_tune(FineTuning(1))
    assert {name.split(".")[0] for name in parameters_of(net, True)} == {"block5"}
    net.fine_tune(FineTuning(5))
    assert parameters_of(net, False) == set()
    assert net.fine_tuning == FineTuning(), "as many as there are is all"
    with pytest.raises(ConfigError, match=r"tiny has 5 blocks, not 6; set trained_blocks to 4 or"):
        net.fine_tune(FineTuning(6))


def test_the_rate_decays_from_the_head_down() -> None:
    """The head learns at the rate itself, the last block at its first decay (as in BEiT, MAE)."""
    net = Tiny()
    (whole,) = net.parameter_groups()
    assert whole["name"] == "backbone"
    assert "factor" not in whole
    assert list(map(id, whole["params"])) == list(map(id, net.parameters()))
    net.fine_tune(FineTuning(None, 0.5))
    groups = net.parameter_groups()
    assert [group["name"] for group in groups] == ["backbone"] * 5
    assert [group["factor"] for group in groups] == [0.5**5, 0.5**4, 0.5**3, 0.25, 0.5]
    for group, block in zip(groups, net.children(), strict=True):
        assert list(map(id, group["params"])) == list(map(id, block.parameters()))


def test_heads_pass_the_groups_on() -> None:
    net = GapClassifier(Tiny(), 3, hidden=8)
    net.backbone.fine_tune(FineTuning(None, 0.9))
    named = [(group["name"], group.get("factor")) for group in net.parameter_groups()]
    assert [name for name, _ in named] == ["backbone"] * 5 + ["head", "score"]
    assert [factor for _, factor in named[5:]] == [None, None]


def test_a_backbone_that_names_no_blocks_says_so() -> None:
    class Whole(Transformer):
        layer_groups = Backbone.layer_groups

    net = Whole()
    net.fine_tune(FineTuning())
    for tuning in (FineTuning(1), FineTuning(None, 0.5)):
        with pytest.raises(ConfigError, match="transformer does not name its blocks"):
            net.fine_tune(tuning)


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


class Mixer(nn.Module):
    """A transformer's layer on maps: attention, and a GELU between two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.up, self.down = nn.Linear(channels, 16), nn.Linear(16, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        y = self.norms[0](tokens)
        tokens = tokens + self.attention(y, y, y, need_weights=False)[0]
        tokens = tokens + self.down(functional.gelu(self.up(self.norms[1](tokens))))
        return tokens.mT.unflatten(2, x.shape[2:])


class Transformer(Backbone):
    """Without any ReLU: convolutions down to stride 8, and attention between all positions."""

    name, block4_channels, out_channels = "transformer", 12, 12

    def __init__(self) -> None:
        super().__init__(8)
        torch.manual_seed(0)
        channels = (3, 8, 8, 12)
        self.stem = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GELU())
            for before, after in pairwise(channels)
        )
        self.mixers = nn.ModuleList(Mixer(12) for _ in range(2))

    def activations(self, x: Tensor) -> Activations:
        x = self.normalise(x)
        for layer in self.stem:
            x = layer(x)
        block4 = self.mixers[0](x)
        return Activations(block4, self.mixers[1](block4))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        stem = tuple(FeatureBlock((f"stem.{i}",), 2 ** (i + 1)) for i in range(3))
        return (*stem, FeatureBlock(("mixers.0",), 8), FeatureBlock(("mixers.1",), 8))

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        return tuple((layer,) for layer in (*self.stem, *self.mixers))


class TestABackboneWithoutReLUs(BackboneContract):
    signed, local = True, False

    @pytest.fixture
    def backbone(self) -> Backbone:
        return Transformer().eval()


def test_a_backbone_without_relus_serves_all_that_does_not_ask_for_them() -> None:
    net = GapClassifier(Transformer(), 3, hidden=6).eval()
    x, layers = torch.rand(2, 3, 40, 56), ["backbone.mixers.0", "backbone.stem.2"]
    assert net.backbone(x).min() < 0
    assert class_activation_maps(net, x).shape == (2, 3, 5, 7)
    record = ClassSaliency(net, "plain", layers).forward(x)
    moved = x.clone().requires_grad_()
    stem = net.backbone.stem[2]
    outputs: list[Tensor] = []
    stem.register_forward_hook(lambda module, args, output: outputs.append(output))
    (expected,) = torch.autograd.grad(net.class_maps(moved)[:, 1].sum(), outputs)
    found = record.gradients([1])["backbone.stem.2"][:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    seeds = GradientSeeder(net, "plain", blocks=(4,))(image, np.array([True, False, True]))
    assert seeds.max((1, 2)).tolist() == [1, 0, 1]


def test_guided_back_propagation_asks_a_backbone_for_relus() -> None:
    net = GapClassifier(Transformer(), 3, hidden=6).eval()  # whose own layers have ReLUs
    message = "guided back-propagation changes ReLUs, and the backbone transformer has none"
    with pytest.raises(ConfigError, match=f"^{message}; use plain$"):
        GradientSeeder(net, "guided", blocks=(4,))
    with pytest.raises(ConfigError, match=f"^{message}; use plain$"):
        DistinctSeeder(net, DcsmSettings(), side=40)
    with pytest.raises(ConfigError, match="guided back-propagation changes ReLUs"):
        ClassSaliency(net.backbone, "guided").forward(torch.rand(1, 3, 40, 40))


# The levels of a feature pyramid

BOTTOM_RIGHT = "same_bottom_right"
_MAKERS: dict[str, Callable[[], Backbone]] = {
    "efficientnet_lite0-16": lambda: EfficientNetLite0(16),
    "efficientnet_lite0-32": lambda: EfficientNetLite0(32),
    "tiny-8": lambda: Tiny(8),
    "tiny-16": lambda: Tiny(16),
    "mobilenet_v2-8": lambda: MobileNetV2(8),
    "mobilenet_v2-16": lambda: MobileNetV2(16),
    "mobilenet_v2-32": lambda: MobileNetV2(32),
    "mobilenet_v2-8-bottom_right": lambda: MobileNetV2(8, BOTTOM_RIGHT),
    "mobilenet_v2-16-bottom_right": lambda: MobileNetV2(16, BOTTOM_RIGHT),
    "mobilenet_v2-32-bottom_right": lambda: MobileNetV2(32, BOTTOM_RIGHT),
    "resnet50-8": lambda: ResNet50(8),
    "resnet50-32": lambda: ResNet50(32),
    "vgg16-8": lambda: Vgg16(8),
    "vgg16-16-pools": lambda: Vgg16(16, dilated=False),
    "vgg16-32": lambda: Vgg16(32),
}
_LAST_LAYERS = {
    "tiny-16": ("block1", "block2", "block3", "block5"),
    "mobilenet_v2-16": ("features.1", "features.3", "features.6", "features.18"),
    "mobilenet_v2-32": ("features.1", "features.3", "features.6", "features.13", "features.18"),
    "resnet50-32": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "vgg16-32": ("features.8", "features.15", "features.22", "features.29", "features.30"),
}


def backbone_of(maker: str) -> Backbone:
    torch.manual_seed(0)
    return _MAKERS[maker]().eval()


@pytest.mark.parametrize("finest", [2, 4])
@pytest.mark.parametrize("maker", list(_MAKERS))
def test_a_pyramid_has_the_last_map_of_every_stride(maker: str, finest: int) -> None:
    """From the finest to the output stride, with one position for every ``stride`` pixels."""
    net = backbone_of(maker)
    levels = net.pyramid_levels(finest)
    assert [level.stride for level in levels] == [
        stride for stride in (2, 4, 8, 16, 32) if finest <= stride <= net.output_stride
    ]
    with torch.inference_mode():
        for size in ((40, 57), (1, 1), (33, 16)):
            x = torch.rand(2, 3, *size)
            maps = net.pyramid(x, finest)
            for level, found in zip(levels, maps, strict=True):
                positions = tuple(-(-side // level.stride) for side in size)
                assert found.shape == (2, level.channels, *positions)
            torch.testing.assert_close(maps[-1], net(x))


def test_the_levels_are_those_from_stride_4_where_nothing_is_said() -> None:
    net, x = backbone_of("tiny-16"), torch.rand(1, 3, 40, 57)
    assert net.pyramid_levels() == net.pyramid_levels(4)
    with torch.inference_mode():
        for found, fine in zip(net.pyramid(x), net.pyramid(x, 2)[1:], strict=True):
            assert torch.equal(found, fine)
    with pytest.raises(ConfigError, match="a pyramid from stride 1; use 2 or 4"):
        net.pyramid_levels(1)


@pytest.mark.parametrize("maker", list(_LAST_LAYERS))
def test_levels_are_the_outputs_of_these_layers(maker: str) -> None:
    net, outputs = backbone_of(maker), list[Tensor]()
    for name in _LAST_LAYERS[maker]:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
    with torch.inference_mode():
        x = torch.rand(1, 3, 64, 96)
        net(x)
        expected = outputs.copy()
        if maker.startswith("resnet"):  # one module for all ReLUs, which the stem calls first
            expected = [expected[0], *(m for m in expected[1:] if m.shape[1] >= 256)]
        for ours, theirs in zip(net.pyramid(x, 2), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
            assert ours.std() > 0


@pytest.mark.parametrize(
    "maker", [name for name in _MAKERS if name.startswith(("eff", "tiny", "mobile"))]
)
def test_position_i_of_every_level_lies_on_pixel_stride_times_i(maker: str) -> None:
    """With kernels cut to their centres it sees this pixel alone; no pools are in the way."""
    net = backbone_of(maker)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] > 1:
            side = module.kernel_size[0]
            kernel, at = torch.zeros_like(module.weight), side // 2
            kernel[:, :, at, at] = side * module.weight.detach()[:, :, at, at]
            module.weight.data = kernel
    x = torch.rand(1, 3, 80, 96)
    changed = x.clone()
    changed[:, :, 32, 48] = 1 - changed[:, :, 32, 48]
    with torch.inference_mode():
        maps, other = net.pyramid(x, 2), net.pyramid(changed, 2)
        levels = zip(net.pyramid_levels(2), maps, other, strict=True)
        for level, before, after in levels:
            differs = (before != after).any(1)[0].nonzero()
            at = [[32 // level.stride, 48 // level.stride]] if 48 % level.stride == 0 else []
            assert differs.tolist() == at


@pytest.mark.parametrize("maker", ["resnet50-8", "resnet50-32", "vgg16-8", "vgg16-32"])
def test_levels_behind_pools_mirror(maker: str) -> None:
    """As they do where the photo's ends are positions, or else ends of cells."""
    net = backbone_of(maker)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.detach() + module.weight.detach().flip(3)) / 2
    ends = int(net.grid_stride is not None)
    x = torch.rand(1, 3, 32 + ends, 64 + ends)
    with torch.inference_mode():
        for own, other in zip(net.pyramid(x, 2), net.pyramid(x.flip(3), 2), strict=True):
            close = 1e-3 * float(own.std())
            torch.testing.assert_close(other.flip(3), own, atol=close, rtol=0)
            assert (own.flip(3) - own).abs().max() > 100 * close


def test_a_backbone_need_not_give_a_pyramid() -> None:
    class Flat(Tiny):
        _sections = Backbone._sections

    with pytest.raises(ConfigError, match="tiny gives no feature pyramid; use another"):
        Flat().pyramid(torch.rand(1, 3, 8, 8))
