from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock
from tagseg.nets.gap import GapClassifier


class Sampled(Backbone):
    """Every eighth pixel through one 1x1 convolution."""

    name = "sampled"
    out_channels = 6
    block4_channels = 6

    def __init__(self) -> None:
        super().__init__(8)
        self.project = nn.Conv2d(3, 6, 1)

    def activations(self, x: Tensor) -> Activations:
        features = self.project(self.normalise(x)[..., ::8, ::8]).relu()
        return Activations(features, features)

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_class_maps_are_equation_1_and_average_to_the_scores(hidden_layers: int) -> None:
    torch.manual_seed(0)
    net = GapClassifier(Sampled(), 4, hidden=5, hidden_layers=hidden_layers).double().eval()
    x = torch.rand(2, 3, 40, 33, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores = net.class_maps(x), net(x)
        features = net.hidden(net.backbone(x))
    assert maps.shape == (2, 4, 5, 5)
    for photo in range(2):
        for label in range(4):
            expected = torch.zeros(5, 5, dtype=torch.float64)
            for unit in range(features.shape[1]):
                expected += net.scores.weight[label, unit].detach() * features[photo, unit]
            torch.testing.assert_close(maps[photo, label], expected)
            torch.testing.assert_close(scores[photo, label], expected.sum() / 25)


def test_bias_is_outside_the_maps() -> None:
    torch.manual_seed(0)
    net = GapClassifier(Sampled(), 2, hidden=5, bias=True).eval()
    nn.init.constant_(net.scores.bias, 3.0)
    x = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net.class_maps(x).mean((2, 3)) + 3)


def test_hidden_layers_are_as_asked() -> None:
    net = GapClassifier(Sampled(), 3, hidden=7, kernel=5)
    first, second = (layer for layer in net.hidden if isinstance(layer, nn.Conv2d))
    assert first.weight.shape == (7, 6, 5, 5)
    assert second.weight.shape == (7, 7, 5, 5)
    assert net.scores.weight.shape == (3, 7)
    assert net.scores.bias is None


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = GapClassifier(Sampled(), 3, hidden=7)
    groups = {group["name"]: set(map(id, group["params"])) for group in net.parameter_groups()}  # type: ignore[call-overload]
    assert groups["backbone"] == set(map(id, net.backbone.parameters()))
    assert groups["backbone"].isdisjoint(groups["head"])
    assert groups["backbone"] | groups["head"] == set(map(id, net.parameters()))
    torch.optim.SGD(net.parameter_groups(), lr=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 0}, "0 classes"),
        ({"hidden_layers": -1}, "-1 hidden layers"),
        ({"hidden": 0}, "0 channels"),
        ({"kernel": 4}, "kernel of 4"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GapClassifier(**{"backbone": Sampled(), "n_classes": 3, **change})  # type: ignore[arg-type]
