"""What the stages store and read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from small_runs import NEGATIVE, OPTIONS, QUICK, QUICK_CRISP, UNKNOWN, Photos
from tagseg.data.images import decode_mask, encode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.maps import labels_of_tags
from tagseg.nets.deeplab import SegmentationNet
from tagseg.priors import crisp
from tagseg.recipes.builtin_priors.config import Config
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_config, make_setup
from tagseg.stages import stage as stages
from tagseg.stages.classifier import classifier_scores, location_maps, tag_classifier
from tagseg.stages.context import Run, Setup
from tagseg.stages.priors import activation_prior, photo_regions
from tagseg.stages.segmenter import predictions, refined_by_tags, segmenter_of
from tagseg.stages.stage import LabelMaps
from tagseg.training import Execution

CONFIG = make_config(Config, QUICK)


@pytest.fixture
def run(photos: Photos, tmp_path):
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        few = WorkingPhotos(photos.dataset.subset(range(UNKNOWN + 1)), 64)
        yield Run(few, "photos", few, "val", make_setup(OPTIONS), work, Progress())


def test_location_maps_are_of_the_photos_tags(run):
    net, stage = tag_classifier(run, CONFIG)
    maps_of, _ = location_maps(run, CONFIG, net, stage)
    for index in range(len(run.photos)):
        maps = maps_of(index)
        assert maps.shape == (len(run.photos.classes), *run.photos.image(index).shape[:2])
        assert maps.dtype == np.float32
        assert 0 <= maps.min() <= maps.max() <= 1
        assert not maps[~run.photos.tags[index]].any()
    scores = classifier_scores(run, net, run.photos)
    assert scores.shape == (len(run.photos), len(run.photos.classes))
    assert 0 < scores.min() < scores.max() < 1


def test_the_prior_is_of_the_pre_trained_network(run):
    prior_of, stage = activation_prior(run, CONFIG)
    for index in range(len(run.photos)):
        prior = prior_of(index)
        assert prior.shape == run.photos.image(index).shape[:2]
        assert 0 <= prior.min() <= prior.max() <= 1
    assert stage.name == "activation-prior"


def test_regions_are_found_once_and_kept(run, monkeypatch):
    regions_of, stage = photo_regions(run, CONFIG)
    for index in range(len(run.photos)):
        image = run.photos.image(index)
        found = regions_of(index)
        assert found.dtype == np.int32
        assert np.array_equal(found, crisp.regions(image, 0.1, settings=QUICK_CRISP, seed=0))
    assert (stage.folder / "regions.sqlite").stat().st_size < 120_000
    monkeypatch.setattr(crisp, "regions", None)
    again, same = photo_regions(run, CONFIG)
    assert same is stage
    assert np.array_equal(again(0), regions_of(0))


@pytest.fixture
def segmenter(run):
    """A network that has learned nothing, with the CRF."""
    torch.manual_seed(0)
    net = SegmentationNet(run.setup.build_backbone(CONFIG), len(run.photos.classes) + 1, width=16)
    return segmenter_of(run, CONFIG, net)


@pytest.mark.parametrize("crf", [True, False])
@pytest.mark.parametrize("by_tags", [True, False])
def test_labels_that_a_photo_may_have(run, segmenter, crf, by_tags):
    """Of its tags where they are known; of all others nothing is left before the CRF."""
    config = replace(CONFIG, masks_by_tags=by_tags)
    segmenter = segmenter_of(run, replace(config, segmenter_crf=crf), segmenter.net)
    rng = np.random.default_rng(0)
    for index in (0, 1, NEGATIVE, UNKNOWN):
        image = run.photos.image(index)
        scores = rng.random((len(run.photos.classes) + 1, *image.shape[:2])).astype(np.float32)
        probs = scores / scores.sum(0)
        labels, found = refined_by_tags(run, config, segmenter, index, image, probs)
        everything = not by_tags or index == UNKNOWN
        tags = labels_of_tags(run.photos.tags[index])
        expected = list(range(len(probs))) if everything else tags.tolist()
        assert labels.tolist() == expected
        part = probs[expected] / probs[expected].sum(0)
        if crf:
            part = segmenter.refine(image, part)
        np.testing.assert_allclose(found, part, atol=1e-6)
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


def test_predictions_by_another_name(run, segmenter):
    """A stage of its own, of the same content."""
    with run.stage("net", {}, []) as after:
        pass
    first, smooth = predictions(run, segmenter, after, run.val)
    second, other = predictions(run, segmenter, after, run.val, name="predictions-1")
    assert (first.stage.name, second.stage.name) == ("predictions", "predictions-1")
    assert first.stage is smooth.stage
    for index in (0, UNKNOWN):
        np.testing.assert_array_equal(first(index), second(index))
        np.testing.assert_array_equal(smooth(index), other(index))
        kept = second.stage.maps("raw").get_bytes(run.val.names[index])
        np.testing.assert_array_equal(decode_mask(kept), second(index))


@pytest.mark.parametrize("room", [0, 25, 10_000])
def test_labels_are_kept_while_there_is_room(tmp_path, monkeypatch, room):
    monkeypatch.setattr(stages, "_MOST_LABELS_AT_ONCE", room)
    labels = [np.full((4, 5), i, np.uint8) for i in range(3)]
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        with work.stage("labels", config={}, inputs=[]) as stage:
            for i, one in enumerate(labels):
                stage.maps("labels").put_bytes(str(i), encode_mask(one))
        maps = LabelMaps(stage, "labels", ["0", "1", "2"])
        for _ in range(2):
            for i, one in enumerate(labels):
                assert np.array_equal(maps(i), one)
        assert sum(one.nbytes for one in maps._kept.values()) <= room


def test_what_decides_on_a_network():
    setup = make_setup(OPTIONS)
    settings = setup.settings()
    assert settings == {
        "backbone": "tiny",
        "weights": setup.weights.digest,
        "precision": "float32",
        "seed": 0,
    }
    plain = Setup("vgg16", None, Execution(precision=torch.bfloat16, seed=3))
    assert plain.settings() == {
        "backbone": "vgg16",
        "weights": "none",
        "precision": "bfloat16",
        "seed": 3,
    }
    for name, stride in (("vgg16", 8), ("mobilenet_v2", 16), ("tiny", 8)):
        assert Setup(name, None, Execution()).output_stride(CONFIG) == stride


def test_predictions_go_on_where_they_stopped(run, monkeypatch):
    monkeypatch.setattr(stages, "_BATCH", 1)
    net = SegmentationNet(run.setup.build_backbone(CONFIG), len(run.photos.classes) + 1).eval()
    segmenter = segmenter_of(run, CONFIG, net)
    _, after = activation_prior(run, CONFIG)
    forward, seen = segmenter.forward, []

    def stops_at_the_last(images):
        if len(seen) == len(run.photos) - 1:
            raise KeyboardInterrupt
        seen.append(len(images))
        return forward(images)

    monkeypatch.setattr(segmenter, "forward", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        predictions(run, segmenter, after, run.photos)
    rest = []
    monkeypatch.setattr(segmenter, "forward", lambda images: rest.append(1) or forward(images))
    raw, _ = predictions(run, segmenter, after, run.photos)
    assert len(rest) == 1
    assert raw(0).shape == run.photos.image(0).shape[:2]
