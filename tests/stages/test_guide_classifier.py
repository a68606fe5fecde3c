"""The classifier of Oh et al.: its two forms, what it starts from, and its key."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from small_runs import QUICK
from tagseg.nets.catalog import build_backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.recipes.gradient_baseline.config import Config
from tagseg.run.plan import Plan
from tagseg.session.train import make_config
from tagseg.stages.classifier import classifier_scores
from tagseg.stages.context import Run
from tagseg.stages.guide_classifier import guide_classifier

CONFIG = make_config(Config, QUICK)
WHOLE = replace(CONFIG, classifier_form="fully_connected", classifier_size=64)


def planned(run: Run, config: Config, **setup: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network as it is built, and what its key is made from."""
    plan = Plan()
    changed = replace(run, setup=replace(run.setup, **setup), workspace=plan)
    net = guide_classifier(changed, config).model
    return net, dict(plan.records["classifier"]["config"])


def test_by_default_it_is_pooled(odd_run):
    net, record = planned(odd_run, CONFIG)
    assert isinstance(net, GapClassifier)
    assert record.keys() & {"fully_connected_side", "dilated", "classifier_form"} == set()


@pytest.mark.parametrize(
    ("backbone", "changed", "kernel", "width"),
    [
        ("vgg16", {"classifier_size": 224, "classifier_width": None}, 7, 4096),
        ("tiny", {}, 4, 16),
        ("tiny", {"classifier_width": None, "classifier_stride": 8}, 8, 256),
        ("tiny", {"classifier_size": 65}, 5, 16),
    ],
)
def test_fc6_is_as_large_as_its_input(odd_run, backbone, changed, kernel, width):
    with torch.device("meta"):
        net, record = planned(odd_run, replace(WHOLE, **changed), backbone=backbone, weights=None)
    assert isinstance(net, FullyConvolutionalClassifier)
    assert net.fc6.weight.shape == (width, net.backbone.out_channels, kernel, kernel)
    assert net.fc6.padding == (0, 0)
    assert not net.backbone.dilated
    assert record["fully_connected_side"] == net.side
    assert record["classifier_width"] == width
    assert tuple(record["augmentation"]["size"]) == (net.side, net.side)
    assert record["augmentation"]["stretch"]


def test_fc6_and_fc7_are_imagenets_where_the_weights_have_such(odd_run, monkeypatch):
    shapes = {"0": (16, 192 * 4 * 4), "3": (16, 16)}
    state = {
        f"classifier.{layer}.{kind}": torch.randn(shape if kind == "weight" else shape[:1])
        for layer, shape in shapes.items()
        for kind in ("weight", "bias")
    }
    monkeypatch.setattr(
        "tagseg.stages.context.build_backbone",
        lambda name, weights, **form: build_backbone(name, None, **form),
    )
    weights = SimpleNamespace(state=state, digest="imagenet")
    net, _ = planned(odd_run, WHOLE, weights=weights)
    assert torch.equal(net.fc6.weight, state["classifier.0.weight"].view_as(net.fc6.weight))
    assert torch.equal(net.fc7.bias, state["classifier.3.bias"])
    other, _ = planned(odd_run, replace(WHOLE, classifier_size=128), weights=weights)
    assert not torch.equal(other.fc7.bias, state["classifier.3.bias"])


def test_the_number_of_hidden_layers_is_of_the_pooled_form():
    assert "classifier_hidden_layers" not in CONFIG.idle()
    assert WHOLE.idle()["classifier_hidden_layers"] == "classifier_form=pooled"


def test_it_learns_from_whole_photos_and_scores_photos_of_any_size(odd_run):
    found = guide_classifier(odd_run, replace(WHOLE, classifier_iterations=60))
    assert not found.model.training
    scores = classifier_scores(odd_run, found.model, odd_run.photos)
    assert scores.shape == odd_run.photos.tags.shape
    known = odd_run.photos.dataset.known
    tags = odd_run.photos.tags[known]
    assert scores[known][tags].mean() > scores[known][~tags].mean() + 0.05
