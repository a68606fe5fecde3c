"""Depthwise convolutions: what nn.functional gives, and its gradients, by float64 loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tagseg.nets import depthwise
from tagseg.nets.depthwise import DepthwiseConv2d, convolve, is_dilated_depthwise
from tagseg.nets.same_padding import SameConv2d

FORMS = st.fixed_dictionaries(
    {
        "kernel": st.sampled_from([1, 3, 5, 7]),
        "stride": st.sampled_from([1, 2, 3]),
        "dilation": st.integers(1, 3),
        "batch": st.integers(1, 3),
        "channels": st.sampled_from([1, 3, 64, 65, 130]),
        "height": st.integers(1, 9),
        "width": st.integers(1, 9),
        "padding": st.integers(0, 5),
    }
)

POINTS = dict.fromkeys(("kernel", "stride"), 1) | {
    "dilation": 2,
    "batch": 2,
    "channels": 64,
    "height": 9,
    "width": 9,
    "padding": 0,
}  # kernels of 1x1, in which a dilation says nothing


def loops(x: np.ndarray, kernels: np.ndarray, stride: int, padding: int, dilation: int):
    """Position by position, with the gradients of the sum of products with ``slopes``."""
    height, width = x.shape[2:]
    reach = dilation * (kernels.shape[2] - 1)
    rows = range((height + 2 * padding - reach - 1) // stride + 1)
    columns = range((width + 2 * padding - reach - 1) // stride + 1)
    for i, j in itertools.product(rows, columns):
        for u, v in itertools.product(range(kernels.shape[2]), repeat=2):
            y, z = i * stride + u * dilation - padding, j * stride + v * dilation - padding
            if 0 <= y < height and 0 <= z < width:
                yield (i, j), (u, v), (y, z)


@given(form=FORMS, seed=st.integers(0, 99), last=st.booleans())
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_loops_in_float64(form: dict, seed: int, last: bool):
    kernel, stride, dilation = form["kernel"], form["stride"], form["dilation"]
    reach = dilation * (kernel - 1)
    padding = min(form["padding"], reach)
    height = max(form["height"], reach + 1 - 2 * padding)
    width = max(form["width"], reach + 1 - 2 * padding)
    generator = torch.Generator().manual_seed(seed)
    shape = (form["batch"], form["channels"], height, width)
    x = torch.randn(shape, generator=generator)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight = torch.randn((form["channels"], 1, kernel, kernel), generator=generator)
    weight.requires_grad_()
    bias = torch.randn(form["channels"], generator=generator, requires_grad=True)
    sides = [(side, side) for side in (stride, padding, dilation)]
    y = convolve(x, weight, bias, *sides, form["channels"])
    slopes = torch.randn(y.shape, generator=generator)
    (y * slopes).sum().backward()

    exact = [array.detach().double().numpy() for array in (x, weight, slopes)]
    seen, kernels, given_ = exact
    expected = np.zeros(y.shape) + bias.detach().double().numpy()[:, None, None]
    of_x, of_weight = np.zeros(shape), np.zeros(weight.shape)
    for (i, j), (u, v), (a, b) in loops(seen, kernels, stride, padding, dilation):
        expected[:, :, i, j] += seen[:, :, a, b] * kernels[:, 0, u, v]
        of_x[:, :, a, b] += given_[:, :, i, j] * kernels[:, 0, u, v]
        of_weight[:, 0, u, v] += (given_[:, :, i, j] * seen[:, :, a, b]).sum(0)
    for found, wanted in ((y, expected), (x.grad, of_x), (weight.grad, of_weight)):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(bias.grad.numpy(), given_.sum((0, 2, 3)), rtol=1e-5, atol=1e-4)


def of_own(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the gradients of kernels that come from here."""
    seen: list[int] = []
    real = depthwise._of_weight

    def counted(*args: Tensor) -> Tensor:
        seen.append(1)
        return real(*args)

    monkeypatch.setattr(depthwise, "_of_weight", counted)
    return seen


@pytest.mark.parametrize(
    "layer", [DepthwiseConv2d(8, 8, 5, padding=2, groups=8), SameConv2d(8, 8, 5, 2, groups=8)]
)
def test_gradients_of_large_kernels_are_our_own(layer: nn.Conv2d, monkeypatch: pytest.MonkeyPatch):
    seen = of_own(monkeypatch)
    layer(torch.randn(2, 8, 6, 6)).sum().backward()
    assert seen == [1]


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (DepthwiseConv2d(8, 8, 3, padding=1, groups=8), torch.randn(2, 8, 6, 6)),
        (DepthwiseConv2d(8, 8, 5, padding=2, groups=4), torch.randn(2, 8, 6, 6)),
        (DepthwiseConv2d(8, 8, (5, 3), groups=8), torch.randn(2, 8, 6, 6)),
        (DepthwiseConv2d(8, 8, 5, groups=8).double(), torch.randn(2, 8, 6, 6).double()),
        (DepthwiseConv2d(8, 8, 5, padding=9, groups=8), torch.randn(2, 8, 6, 6)),
        (DepthwiseConv2d(8, 8, 4, padding=2, groups=8), torch.randn(2, 8, 6, 6)),
    ],
    ids=["small", "groups", "oblong", "float64", "padding", "even"],
)
def test_others_are_pytorchs(layer: nn.Conv2d, x: Tensor, monkeypatch: pytest.MonkeyPatch):
    seen = of_own(monkeypatch)
    plain = functional.conv2d(
        x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    y = layer(x)
    assert torch.equal(y, plain)
    y.sum().backward()
    assert seen == []


@example(form=POINTS, wide=True, seed=0)
@given(form=FORMS, wide=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_gradients_in_bfloat16_are_those_of_float64(form: dict, wide: bool, seed: int):
    """Of maps as wide as those of which oneDNN's are wrong, too: 29 positions or more."""
    kernel, stride, dilation = form["kernel"], form["stride"], form["dilation"]
    reach = dilation * (kernel - 1)
    padding = min(form["padding"], reach)
    sizes = [30 * wide + form[side] for side in ("height", "width")]
    sizes = [max(size, reach + 1 - 2 * padding) for size in sizes]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((form["batch"], form["channels"], *sizes), generator=generator).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn((form["channels"], 1, kernel, kernel), generator=generator).bfloat16()
    weight.requires_grad_()
    sides = [(side, side) for side in (stride, padding, dilation)]
    y = convolve(x, weight, None, *sides, form["channels"])
    slopes = torch.randn(y.shape, generator=generator).bfloat16()
    found = (y, *torch.autograd.grad(y, (x, weight), slopes))

    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    expected = functional.conv2d(*exact, None, *sides, form["channels"])
    gradients = torch.autograd.grad(expected, exact, slopes.double())
    for ours, right in zip(found, (expected, *gradients), strict=True):
        assert ours.dtype == torch.bfloat16
        error = (ours.detach().double() - right.detach()).abs().max()
        assert error <= 0.02 * right.abs().max() + 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        DepthwiseConv2d(96, 96, 3, padding=2, dilation=2, groups=96),
        DepthwiseConv2d(96, 96, 5, padding=4, dilation=2, groups=96),
        SameConv2d(96, 96, 5, 2, groups=96),
        nn.Conv2d(16, 24, 3, padding=12, dilation=12),
        nn.Conv2d(16, 24, 3, padding=2, dilation=2),
    ],
    ids=["3x3", "5x5", "same", "wide", "dense"],
)
def test_a_training_in_bfloat16_has_the_gradients_of_float32(layer: nn.Conv2d):
    """Folded into autocast as in a training; dense ones, which are oneDNN's, are right, too."""
    layer = layer.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, layer.in_channels, 33, 40), generator=generator)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if low else torch.float32)
        found.append(torch.autograd.grad(y.float().square().sum(), (x, layer.weight, layer.bias)))
    for right, ours in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).abs().max() <= 0.03 * right.abs().max()


@pytest.mark.parametrize(
    ("layer", "is_one"),
    [
        (DepthwiseConv2d(8, 8, 3, dilation=2, groups=8), True),
        (DepthwiseConv2d(8, 8, 3, groups=8), False),
        (nn.Conv2d(8, 8, 3, dilation=2), False),
        (nn.ReLU(), False),
    ],
)
def test_dilated_depthwise_layers_are_told(layer: nn.Module, is_one: bool):
    assert is_dilated_depthwise(layer) == is_one


def test_nothing_is_kept_where_no_gradient_is_wanted():
    layer = DepthwiseConv2d(8, 8, 5, padding=2, groups=8).requires_grad_(False)
    assert layer(torch.randn(2, 8, 6, 6)).grad_fn is None
    with torch.no_grad():
        assert layer.requires_grad_()(torch.randn(2, 8, 6, 6)).grad_fn is None


def test_frozen_kernels_pass_gradients_on(monkeypatch: pytest.MonkeyPatch):
    seen = of_own(monkeypatch)
    layer = DepthwiseConv2d(8, 8, 5, padding=2, groups=8).requires_grad_(False)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert seen == []


def test_threads_change_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 200, 7, 9), generator=generator)
    weight = torch.randn((200, 1, 5, 5), generator=generator, requires_grad=True)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            y = convolve(x, weight, None, (1, 1), (2, 2), (1, 1), 200)
            found.append(torch.autograd.grad(y.square().sum(), weight)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
