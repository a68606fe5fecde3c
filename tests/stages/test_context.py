"""The means of a run."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from small_runs import OPTIONS
from tagseg.errors import ConfigError
from tagseg.nets.backbone import FineTuning
from tagseg.nets.tiny import Tiny
from tagseg.session.train import make_setup
from tagseg.stages.context import Setup, fine_tuned
from tagseg.stages.settings import BackboneSettings, WorkSettings
from tagseg.training import Execution


def test_what_decides_on_a_network():
    setup = make_setup(OPTIONS)
    settings = setup.settings()
    assert settings == {
        "backbone": "tiny",
        "weights": setup.weights.digest,
        "precision": "float32",
        "seed": 0,
    }
    assert asdict(setup.means()) == settings
    plain = Setup("vgg16", None, Execution(precision=torch.bfloat16, seed=3))
    assert plain.settings() == {
        "backbone": "vgg16",
        "weights": "none",
        "precision": "bfloat16",
        "seed": 3,
    }
    for name, stride in (("vgg16", 8), ("mobilenet_v2", 16), ("tiny", 8)):
        assert Setup(name, None, Execution()).output_stride(BackboneSettings()) == stride


class Deep(Tiny):
    """As a transformer is."""

    usual_layer_decay = 0.75


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, FineTuning(None, 0.75)),
        ({"layer_decay": 1.0}, FineTuning()),
        ({"layer_decay": 0.5, "trained_blocks": 2}, FineTuning(2, 0.5)),
        ({"trained_blocks": 5}, FineTuning(None, 0.75)),
        ({"layer_decay": 0.5, "trained_blocks": 0}, FineTuning(0)),
    ],
)
def test_what_of_a_backbone_learns(settings, expected):
    """As configured, else as is usual on it; equal in effect is equal."""
    net = Deep()
    assert fine_tuned(net, BackboneSettings(**settings)) is net
    assert net.fine_tuning == expected


def test_setups_build_backbones_so():
    setup = make_setup(OPTIONS, BackboneSettings(trained_blocks=2))
    net = setup.build_backbone(BackboneSettings(trained_blocks=2), output_stride=16)
    assert net.fine_tuning == FineTuning(2)
    assert net.output_stride == 16
    assert setup.build_backbone(BackboneSettings()).fine_tuning == FineTuning()
    with pytest.raises(ConfigError, match="the backbone tiny has 5 blocks, not 6"):
        make_setup(OPTIONS, BackboneSettings(trained_blocks=6))


def test_frozen_backbones_have_no_learning_rate():
    settings = WorkSettings(trained_blocks=0)
    assert settings.idle().keys() >= {"layer_decay", "segmenter_backbone_factor"}
    assert settings.idle()["layer_decay"] == "trained_blocks=1 or more"
    assert settings.backbone_rate(0.3) == 1
    assert WorkSettings(trained_blocks=1).backbone_rate(0.3) == 0.3
    assert "layer_decay" not in WorkSettings(trained_blocks=1).idle()
