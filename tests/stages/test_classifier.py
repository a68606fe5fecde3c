"""The tag classifier and its maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from small_runs import QUICK
from tagseg.recipes.builtin_priors.config import Config
from tagseg.run.plan import Plan
from tagseg.session.train import make_config
from tagseg.stages.classifier import classifier_scores, location_maps, tag_classifier

CONFIG = make_config(Config, QUICK)


def test_location_maps_are_of_the_photos_tags(odd_run):
    run, classifier = odd_run, tag_classifier(odd_run, CONFIG)
    maps_of = location_maps(run, CONFIG, classifier)
    for index in range(len(run.photos)):
        maps = maps_of(index)
        assert maps.shape == (len(run.photos.classes), *run.photos.image(index).shape[:2])
        assert maps.dtype == np.float32
        assert 0 <= maps.min() <= maps.max() <= 1
        assert not maps[~run.photos.tags[index]].any()
    assert (classifier.stage.name, maps_of.stage.name) == ("classifier", "location-maps")
    scores = classifier_scores(run, classifier.model, run.photos)
    assert scores.shape == (len(run.photos), len(run.photos.classes))
    assert 0 < scores.min() < scores.max() < 1


def test_a_classifier_without_dilation(odd_run):
    """VGG-16 as it is, with the maps in the middles of cells (Saleh et al. 4.2.2)."""
    setup = replace(odd_run.setup, backbone="vgg16", weights=None)
    nets = []
    for stride in (None, 32):
        planned = replace(odd_run, setup=setup, workspace=Plan())
        nets.append(tag_classifier(planned, replace(CONFIG, classifier_stride=stride)).model)
    assert [net.backbone.output_stride for net in nets] == [8, 32]
    assert [net.backbone.grid_stride for net in nets] == [8, None]
    assert nets[1].class_maps(torch.zeros(1, 3, 224, 224)).shape[2:] == (7, 7)
    convolutions = [m for m in nets[1].backbone.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.dilation for conv in convolutions} == {(1, 1)}


def test_the_form_of_the_classifier_is_in_its_key_only_where_it_is_asked_for(odd_run):
    records = []
    for stride in (None, 8, 16):
        plan = Plan()
        tag_classifier(replace(odd_run, workspace=plan), replace(CONFIG, classifier_stride=stride))
        records.append(plan.records["classifier"]["config"])
    assert "dilated" not in records[0]
    assert [record.get("dilated") for record in records[1:]] == [False, False]
    assert [record["output_stride"] for record in records] == [8, 8, 16]
