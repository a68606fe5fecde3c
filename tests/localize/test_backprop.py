"""Class saliency beside captum, autograd and finite differences; excitation beside its paper."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize import backprop
from tagseg.localize.backprop import INPUT, ClassSaliency, channel_maximum
from tagseg.nets import folding
from tagseg.nets.backbone import Backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.nets.weights import load_into, resolve

N_CLASSES = 4
CLASSES = torch.tensor([[0, 3], [2, 0]])
METHODS = ("plain", "guided", "excitation")


def gap(backbone: Backbone) -> nn.Module:
    return GapClassifier(backbone, N_CLASSES, hidden=6)


def fully_convolutional(backbone: Backbone) -> nn.Module:
    return FullyConvolutionalClassifier(backbone, N_CLASSES, hidden=6)


def randomised(net: nn.Module) -> nn.Module:
    """In evaluation mode, with class maps of both signs and batch norms of any, that fit."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.5)
            module.weight.data *= torch.where(torch.rand(module.num_features) < 0.2, -1, 1)
            module.momentum = 1.0  # to take the statistics of the next batch
    with torch.no_grad():
        net.train().class_maps(pictures())  # type: ignore[operator]
    return with_random_scores(net)


def with_random_scores(net: nn.Module) -> nn.Module:
    for name, module in net.named_modules():
        if name in ("score", "scores"):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net.eval()


def pictures(height: int = 33, width: int = 49) -> Tensor:
    return torch.rand(2, 3, height, width)


NETS: dict[str, Callable[[], nn.Module]] = {
    "tiny 8, gap": lambda: gap(Tiny(8)),
    "tiny 16, fully convolutional": lambda: fully_convolutional(Tiny(16)),
    "mobilenet 8, fully convolutional": lambda: fully_convolutional(MobileNetV2(8)),
    "mobilenet 16, gap": lambda: gap(MobileNetV2(16)),
    "mobilenet 16, bottom right": lambda: gap(MobileNetV2(16, "same_bottom_right")),
    "vgg 8, gap": lambda: gap(Vgg16(8)),
    "vgg 16, fully convolutional": lambda: fully_convolutional(Vgg16(16)),
    "vgg 32, fully convolutional": lambda: fully_convolutional(Vgg16(32)),
}
CASES = [(name, seed) for name in NETS for seed in range(2 if "tiny" in name else 1)]


def small_for(name: str) -> Tensor:
    """Pictures for double precision, which VGG is slow in."""
    return pictures(21, 30) if "vgg" in name else pictures()


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(NETS[name]())


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.abs().max() > 0  # or else anything would do
    return float((found - expected).abs().max() / expected.abs().max())


# Captum and autograd


class Relu6(nn.ReLU):
    """A ReLU6 that captum takes for a ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(0, 6)


class Summed(nn.Module):
    """Sums of class maps over positions, (B, C), with ReLUs as captum wants them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        for parent in list(self.net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReLU6):
                    setattr(parent, name, Relu6())
                elif isinstance(child, nn.ReLU):
                    child.inplace = False

    def forward(self, x: Tensor) -> Tensor:
        return self.net.class_maps(x).sum((2, 3))


def by_captum(net: nn.Module, x: Tensor, classes: Tensor, method: str) -> Tensor:
    """Gradients (B, K, 3, H, W), a class at a time."""
    summed = Summed(net)
    columns = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks that are set, and of inputs without a gradient
        for column in classes.T:
            if method == "plain":
                columns.append(captum.attr.Saliency(summed).attribute(x, column, abs=False))
            else:
                columns.append(captum.attr.GuidedBackprop(summed).attribute(x, column))
    return torch.stack(columns, 1).detach()


def error_beside_captum(net: nn.Module, x: Tensor, method: Any) -> float:
    found = ClassSaliency(net, method).forward(x).gradients(CLASSES)[INPUT]
    assert found.dtype == x.dtype
    return relative_error(found, by_captum(net, x, CLASSES, method))


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_equal_to_captum(name: str, seed: int) -> None:
    net, x = network(name, seed).double(), small_for(name).double()
    for method in ("plain", "guided"):
        assert error_beside_captum(net, x, method) <= 1e-12


@pytest.mark.parametrize("method", ["plain", "guided"])
@pytest.mark.parametrize("name", NETS)
def test_equal_to_captum_in_single_precision(name: str, method: str) -> None:
    """For some seed of a few: with others, a ReLU's input near 0 is rounded to the other side.

    Then captum in single precision is as far from captum in double precision.
    """
    seeds = range(4)
    assert any(
        error_beside_captum(network(name, seed), pictures(), method) <= 1e-5 for seed in seeds
    )


def by_autograd(net: nn.Module, x: Tensor, classes: Tensor, layers: Sequence[str]):
    outputs: dict[str, Tensor] = {}
    net = Summed(net).net
    for name, module in net.named_modules():
        if name in layers:
            # The copy stands for what reads the layer: residuals read it twice.
            module.register_forward_hook(
                lambda m, args, out, name=name: outputs.update({name: out}) or out + 0
            )
    outputs[INPUT] = x.clone().requires_grad_()
    maps = net.class_maps(outputs[INPUT])
    found: dict[str, Tensor] = {}
    for name in layers:
        columns = []
        for column in classes.T:
            score = sum(maps[photo, k].sum() for photo, k in enumerate(column.tolist()))
            columns.append(torch.autograd.grad(score, outputs[name], retain_graph=True)[0])
        found[name] = torch.stack(columns, 1)
    return found


@pytest.mark.parametrize("name", ["tiny 16, fully convolutional", "mobilenet 16, gap"])
def test_every_feature_block_equals_autograd(name: str) -> None:
    net, x = network(name).double(), pictures().double()
    blocks = [layer for block in net.backbone.feature_blocks() for layer in block.layers]
    layers = [INPUT, *(f"backbone.{layer}" for layer in blocks)]
    record = ClassSaliency(net, "plain", layers).forward(x)
    torch.testing.assert_close(record.class_maps, net.class_maps(x).detach())
    found, expected = record.gradients(CLASSES), by_autograd(net, x, CLASSES, layers)
    assert set(found) == set(layers)
    for layer in layers:
        assert relative_error(found[layer], expected[layer]) <= 1e-12


class Small(nn.Module):
    """Few enough weights for finite differences and written-out sums."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.second = nn.Conv2d(5, 5, 3, 1, 2, 2)
        self.score = nn.Conv2d(5, N_CLASSES, 1)
        self.unused = nn.Conv2d(5, 5, 1)
        self.aside = nn.Conv2d(5, 5, 1)

    def class_maps(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.relu(x + self.second(x))
        self.aside(x)
        return self.score(x)


def small(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomised(Small(**options))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["tiny 8, gap", "mobilenet 16, bottom right"])
def test_norms_that_are_folded_change_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, method: Any
) -> None:
    net, x, classes = network(name).double(), small_for(name).double(), [0, 2]
    net.backbone.set_preprocessing(net.backbone.preprocessing)  # type: ignore[union-attr,operator]
    folded = ClassSaliency(net, method).forward(x).gradients(classes)[INPUT]
    monkeypatch.setattr(folding, "_folds", lambda layer, convolution: False)
    expected = ClassSaliency(net, method).forward(x).gradients(classes)[INPUT]
    assert relative_error(folded, expected) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_norm_or_its_convolution_may_be_the_layer(method: Any) -> None:
    """As it is called for itself then, with the same result at the photo."""
    net, x = network("tiny 8, gap"), pictures()
    layers = ["backbone.block4.conv1", "backbone.block4.norm1", INPUT]
    found = ClassSaliency(net, method, layers).forward(x).gradients([1])
    alone = ClassSaliency(net, method).forward(x).gradients([1])
    assert found[layers[0]].shape == found[layers[1]].shape
    assert relative_error(found[INPUT], alone[INPUT]) < 1e-4
    if method != "excitation":  # whose signal passes a norm as it is
        norm = net.get_submodule(layers[1])
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator]
        through = found[layers[1]] * scale.view(-1, 1, 1)
        assert relative_error(found[layers[0]], through.detach()) < 1e-5


def test_finite_differences() -> None:
    net, x = small().double(), pictures(7, 9).double()
    found = ClassSaliency(net, "plain").forward(x).gradients(CLASSES)[INPUT]
    assert found.dtype == torch.float64
    step, expected = 1e-7, torch.zeros_like(found)
    with torch.no_grad():
        for place in range(x[0].numel()):
            scores = []
            for sign in (1, -1):
                moved = x.clone()
                moved.view(2, -1)[:, place] += sign * step
                scores.append(net.class_maps(moved).sum((2, 3)).gather(1, CLASSES))
            expected.view(2, 2, -1)[:, :, place] = (scores[0] - scores[1]) / (2 * step)
    assert relative_error(found, expected) <= 1e-6


# Excitation


class Rule(torch.autograd.Function):
    """``forward`` of tensors, and any way back."""

    @staticmethod
    def forward(ctx, forward, back, *inputs):  # type: ignore[no-untyped-def]
        ctx.back = back
        ctx.save_for_backward(*inputs)
        return forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        with torch.enable_grad():
            return None, None, *ctx.back(gradient, *ctx.saved_tensors)


def shared(arrived: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 1e-30, arrived / total.clamp(min=1e-30), 0)


class Excitation(TorchFunctionMode):
    """Zhang et al., Eq. 1 to 5, function by function: autograd then brings probabilities back."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name == "conv2d":
            return self.convolution(func, *args, **(kwargs or {}))
        if name == "batch_norm":
            return self.batch_norm(func, *args, **(kwargs or {}))
        if name in ("relu", "clamp", "sub", "div", "__sub__", "__truediv__"):
            return self.passing(func, *args, **(kwargs or {}))
        if name in ("add", "__add__"):
            return Rule.apply(torch.add, self.shares, *args)
        result = func(*args, **(kwargs or {}))
        if name == "pad" and hasattr(args[0], "of_photo"):
            result.of_photo = True
        return result

    @staticmethod
    def passing(func: Any, x: Tensor, *others: Any, **kwargs: Any) -> Tensor:
        def forward(x: Tensor) -> Tensor:
            return func(x.clone(), *others, **kwargs)

        result = Rule.apply(forward, lambda arrived, x: (arrived,), x)
        if func.__name__ in ("sub", "div", "__sub__", "__truediv__"):
            result.of_photo = True
        return result

    @staticmethod
    def convolution(func: Any, x: Tensor, weight: Tensor, bias: Any = None, *how: Any) -> Tensor:
        of_photo, signs = hasattr(x, "of_photo"), []

        def back(arrived: Tensor, x: Tensor) -> tuple[Tensor]:
            excitation = x - x.amin((1, 2, 3), keepdim=True) if of_photo else x.clamp(min=0)
            excitation = excitation.detach().requires_grad_()
            turned = weight * signs[0][:, None, None, None] if signs else weight
            total = func(excitation, turned.clamp(min=0), None, *how)
            (back,) = torch.autograd.grad(total, excitation, shared(arrived, total.detach()))
            return (excitation.detach() * back,)

        result = Rule.apply(lambda x: func(x, weight, bias, *how), back, x)
        result.signs = signs
        return result

    @staticmethod
    def batch_norm(func: Any, x: Tensor, *how: Any, weight: Tensor, **named: Any) -> Tensor:
        x.signs.append(weight.sign())  # type: ignore[attr-defined]

        def forward(x: Tensor) -> Tensor:
            return func(x, *how, weight=weight, **named)

        return Rule.apply(forward, lambda arrived, x: (arrived,), x)

    @staticmethod
    def shares(arrived: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x.clamp(min=0), y.clamp(min=0)
        each = shared(arrived, x + y)
        return x * each, y * each


def by_zhang(net: nn.Module, x: Tensor, classes: Tensor, layers: Sequence[str]):
    """In double precision, a class at a time."""
    net = Summed(net).net.double().requires_grad_(False)
    outputs: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if name in layers:
            module.register_forward_hook(
                lambda m, args, out, name=name: outputs.update({name: out})
            )
    outputs[INPUT] = x.double().requires_grad_()
    with Excitation():
        maps = net.class_maps(outputs[INPUT])
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    for column in classes.T:
        signal = torch.zeros_like(maps)
        for photo, k in enumerate(column.tolist()):
            positive = maps[photo, k].detach().clamp(min=0)
            signal[photo, k] = positive / positive.sum()
        wanted = [outputs[name] for name in layers]
        parts = torch.autograd.grad(maps, wanted, signal, retain_graph=True)
        for name, part in zip(layers, parts, strict=True):
            found[name].append(part)
    return {name: torch.stack(parts, 1) for name, parts in found.items()}


def with_positive_maps(net: nn.Module, x: Tensor) -> nn.Module:
    """Scores with weights such that each class map is positive somewhere, as excitation wants."""
    for name, module in net.named_modules():
        if name in ("score", "scores"):
            module.weight.data.abs_()
            module.weight.data[:, 1] *= -0.1
    with torch.no_grad():
        assert bool((net.class_maps(x).amax((2, 3)) > 0).all())
    return net


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_excitation_equals_the_paper(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    x = small_for(name)
    net = with_positive_maps(network(name, seed), x)
    block = f"backbone.{net.backbone.feature_blocks()[2].layers[0]}"
    layers = (INPUT, block)
    found = ClassSaliency(net, "excitation", layers).forward(x).gradients(CLASSES)
    expected = by_zhang(net, x, CLASSES, layers)
    for layer in layers:
        assert relative_error(found[layer].double(), expected[layer]) <= 2e-5


def test_excitation_keeps_probability() -> None:
    """Where every neuron has something that excites it, as behind 1x1 kernels of positive sums."""
    net = with_positive_maps(network("vgg 32, fully convolutional"), pictures())
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
            module.weight.data /= module.weight.data[0].sum()
    blocks = [layer for block in net.backbone.feature_blocks() for layer in block.layers]
    layers = ["relu7", "fc7", "relu6", *(f"backbone.{layer}" for layer in blocks), INPUT]
    record = ClassSaliency(net, "excitation", layers).forward(pictures(64, 70))
    found, marginal = record.gradients(CLASSES), record.saliency(CLASSES)
    for layer in layers:
        assert found[layer].min() >= 0
        sums = found[layer].sum((2, 3, 4))
        torch.testing.assert_close(sums, torch.ones(2, 2), atol=1e-4, rtol=0)
        torch.testing.assert_close(marginal[layer], found[layer].sum(2))
    assert found[INPUT][0, 0].max() < 0.5  # spread out


def test_excitation_of_a_class_without_positive_score_is_zero() -> None:
    net = small()
    nn.init.constant_(net.score.bias, -1e3)
    record = ClassSaliency(net, "excitation").forward(pictures())
    assert not record.gradients(CLASSES)[INPUT].any()


# What is given back


@pytest.mark.parametrize("method", ["plain", "guided"])
def test_saliency_is_the_largest_absolute_gradient_over_channels(method: Any) -> None:
    record = ClassSaliency(small(), method, (INPUT, "second", "pool")).forward(pictures())
    found, saliency = record.gradients(CLASSES), record.saliency(CLASSES)
    assert set(saliency) == {INPUT, "second", "pool"}
    for layer, gradient in found.items():
        assert saliency[layer].dtype == torch.float32
        torch.testing.assert_close(saliency[layer], gradient.abs().amax(2), atol=0, rtol=0)
    largest = found[INPUT].abs().amax(2)
    assert (largest != found[INPUT].amax(2)).any()
    assert (largest != -found[INPUT].amin(2)).any()


def test_channel_maximum() -> None:
    gradient = torch.tensor([[[[1.0, 0.0]], [[-3.0, 0.5]], [[2.0, -0.25]]]])
    assert channel_maximum(gradient).tolist() == [[[3.0, 0.5]]]
    assert channel_maximum(gradient.bfloat16()).dtype == torch.float32


def test_classes_for_all_photos_or_for_each() -> None:
    record = ClassSaliency(small(), "guided").forward(pictures())
    one = record.gradients([2, 0, 1, 2])[INPUT]
    assert one.shape == (2, 4, 3, 33, 49)
    each = record.gradients([[2, 0, 1, 2], [2, 0, 1, 2]])[INPUT]
    assert torch.equal(one, each)
    torch.testing.assert_close(one[:, 0], one[:, 3], atol=0, rtol=0)
    mixed = record.gradients([[2, 0], [1, 2]])[INPUT]
    torch.testing.assert_close(mixed[0], one[0, :2])
    torch.testing.assert_close(mixed[1], one[1, 2:])


def test_a_record_may_be_asked_again() -> None:
    record = ClassSaliency(small(inplace=True), "guided", (INPUT, "relu", "norm", "pool"))
    record = record.forward(pictures())
    maps = record.class_maps.clone()
    first, again = record.gradients(CLASSES), record.gradients(CLASSES)
    for layer, gradient in first.items():
        assert torch.equal(gradient, again[layer])
    assert torch.equal(record.class_maps, maps)


def test_photos_in_a_batch_do_not_meet() -> None:
    net, x = network("tiny 8, gap"), pictures()
    for method in METHODS:
        saliency = ClassSaliency(net, method)  # type: ignore[arg-type]
        together = saliency.forward(x).gradients(CLASSES)[INPUT]
        for photo in range(2):
            alone = saliency.forward(x[photo : photo + 1]).gradients(CLASSES[photo])[INPUT]
            torch.testing.assert_close(alone[0], together[photo], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_classes_go_back_in_parts(monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    net, x = with_positive_maps(small(), pictures()), pictures()
    classes = [0, 1, 2, 3, 0]
    record = ClassSaliency(net, method, (INPUT, "second")).forward(x)
    at_once = record.gradients(classes)
    signals: list[int] = []
    start = backprop._start

    def noted(maps: Tensor, part: Tensor, **options: Any) -> Tensor:
        signals.append(part.shape[1])
        return start(maps, part, **options)

    monkeypatch.setattr(backprop, "_start", noted)
    largest = 2 * 5 * 33 * 49 * 4  # bytes of the first layer
    for limit, counts in ((0, [1] * 5), (2 * largest + 1, [2, 2, 1])):
        monkeypatch.setattr(backprop, "_MOST_BYTES", limit)
        signals.clear()
        parts = record.gradients(classes)
        assert signals == counts
        for layer, gradient in at_once.items():
            torch.testing.assert_close(parts[layer], gradient, atol=1e-7, rtol=1e-5)


def test_reduce_may_give_any_shape() -> None:
    record = ClassSaliency(small(), "plain", (INPUT, "norm")).forward(pictures())
    found = record.gradients(CLASSES)
    means = record.reduced(CLASSES, lambda gradient: gradient.mean((2, 3)))
    same = record.reduced(CLASSES, lambda gradient: gradient)
    for layer, gradient in found.items():
        torch.testing.assert_close(means[layer], gradient.mean((3, 4)))
        torch.testing.assert_close(same[layer], gradient)


# Precision


def smallest_cosine(found: Tensor, expected: Tensor) -> float:
    """Of the gradients (B, K, ...) of a class of a photo."""
    similarity = F.cosine_similarity(found.flatten(2).float(), expected.flatten(2).float(), dim=2)
    return float(similarity.min())


@pytest.mark.parametrize("name", ["tiny 8, gap", "tiny 16, fully convolutional"])
@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_points_the_same_way(name: str, method: Any) -> None:
    torch.manual_seed(0)
    net, x = NETS[name](), pictures(64, 80)
    load_into(net.backbone, resolve("imagenet", "tiny"))
    net = with_positive_maps(with_random_scores(net), x)
    low = ClassSaliency(net, method, precision=torch.bfloat16).forward(x)
    assert low.class_maps.dtype == torch.float32
    found = low.gradients(CLASSES)[INPUT]
    expected = ClassSaliency(net, method).forward(x).gradients(CLASSES)[INPUT]
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert smallest_cosine(found, expected) > 0.98


def test_bfloat16_is_as_exact_as_autograd() -> None:
    """Plain gradients of random weights, where many ReLUs' inputs are rounded across 0."""
    net, x = network("tiny 8, gap"), pictures(64, 80)
    exact = by_autograd(net, x, CLASSES, (INPUT,))[INPUT]
    low = ClassSaliency(net, "plain", precision=torch.bfloat16).forward(x).gradients(CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        peer = by_autograd(net, x, CLASSES, (INPUT,))[INPUT]
    assert smallest_cosine(low[INPUT], exact) > smallest_cosine(peer, exact) - 0.02


def test_bfloat16_where_precisions_meet() -> None:
    """Resizing is done in single precision: what it gives is added to what a convolution gives."""

    class Mixed(Small):
        def class_maps(self, x: Tensor) -> Tensor:
            x = self.relu(self.first(x))
            half = F.interpolate(self.second(self.pool(x)).float(), x.shape[2:], mode="bilinear")
            return self.score(self.relu(half + self.second(x)))

    torch.manual_seed(0)
    net, x = randomised(Mixed()), pictures()
    low = ClassSaliency(net, "guided", precision=torch.bfloat16).forward(x).gradients(CLASSES)
    full = ClassSaliency(net, "guided").forward(x).gradients(CLASSES)
    assert smallest_cosine(low[INPUT], full[INPUT]) > 0.98


# Layers


def test_modules_that_give_the_same_tensor_are_all_named() -> None:
    """A dropout gives its input in evaluation mode; both are layers then."""
    net = network("tiny 8, gap")
    layers = ("hidden.1", "hidden.2", "hidden", "hidden.5")
    found = ClassSaliency(net, "plain", layers).forward(pictures()).gradients(CLASSES)
    assert set(found) == set(layers)
    assert torch.equal(found["hidden.1"], found["hidden.2"])
    assert torch.equal(found["hidden"], found["hidden.5"])


def test_the_last_call_of_a_module_counts() -> None:
    net, x = small(), pictures()
    found = ClassSaliency(net, "plain", ("relu", INPUT)).forward(x).gradients(CLASSES)
    expected = by_autograd(net, x, CLASSES, ("relu", INPUT))
    assert found["relu"].shape == (2, 2, 5, 17, 25)  # behind the pool, where it is called again
    for layer in found:
        assert relative_error(found[layer], expected[layer]) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_layers_do_not_depend_on_those_beside_them(method: Any) -> None:
    net, x = with_positive_maps(small(inplace=True), pictures()), pictures()
    layers = ("first", "norm", "relu", "pool", "second")
    together = ClassSaliency(net, method, layers).forward(x).gradients(CLASSES)
    for layer in layers:
        alone = ClassSaliency(net, method, (layer,)).forward(x).gradients(CLASSES)
        assert relative_error(alone[layer], together[layer]) <= 1e-5


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_wrong_methods_and_layers_are_refused() -> None:
    net = small()
    with pytest.raises(ConfigError) as error:
        ClassSaliency(net, "smooth")  # type: ignore[arg-type]
    assert message(error) == "no back-propagation 'smooth'; use plain, guided, excitation"
    for layers in (("third",), ("",), (INPUT, "relu "), "relu"):
        with pytest.raises(ConfigError, match="the network has no layer") as error:
            ClassSaliency(net, layers=layers)
        message(error)
    with pytest.raises(ConfigError, match="no layer is given"):
        ClassSaliency(net, layers=())
    for part in (net, net.norm):
        part.train()
        with pytest.raises(ConfigError, match="training mode"):
            ClassSaliency(net)
        net.eval()
    for precision in (torch.float16, torch.float64, torch.int8):
        with pytest.raises(ConfigError, match="use float32 or bfloat16"):
            ClassSaliency(net, precision=precision)


@pytest.mark.parametrize("layers", [("unused",), (INPUT, "unused"), ("aside",), ("aside", "pool")])
def test_layers_without_a_part_in_the_maps_are_refused(layers: tuple[str, ...]) -> None:
    saliency = ClassSaliency(small(), "plain", layers)
    with pytest.raises(ConfigError, match="has no part in the class maps") as error:
        saliency.forward(pictures()).gradients(CLASSES)
    assert "unused" in message(error) or "aside" in message(error)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_wrong_photos_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="images have shape") as error:
        ClassSaliency(small()).forward(torch.zeros(shape))
    message(error)


@pytest.mark.parametrize(
    "classes", [[], [[]], 1, [[0], [1], [2]], [[[0]]], [N_CLASSES], [-1], [0, 99]]
)
def test_wrong_classes_are_refused(classes: Any) -> None:
    record = ClassSaliency(small()).forward(pictures())
    with pytest.raises(ShapeError) as error:
        record.gradients(classes)
    message(error)


# What is left of the network


def state_of(net: nn.Module) -> list[Any]:
    parts: list[Any] = []
    for name, module in net.named_modules():
        hooks = [dict(vars(module)[kind]) for kind in vars(module) if kind.endswith("hooks")]
        parts.append((name, id(module), module.training, list(vars(module)), hooks))
    for name, parameter in net.named_parameters():
        parts.append((name, id(parameter), parameter._version, parameter.requires_grad))
        parts.append((parameter.data_ptr(), parameter.stride(), parameter.grad))
    parts += [(name, id(b), b._version) for name, b in net.named_buffers()]
    return parts


def values_of(net: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in (*net.parameters(), *net.buffers())]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_the_network_stays_as_it_was(method: Any, precision: torch.dtype) -> None:
    net, x = with_positive_maps(network("tiny 8, gap"), pictures()), pictures()
    net.backbone.block2.requires_grad_(False)
    net.scores.weight.grad = torch.ones_like(net.scores.weight)
    before, values, photos = state_of(net), values_of(net), x.clone()
    layers = (INPUT, "backbone.block3", "backbone.block3.relu")
    record = ClassSaliency(net, method, layers, precision=precision).forward(x)
    for tensor in (*record.gradients(CLASSES).values(), record.class_maps):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
    assert state_of(net) == before
    assert all(torch.equal(a, b) for a, b in zip(values_of(net), values, strict=True))
    assert torch.equal(x, photos)
    assert net.scores.weight.grad.eq(1).all()


def test_the_network_stays_as_it_was_after_an_error() -> None:
    class Failing(Small):
        def class_maps(self, x: Tensor) -> Tensor:
            maps = super().class_maps(x)
            if x.shape[2] == 7:
                raise ZeroDivisionError
            return maps

    torch.manual_seed(0)
    net = randomised(Failing())
    before, x = state_of(net), pictures()
    saliency = ClassSaliency(net, "guided", (INPUT, "relu"))
    expected = saliency.forward(x).gradients(CLASSES)
    with pytest.raises(ZeroDivisionError):
        saliency.forward(pictures(7, 7))
    assert state_of(net) == before
    again = saliency.forward(x).gradients(CLASSES)
    assert all(torch.equal(again[layer], expected[layer]) for layer in expected)


class Watcher:
    """Holds what cannot be copied: a lock, and an output with its graph."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), 0
        self.output: Tensor | None = None

    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        self.calls += 1
        self.output = output

    def keep(self, module: nn.Module, *args: Any) -> None:
        self(module, *args)


def test_hooks_of_the_user_are_not_called_and_stay() -> None:
    net, x, watcher = small(), pictures(), Watcher()
    expected = ClassSaliency(net).forward(x).gradients(CLASSES)[INPUT]
    handles = [
        net.first.register_forward_hook(watcher),
        net.relu.register_forward_hook(watcher.keep, always_call=True),
        net.norm.register_forward_hook(lambda m, args, kwargs, out: 0 * out, with_kwargs=True),
        net.first.register_forward_pre_hook(watcher),
        net.first.register_full_backward_hook(lambda *args: watcher.keep(*args)),
        net.second.register_full_backward_pre_hook(watcher),
    ]
    net.class_maps(x.clone().requires_grad_()).sum().backward()
    assert watcher.output is not None
    calls, before = watcher.calls, state_of(net)
    assert calls > 0
    assert torch.equal(ClassSaliency(net).forward(x).gradients(CLASSES)[INPUT], expected)
    assert watcher.calls == calls
    assert state_of(net) == before
    net.class_maps(x)
    assert watcher.calls > calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("method", METHODS)
def test_any_state_of_gradients_around_it(method: Any) -> None:
    x = pictures()
    net = with_positive_maps(network("tiny 8, gap"), x)
    layers = (INPUT, "backbone.block3")

    def run(images: Tensor) -> dict[str, Tensor]:
        return ClassSaliency(net, method, layers).forward(images).gradients(CLASSES)

    expected = run(x)
    around = [torch.no_grad, torch.enable_grad, torch.inference_mode]
    for context in around:
        with context():
            inside = run(x.clone())
        for layer in layers:
            assert torch.equal(inside[layer], expected[layer])
    with torch.inference_mode():
        made_inside, images = ClassSaliency(net, method, layers), x.clone()
    record = made_inside.forward(images)
    with torch.inference_mode():
        found = record.gradients(CLASSES)
    assert all(torch.equal(found[layer], expected[layer]) for layer in layers)
    wanted = x.clone().requires_grad_()
    assert torch.equal(run(wanted)[INPUT], expected[INPUT])
    assert wanted.grad is None


def test_inference_mode_with_operations_that_autograd_goes_back_through() -> None:
    class Pooled(Small):
        def class_maps(self, x: Tensor) -> Tensor:
            x = F.avg_pool2d(self.relu(self.first(x)), 2)
            x = F.interpolate(x, scale_factor=2, mode="bilinear").sigmoid()
            return F.linear(x.permute(0, 2, 3, 1), self.score.weight[:, :, 0, 0]).permute(
                0, 3, 1, 2
            )

    torch.manual_seed(0)
    net, x = randomised(Pooled()), pictures()
    expected = by_autograd(net, x, CLASSES, (INPUT,))[INPUT]
    for precision in (torch.float32, torch.bfloat16):
        with torch.inference_mode():
            saliency = ClassSaliency(net, "plain", precision=precision)
            found = saliency.forward(x.clone()).gradients(CLASSES)[INPUT]
        least = 0.999999 if precision == torch.float32 else 0.95
        assert smallest_cosine(found, expected) > least


def test_autocast_around_it_changes_nothing() -> None:
    class Linear(Small):
        def class_maps(self, x: Tensor) -> Tensor:
            x = self.relu(self.first(x)).permute(0, 2, 3, 1)
            return F.linear(x, self.score.weight[:, :, 0, 0]).permute(0, 3, 1, 2)

    torch.manual_seed(0)
    x = pictures()
    net = with_positive_maps(randomised(Linear()), x)
    for method in METHODS:
        saliency = ClassSaliency(net, method, (INPUT, "relu"))  # type: ignore[arg-type]
        expected = saliency.forward(x).gradients(CLASSES)
        with torch.autocast("cpu", torch.bfloat16):
            found = saliency.forward(x).gradients(CLASSES)
        for layer, gradient in expected.items():
            assert torch.equal(found[layer], gradient)


# Threads


def test_threads() -> None:
    """Four threads with one object, and with objects of all methods on one network."""
    net = with_positive_maps(small(), pictures())
    photos = [pictures(120, 60 + 3 * i) for i in range(16)]
    layers = (INPUT, "second", "relu")
    objects = [ClassSaliency(net, method, layers) for method in METHODS]  # type: ignore[arg-type]
    jobs = [(objects[1], x) for x in photos] + [(o, x) for x in photos[:8] for o in objects]

    def run(job: tuple[ClassSaliency, Tensor]) -> dict[str, Tensor]:
        return job[0].forward(job[1]).gradients(CLASSES)

    expected = [run(job) for job in jobs]
    fresh = [ClassSaliency(net, method, layers) for method in METHODS]  # type: ignore[arg-type]
    again = [(fresh[objects.index(saliency)], x) for saliency, x in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, again))
    for ours, alone in zip(found, expected, strict=True):
        assert all(torch.equal(ours[layer], alone[layer]) for layer in alone)


def test_threads_may_ask_one_record() -> None:
    record = ClassSaliency(network("tiny 8, gap"), "guided").forward(pictures())
    expected = [record.gradients([k])[INPUT] for k in range(N_CLASSES)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: record.gradients([k])[INPUT], range(N_CLASSES)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_another_process_gets_the_same_gradients() -> None:
    net = randomised(gap(Tiny())).eval()
    saliency, x = ClassSaliency(net, "guided"), torch.rand(1, 3, 24, 24)
    copied = pickle.loads(pickle.dumps(saliency))
    wanted, found = (each.forward(x).gradients([0])[INPUT] for each in (saliency, copied))
    assert torch.equal(wanted, found)
    assert wanted.any()
