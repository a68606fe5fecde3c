from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock
from tagseg.nets.catalog import build_backbone
from tagseg.nets.masked_pooling import masked_roi_pool, region_cells
from tagseg.nets.regionnet import RegionNet, initialise_from_classifier


class Sampled(Backbone):
    """Every eighth pixel through one 1x1 convolution."""

    name = "sampled"
    out_channels = 2
    block4_channels = 2

    def __init__(self) -> None:
        super().__init__(8)
        self.project = nn.Conv2d(3, self.out_channels, 1)

    def activations(self, x: Tensor) -> Activations:
        features = self.project(self.normalise(x)[..., ::8, ::8]).relu()
        return Activations(features, features)

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        return ()


def net(width: int = 12, n_labels: int = 3) -> RegionNet:
    torch.manual_seed(0)
    made = RegionNet(Sampled(), n_labels, width)
    nn.init.normal_(made.score.weight)
    return made.eval()


def batch() -> tuple[Tensor, Any]:
    """Two photos; of the second one only two regions are asked for."""
    torch.manual_seed(1)
    y, x = np.mgrid[:40, :56]
    regions = np.stack([y // 10 * 4 + x // 14, np.where(x < 3, 5, np.where(y > 20, 2, -1))])
    return torch.rand(2, 3, 40, 56), regions.astype(np.int32)


def classifier(inputs: int) -> dict[str, Tensor]:
    """VGG-16's entries with fewer channels below."""
    torch.manual_seed(2)
    return {
        "classifier.0.weight": torch.randn(4096, inputs) / inputs**0.5,
        "classifier.0.bias": torch.randn(4096),
        "classifier.3.weight": torch.randn(4096, 4096) / 64,
        "classifier.3.bias": torch.randn(4096),
    }


@torch.no_grad()
def test_a_row_for_each_region() -> None:
    x, regions = batch()
    made = net()
    logits, ids = made(x, regions)
    assert ids.tolist() == [[0, n] for n in range(16)] + [[1, 2], [1, 5]]
    cells = region_cells(regions, (5, 7), 8)
    pooled = masked_roi_pool(made.backbone(x), cells)
    flat = torch.stack([part.permute(1, 2, 0).reshape(-1) for part in pooled])
    fc7 = made.fc7(made.fc6(flat).relu()).relu()
    torch.testing.assert_close(logits, made.score(fc7))
    features, again = made.features_of(x, torch.from_numpy(regions))
    assert torch.equal(again, ids)
    torch.testing.assert_close(features, fc7)
    assert logits.std(0).min() > 1e-3


@torch.no_grad()
def test_a_region_is_scored_by_itself() -> None:
    """What else is asked for, of this photo or others, changes nothing."""
    x, regions = batch()
    made = net()
    logits, _ = made(x, regions)
    alone = np.where(regions[1:] == 5, 5, -1)
    torch.testing.assert_close(made(x[1:], alone)[0], logits[-1:])


@torch.no_grad()
def test_regions_larger_than_the_input() -> None:
    """Each pixel of a map is four of one of twice the size; a region of one pixel is not lost."""
    x, _ = batch()
    made = net()
    y, x_ = np.mgrid[:40, :56]
    regions = np.stack([y // 16 * 4 + x_ // 16, y // 24])  # edges off the middles between cells
    logits, ids = made(x, regions)
    double = regions.repeat(2, 1).repeat(2, 2)
    double[0, 37, 41] = 99
    found, more = made(x, double)
    assert more.tolist() == [*ids.tolist()[:12], [0, 99], *ids.tolist()[12:]]
    torch.testing.assert_close(found[more[:, 1] != 99], logits)


def test_gradients_reach_all_parameters_and_none_comes_of_no_region() -> None:
    x, regions = batch()
    made = net().train()
    made(x, regions)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())
    made.zero_grad()
    logits, ids = made(x, np.full_like(regions, -1))
    assert (logits.shape, ids.shape) == ((0, 3), (0, 2))
    logits.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in made.parameters())


@torch.no_grad()
def test_low_precision() -> None:
    x, regions = batch()
    made = net()
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = made(x, regions)
    assert logits.dtype == torch.bfloat16
    exact = made(x, regions)[0]
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_dropout_is_for_training() -> None:
    x, regions = batch()
    made = net(64)
    with torch.no_grad():
        assert torch.equal(made(x, regions)[0], made(x, regions)[0])
        made.train()
        assert not torch.equal(made(x, regions)[0], made(x, regions)[0])


def test_parameter_groups_hold_each_parameter_once() -> None:
    made = net()
    groups = made.parameter_groups()
    assert [group["name"] for group in groups] == ["backbone", "head", "score", "score_bias"]
    listed = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert sorted(listed) == sorted(id(p) for p in made.parameters())
    assert groups[2]["params"] == [made.score.weight]
    assert groups[3]["params"] == [made.score.bias]


@pytest.mark.parametrize("width", [4096, 32])
@torch.no_grad()
def test_fc6_and_fc7_from_imagenets_classifier(width: int) -> None:
    """As torchvision would compute them, from features in (C, 7, 7), on units at equal distance."""
    with torch.device("meta"):
        made = RegionNet(Sampled(), 3, width)
    made = made.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    made.backbone = Sampled().eval()
    state = classifier(2 * 49)
    assert initialise_from_classifier(made, state)
    x, regions = batch()
    kept = range(0, 4096, 4096 // width)
    flat = masked_roi_pool(made.backbone(x), region_cells(regions, (5, 7), 8)).flatten(1)
    fc6 = F.linear(flat, state["classifier.0.weight"], state["classifier.0.bias"]).relu()
    unused = [unit for unit in range(4096) if unit not in kept]
    fc6[:, unused] = 0
    fc7 = F.linear(fc6, state["classifier.3.weight"], state["classifier.3.bias"]).relu()
    features, _ = made.features_of(x, regions)
    torch.testing.assert_close(features, fc7[:, list(kept)], atol=1e-4, rtol=1e-4)
    assert features.abs().max() > 0.1


@pytest.mark.parametrize("lacking", ["classifier.0.bias", "classifier.3.weight", "channels"])
def test_without_a_fitting_classifier_nothing_changes(lacking: str) -> None:
    made = net()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = classifier(3 * 49 if lacking == "channels" else 2 * 49)
    state.pop(lacking, None)
    assert not initialise_from_classifier(made, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_a_net_wider_than_vggs_takes_nothing() -> None:
    with torch.device("meta"):
        made = RegionNet(Sampled(), 3, 4097)
    assert not initialise_from_classifier(made, classifier(2 * 49))


@pytest.mark.parametrize(
    ("name", "stride"), [("tiny", 8), ("tiny", 16), ("mobilenet_v2", 16), ("resnet50", 16)]
)
@torch.no_grad()
def test_backbones(name: str, stride: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, output_stride=stride)
    made = RegionNet(backbone, 4, width=8).eval()
    x, regions = batch()
    logits, _ = made(x, regions)
    assert logits.shape == (18, 4)
    assert torch.isfinite(logits).all()


@pytest.mark.slow
@torch.no_grad()
def test_vgg16_at_full_size() -> None:
    """Random weights; conv5_3 in VGG's own geometry, without pool5, and the whole classifier."""
    torch.manual_seed(0)
    backbone = build_backbone("vgg16", output_stride=16, dilated=False)
    made = RegionNet(backbone, 21).eval()
    state = classifier(512 * 49)
    assert initialise_from_classifier(made, state)
    x, regions = batch()
    features, _ = made.features_of(x, regions)
    assert features.shape == (18, 4096)
    pooled = masked_roi_pool(backbone(x), region_cells(regions, (3, 4), None))
    fc6 = F.linear(
        pooled.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]
    ).relu()
    fc7 = F.linear(fc6, state["classifier.3.weight"], state["classifier.3.bias"]).relu()
    torch.testing.assert_close(features, fc7, atol=1e-3, rtol=1e-3)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 labels; give background"):
        RegionNet(Sampled(), 1)
    with pytest.raises(ConfigError, match="a width of 0"):
        RegionNet(Sampled(), 2, 0)
    x, regions = batch()
    with pytest.raises(ShapeError, match="give integers"):
        net()(x, regions[0])
    with pytest.raises(ShapeError, match="give both for the same batch"):
        net()(x, regions[:1])
