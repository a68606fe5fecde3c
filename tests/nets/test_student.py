from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tagseg.errors import ConfigError, ShapeError
from tagseg.nets.student import (
    STUDENTS,
    StudentNet,
    image_derivatives,
    image_hue,
    student_net,
)

TINY: dict[str, Any] = {"width": 4, "last": 2, "branch": 3, "rank": 5}


def tiny(seed: int = 0) -> StudentNet:
    torch.manual_seed(seed)
    return StudentNet(**TINY)


def layers(*modules: nn.Module) -> list[tuple[int, ...]]:
    """Weights' shapes of the convolutions, in order."""
    return [
        tuple(layer.weight.shape)
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    ]


def test_the_published_network_layer_for_layer() -> None:
    with torch.device("meta"):  # 78 million weights
        net = student_net("published")
    for branch, channels in ((net.rgb, 3), (net.gradient, 2), (net.hue, 1)):
        assert layers(branch) == [(256, channels, 3, 3), (256, 256, 5, 5)]
    assert layers(net.middle) == [(256, 768, 3, 3), (256, 256, 5, 5)]
    assert layers(net.deep) == [(256, 256, 3, 3), (256, 256, 5, 5), (64, 256, 5, 5)]
    assert isinstance(net.mask, nn.Linear)
    assert tuple(net.mask.weight.shape) == (1024, 64 * 32 * 32)
    assert len(layers(net)) == 11
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    assert len(pools) == 4, "one a branch, and one behind the middle"
    assert sum(isinstance(module, nn.ReLU) for module in net.modules()) == 11


def test_the_small_network_is_small() -> None:
    with torch.device("meta"):
        net = student_net("small")
    assert 2 * sum(p.numel() for p in net.parameters()) < 1.5e6, "bytes of its file"


@pytest.mark.parametrize("batch", [1, 3])
def test_a_mask_of_32_x_32(batch: int) -> None:
    out = tiny()(torch.rand(batch, 3, 128, 128))
    assert out.shape == (batch, 32, 32)
    assert out.dtype == torch.float32


def test_the_output_is_linear() -> None:
    """Neither clipped nor squashed: adding to the last layer's bias adds to the mask."""
    net, x = tiny(), torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before = net(x)
        net.mask[-1].bias += 3.0  # type: ignore[index,operator]
        torch.testing.assert_close(net(x), before + 3)


def test_rows_of_the_mask_are_rows_of_the_grid() -> None:
    net = tiny()
    with torch.no_grad():
        net.mask[-1].weight.zero_()  # type: ignore[index,operator]
        net.mask[-1].bias.copy_(torch.arange(1024.0))  # type: ignore[index,union-attr]
        out = net(torch.rand(1, 3, 128, 128))[0]
    assert out[0, :3].tolist() == [0, 1, 2]
    assert out[1, 0] == 32


def test_each_branch_sees_its_own() -> None:
    """What a branch is given changes with the photo's colours as it should."""
    seen: dict[str, torch.Tensor] = {}
    net = tiny()
    for name in ("rgb", "gradient", "hue"):
        getattr(net, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.__setitem__(name, args[0])
        )
    x = torch.rand(2, 3, 128, 128)
    net(x)
    torch.testing.assert_close(seen["rgb"], x)
    torch.testing.assert_close(seen["gradient"], image_derivatives(x))
    torch.testing.assert_close(seen["hue"], image_hue(x))


def test_derivatives_equal_the_loop() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 5, 7))
    got = image_derivatives(torch.from_numpy(image)[None])[0].numpy()
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    for y in range(5):
        for x in range(7):
            dx = grey[y, min(x + 1, 6)] - grey[y, max(x - 1, 0)]
            dy = grey[min(y + 1, 4), x] - grey[max(y - 1, 0), x]
            np.testing.assert_allclose(got[:, y, x], [dx / 2, dy / 2], atol=1e-12)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_hue_is_colorsys_hue(colour: tuple[int, int, int]) -> None:
    rgb = [value / 255 for value in colour]
    x = torch.tensor(rgb, dtype=torch.float64)[None, :, None, None]
    expected = colorsys.rgb_to_hsv(*rgb)[0]
    assert float(image_hue(x)) == pytest.approx(expected % 1, abs=1e-9)


def test_grey_has_no_hue_and_no_nan() -> None:
    for value in (0.0, 0.5, 1.0):
        assert (image_hue(torch.full((1, 3, 2, 2), value)) == 0).all()


def test_groups_hold_every_parameter_once() -> None:
    for net in (tiny(), StudentNet(2, 1)):
        groups = {group["name"]: group["params"] for group in net.parameter_groups()}
        assert list(groups) == ["convolutions", "mask", "bias"]
        held = [id(p) for params in groups.values() for p in params]
        assert sorted(held) == sorted(id(p) for p in net.parameters())
        assert len(groups["bias"]) == 1
        assert all(p.ndim == 2 for p in groups["mask"])
        assert sum(p.numel() for p in groups["bias"]) == 1024


def test_the_digest_follows_weights_and_configuration() -> None:
    net, same, other = tiny(), tiny(), tiny(1)
    assert net.digest == same.digest != other.digest
    with torch.no_grad():
        same.hue[0].bias[0] += 1e-3  # type: ignore[index,operator]
    assert net.digest != same.digest


def test_other_sizes_are_refused() -> None:
    for shape in ((1, 3, 128, 127), (1, 3, 160, 160), (1, 1, 128, 128), (3, 128, 128)):
        with pytest.raises(ShapeError, match="images have shape"):
            tiny()(torch.rand(*shape))


@pytest.mark.parametrize("name", sorted(TINY))
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        StudentNet(**TINY | {name: 0})


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no student 'smal'; did you mean small"):
        student_net("smal")  # type: ignore[arg-type]
    assert sorted(STUDENTS) == ["published", "small"]
