"""Priors of the photos, as they are kept and read back."""

from __future__ import annotations

import numpy as np

from small_runs import QUICK, QUICK_CRISP
from tagseg.priors import crisp
from tagseg.priors.superpixels import SuperpixelSettings, superpixels
from tagseg.recipes.builtin_priors.config import Config
from tagseg.session.train import make_config
from tagseg.stages.priors import activation_prior, photo_regions, photo_superpixels
from tagseg.stages.settings import ReferenceSide

CONFIG = make_config(Config, QUICK)


def test_the_prior_is_of_the_pre_trained_network(odd_run):
    prior_of = activation_prior(odd_run, CONFIG)
    for index in range(len(odd_run.photos)):
        prior = prior_of(index)
        assert prior.shape == odd_run.photos.image(index).shape[:2]
        assert 0 <= prior.min() <= prior.max() <= 1
    assert prior_of.stage.name == "activation-prior"


def test_regions_are_found_once_and_kept(odd_run, monkeypatch):
    regions_of = photo_regions(odd_run, CONFIG)
    for index in range(len(odd_run.photos)):
        image = odd_run.photos.image(index)
        found = regions_of(index)
        assert found.dtype == np.int32
        assert np.array_equal(found, crisp.regions(image, 0.1, settings=QUICK_CRISP, seed=0))
    assert (regions_of.stage.folder / "regions.sqlite").stat().st_size < 120_000
    monkeypatch.setattr(crisp, "regions", None)
    again = photo_regions(odd_run, CONFIG)
    assert again.stage is regions_of.stage
    assert np.array_equal(again(0), regions_of(0))


def test_superpixels_are_found_once_and_kept(odd_run):
    settings, reference = SuperpixelSettings(min_size=20), ReferenceSide(300)
    superpixels_of = photo_superpixels(odd_run, settings, reference)
    for index in range(len(odd_run.photos)):
        found = superpixels_of(index)
        assert found.dtype == np.int32
        wanted = superpixels(odd_run.photos.image(index), settings, reference_side=300)
        assert np.array_equal(found, wanted)
    again = photo_superpixels(odd_run, settings, reference)
    assert again.stage is superpixels_of.stage
