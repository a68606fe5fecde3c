"""The tag classifier and its maps."""

from __future__ import annotations

import numpy as np

from small_runs import QUICK
from tagseg.recipes.builtin_priors.config import Config
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
