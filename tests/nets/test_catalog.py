from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts import BackboneContract, LocalizerContract, PriorContract
from tagseg.errors import ConfigError, WeightsError
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import BACKBONES, build_backbone
from tagseg.nets.tiny import Tiny
from tagseg.nets.weights import resolve

# The untrained activations of ResNets double from block to block; see test_resnet.
BOUNDED = [name for name in BACKBONES if not name.startswith("resnet")]


@pytest.mark.parametrize(
    ("name", "stride"), [(name, stride) for name in BOUNDED for stride in (8, 16)]
)
class TestEveryBackbone(BackboneContract):
    @pytest.fixture
    def backbone(self, name: str, stride: int) -> Backbone:
        torch.manual_seed(0)
        return build_backbone(name, output_stride=stride).eval()


class TestMobileNetWithTensorflowsPadding(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        torch.manual_seed(0)
        return BACKBONES["mobilenet_v2"](stride2_padding="same_bottom_right").eval()


def test_names_are_the_backbones_own_and_sorted() -> None:
    with torch.device("meta"):
        assert [BACKBONES[name]().name for name in BACKBONES] == list(BACKBONES)
    assert list(BACKBONES) == sorted(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_dilation_is_each_backbones_own_unless_given(name: str) -> None:
    with torch.device("meta"):
        assert build_backbone(name).dilated is BACKBONES[name]().dilated
        for dilated in (True, False):
            backbone = build_backbone(name, output_stride=16, dilated=dilated)
            assert backbone.dilated is dilated
            assert backbone.output_stride == 16


def test_weights_are_loaded() -> None:
    weights = resolve("imagenet", "tiny")
    backbone = build_backbone("tiny", weights, output_stride=16)
    assert isinstance(backbone, Tiny)
    assert backbone.output_stride == 16
    stored = weights.state["block3.conv1.weight"].float()
    torch.testing.assert_close(backbone.block3.conv1.weight.detach(), stored)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError):
        build_backbone("mobilenet_v2", resolve("imagenet", "tiny"))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("vgg", "did you mean vgg16"),
        ("resnet5", "did you mean resnet50"),
        ("x", f"choose one of {', '.join(BACKBONES)}"),
    ],
)
def test_unknown_names_get_advice(name: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"no backbone '{name}'; {advice}"):
        build_backbone(name)


def test_the_contract_notices_a_grid_that_is_off() -> None:
    class Shifted(Tiny):
        def activations(self, x):  # type: ignore[no-untyped-def]
            return super().activations(x.roll(1, 3))

    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        BackboneContract().test_position_i_is_centred_on_pixel_stride_times_i(Shifted().eval())


def test_the_contracts_cannot_be_met_by_accident() -> None:
    maps = [np.full((4, 40, 56), 0.5, np.float32)] * 3
    with pytest.raises(AssertionError):
        LocalizerContract().test_repeats(lambda photos, tags: maps[: len(photos)])
    with pytest.raises(AssertionError):
        PriorContract().test_repeats(lambda photo: maps[0][0])
