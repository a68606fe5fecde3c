"""LayerCAM: Jiang et al. 2021, section III-B, on any network and layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts import Localize, LocalizerContract, mirror_symmetric
from tagseg.errors import ConfigError
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.grad_cam import grad_cam
from tagseg.localize.layer_cam import LayerCam, layer_cam
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)


class Net(nn.Module):
    """Features of any sign, a ReLU and a score that is no linear layer of a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, 4, 3, padding=1)
        self.relu, self.late = nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.tanh(self.late(self.relu(self.early(x))))
        return self.head(torch.cat([features.amax((2, 3)), features.square().mean((2, 3))], 1))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def photos(count: int = 2, size: tuple[int, int] = (6, 8)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def loop_layer_cam(photo: Tensor, c: int, layer: str) -> np.ndarray:
    """The definition, position by position; each derivative by central differences."""
    model, step = net().double(), 1e-6
    features = model.early(photo[None].double()).detach()
    if layer == "relu":
        features = features.clamp(min=0)

    def score(maps: Tensor) -> float:
        late = torch.tanh(model.late(maps if layer == "relu" else maps.clamp(min=0)))
        pooled = torch.cat([late.amax((2, 3)), late.square().mean((2, 3))], 1)
        return float(model.head(pooled)[0, c].detach())

    _, units, height, width = features.shape
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for k in range(units):
                value = float(features[0, k, i, j])
                up, down = features.clone(), features.clone()
                up[0, k, i, j] += step
                down[0, k, i, j] -= step
                weight = max(0.0, (score(up) - score(down)) / (2 * step))
                found[i, j] += weight * max(0.0, value)
    return found


@pytest.mark.parametrize("layer", ["relu", "early"])
def test_equals_the_loop(layer: str) -> None:
    maps = layer_cam(net(), photos(), layer=layer)
    assert maps.shape == (2, 3, 6, 8)
    for photo, own in zip(photos(), maps, strict=True):
        for c in range(3):
            np.testing.assert_allclose(own[c], loop_layer_cam(photo, c, layer), atol=1e-5)
    assert (maps.flatten(2).amax(2) > 0).sum() > 1, "or else zeros would do"


def test_it_is_finer_than_grad_cam() -> None:
    """Of a thing at one place and its opposite at another Grad-CAM's one weight sees nothing."""
    model = nn.Sequential(
        nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1, bias=False)
    ).eval()
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([[2.0, -1.0, -1.0, 0.0]]))
    photo = torch.ones(1, 3, 2, 2)
    assert not grad_cam(model, photo, layer="1").any()
    assert layer_cam(model, photo, layer="1")[0, 0].tolist() == [[6.0, 0.0], [0.0, 0.0]]


def test_only_wanted_classes_are_looked_at() -> None:
    wanted = torch.tensor([[True, False, True], [False, False, True]])
    maps = layer_cam(net(), photos(), layer="relu", wanted=wanted)
    everything = layer_cam(net(), photos(), layer="relu")
    torch.testing.assert_close(maps, everything * wanted[:, :, None, None])


def test_layers_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"layer 'no\.such'"):
        layer_cam(net(), photos(), layer="no.such")
    with pytest.raises(ConfigError, match="training mode"):
        layer_cam(net().train(), photos(), layer="relu")


class TestContract(LocalizerContract):
    """At an early layer of the backbone."""

    @pytest.fixture
    def localize(self) -> Localize:
        torch.manual_seed(0)
        made = GapClassifier(Tiny(), 4, hidden=8)
        nn.init.normal_(made.scores.weight)
        maps = LayerCam(mirror_symmetric(made).eval(), "backbone.block3")

        def localize(photos: Any, tags: Any) -> Any:
            x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
            found = class_activation_maps(maps.of(torch.from_numpy(np.stack(tags))), x).numpy()
            size = (x.shape[2], x.shape[3])
            return [
                normalised_maps(own, present, size, stride=8)
                for own, present in zip(found, tags, strict=True)
            ]

        return localize
