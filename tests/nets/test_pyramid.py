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
    upsampled,
)
from tagseg.errors import ConfigError
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.efficientnet_lite import EfficientNetLite0
from tagseg.nets.pyramid import PyramidNet
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16

WIDTHS, STRIDES = (2, 3, 4, 40), (2, 4, 8, 16)


def given_net(shape: tuple[int, int], middles: bool) -> PyramidNet:
    """A net of random weights and maps for a photo, in float64."""
    torch.manual_seed(0)
    backbone = GivenMaps(WIDTHS, finest=2, middles=middles)
    net = PyramidNet(backbone, 3, channels=64, finest=2).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    backbone.draw(*shape)
    return net


# By hand


def passed(x: Tensor, layers: nn.Module) -> Tensor:
    """Convolutions, norms of groups of 8 and ReLUs, in order: (C, h, w) -> (outputs, h, w)."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            x = convolved(x, layer)
        elif isinstance(layer, nn.GroupNorm):
            x = group_normed(x, layer, 8)
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
    return x


def context_by_hand(net: PyramidNet) -> Tensor:
    """Chen et al., 2017b, section 3.3: each view of the photo, and the photo's mean, by 1x1."""
    context, x = net.decoder.context, net.backbone.maps[-1][0]
    reduced = passed(x, context.reduce)
    views = [passed(reduced, branch) for branch in context.branches]
    mean = sum(x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2]))
    mean = convolved((mean / x[0].numel())[:, None, None], context.image).clamp(min=0)
    return passed(torch.cat([reduced, *views, mean.expand_as(reduced)]), context.project)


def scores_by_hand(net: PyramidNet, middles: bool) -> Tensor:
    x, skips = context_by_hand(net), [maps[0] for maps in net.backbone.maps]
    shapes = [(maps.shape[1], maps.shape[2]) for maps in skips]
    for k, step in zip((2, 1, 0), net.decoder.steps, strict=True):
        strides = STRIDES[k + 1], STRIDES[k]
        x = upsampled(x, shapes[k], bilinear_weights, strides, middles)
        x = passed(torch.cat([x, skips[k]]), step)
    direct = upsampled(
        convolved(skips[-1], net.direct), shapes[0], bilinear_weights, (16, 2), middles
    )
    return convolved(x, net.score) + direct


@pytest.mark.parametrize("middles", [False, True])
@pytest.mark.parametrize("shape", [(33, 17), (16, 32), (1, 1)])
def test_scores_are_those_written_out(shape: tuple[int, int], middles: bool) -> None:
    net = given_net(shape, middles)
    with torch.inference_mode():
        found = net.coarse(torch.zeros(1, 3, *shape, dtype=torch.float64))[0]
    torch.testing.assert_close(found, scores_by_hand(net, middles))


def test_scores_of_cells_are_spread_from_edge_to_edge() -> None:
    net, x = given_net((32, 16), True), torch.zeros(1, 3, 32, 16, dtype=torch.float64)
    with torch.inference_mode():
        expected = F.interpolate(net.coarse(x), (32, 16), mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("stride", "view_scale", "dilations"),
    [
        (16, 1.0, (6, 12, 18)),
        (32, 1.0, (3, 6, 9)),
        (8, 0.5, (6, 12, 18)),
        (32, 0.1, (1, 1, 1)),
    ],
)
def test_the_views_are_of_equal_pixels_at_every_stride(
    stride: int, view_scale: float, dilations: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        net = PyramidNet(EfficientNetLite0(stride), 3, view_scale=view_scale)
    assert net.decoder.context.dilations == dilations
    filters = [branch[0] for branch in net.decoder.context.branches]  # type: ignore[index]
    assert [layer.dilation for layer in filters] == [(d, d) for d in dilations]


# Whole networks


def small_net(**options: object) -> PyramidNet:
    torch.manual_seed(0)
    return PyramidNet(Tiny(16), 3, **{"channels": 32, **options})  # type: ignore[arg-type]


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stride=st.sampled_from([8, 16]),
    finest=st.sampled_from([2, 4]),
)
def test_logits_have_the_size_of_the_input(
    height: int, width: int, stride: int, finest: int
) -> None:
    net = PyramidNet(Tiny(stride), 3, channels=32, finest=finest).eval()
    with torch.inference_mode():
        x = torch.rand(1, 3, height, width)
        assert net(x).shape == (1, 3, height, width)
        assert net.coarse(x).shape == (1, 3, -(-height // finest), -(-width // finest))


@pytest.mark.parametrize("finest", [2, 4])
@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_backbone_at_its_natural_stride(name: str, finest: int) -> None:
    kind = BACKBONES[name]
    stride = 16 if name == "tiny" else 32
    with torch.device("meta"):
        net = PyramidNet(kind(output_stride=stride), 5, finest=finest).eval()
        coarse = net.coarse(torch.empty(2, 3, 97, 161))
        assert net(torch.empty(2, 3, 97, 161)).shape == (2, 5, 97, 161)
    assert coarse.shape == (2, 5, -(-97 // finest), -(-161 // finest))
    assert net.coarse_stride == finest
    assert net.coarse_grid_stride == (None if name == "vgg16" else finest)
    assert net.channels == (128 if name == "tiny" else 256)


def test_the_u_net_halves_its_channels_with_each_stride() -> None:
    with torch.device("meta"):
        net = PyramidNet(EfficientNetLite0(32), 5, channels=128, finest=2)
    widths = [step[1][0].out_channels for step in net.decoder.steps]  # type: ignore[index]
    assert widths == [64, 32, 32, 32]
    assert net.score.in_channels == 32
    skips = [step[0][0].in_channels for step in net.decoder.steps]  # type: ignore[index]
    assert skips == [128 + 112, 64 + 40, 32 + 24, 32 + 16]


def test_a_backbone_of_one_level_has_no_skips() -> None:
    torch.manual_seed(0)
    backbone = GivenMaps((5,), finest=4)
    backbone.draw(9, 17)
    net = PyramidNet(backbone, 3, channels=32).double().eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 9, 17, dtype=torch.float64)).shape == (1, 3, 9, 17)


def test_a_transformer_has_a_simple_pyramid() -> None:
    pytest.importorskip("transformers", reason="pip install tagseg[foundation]")
    from tagseg.nets.hugging_face import HuggingFaceVit

    config = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 5,
        "num_attention_heads": 2, "mlp_ratio": 1, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    net = PyramidNet(HuggingFaceVit(16, config=config), 3, channels=32, finest=2).eval()
    with torch.inference_mode():
        for size in ((32, 48), (40, 57)):
            x = torch.rand(1, 3, *size)
            assert [tuple(m.shape) for m in net.backbone.pyramid(x, 2)] == [
                (1, 16, -(-size[0] // s), -(-size[1] // s)) for s in (2, 4, 8, 16)
            ]
            assert net(x).shape == (1, 3, *size)
    assert net.coarse_grid_stride is None


@pytest.mark.parametrize(
    ("make", "size"),
    [(lambda: Tiny(16), (33, 49)), (lambda: Vgg16(32), (32, 64))],
    ids=["tiny", "vgg16"],
)
def test_mirrored_photos_have_mirrored_logits(make, size) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net = mirror_symmetric(PyramidNet(make(), 3, channels=32, finest=2).eval())
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        logits = net(x)
        close = 2e-3 * float(logits.std())
        torch.testing.assert_close(net(x.flip(3)).flip(3), logits, atol=close, rtol=0)
    assert not torch.allclose(logits.flip(3), logits, atol=50 * close)


@pytest.mark.parametrize("finest", [2, 4])
def test_position_i_of_the_scores_lies_on_pixel_stride_times_i(finest: int) -> None:
    net, x = small_net(finest=finest).eval(), torch.rand(1, 3, 33, 51)
    with torch.inference_mode():
        places = net(x)[..., ::finest, ::finest]
        torch.testing.assert_close(places, net.coarse(x), atol=1e-6, rtol=1e-4)


# Training


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = small_net()
    groups = {group["name"]: group["params"] for group in net.parameter_groups()}
    assert list(groups) == ["backbone", "head", "score", "score_bias"]
    held = [id(p) for params in groups.values() for p in params]  # type: ignore[attr-defined]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in net.parameters()}
    assert len(groups["backbone"]) == 30  # type: ignore[arg-type]


def test_gradients_reach_every_parameter() -> None:
    net = small_net()
    net(torch.rand(2, 3, 40, 40)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_photos_in_a_batch_do_not_meet_in_training() -> None:
    """But in the backbone's batch norms: the decoder's norms are of groups of channels."""
    net = small_net()
    net.backbone.eval()
    x = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        alone = torch.cat([net(photo[None]) for photo in x])
        torch.testing.assert_close(net(x), alone, atol=1e-5, rtol=1e-4)


def test_the_scores_start_small_and_without_bias() -> None:
    net = small_net(channels=256)  # 64 of which are scored
    assert 0.05 < net.score.weight.std() < 0.075
    assert not net.score.bias.any()  # type: ignore[union-attr]


def test_it_learns_thin_lines() -> None:
    """Lines of 2 pixels on noise, which maps of stride 16 cannot show; also in new pictures."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.zeros(12, 32, 32, dtype=torch.long)
    for mask in labels:
        row, column = torch.randint(4, 26, (2,), generator=rng).tolist()
        mask[row : row + 2] = 1
        mask[:, column : column + 2] = 1
    colours = torch.tensor([[0.2, 0.5, 0.3], [0.8, 0.4, 0.3]])
    x = (colours[labels] + 0.1 * torch.randn(12, 32, 32, 3, generator=rng)).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    net = PyramidNet(Tiny(16), 2, channels=32, finest=2)
    rates = {"backbone": 3e-3, "head": 3e-3, "score": 3e-2, "score_bias": 3e-2}
    optimizer = torch.optim.AdamW(
        {"params": group["params"], "lr": rates[str(group["name"])]}
        for group in net.parameter_groups()
    )
    for i in range(35):
        batch = slice(4 * (i % 2), 4 * (i % 2) + 4)
        loss = F.cross_entropy(net(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        found = net(x[8:]).argmax(1)  # batch norm of so few steps is best left in training
    shared, joined = (found & labels[8:]).sum(), (found | labels[8:]).sum()
    assert shared / joined > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_labels": 1}, "1 labels"),
        ({"channels": 16}, "16 channels; use 32, 64, 128 and so on"),
        ({"channels": 96}, "96 channels"),
        ({"channels": -32}, "-32 channels"),
        ({"finest": 8}, "a pyramid from stride 8; use 2 or 4"),
        ({"view_scale": 0.0}, "a view scale of 0"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PyramidNet(**{"backbone": Tiny(16), "n_labels": 3, **change})  # type: ignore[arg-type]


def test_a_backbone_without_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="given gives no feature pyramid"):
        PyramidNet(WithoutLevels(WIDTHS), 3)
