"""The tag classifier of a run gives other photos the scores that it gave in the run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from small_runs import OPTIONS, quick
from tagseg.data.working import WorkingPhotos
from tagseg.errors import WorkspaceError
from tagseg.localize.classifier import tag_scores
from tagseg.session.classify import load_classifier
from tagseg.session.train import train
from tagseg.training import Execution


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("classify") / "run"
    train(photos.dataset, "cam_baseline", quick("cam_baseline"), out=out, options=OPTIONS)
    return out


def test_its_scores_are_those_of_the_run(run, photos):
    classifier = load_classifier(run, device="cpu")
    assert classifier.classes == photos.dataset.classes
    seen = WorkingPhotos(photos.dataset, classifier.most)
    expected = tag_scores(classifier.net, seen, execution=Execution())
    for index in range(3):
        found = classifier.probabilities(photos.dataset.image(index))
        assert np.allclose(found, expected[index], atol=1e-5)
    assert len(np.unique(expected.round(6))) > 1


def test_a_classifier_of_one_size_is_built_again(photos, tmp_path):
    """That of Oh et al., Table 6, by recipe gradient_baseline."""
    config = quick("gradient_baseline") | {
        "classifier_form": "fully_connected",
        "classifier_size": 48,
        "method": "plain",
        "seed_crf": False,
        "refiner": "none",
    }
    train(photos.dataset, "gradient_baseline", config, out=tmp_path / "run", options=OPTIONS)
    classifier = load_classifier(tmp_path / "run", device="cpu")
    assert classifier.net.side == 48
    seen = WorkingPhotos(photos.dataset, classifier.most)
    expected = tag_scores(classifier.net, seen, execution=Execution())
    found = [classifier.probabilities(photos.dataset.image(index)) for index in range(3)]
    np.testing.assert_allclose(found, expected[:3], atol=1e-5)


def test_small_photos_are_seen_larger_where_the_classifier_was(run, photos):
    import dataclasses

    classifier = dataclasses.replace(load_classifier(run, device="cpu"), least=200)
    found = classifier.probabilities(photos.dataset.image(0))
    assert found.shape == (len(photos.dataset.classes),)


def test_a_run_without_a_classifier_is_told(run, tmp_path):
    with pytest.raises(WorkspaceError, match="holds no run"):
        load_classifier(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    for stage in (tmp_path / "run" / "stages").glob("*-classifier"):
        shutil.rmtree(stage)
    with pytest.raises(WorkspaceError, match="has no trained tag classifier that can be asked"):
        load_classifier(tmp_path / "run")
