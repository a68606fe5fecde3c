"""The means of a run."""

from __future__ import annotations

from dataclasses import asdict

import torch

from small_runs import OPTIONS
from tagseg.session.train import make_setup
from tagseg.stages.context import Setup
from tagseg.stages.settings import BackboneSettings
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
