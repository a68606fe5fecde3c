"""Grad-CAM: Eqs. 1 and 2 of Selvaraju et al. 2017 on any network and layer."""

from __future__ import annotations

import threading
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts import Localize, LocalizerContract, mirror_symmetric
from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.grad_cam import ClassMapsOf, GradCam, grad_cam
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)


class Net(nn.Module):
    """Two convolutions, a score that is no linear layer of a mean: a maximum and a square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.relu(self.last(torch.tanh(self.conv(x))))
        return self.head(torch.cat([features.amax((2, 3)), features.square().mean((2, 3))], 1))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def photos(count: int = 2, size: tuple[int, int] = (7, 9)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def loop_grad_cam(photo: Tensor, c: int) -> np.ndarray:
    """Eqs. 1 and 2 of the maps after ``last``'s ReLU; each derivative by central differences."""
    model, step = net().double(), 1e-5
    features = model.relu(model.last(torch.tanh(model.conv(photo[None].double())))).detach()

    def score(maps: Tensor) -> float:
        pooled = torch.cat([maps.amax((2, 3)), maps.square().mean((2, 3))], 1)
        return float(model.head(pooled)[0, c].detach())

    _, units, height, width = features.shape
    evidence = np.zeros((height, width))
    for k in range(units):
        weight = 0.0
        for i in range(height):
            for j in range(width):
                up, down = features.clone(), features.clone()
                up[0, k, i, j] += step
                down[0, k, i, j] -= step
                weight += (score(up) - score(down)) / (2 * step)
        weight /= height * width
        for i in range(height):
            for j in range(width):
                evidence[i, j] += weight * float(features[0, k, i, j])
    return np.maximum(evidence, 0)


def test_equals_the_loop() -> None:
    maps = grad_cam(net(), photos(), layer="relu")
    assert maps.dtype == torch.float32
    assert maps.shape == (2, 3, 7, 9)
    for photo, own in zip(photos(), maps, strict=True):
        for c in range(3):
            np.testing.assert_allclose(own[c], loop_grad_cam(photo, c), atol=1e-5)
    assert (maps.flatten(2).amax(2) > 0).sum() > 1, "or else zeros would do"


@pytest.mark.parametrize("layer", ["relu", "conv"])
def test_equals_captum(layer: str) -> None:
    model = net()
    oracle = captum.attr.LayerGradCam(model, model.get_submodule(layer))
    maps = grad_cam(model, photos(), layer=layer)
    for c in range(3):
        expected = oracle.attribute(photos(), target=c, relu_attributions=True)
        torch.testing.assert_close(maps[:, c : c + 1], expected.detach(), atol=1e-6, rtol=1e-4)


def test_what_is_written_over_later_is_read_as_the_layer_gave_it() -> None:
    """``last`` has negative values, which the ReLU after it writes over in place."""
    model, x = net(), photos(1)
    features = model.last(torch.tanh(model.conv(x))).detach().requires_grad_()
    after = features.clamp(min=0)
    pooled = torch.cat([after.amax((2, 3)), after.square().mean((2, 3))], 1)
    (gradient,) = torch.autograd.grad(model.head(pooled)[0, 1], features)
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).clamp(min=0)
    found = grad_cam(model, x, layer="last")
    torch.testing.assert_close(found[:, 1], expected.detach(), atol=1e-6, rtol=1e-4)


def classifier() -> GapClassifier:
    torch.manual_seed(0)
    made = GapClassifier(Tiny(), 4, hidden=8)
    nn.init.normal_(made.scores.weight)
    return mirror_symmetric(made).eval()


def test_before_a_mean_and_a_linear_layer_it_is_class_activation_maps() -> None:
    """Grad-CAM generalises CAM (section 3): there w_k^c of Eq. 1 is that of CAM over positions."""
    model, x = classifier(), photos(2, (40, 56))
    cam = class_activation_maps(model, x)
    positions = cam.shape[2] * cam.shape[3]
    maps = grad_cam(model, x, layer="hidden")
    torch.testing.assert_close(maps * positions, cam.clamp(min=0), atol=1e-6, rtol=1e-3)
    assert (maps > 0).any()


def test_only_wanted_classes_are_looked_at() -> None:
    wanted = torch.tensor([[True, False, True], [False, False, True]])
    maps = grad_cam(net(), photos(), layer="relu", wanted=wanted)
    everything = grad_cam(net(), photos(), layer="relu")
    torch.testing.assert_close(maps, everything * wanted[:, :, None, None])
    with pytest.raises(ShapeError, match=r"wanted is \(1, 3\) for scores \(2, 3\)"):
        grad_cam(net(), photos(), layer="relu", wanted=wanted[:1])


def test_the_network_stays_as_it_is() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        grad_cam(model, photos(), layer="relu")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_low_precision() -> None:
    maps, x = GradCam(classifier(), "backbone.block5"), photos(2, (40, 56))
    exact = maps.of(None).class_maps(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = maps.of(None).class_maps(x)
    assert (low.float() - exact).abs().mean() < 0.02


def test_views_count_alike() -> None:
    """Each map is over its maximum; twice the positions would have a quarter of the gradient."""
    maps, x = GradCam(classifier(), "backbone.block5"), photos(1, (41, 57))
    wanted = torch.tensor([[True, True, False, True]])
    one, other = (maps.class_maps(view, wanted) for view in (x, x.flip(3)))
    one, other = (m / m.amax((2, 3), keepdim=True).clamp(min=1e-30) for m in (one, other))
    both = class_activation_maps(maps.of(wanted), x, flip=True)
    torch.testing.assert_close(both, (one + other.flip(3)) / 2)
    tiny = torch.full((1, 4, 2, 3), 1e-20)
    assert torch.equal(ClassMapsOf(lambda x, w: tiny, None).class_maps(x), torch.ones(1, 4, 2, 3))
    assert not ClassMapsOf(lambda x, w: 0 * tiny, None).class_maps(x).any()


def test_threads_may_share_one() -> None:
    maps, x = GradCam(net(), "relu"), photos(4)
    expected, found = [maps.class_maps(photo[None]) for photo in x], [torch.empty(0)] * 4

    def work(i: int) -> None:
        for _ in range(20):
            found[i] = maps.class_maps(x[i : i + 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)


class Tokens(nn.Module):
    """A class token and 6 patches, a layer that gives a tuple, and scores in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Conv2d(3, 4, 2, 2), Mixed()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        tokens = self.embed(x).flatten(2).mT
        tokens, _ = self.layer(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        return {"logits": self.head(torch.tanh(tokens).mean(1))}


class Mixed(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x + x.mean(1, keepdim=True), None


def test_tokens_of_a_transformer() -> None:
    torch.manual_seed(0)
    model, x = Tokens().eval(), photos(2, (4, 6))

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mT.unflatten(2, (2, 3))

    found = grad_cam(model, x, layer="layer", reshape=grid)
    tokens = model.embed(x).flatten(2).mT
    tokens, _ = model.layer(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
    tokens = tokens.detach().requires_grad_()
    for c in range(2):
        score = model.head(torch.tanh(tokens).mean(1))[:, c].sum()
        (gradient,) = torch.autograd.grad(score, tokens)
        weights = gradient[:, 1:].mean(1)
        evidence = functional.relu((tokens[:, 1:] * weights[:, None]).sum(2)).detach()
        torch.testing.assert_close(found[:, c].flatten(1), evidence, atol=1e-6, rtol=1e-4)
    assert found.any()


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("unused", "layer 'unused' does not lead to the scores"),
        ("head", r"layer 'head' gives \(2, 3\), which are no maps"),
        ("no.such", "has no layer 'no.such'"),
        ("input", "the photo is no layer of features"),
    ],
)
def test_layers_that_cannot_be_used(layer: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        grad_cam(net(), photos(), layer=layer)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        grad_cam(net().train(), photos(), layer="relu")


class TestContract(LocalizerContract):
    """At the backbone's last layer, below the layers of which CAM is made."""

    @pytest.fixture
    def localize(self) -> Localize:
        model = classifier()
        maps = GradCam(model, "backbone.block5")

        def localize(photos: Any, tags: Any) -> Any:
            x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
            wanted = torch.from_numpy(np.stack(tags))
            found = class_activation_maps(maps.of(wanted), x).numpy()
            size = (x.shape[2], x.shape[3])
            return [
                normalised_maps(own, present, size, stride=8)
                for own, present in zip(found, tags, strict=True)
            ]

        return localize
