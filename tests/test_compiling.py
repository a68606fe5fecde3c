"""Networks that are compiled for training: what they compute, and going on where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tagseg import compiling
from tagseg.compiling import CompiledNetwork
from tagseg.nets.catalog import build_backbone
from tagseg.training import Batch, Execution, Loop, Schedule, train


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.score = nn.Conv2d(3, 2, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.score(x)).mean((2, 3))

    def named(self) -> str:
        return "net"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks are traced as for a compiler and computed by PyTorch; counts how many are."""
    seen: list[int] = []
    real = torch.compile

    def compile_(net: nn.Module, *, options: Any) -> Callable[..., Any]:
        assert options == {"fallback_random": True}
        seen.append(1)
        return real(net, backend="eager")

    monkeypatch.setattr(compiling.torch, "compile", compile_)
    return seen


class Fails(torch.autograd.Function):
    """Passes maps on, and fails in their gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> None:
        raise RuntimeError(MESSAGE)


MESSAGE = "\nno C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1\n"


def failing(calls: list[int], *, behind: bool = False) -> Callable[..., Any]:
    """In place of torch.compile: fails when it is called, or ``behind`` that, in its gradients."""

    def compile_(net: nn.Module, **_: Any) -> Callable[..., Any]:
        def call(*inputs: torch.Tensor) -> Any:
            calls.append(1)
            if behind:
                return Fails.apply(net(*inputs))
            torch.rand(3)  # as if half of the network had been computed
            raise RuntimeError(MESSAGE)

        return call

    return compile_


def weights(compiles: bool, said: list[str] | None = None) -> list[torch.Tensor]:
    """Those after three iterations."""
    net = Net()

    def sample(i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": rng.integers(0, 255, (3, 8, 8), dtype=np.uint8)}

    def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
        found = module(batch["image"].float() / 255)
        return functional.mse_loss(found, torch.ones_like(found))

    loop = Loop(Execution(compiles=compiles), say=(said if said is not None else []).append)
    train(net, loss, sample, 4, Schedule(3, 2, 0.1), loop=loop)
    return [value.detach().clone() for value in net.parameters()]


def test_a_compiled_training_ends_with_the_same_weights(traced):
    plain = weights(compiles=False)
    assert traced == []
    for ours, theirs in zip(weights(compiles=True), plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert traced == [1]


@pytest.mark.parametrize("name", ["tiny", "efficientnet_lite0"])
def test_backbones_can_be_traced(name: str, traced):
    net = build_backbone(name, output_stride=16).eval()
    x = torch.rand(1, 3, 40, 48)
    said: list[str] = []
    with torch.no_grad():
        torch.testing.assert_close(CompiledNetwork(net, said.append)(x), net(x))
    assert (said, traced) == ([], [1])


@pytest.mark.parametrize("behind", [False, True])
def test_a_training_goes_on_where_it_cannot_be_compiled(
    behind: bool, monkeypatch: pytest.MonkeyPatch
):
    plain, calls, said = weights(compiles=False), list[int](), list[str]()
    monkeypatch.setattr(compiling.torch, "compile", failing(calls, behind=behind))
    assert all(map(torch.equal, weights(compiles=True, said=said), plain))
    assert said == ["torch.compile failed, going on without it: no C++ compiler"]
    assert calls == [1]


def test_an_error_of_the_network_itself_is_told_as_such(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(compiling.torch, "compile", failing([]))
    net = CompiledNetwork(Net(), said.append)
    with pytest.raises(RuntimeError, match="channels"):
        net.attempt(lambda: net(torch.rand(1, 5, 8, 8)))
    assert said == []


def test_what_else_a_network_has_is_its_own(traced):
    net = Net()
    found = CompiledNetwork(net, print)
    assert found.named() == "net"
    assert list(found.parameters()) == list(net.parameters())
