"""What a segmenter makes of the photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from small_runs import NEGATIVE, QUICK, UNKNOWN
from tagseg.data.masks import decode_mask
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import labels_of_tags
from tagseg.nets.deeplab import SegmentationNet
from tagseg.recipes.builtin_priors.config import Config
from tagseg.run.plan import Plan
from tagseg.session.train import make_config
from tagseg.stages import segmenter as segmenter_module
from tagseg.stages.priors import activation_prior, photo_regions
from tagseg.stages.segmenter import (
    photo_masks,
    predicted,
    refined_by_tags,
    segmenter_of,
    trained_segmenter,
)
from tagseg.stages.stage import BATCH, Declared, label_maps

CONFIG = make_config(Config, QUICK)


@pytest.fixture
def segmenter(odd_run):
    """A network that has learned nothing, with the CRF."""
    torch.manual_seed(0)
    net = SegmentationNet(
        odd_run.setup.build_backbone(CONFIG), len(odd_run.photos.classes) + 1, width=16
    )
    return segmenter_of(odd_run, CONFIG, net)


@pytest.fixture
def after(odd_run):
    """Something that the network may be from."""
    return activation_prior(odd_run, CONFIG)


@pytest.mark.parametrize("refiner", ["crf", "none"])
@pytest.mark.parametrize("by_tags", [True, False])
def test_labels_that_a_photo_may_have(odd_run, segmenter, refiner, by_tags):
    """Of its tags where they are known; of all others nothing is left before the refiner."""
    photos, config = odd_run.photos, replace(CONFIG, masks_by_tags=by_tags)
    segmenter = segmenter_of(odd_run, replace(config, refiner=refiner), segmenter.net)
    rng = np.random.default_rng(0)
    for index in (0, 1, NEGATIVE, UNKNOWN):
        image = photos.image(index)
        scores = rng.random((len(photos.classes) + 1, *image.shape[:2])).astype(np.float32)
        probs = scores / scores.sum(0)
        labels, found = refined_by_tags(odd_run, config, segmenter, index, image, probs)
        everything = not by_tags or index == UNKNOWN
        tags = labels_of_tags(photos.tags[index])
        expected = list(range(len(probs))) if everything else tags.tolist()
        assert labels.tolist() == expected
        part = probs[expected] / probs[expected].sum(0)
        if refiner == "crf":
            part = segmenter.refiner.refine(image, part)
        np.testing.assert_allclose(found, part, atol=1e-6)
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("by_tags", [True, False])
def test_a_refiner_is_told_the_tags_that_are_known(odd_run, segmenter, by_tags):
    """Of a photo of which nothing is known, none."""
    told = []

    class Listens:
        def refine(self, image, probs, known):
            told.append(known.tags)
            return probs

    segmenter.refiner, config = Listens(), replace(CONFIG, masks_by_tags=by_tags)
    for index in (0, NEGATIVE, UNKNOWN):
        image = odd_run.photos.image(index)
        probs = segmenter.forward(image[None])[0]
        refined_by_tags(odd_run, config, segmenter, index, image, probs)
    assert told[2] is None
    for index, tags in zip((0, NEGATIVE), told[:2], strict=True):
        np.testing.assert_array_equal(tags, odd_run.photos.tags[index])


def test_predictions_of_a_round(odd_run, segmenter, after):
    """A stage of its own, of the same content."""
    first = predicted(odd_run, segmenter, after)
    second = predicted(odd_run, segmenter, after, number=1)
    assert (first.raw.stage.name, second.raw.stage.name) == ("predictions", "predictions-1")
    assert first.raw.stage is first.refined.stage
    assert first.best is first.refined
    val = odd_run.split("val").photos
    for index in (0, UNKNOWN):
        np.testing.assert_array_equal(first.raw(index), second.raw(index))
        np.testing.assert_array_equal(first.refined(index), second.refined(index))
        kept = second.raw.stage.maps("raw").get_bytes(val.names[index])
        np.testing.assert_array_equal(decode_mask(kept), second.raw(index))


def test_regions_that_were_found_before_are_not_found_again(odd_run, segmenter, after):
    """The same labels under the same key, in less time."""
    config = replace(CONFIG, segmenter_regions="crisp")
    by_regions = segmenter_of(odd_run, config, segmenter.net)
    alone = predicted(odd_run, by_regions, after)
    before = photo_regions(odd_run, config, split="val")

    def asked(image):
        raise AssertionError("regions are found again")

    by_regions.refiner.regions_of = asked
    shared = predicted(odd_run, by_regions, after, number=1, regions_of=before)
    for index in range(len(odd_run.split("val").photos)):
        np.testing.assert_array_equal(shared.refined(index), alone.refined(index))
    key_of = alone.raw.stage.key
    assert predicted(odd_run, by_regions, after, regions_of=before).raw.stage.key == key_of


def test_predictions_without_a_refiner(odd_run, segmenter, after):
    plain = segmenter_of(odd_run, replace(CONFIG, refiner="none"), segmenter.net)
    found = predicted(odd_run, plain, after)
    assert found.refined is None
    assert found.best is found.raw


def stops_before_the_last(forward, batches):
    """``forward`` that is interrupted in the last batch."""
    seen = iter(range(batches))

    def stops(images):
        if next(seen) == batches - 1:
            raise KeyboardInterrupt
        return forward(images)

    return stops


def test_predictions_go_on_where_they_stopped(odd_run, segmenter, after, monkeypatch):
    batches = [indices for indices, _ in odd_run.split("val").photos.batches(BATCH)]
    forward, rest = segmenter.forward, []
    monkeypatch.setattr(segmenter, "forward", stops_before_the_last(forward, len(batches)))
    with pytest.raises(KeyboardInterrupt):
        predicted(odd_run, segmenter, after)
    monkeypatch.setattr(segmenter, "forward", lambda images: rest.append(1) or forward(images))
    found = predicted(odd_run, segmenter, after)
    assert len(rest) == 1
    assert found.raw(0).shape == odd_run.photos.image(0).shape[:2]


def test_masks_go_on_where_they_stopped(odd_run, segmenter, after, monkeypatch):
    """PNG files in a folder; those that were there are not written again."""
    batches = [indices for indices, _ in odd_run.photos.batches(BATCH)]
    forward, rest = segmenter.forward, []
    monkeypatch.setattr(segmenter, "forward", stops_before_the_last(forward, len(batches)))
    with pytest.raises(KeyboardInterrupt):
        photo_masks(odd_run, CONFIG, segmenter, after)
    (folder,) = odd_run.workspace.folder.glob("stages/??-masks/masks")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(before) == sum(map(len, batches[:-1]))
    monkeypatch.setattr(segmenter, "forward", lambda images: rest.append(1) or forward(images))
    masks = photo_masks(odd_run, CONFIG, segmenter, after)
    assert len(rest) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for index in range(len(odd_run.photos)):
        assert masks(index).shape == odd_run.photos.full_shape(index)


@pytest.mark.parametrize(("shared", "told"), [(("cat",), None), (("cat", "tv"), ["tv"])])
def test_classes_that_share_rows_by_another_name_are_in_the_key(odd_run, monkeypatch, shared, told):
    """They were N(0, 0.1) before; segmenters without such classes are what they were."""
    monkeypatch.setattr(segmenter_module, "initialise_from_classifier", lambda *given: shared)
    plan = Plan()
    run = replace(odd_run, workspace=plan)
    targets = label_maps(run, Declared("targets"), lambda index: None)
    trained_segmenter(run, CONFIG, targets, cross_entropy)
    assert plan.records["segmenter"]["config"].get("shared_by_alias") == told
