from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import build_backbone
from tagseg.nets.efficientnet_lite import EfficientNetLite0
from tagseg.nets.folding import FoldingSequential, in_turn
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.resnet import ResNet50
from tagseg.nets.same_padding import SameConv2d
from tagseg.nets.tiny import Tiny
from tagseg.nets.weights import resolve
from tagseg.training import Loop, Schedule, train

torch.set_num_threads(1)


class Norms(TorchDispatchMode):
    """Counts batch norms that are run on maps."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "batch_norm" in func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))


def norms_run(work: Callable[[], object]) -> int:
    with torch.no_grad(), Norms() as norms:
        work()
    return norms.count


def randomised(net: nn.Module) -> nn.Module:
    """Statistics and parameters of any kind, with which maps stay in range; evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # to take the statistics of the next batch
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.6)
                with torch.no_grad():
                    module.weight *= torch.where(torch.rand(module.num_features) < 0.2, -1, 1)
    return net


def unfolded(net: nn.Module) -> nn.Module:
    """A copy that calls its batch norms: layers with hooks are not folded."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, args, output: None)
    return net


def gradients(net: nn.Module, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Any:
    """Output, and gradients of the photo and of every parameter, by name."""
    x = x.clone().requires_grad_()
    net.zero_grad()
    output = run(net, x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view(output.shape)
    (output * weights).sum().backward()
    named = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"output": output.detach(), "photo": x.grad, **named}


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor], most: float) -> None:
    """To ``most`` of the largest value of each."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (tensor is None) == (found[name] is None), name
        if tensor is not None:
            assert tensor.abs().max() > 0, name
            worst = float((found[name] - tensor).abs().max() / tensor.abs().max())
            assert worst <= most, (name, worst)


# One convolution and its norm

CONVOLUTIONS: dict[str, Callable[[], nn.Conv2d]] = {
    "1x1": lambda: nn.Conv2d(6, 9, 1, bias=False),
    "3x3, bias": lambda: nn.Conv2d(6, 9, 3, padding=1),
    "stride": lambda: nn.Conv2d(6, 9, 7, stride=2, padding=3, bias=False),
    "dilated": lambda: nn.Conv2d(6, 9, 3, padding=4, dilation=4, bias=False),
    "groups": lambda: nn.Conv2d(6, 9, 3, groups=3, bias=False),
    "depthwise, dilated": lambda: nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6, bias=False),
    "reflected": lambda: nn.Conv2d(6, 9, 3, padding=1, padding_mode="reflect"),
    "same": lambda: nn.Conv2d(6, 9, 3, padding="same", bias=False),
    "bottom right": lambda: SameConv2d(6, 9, 3, 2, padding=1, bias=False),
    "bottom right, depthwise, bias": lambda: SameConv2d(6, 6, 5, 2, padding=2, groups=6),
    "symmetric": lambda: symmetric(SameConv2d(6, 6, 3, 2, padding=1, groups=6, bias=False)),
}


def symmetric(convolution: SameConv2d) -> SameConv2d:
    convolution.bottom_right = False
    return convolution


def pair(convolution: nn.Conv2d, *, affine: bool = True) -> FoldingSequential:
    """With statistics of a batch, in evaluation mode."""
    norm = nn.BatchNorm2d(convolution.out_channels, eps=1e-3, affine=affine)
    layers = randomised(FoldingSequential(convolution, norm)).train()
    layers(2 * torch.rand(2, 6, 12, 16) - 0.5)
    return layers.eval()  # type: ignore[return-value]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_pair_gives_what_the_norm_gives(name: str, affine: bool) -> None:
    torch.manual_seed(0)
    layers = pair(CONVOLUTIONS[name](), affine=affine)
    x = torch.rand(2, 6, 10, 14)

    def both(net: nn.Module, x: Tensor) -> Tensor:
        return net[1](net[0](x))  # type: ignore[index,no-any-return]

    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net = copy.deepcopy(layers).to(dtype)
        found = gradients(net, x.to(dtype), lambda net, x: net(x))
        assert_alike(found, gradients(net, x.to(dtype), both), most)
    assert norms_run(lambda: layers(x)) == 0
    assert norms_run(lambda: both(layers, x)) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4),
    st.integers(1, 3), st.booleans(), st.floats(1e-6, 1e3), st.integers(0, 2**20),
)  # fmt: skip
def test_any_geometry_and_any_statistics(
    groups: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool,
    spread: float, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    convolution = nn.Conv2d(
        6, 12, kernel, stride, padding, dilation, groups=groups, bias=bias, dtype=torch.float64
    )
    norm = nn.BatchNorm2d(12, dtype=torch.float64)
    norm.running_var.uniform_(0, spread)  # type: ignore[union-attr]
    norm.running_mean.normal_()  # type: ignore[union-attr]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    layers = FoldingSequential(convolution, norm).eval()
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
    expected = norm(convolution(x)).detach()
    most = 1e-10 * float(expected.abs().max())
    torch.testing.assert_close(layers(x).detach(), expected, rtol=1e-10, atol=most)


def test_an_identity_norm_costs_nothing() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=0.0).eval()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(in_turn((convolution, norm), x), convolution(x))
    assert norms_run(lambda: in_turn((convolution, norm), x)) == 0


def test_bfloat16_under_autocast_and_in_the_weights() -> None:
    torch.manual_seed(0)
    layers = pair(nn.Conv2d(6, 9, 3, bias=False))
    x = torch.rand(2, 6, 10, 14)
    expected = layers(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layers(x)
        layers[0].to(torch.bfloat16)
        again = layers(x)
    for maps in (found, again, layers(x.bfloat16())):
        assert maps.dtype == torch.bfloat16
        assert (maps - expected).abs().max() < 2e-2 * expected.abs().max()


# What is not folded


def test_a_norm_in_training_takes_the_statistics_of_the_batch() -> None:
    torch.manual_seed(0)
    layers, x = pair(nn.Conv2d(6, 9, 3)).train(), torch.rand(2, 6, 10, 14)
    other = copy.deepcopy(layers)
    torch.testing.assert_close(layers(x), other[1](other[0](x)))
    assert torch.equal(layers[1].running_var, other[1].running_var)
    assert layers[1].num_batches_tracked == other[1].num_batches_tracked == 2


def test_a_norm_without_statistics_takes_those_of_the_batch() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 9, 3)
    norm = nn.BatchNorm2d(9, track_running_stats=False).eval()
    x = torch.rand(2, 6, 10, 14)
    assert torch.equal(in_turn((convolution, norm), x), norm(convolution(x)))
    assert norms_run(lambda: in_turn((convolution, norm), x)) == 1


def test_only_a_norm_right_behind_a_convolution_is_folded() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    norm = pair(nn.Conv2d(6, 4, 1))[1]
    x = torch.randn(2, 4, 6, 7)
    for layers, norms in (
        ((first, nn.ReLU(), norm), 1),
        ((norm, first), 1),
        ((first, second, norm, norm), 1),
        ((first, norm, second), 0),
        ((first, second), 0),
        ((nn.ReLU(), norm), 1),
    ):
        torch.testing.assert_close(in_turn(layers, x), nn.Sequential(*layers)(x))
        assert norms_run(lambda layers=layers: in_turn(layers, x)) == norms
    assert in_turn((), x) is x


@pytest.mark.parametrize("which", [0, 1])
def test_hooks_see_what_they_are_for(which: int) -> None:
    torch.manual_seed(0)
    layers, x = pair(nn.Conv2d(6, 9, 3)), torch.rand(2, 6, 10, 14)
    maps = [x, layers[0](x), layers[1](layers[0](x))]
    seen: list[Tensor] = []
    after = layers[which].register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.equal(layers(x), maps[2])
    after.remove()
    assert norms_run(lambda: layers(x)) == 0
    before = layers[which].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert torch.equal(layers(x), maps[2])
    before.remove()
    assert len(seen) == 2
    assert torch.equal(seen[0], maps[which + 1])
    assert torch.equal(seen[1], maps[which])


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("which", [0, 1])
def test_backward_hooks_are_called(which: int, kind: str) -> None:
    torch.manual_seed(0)
    layers, x = pair(nn.Conv2d(6, 9, 3)), torch.rand(2, 6, 10, 14).requires_grad_()
    calls = []
    getattr(layers[which], kind)(lambda *_: calls.append(which))
    layers(x).sum().backward()
    assert calls == [which]


def test_convolutions_and_norms_of_their_own_kind_are_called() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    class Shifted(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    torch.manual_seed(0)
    x = torch.rand(2, 6, 8, 8)
    plain = pair(nn.Conv2d(6, 9, 3, bias=False))
    shifted = Shifted(9).eval()
    patched = copy.deepcopy(plain[0])
    patched.forward = lambda input: input[:, [0] * 9]
    for layers in ((pair(Doubled(6, 9, 3))), (plain[0], shifted), (patched, plain[1])):
        first, norm = layers
        assert torch.equal(in_turn((first, norm), x), norm(first(x)))


def test_a_norm_of_other_channels_says_so() -> None:
    layers = FoldingSequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(1)).eval()
    with pytest.raises(RuntimeError, match="running_mean"):
        layers(torch.rand(1, 3, 4, 4))


def test_names_and_slices_are_those_of_a_sequential() -> None:
    parts = OrderedDict(a=nn.Conv2d(3, 4, 1), b=nn.BatchNorm2d(4), c=nn.ReLU())
    layers, usual = FoldingSequential(parts), nn.Sequential(parts)
    assert list(layers.state_dict()) == list(usual.state_dict())
    assert type(layers[1:]) is FoldingSequential
    assert list(layers[:2].state_dict()) == list(usual[:2].state_dict())


# Whole backbones

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny 8, dilated": lambda: Tiny(8, dilated=True),
    "mobilenet 8": lambda: MobileNetV2(8),
    "mobilenet 16, bottom right": lambda: MobileNetV2(16, "same_bottom_right"),
    "efficientnet 8": lambda: EfficientNetLite0(8),
    "resnet 8": lambda: ResNet50(8),
}


def backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    net = randomised(BACKBONES[name]()).train()
    with torch.no_grad():
        net(torch.rand(2, 3, 32, 48))
    return net.eval()  # type: ignore[return-value]


def everything(net: nn.Module, x: Tensor) -> Tensor:
    maps = [*net.activations(x), *net.pyramid(x)]  # type: ignore[operator]
    return torch.cat([m.flatten() for m in maps])


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_and_its_gradients_are_those_of_its_norms(name: str) -> None:
    net, x = backbone(name), torch.rand(1, 3, 17, 25)
    other = unfolded(net)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert norms >= 10
    assert norms_run(lambda: net(x)) == norms_run(lambda: net.pyramid(x)) == 0  # type: ignore[operator]
    assert norms_run(lambda: other(x)) == norms_run(lambda: other.pyramid(x)) == norms  # type: ignore[operator]
    double = [in_double(kind) for kind in (net, other)]
    found, expected = (gradients(kind, x.double(), everything) for kind in double)
    assert_alike(found, expected, 1e-10)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_in_single_precision_is_as_exact_as_its_norms(name: str) -> None:
    """Features alone: where rounding turns a ReLU or a maximum, gradients change by more."""
    net, x = backbone(name), torch.rand(2, 3, 33, 41)
    with torch.no_grad():
        found, norms = everything(net, x), everything(unfolded(net), x)
        expected = everything(in_double(net), x.double())
    off, usual = (float((maps - expected).norm() / expected.norm()) for maps in (found, norms))
    assert off < max(1e-5, 2 * usual)


def test_pretrained_features_are_equal() -> None:
    net = build_backbone("efficientnet_lite0", resolve("imagenet", "efficientnet_lite0")).eval()
    photo = torch.from_numpy(skimage.data.astronaut()[::4, ::4].copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        found, expected = everything(net, photo), everything(unfolded(net), photo)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert not torch.equal(found, expected)


def in_double(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net).double()
    net.set_preprocessing(net.preprocessing)  # type: ignore[operator,union-attr]
    return net


@pytest.mark.parametrize("learned", [True, False])
def test_a_training_takes_the_same_steps(learned: bool) -> None:
    """Of the convolutions, and of the norms' factors and offsets where those are learned."""
    net = in_double(backbone("tiny 8, dilated"))
    net.freeze_statistics()  # type: ignore[operator]
    trained = [net, unfolded(net)]
    before = copy.deepcopy(net.state_dict())

    def loss(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.softplus(net(batch["image"].double() / 255)).mean()

    for kind in trained:
        train(
            kind,
            loss,
            lambda i, rng: {"image": rng.integers(0, 256, (3, 16, 16)).astype("uint8")},
            4,
            Schedule(3, 2, 0.05),
            loop=Loop(frozen_batch_norm=not learned),
        )
    states = [kind.state_dict() for kind in trained]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        torch.testing.assert_close(states[0][name], tensor, rtol=1e-8, atol=1e-10)
        moves = tensor.ndim == 4 or (learned and name.endswith((".weight", ".bias")))
        assert torch.equal(tensor, before[name]) != moves, name
