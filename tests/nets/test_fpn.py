from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts import mirror_symmetric
from pyramid_maps import (
    GivenMaps,
    WithoutLevels,
    bilinear_weights,
    convolved,
    group_normed,
    nearest_weights,
    upsampled,
)
from tagseg.errors import ConfigError
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.fpn import FpnNet
from tagseg.nets.resnet import ResNet101
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16

WIDTHS = (2, 3, 4)


def given_net(height: int, width: int, *, middles: bool) -> tuple[FpnNet, Tensor]:
    """A net of random weights and maps for a photo, in float64."""
    torch.manual_seed(0)
    net = FpnNet(GivenMaps(WIDTHS, middles=middles), 3, channels=16).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net.backbone.draw(height, width)
    return net, torch.zeros(1, 3, height, width, dtype=torch.float64)


# By hand: positions as pixels


def merged_by_hand(net: FpnNet, middles: bool) -> list[Tensor]:
    """Lin et al., section 3: top-down, from the coarsest level."""
    levels = [
        convolved(maps[0], lateral)  # type: ignore[arg-type]
        for maps, lateral in zip(net.backbone.maps, net.lateral, strict=True)
    ]
    for k in (1, 0):
        shape = tuple(levels[k].shape[1:])
        strides = (4, 8, 16)[k + 1], (4, 8, 16)[k]
        levels[k] = levels[k] + upsampled(levels[k + 1], shape, nearest_weights, strides, middles)
    return [convolved(level, smooth) for level, smooth in zip(levels, net.smooth, strict=True)]  # type: ignore[arg-type]


def scores_by_hand(net: FpnNet, middles: bool) -> Tensor:
    levels = merged_by_hand(net, middles)
    shapes = [tuple(level.shape[1:]) for level in levels]
    total = torch.zeros(8, *shapes[0], dtype=torch.float64)
    for k, level in enumerate(levels):
        for step in range(max(1, k)):
            convolution, norm, _ = net.branches[k][step]  # type: ignore[index]
            level = group_normed(convolved(level, convolution), norm, 4).clamp(min=0)
            if k:
                to = k - 1 - step
                strides = (8, 16)[to], (4, 8)[to]
                level = upsampled(level, shapes[to], bilinear_weights, strides, middles)
        total += level
    return convolved(total, net.score)


SHAPES = [(33, 49), (64, 32), (40, 57), (5, 1), (1, 1), (17, 23)]


@pytest.mark.parametrize("middles", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_pyramid_is_merged_from_the_top_down(shape: tuple[int, int], middles: bool) -> None:
    net, x = given_net(*shape, middles=middles)
    with torch.inference_mode():
        maps = net.pyramid(x)
    for ours, expected in zip(maps, merged_by_hand(net, middles), strict=True):
        torch.testing.assert_close(ours[0], expected)


@pytest.mark.parametrize("middles", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_the_sum_of_the_levels_raised(shape: tuple[int, int], middles: bool) -> None:
    net, x = given_net(*shape, middles=middles)
    with torch.inference_mode():
        torch.testing.assert_close(net.coarse(x)[0], scores_by_hand(net, middles))


def test_behind_pools_every_position_takes_the_cell_it_lies_in() -> None:
    """The upsampling as published: each position of a level stands for 2x2 of the one below."""
    net, x = given_net(64, 32, middles=True)
    for lateral in net.lateral[:2]:
        nn.init.zeros_(lateral.weight)
        nn.init.zeros_(lateral.bias)
    for smooth in net.smooth:
        nn.init.dirac_(smooth.weight)
        nn.init.zeros_(smooth.bias)
    with torch.inference_mode():
        fine, middle, top = net.pyramid(x)
    assert torch.equal(middle, top.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(fine, middle.repeat_interleave(2, 2).repeat_interleave(2, 3))


# Whole networks


def small_net(**options: object) -> FpnNet:
    torch.manual_seed(0)
    return FpnNet(Tiny(16), 3, **{"channels": 16, **options})  # type: ignore[arg-type]


@settings(derandomize=True, max_examples=15, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), stride=st.sampled_from([8, 16]))
def test_logits_have_the_size_of_the_input(height: int, width: int, stride: int) -> None:
    net = FpnNet(Tiny(stride), 3, channels=8).eval()
    with torch.inference_mode():
        x = torch.rand(1, 3, height, width)
        assert net(x).shape == (1, 3, height, width)
        assert net.coarse(x).shape == (1, 3, -(-height // 4), -(-width // 4))


@pytest.mark.parametrize(
    ("name", "levels", "channels"),
    [
        ("mobilenet_v2", [(4, 24), (8, 32), (16, 1280)], 64),
        ("resnet101", [(4, 256), (8, 512), (16, 1024), (32, 2048)], 256),
        ("resnet50", [(4, 256), (8, 512), (16, 1024), (32, 2048)], 256),
        ("tiny", [(4, 48), (8, 96), (16, 192)], 64),
        ("vgg16", [(4, 256), (8, 512), (16, 512), (32, 512)], 256),
    ],
)
def test_every_backbone_at_its_natural_stride(
    name: str, levels: list[tuple[int, int]], channels: int
) -> None:
    with torch.device("meta"):
        net = FpnNet(BACKBONES[name](output_stride=BACKBONES[name].pyramid_stride), 5).eval()
        maps = net.pyramid(torch.empty(2, 3, 97, 161))
        coarse = net.coarse(torch.empty(2, 3, 97, 161))
        assert net(torch.empty(2, 3, 97, 161)).shape == (2, 5, 97, 161)
    assert [(level.stride, level.channels) for level in net.backbone.pyramid_levels()] == levels
    wanted = [(2, channels, -(-97 // stride), -(-161 // stride)) for stride, _ in levels]
    assert [tuple(level.shape) for level in maps] == wanted
    assert coarse.shape == (2, 5, 25, 41)
    assert net.coarse_stride == 4
    assert net.coarse_grid_stride == (None if name == "vgg16" else 4)
    assert net.channels == channels
    assert net.score.in_channels == channels // 2


@pytest.mark.parametrize("make", [lambda: Vgg16(32), lambda: ResNet101(32)])
def test_the_large_ones_run(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net = FpnNet(make(), 2).eval()
    with torch.inference_mode():
        for size in ((1, 1), (40, 33)):
            logits = net(torch.rand(1, 3, *size))
            assert logits.shape == (1, 2, *size)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("make", "size"), [(lambda: Tiny(16), (33, 49)), (lambda: Vgg16(32), (32, 64))]
)
def test_mirrored_photos_have_mirrored_logits(make, size) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net = mirror_symmetric(FpnNet(make(), 3, channels=16).eval())
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        logits = net(x)
        close = 1e-3 * float(logits.std())
        torch.testing.assert_close(net(x.flip(3)).flip(3), logits, atol=close, rtol=0)
    assert not torch.allclose(logits.flip(3), logits, atol=100 * close)


def test_position_i_of_the_scores_lies_on_pixel_4_i() -> None:
    net, x = small_net().eval(), torch.rand(1, 3, 33, 51)
    with torch.inference_mode():
        torch.testing.assert_close(net(x)[..., ::4, ::4], net.coarse(x), atol=1e-6, rtol=1e-4)


def test_scores_behind_pools_are_spread_from_edge_to_edge() -> None:
    net, x = given_net(32, 64, middles=True)
    with torch.inference_mode():
        expected = F.interpolate(net.coarse(x), (32, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(x), expected)


# Training


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = small_net()
    groups = {group["name"]: group["params"] for group in net.parameter_groups()}
    assert list(groups) == ["backbone", "head", "score", "score_bias"]
    held = [id(p) for params in groups.values() for p in params]  # type: ignore[attr-defined]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in net.parameters()}
    count = {name: len(params) for name, params in groups.items()}  # type: ignore[arg-type]
    # Three laterals and three smoothing layers with biases, and 1 + 1 + 2 steps of three tensors.
    assert count == {"backbone": 30, "head": 24, "score": 1, "score_bias": 1}


def test_gradients_reach_every_parameter() -> None:
    net = small_net()
    net(torch.rand(2, 3, 40, 40)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_scores_start_small_and_without_bias() -> None:
    net = small_net(channels=256)
    assert 0.008 < net.score.weight.std() < 0.012
    assert not net.score.bias.any()  # type: ignore[union-attr]
    assert not any(layer.bias.any() for layer in (*net.lateral, *net.smooth))  # type: ignore[operator, union-attr]


def test_it_learns_pictures_of_two_colours() -> None:
    """Noisy rectangles of one colour before another; also where they lie in new pictures."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.zeros(12, 48, 48, dtype=torch.long)
    for mask in labels:
        top, left = torch.randint(2, 24, (2,), generator=rng).tolist()
        mask[top : top + 22, left : left + 17] = 1
    colours = torch.tensor([[0.2, 0.5, 0.3], [0.8, 0.4, 0.3]])
    x = (colours[labels] + 0.1 * torch.randn(12, 48, 48, 3, generator=rng)).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    net = FpnNet(Tiny(16), 2)
    optimizer, losses = torch.optim.AdamW(net.parameters(), 3e-3), []
    for i in range(24):
        batch = slice(4 * (i % 2), 4 * (i % 2) + 4)
        loss = F.cross_entropy(net(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.35 * sum(losses[:4])
    with torch.inference_mode():
        found = net(x[8:]).argmax(1)  # batch norm of so few steps is best left in training
    shared, joined = (found & labels[8:]).sum(), (found | labels[8:]).sum()
    assert shared / joined > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_labels": 1}, "1 labels"),
        ({"channels": 0}, "0 channels; use a multiple of 8"),
        ({"channels": -8}, "-8 channels"),
        ({"channels": 12}, "12 channels"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FpnNet(**{"backbone": Tiny(16), "n_labels": 3, **change})  # type: ignore[arg-type]


def test_a_backbone_without_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="given gives no feature pyramid"):
        FpnNet(WithoutLevels(WIDTHS), 3)
