"""Every operation against autograd, where a guided ReLU is an ``autograd.Function`` of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.localize import backward_rules
from tagseg.localize.backprop import ClassSaliency


class Net(nn.Module):
    """Class maps by any function of the photo and this module's layers."""

    def __init__(self, maps: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._maps = maps

    def class_maps(self, x: Tensor) -> Tensor:
        return self._maps(self, x)


class GuidedFunction(torch.autograd.Function):
    """Springenberg et al., 2015: a gradient passes where activation and gradient are positive."""

    @staticmethod
    def forward(ctx, x, low, high):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return gradient * (gradient > 0) * (x > ctx.low) * (x < ctx.high), None, None


class GuidedLayer(nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return GuidedFunction.apply(x, self.low, self.high)


def with_guided_relus(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Hardtanh):  # ReLU6 is one
                setattr(parent, name, GuidedLayer(child.min_val, child.max_val))
            elif isinstance(child, nn.ReLU):
                setattr(parent, name, GuidedLayer(0, torch.inf))
    return net


def reference(
    net: nn.Module, x: Tensor, classes: Tensor, method: str, layers: tuple[str, ...] = ("input",)
) -> dict[str, Tensor]:
    """Gradients by autograd, a class and a photo at a time."""
    net = with_guided_relus(net) if method == "guided" else net
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            outputs[name] = output
            return output + 0  # a copy, so that nothing is written over in place behind the layer

        return hook

    modules = {name: module for name, module in net.named_modules() if name in layers}
    hooks = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    outputs["input"] = x.clone().requires_grad_()
    with torch.enable_grad():
        maps = net.class_maps(outputs["input"] + 0)  # type: ignore[operator]
    found: dict[str, list[list[Tensor]]] = {name: [] for name in layers}
    for photo, row in enumerate(classes.tolist()):
        scores = [maps[photo, k].sum() for k in row]
        wanted = [outputs[name] for name in layers]
        parts = [torch.autograd.grad(score, wanted, retain_graph=True) for score in scores]
        for name, column in zip(layers, zip(*parts, strict=True), strict=True):
            found[name].append([part[photo] for part in column])
    for hook in hooks:
        hook.remove()
    return {name: torch.stack([torch.stack(row) for row in rows]) for name, rows in found.items()}


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.abs().max() > 0  # or else anything would do
    return float((found - expected).abs().max() / expected.abs().max())


CLASSES = torch.tensor([[0, 2, 1], [2, 0, 0]])


def check(net: nn.Module, x: Tensor, *, layers: tuple[str, ...] = ("input",)) -> None:
    """Plain and guided, in double and in single precision."""
    net = net.eval()
    for method in ("plain", "guided"):
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            typed, photos = copy.deepcopy(net).to(dtype), x.to(dtype)
            expected = reference(typed, photos, CLASSES, method, layers)
            record = ClassSaliency(typed, method, layers).forward(photos)  # type: ignore[arg-type]
            torch.testing.assert_close(record.class_maps, typed.class_maps(photos))
            found = record.gradients(CLASSES)
            assert set(found) == set(layers)
            for name in layers:
                assert found[name].dtype == dtype
                assert relative_error(found[name], expected[name]) <= tolerance, (method, name)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(height: int = 13, width: int = 18) -> Tensor:
    """Two photos, with borders that are not symmetric."""
    return torch.rand(2, 3, height, width)


def between(layer: nn.Module, *, channels: int = 6, after: int = 6, relu: nn.Module | None = None):
    """``layer`` between two convolutions with a ReLU after each."""
    relu = relu or nn.ReLU()
    return Net(
        lambda net, x: net.last(net.relu2(net.layer(net.relu1(net.first(x))))),
        first=nn.Conv2d(3, channels, 3, padding=1),
        relu1=relu,
        layer=layer,
        relu2=copy.deepcopy(relu),
        last=nn.Conv2d(after, 3, 1),
    )


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "1x1": lambda: nn.Conv2d(6, 6, 1),
    "3x3": lambda: nn.Conv2d(6, 6, 3, padding=1),
    "no padding": lambda: nn.Conv2d(6, 6, 3),
    "much padding": lambda: nn.Conv2d(6, 6, 3, padding=4),
    "not square": lambda: nn.Conv2d(6, 6, (1, 5), padding=(0, 1), dilation=(1, 2)),
    "even kernel": lambda: nn.Conv2d(6, 6, 4, padding=1),
    "stride 2": lambda: nn.Conv2d(6, 6, 3, 2, 1),
    "stride 2 and 3": lambda: nn.Conv2d(6, 6, 3, (2, 3), 1),
    "stride over kernel": lambda: nn.Conv2d(6, 6, 1, 2),
    "dilation": lambda: nn.Conv2d(6, 6, 3, padding=2, dilation=2),
    "dilation, stride 2": lambda: nn.Conv2d(6, 6, 3, 2, padding=3, dilation=3),
    "groups": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "depthwise, dilation": lambda: nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6),
    "depthwise, stride 2": lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
    "depthwise, no bias": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
    "padding same": lambda: nn.Conv2d(6, 6, 5, padding="same"),
    "padding replicate": lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate"),
    "transposed": lambda: nn.ConvTranspose2d(6, 6, 3, 2, 1, output_padding=1),
    "transposed, stride 1": lambda: nn.ConvTranspose2d(6, 6, 3, 1, 1),
    "transposed, groups": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=3),
    "7x7": lambda: nn.Conv2d(6, 6, 7, padding=3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    net = between(CONVOLUTIONS[name]())
    check(net, pictures(), layers=("input", "first", "layer", "relu1"))


def test_depthwise_that_multiplies_channels() -> None:
    check(between(nn.Conv2d(6, 12, 3, padding=1, groups=6), after=12), pictures())


def test_one_channel() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.constant_(layer.weight, 0.3)
    net = between(layer, channels=1, after=1)
    nn.init.constant_(net.first.weight, 0.3)
    nn.init.ones_(net.last.weight)
    check(net, pictures())


@pytest.mark.parametrize("padding", [0, 1, 3, 5])
def test_large_kernels_go_through_a_matrix(monkeypatch: pytest.MonkeyPatch, padding: int) -> None:
    monkeypatch.setattr(backward_rules, "_LARGE", 100)
    used = []
    through = backward_rules._Geometry._through_matrix

    def noted(self, *args):  # type: ignore[no-untyped-def]
        used.append(args)
        return through(self, *args)

    monkeypatch.setattr(backward_rules._Geometry, "_through_matrix", noted)
    check(between(nn.Conv2d(6, 6, 7, padding=padding)), pictures())
    assert used


def test_a_kernel_that_is_large_for_one_photo_is_not_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backward_rules, "_LARGE", 100)
    monkeypatch.setattr(backward_rules, "_SMALL_MAP", 200)
    net = between(nn.Conv2d(6, 6, 7, padding=3)).eval()
    saliency = ClassSaliency(net, "guided")
    for side in (8, 20, 8):
        x = pictures(side, side)
        found = saliency.forward(x).gradients(CLASSES)["input"]
        expected = reference(net, x, CLASSES, "guided")["input"]
        assert relative_error(found, expected) <= 1e-5


# Elementwise


@pytest.mark.parametrize(
    "relu",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.ReLU6(inplace=True),
        nn.Hardtanh(0.0, 1.0),
        nn.Hardtanh(-0.5, 1.0),
        nn.Hardtanh(0.1, 0.4, inplace=True),
    ],
    ids=repr,
)
def test_relus(relu: nn.Module) -> None:
    net = between(nn.Conv2d(6, 6, 3, padding=1), relu=relu)
    nn.init.normal_(net.first.weight, std=2)  # so that some are above 6
    check(net, pictures(), layers=("input", "first", "relu1", "layer", "relu2"))


def test_relu6_at_its_kinks() -> None:
    """At 0 and at 6 exactly the derivative is 0, as in PyTorch."""
    values = torch.tensor([-1.0, 0.0, 0.5, 5.5, 6.0, 7.0])
    x = values.expand(2, 3, 4, 6).clone()
    net = Net(
        lambda net, x: net.last(net.relu(x)), relu=nn.ReLU6(), last=nn.Conv2d(3, 3, 1, bias=False)
    )
    nn.init.ones_(net.last.weight)
    for method in ("plain", "guided"):
        found = ClassSaliency(net.eval(), method).forward(x).gradients([0])["input"]
        assert found[0, 0, 0, 0].tolist() == [0, 0, 1, 1, 0, 0]
    check(net, x)


@pytest.mark.parametrize("inplace", [False, True])
def test_batch_norm(inplace: bool) -> None:
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, -1.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.2, 2.0)
    net = between(norm, relu=nn.ReLU(inplace))
    check(net, pictures(), layers=("input", "first", "relu1", "layer", "relu2"))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(6, affine=False), nn.GroupNorm(2, 6), nn.InstanceNorm2d(6)], ids=repr
)
def test_other_norms(norm: nn.Module) -> None:
    check(between(norm), pictures())


def test_residuals() -> None:
    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.relu1(net.first(x))
        y = x + net.second(x)
        y = net.relu2(y)
        return net.last(y + x)

    net = Net(
        maps,
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        second=nn.Conv2d(6, 6, 3, padding=1),
        relu2=nn.ReLU(),
        last=nn.Conv2d(6, 3, 1),
    )
    check(net, pictures(), layers=("input", "relu1", "second", "relu2"))


def test_residuals_in_place() -> None:
    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.pool(net.relu1(net.first(x)))
        y = net.second(x)
        y += x
        y = net.relu2(y)
        z = net.third(y)
        z += z
        return net.last(z)

    net = Net(
        maps,
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        second=nn.Conv2d(6, 6, 3, padding=1),
        relu2=nn.ReLU(inplace=True),
        third=nn.Conv2d(6, 6, 3, padding=1),
        last=nn.Conv2d(6, 3, 1),
    )
    check(net, pictures(), layers=("input", "relu1", "pool", "second", "relu2", "third"))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.ReLU6()], ids=repr)
def test_outputs_that_are_written_over_in_place(pool: nn.Module) -> None:
    """As PyTorch allows after a pool and a ReLU6, which keep their inputs."""

    def maps(net: Net, x: Tensor) -> Tensor:
        y = net.pool(net.first(x))
        y += 0.25
        y *= 2
        return net.last(net.relu(y))

    net = Net(
        maps,
        first=nn.Conv2d(3, 6, 3, padding=1),
        pool=pool,
        relu=nn.ReLU(inplace=True),
        last=nn.Conv2d(6, 3, 1),
    )
    nn.init.normal_(net.first.weight, std=2)
    check(net, pictures(), layers=("input", "first"))


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "plus a number": lambda x: x + 0.5,
    "minus a number": lambda x: x - 0.05,
    "a number minus": lambda x: 0.5 - x,
    "plus a tensor": lambda x: x + torch.linspace(0, 1, x.numel(), dtype=x.dtype).view_as(x),
    "plus itself": lambda x: x + x,
    "plus a row": lambda x: x + x.mean((2, 3), keepdim=True),
    "add with alpha": lambda x: x.clone().add_(x, alpha=-0.5),
    "times itself": lambda x: x * x,
    "divided": lambda x: x / 3,
    "sigmoid": torch.sigmoid,
    "hard swish": F.hardswish,
    "leaky": lambda x: F.leaky_relu(x - 0.2),
    "where": lambda x: torch.where(x > 0.3, 2 * x, x),
    "times a mask": lambda x: x * (x > 0.3),
    "softmax": lambda x: x.softmax(1),
    "maximum of channels": lambda x: x + x.amax(1, keepdim=True),
    "scaled by its maximum": lambda x: x / x.amax((1, 2, 3), keepdim=True),
    "in place": lambda x: x.clone().sub_(0.1).mul_(2).div_(3),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    work = ELEMENTWISE[name]
    net = Net(
        lambda net, x: net.last(net.relu2(net.second(work(net.relu1(net.first(x)))))),
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        second=nn.Conv2d(6, 6, 3),
        relu2=nn.ReLU(),
        last=nn.Conv2d(6, 3, 1),
    )
    check(net, pictures())


def test_numbers_that_are_made_of_maps() -> None:
    net = Net(lambda net, x: net.first(x) / net.first(x).max(), first=nn.Conv2d(3, 3, 3)).eval()
    x, classes = pictures()[:1], CLASSES[:1]
    found = ClassSaliency(net, "plain").forward(x).gradients(classes)["input"]
    assert relative_error(found, reference(net, x, classes, "plain")["input"]) <= 1e-5


# Pools


@pytest.mark.parametrize("size", [(13, 18), (12, 18), (7, 5)])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, ceil_mode=True),
        nn.MaxPool2d((2, 3)),
        nn.MaxPool2d((3, 1), ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 1, 1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, 3),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.AdaptiveMaxPool2d((3, 2)),
    ],
    ids=repr,
)
def test_pools(pool: nn.Module, size: tuple[int, int]) -> None:
    check(between(pool), pictures(*size), layers=("input", "relu1", "layer"))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1)], ids=repr)
def test_the_first_of_equal_maxima_counts(pool: nn.Module) -> None:
    net = between(pool)
    nn.init.zeros_(net.first.weight)
    nn.init.constant_(net.first.bias, 0.5)  # everything is equal
    net.first.weight.data[:, :, 1, 1] = 0.25
    x = torch.randint(0, 2, (2, 3, 9, 7)).float()
    check(net, x, layers=("input", "first", "relu1", "layer"))


def test_pools_on_two_threads() -> None:
    net = between(nn.MaxPool2d(2, ceil_mode=True)).eval()
    x = pictures(3, 21)
    alone = ClassSaliency(net, "guided").forward(x).gradients(CLASSES)["input"]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # more than rows of the pool
        both = ClassSaliency(net, "guided").forward(x).gradients(CLASSES)["input"]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_unpooling(kernel: int, stride: int) -> None:
    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.relu1(net.first(x))
        pooled, places = net.pool(x)
        pooled = net.relu2(net.inner(pooled))
        return net.last(net.unpool(pooled, places, output_size=x.shape[2:]))

    net = Net(
        maps,
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        pool=nn.MaxPool2d(kernel, stride, return_indices=True),
        inner=nn.Conv2d(6, 6, 3, padding=1),
        relu2=nn.ReLU(),
        unpool=nn.MaxUnpool2d(kernel, stride),
        last=nn.Conv2d(6, 3, 3, padding=1),
    )
    check(net, pictures(13, 18), layers=("input", "relu1", "inner", "relu2", "unpool"))


# What moves values


ROUTING: dict[str, Callable[[Tensor], Tensor]] = {
    "cat": lambda x: torch.cat([x, 2 * x, x[:, :2]], 1),
    "cat with a constant": lambda x: torch.cat([torch.ones_like(x[:, :1]), x], 1),
    "cat of one": lambda x: torch.cat([x]),
    "stack": lambda x: torch.stack([x, 3 * x], 2).flatten(1, 2),
    "slices": lambda x: x[:, 1:5, ::2, 3:-2],
    "a channel": lambda x: x[:, 2].unsqueeze(1) * 2,
    "everything": lambda x: x[...],
    "index": lambda x: x[:, [0, 2, 2]],
    "zeros": lambda x: F.pad(x, (1, 2, 3, 0)),
    "a constant": lambda x: F.pad(x, (1, 2, 3, 0), value=0.7),
    "replicate": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "shift by padding": lambda x: F.pad(x, (1, -1)),
    "transpose": lambda x: x.transpose(2, 3),
    "flip": lambda x: x.flip(3),
    "roll": lambda x: x.roll(1, 3),
    "view": lambda x: x.reshape(len(x), -1).view(x.shape),
    "shuffle": lambda x: x.view(len(x), 2, 3, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1),
    "bilinear": lambda x: F.interpolate(x, (17, 9), mode="bilinear", align_corners=False),
    "aligned": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bicubic": lambda x: F.interpolate(x, (17, 9), mode="bicubic"),
    "pixel shuffle": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "dropout": lambda x: F.dropout(x, training=False),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum((2, 3), keepdim=True),
    "matrix product": lambda x: (
        x @ torch.linspace(-1, 1, x.shape[3] * 4, dtype=x.dtype).view(-1, 4)
    ),
}


@pytest.mark.parametrize("name", ROUTING)
def test_what_moves_values(name: str) -> None:
    work = ROUTING[name]
    x = pictures(12, 12)
    channels = work(torch.ones(2, 6, 12, 12)).shape[1]
    net = Net(
        lambda net, x: net.last(net.relu2(net.norm(work(net.relu1(net.first(x)))))),
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        norm=nn.BatchNorm2d(channels),
        relu2=nn.ReLU(inplace=True),
        last=nn.Conv2d(channels, 3, 3, padding=1),
    )
    check(net, x, layers=("input", "relu1", "norm"))


def test_linear_after_mean() -> None:
    net = Net(
        lambda net, x: net.scores(net.norm(net.relu(net.first(x)).mean((2, 3))))[..., None, None],
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu=nn.ReLU(),
        norm=nn.BatchNorm1d(6),
        scores=nn.Linear(6, 3),
    )
    check(net, pictures(), layers=("input", "first", "relu", "norm"))


def test_linear_at_every_position() -> None:
    net = Net(
        lambda net, x: net.scores(net.relu(net.first(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu=nn.ReLU(),
        scores=nn.Linear(6, 3, bias=False),
    )
    check(net, pictures(), layers=("input", "first", "relu"))


def test_a_relu_with_two_ways_on_is_cut_after_they_meet() -> None:
    """Guided: only the sum of both gradients is cut at 0, though convolutions could cut each."""

    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.relu(net.first(x))
        pooled = net.pool(x)
        return net.left(pooled) + net.right(x)[:, :, ::2, ::2]

    net = Net(
        maps,
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        left=nn.Conv2d(6, 3, 3, padding=1),
        right=nn.Conv2d(6, 3, 3, padding=1),
    )
    check(net, pictures(12, 18), layers=("input",))
    check(net, pictures(12, 18), layers=("input", "pool", "relu"))


def test_layers_between_relu_and_convolution_keep_negative_gradients() -> None:
    """Guided: what is asked for behind a ReLU is not cut yet."""
    net = between(nn.Conv2d(6, 6, 3)).eval()
    found = ClassSaliency(net, "guided", ("relu1", "relu2")).forward(pictures())
    for gradient in found.gradients(CLASSES).values():
        assert gradient.min() < 0


SEVERAL: dict[str, Callable[[Tensor], Tensor]] = {
    "chunk": lambda x: x.chunk(2, 1)[1],
    "both chunks": lambda x: torch.mul(*x.chunk(2, 1)),
    "unbind": lambda x: x.unbind(1)[2].unsqueeze(1),
    "split": lambda x: x.split([1, 2, 3], 1)[1],
    "the first is not used": lambda x: torch.var_mean(x, (2, 3), keepdim=True)[1],
    "both are used": lambda x: torch.add(*torch.var_mean(x, (2, 3), keepdim=True)),
    "values and places": lambda x: x.max(1, keepdim=True)[0],
    "sorted": lambda x: x.sort(1)[0],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_outputs(name: str) -> None:
    work = SEVERAL[name]
    channels = work(torch.ones(2, 6, 12, 12)).shape[1]
    net = Net(
        lambda net, x: net.last(net.relu2(net.second(work(net.relu1(net.first(x)) + 0)))),
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        second=nn.Conv2d(channels, 6, 1),
        relu2=nn.ReLU(),
        last=nn.Conv2d(6, 3, 1),
    )
    nn.init.uniform_(net.second.weight, 0.1, 1)
    nn.init.constant_(net.first.bias, 0.5)  # or else a channel may be dead
    check(net, pictures(), layers=("input", "relu1"))


# Writes in place


def _second_half_from_the_first(x: Tensor) -> Tensor:
    x = x + 0
    x[:, 3:] = 2 * x[:, :3]
    return x


def _into_zeros(x: Tensor) -> Tensor:
    padded = torch.zeros(len(x), 6, x.shape[2] + 2, x.shape[3], dtype=x.dtype)
    padded[:, :, 1:-1] = x
    padded[:, 1] += 1
    return padded


def _shift_of_channels(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :2, :-1], out[:, 2:4, 1:], out[:, 4:] = x[:, :2, 1:], x[:, 2:4, :-1], x[:, 4:]
    return out


def _after_a_value_was_used(x: Tensor) -> Tensor:
    x = x + 0
    return x.mul_(x.sigmoid())


def _seen_from_the_whole(x: Tensor) -> Tensor:
    x = x + 0
    x.view(x.shape).mul_(3)
    return x


def _at_places(x: Tensor) -> Tensor:
    x = x + 0
    x[x > 0.3] = 0
    x[:, [0, 2]] = x[:, [1, 3]]
    return x


WRITES = [_second_half_from_the_first, _into_zeros, _shift_of_channels, _after_a_value_was_used]
WRITES += [_seen_from_the_whole, _at_places]


@pytest.mark.parametrize("work", WRITES)
def test_writes_in_place(work: Callable[[Tensor], Tensor]) -> None:
    net = Net(
        lambda net, x: net.last(net.relu2(net.second(work(net.relu1(net.first(x)))))),
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu1=nn.ReLU(),
        second=nn.Conv2d(6, 6, 3),
        relu2=nn.ReLU(),
        last=nn.Conv2d(6, 3, 1),
    )
    check(net, pictures(), layers=("input", "relu1", "second"))
    one = ClassSaliency(net, "plain").forward(pictures()[:1]).gradients([0])["input"]
    assert one.any()


def test_a_slice_of_what_was_written_over_is_refused() -> None:
    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.first(x) + 0
        half = x[:, :3]
        x[:, 1:4] = 2 * x[:, 3:]
        return net.last(half)

    net = Net(maps, first=nn.Conv2d(3, 6, 3), last=nn.Conv2d(3, 3, 1)).eval()
    with pytest.raises(ConfigError, match="written over in place by parts") as caught:
        ClassSaliency(net, "plain").forward(pictures())
    assert "\n" not in str(caught.value)


# ReLUs by other names


RELUS: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "clamp": (lambda x: x.clamp(min=0), nn.ReLU()),
    "clamp in place": (lambda x: x.clamp_(min=0), nn.ReLU()),
    "clamp to six": (lambda x: torch.clamp(x, 0, 6), nn.ReLU6()),
    "clamp_min": (lambda x: torch.clamp_min(x, 0.0), nn.ReLU()),
    "threshold": (lambda x: F.threshold(x, 0, 0), nn.ReLU()),
    "relu": (F.relu, nn.ReLU()),
    "relu6": (F.relu6, nn.ReLU6()),
}


@pytest.mark.parametrize("name", RELUS)
def test_functions_are_guided_as_modules_are(name: str) -> None:
    function, module = RELUS[name]

    class Function(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    torch.manual_seed(1)
    net = between(nn.Conv2d(6, 6, 3, padding=1), relu=module).eval()
    nn.init.normal_(net.first.weight, std=2)
    x = pictures()
    expected = reference(net, x, CLASSES, "guided", ("input", "layer"))
    excited = ClassSaliency(net, "excitation", ("relu1",)).forward(x).gradients(CLASSES)
    net.relu1, net.relu2 = Function().eval(), Function().eval()
    found = ClassSaliency(net, "guided", ("input", "layer")).forward(x).gradients(CLASSES)
    for layer, gradient in expected.items():
        assert relative_error(found[layer], gradient) <= 1e-5
    again = ClassSaliency(net, "excitation", ("relu1",)).forward(x).gradients(CLASSES)
    assert relative_error(again["relu1"], excited["relu1"]) <= 1e-6


@pytest.mark.parametrize("work", [lambda x: x.clamp(min=0.1), lambda x: F.threshold(x, 0, 0.5)])
def test_cuts_elsewhere_are_no_relus(work: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda net, x: work(net.first(x)), first=nn.Conv2d(3, 3, 1)).eval()
    with pytest.raises(ConfigError, match="guided back-propagation changes ReLUs"):
        ClassSaliency(net, "guided").forward(pictures())


# Excitation, written out as matrices


def dense(share: Tensor, x: Tensor, linear: Callable[[Tensor], Tensor]) -> Tensor:
    """P(a_j) = sum_i P(a_j | a_i) P(a_i), P(a_j | a_i) = Z_i a_j w_ij^+ (Zhang et al., Eq. 1 to 3).

    ``linear`` (N, C, H, W) -> (N, ...) has no bias; its weights below 0 are left out.
    """
    found = torch.zeros_like(x, dtype=torch.float64)
    units = torch.eye(x[0].numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    weights = linear(units).flatten(1).clamp(min=0)  # (j, i)
    for photo in range(len(x)):
        excitation = x[photo].double().clamp(min=0).flatten()
        probability = torch.zeros_like(excitation)
        for i, arrived in enumerate(share[photo].double().flatten().tolist()):
            brought_in = excitation * weights[:, i]
            if brought_in.sum() > 0:
                probability += arrived * brought_in / brought_in.sum()
        found[photo] = probability.view(x.shape[1:])
    return found


def start(maps: Tensor, classes: list[int]) -> Tensor:
    """The positive part of each photo's own class map, scaled to sum 1."""
    signal = torch.zeros_like(maps, dtype=torch.float64)
    for photo, k in enumerate(classes):
        positive = maps[photo, k].double().clamp(min=0)
        signal[photo, k] = positive / positive.sum()
    return signal


def check_excitation(net: Net, linear: Callable[[Tensor], Tensor], *, tolerance: float = 1e-5):
    """``net`` is made by :func:`between`; ``linear`` is its layer in double precision, no bias."""
    net, x = net.eval(), pictures(6, 7)
    nn.init.constant_(net.last.bias, 0.3)
    outputs: dict[str, Tensor] = {}
    for name in ("relu1", "relu2"):
        module = getattr(net, name)
        module.register_forward_hook(lambda m, a, out, name=name: outputs.update({name: out}))
    with torch.no_grad():
        maps = net.class_maps(x)
        last = net.last.weight.double()
        share = dense(start(maps, [1, 0]), outputs["relu2"], lambda x: F.conv2d(x, last))
        expected = dense(share, outputs["relu1"], linear)
    saliency = ClassSaliency(net, "excitation", ("relu1", "relu2"))
    found = saliency.forward(x).gradients([[1], [0]])
    assert relative_error(found["relu2"][:, 0].double(), share) <= tolerance
    assert relative_error(found["relu1"][:, 0].double(), expected) <= tolerance


def without_bias(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).double()
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    "name",
    ["1x1", "3x3", "no padding", "not square", "stride 2", "dilation", "groups", "depthwise"]
    + ["depthwise, stride 2", "transposed", "transposed, groups", "7x7"],
)
def test_excitation_of_convolutions(name: str) -> None:
    layer = CONVOLUTIONS[name]()
    check_excitation(between(layer), without_bias(layer))


def test_excitation_of_a_large_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_rules, "_LARGE", 100)
    layer = nn.Conv2d(6, 6, 7, padding=3)
    check_excitation(between(layer), without_bias(layer))


@pytest.mark.parametrize("name", ["3x3", "depthwise", "transposed, groups"])
def test_excitation_of_a_convolution_with_its_batch_norm(name: str) -> None:
    """They are one layer: a scale below 0 turns its weights round."""
    layer, norm = CONVOLUTIONS[name](), nn.BatchNorm2d(6)
    norm.weight.data = torch.tensor([-1.0, 0.5, -0.2, 2.0, 1.0, -0.7])
    nn.init.uniform_(norm.bias, 0.1, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    scale = norm.weight.detach().double()[:, None, None]
    bare = without_bias(layer)
    check_excitation(between(nn.Sequential(layer, norm)), lambda x: bare(x) * scale)


LINEAR: dict[str, nn.Module] = {
    "average": nn.AvgPool2d(2),
    "average, overlapping": nn.AvgPool2d(3, 2, 1),
    "adaptive": nn.AdaptiveAvgPool2d((2, 3)),
    "zeros": nn.ZeroPad2d((1, 2, 0, 1)),
    "replicate": nn.ReplicationPad2d((1, 2, 0, 1)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "nearest": nn.Upsample(scale_factor=2, mode="nearest"),
    "nothing": nn.Identity(),
}


@pytest.mark.parametrize("name", LINEAR)
def test_excitation_of_what_has_no_weights(name: str) -> None:
    check_excitation(between(LINEAR[name]), LINEAR[name])


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)], ids=repr)
def test_excitation_goes_to_the_maximum(pool: nn.MaxPool2d) -> None:
    net, x = between(pool).eval(), pictures(6, 7)
    nn.init.constant_(net.last.bias, 1.0)
    record = ClassSaliency(net, "excitation", ("relu1", "layer")).forward(x)
    found = record.gradients([0, 1])
    values = net.relu1(net.first(x)).detach().requires_grad_()
    pooled = pool(values)
    for k in range(2):
        (expected,) = torch.autograd.grad(pooled, values, found["layer"][:, k], retain_graph=True)
        assert relative_error(found["relu1"][:, k], expected) <= 1e-6


@pytest.mark.parametrize("inplace", [False, True])
def test_excitation_of_a_residual(inplace: bool) -> None:
    """Both ways share in proportion to what they bring in; what is below 0 brings in nothing."""

    def maps(net: Net, x: Tensor) -> Tensor:
        x = net.relu(net.first(x))
        y = net.second(x)
        if inplace:
            y += x
        else:
            y = y + x
        return net.last(net.out(y) + 0.5)  # a bias takes no part

    net = Net(
        maps,
        first=nn.Conv2d(3, 4, 3, padding=1),
        relu=nn.ReLU(),
        second=nn.Conv2d(4, 4, 3, padding=1),
        out=nn.ReLU(inplace=inplace),
        last=nn.Conv2d(4, 3, 1),
    ).eval()
    nn.init.constant_(net.last.bias, 1.0)
    x = pictures(5, 4)
    with torch.no_grad():
        a = net.relu(net.first(x))
        b = net.second(a)
        end, last = net.class_maps(x), net.last.weight.double()
        share = dense(start(end, [2, 0]), (a + b).relu() + 0.5, lambda x: F.conv2d(x, last))
        positive = b.double().clamp(min=0)
        total = (a + positive).clamp(min=1e-30)
        expected = share * a / total + dense(share * positive / total, a, without_bias(net.second))
    saliency = ClassSaliency(net, "excitation", ("relu",))
    found = saliency.forward(x).gradients([[2], [0]])["relu"][:, 0]
    assert relative_error(found.double(), expected) <= 1e-5


def test_excitation_of_one_way_of_two() -> None:
    """The other has no layer in it, and takes its share all the same."""
    net = Net(
        lambda net, x: net.last(net.left(x) + net.right(x)),
        left=nn.Conv2d(3, 4, 3, padding=1),
        right=nn.Conv2d(3, 4, 3, padding=1),
        last=nn.Conv2d(4, 3, 1),
    ).eval()
    nn.init.constant_(net.last.bias, 1.0)
    x = pictures(5, 4)
    both = ClassSaliency(net, "excitation", ("left", "right")).forward(x).gradients(CLASSES)
    for layer in ("left", "right"):
        alone = ClassSaliency(net, "excitation", (layer,)).forward(x).gradients(CLASSES)[layer]
        assert 0 < alone.sum() < 6
        torch.testing.assert_close(alone, both[layer])


def test_excitation_of_parts_put_together() -> None:
    net = Net(
        lambda net, x: net.last(torch.cat([net.left(x)[:, 1:], net.right(x)], 1).transpose(2, 3)),
        left=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()),
        right=nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU()),
        last=nn.Conv2d(4, 2, 3),
    ).eval()
    x = pictures(6, 6)
    with torch.no_grad():
        left, right, last = net.left(x), net.right(x), without_bias(net.last)
        both = torch.cat([left[:, 1:], right], 1).transpose(2, 3)
        expected = dense(start(net.class_maps(x), [1, 1]), both, last).transpose(2, 3)
    found = ClassSaliency(net, "excitation", ("left", "right")).forward(x).gradients([1])
    assert relative_error(found["right"][:, 0].double(), expected[:, 2:]) <= 1e-5
    assert relative_error(found["left"][:, 0, 1:].double(), expected[:, :2]) <= 1e-5
    assert not found["left"][:, 0, 0].any()


def test_excitation_of_a_linear_layer_after_a_mean() -> None:
    net = Net(
        lambda net, x: net.scores(net.relu(net.first(x)).mean((2, 3)))[..., None, None],
        first=nn.Conv2d(3, 6, 3, padding=1),
        relu=nn.ReLU(),
        scores=nn.Linear(6, 3),
    ).eval()
    nn.init.constant_(net.scores.bias, 0.5)
    x = pictures(4, 5)
    weight = net.scores.weight.detach().double()
    with torch.no_grad():
        a = net.relu(net.first(x))
        means = a.mean((2, 3), keepdim=True)
        share = dense(start(net.class_maps(x), [2, 1]), means, lambda x: x.flatten(1) @ weight.t())
        expected = dense(share, a, lambda x: x.mean((2, 3)))
    found = ClassSaliency(net, "excitation", ("relu",)).forward(x).gradients([[2], [1]])["relu"]
    assert relative_error(found[:, 0].double(), expected) <= 1e-5


def test_excitation_of_the_photo_counts_from_its_darkest_value() -> None:
    net = Net(lambda net, x: net.first((x - 0.4) / 0.2), first=nn.Conv2d(3, 3, 3)).eval()
    nn.init.constant_(net.first.bias, 2.0)
    x = pictures(5, 6)
    with torch.no_grad():
        lowest = x.amin((1, 2, 3), keepdim=True)
        expected = dense(start(net.class_maps(x), [0, 2]), x - lowest, without_bias(net.first))
    found = ClassSaliency(net, "excitation").forward(x).gradients([[0], [2]])["input"][:, 0]
    assert relative_error(found.double(), expected) <= 1e-5


@pytest.mark.parametrize("work", [torch.sigmoid, F.gelu, lambda x: x.softmax(1), torch.exp])
def test_excitation_has_no_rule_for_everything(work: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda net, x: work(net.first(x)), first=nn.Conv2d(3, 3, 1)).eval()
    with pytest.raises(ConfigError, match=r"no rule for aten\.\w+; use plain or guided") as caught:
        ClassSaliency(net, "excitation").forward(pictures())
    assert "\n" not in str(caught.value)
