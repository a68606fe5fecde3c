"""The pyramid segmenter: what it decides by labels and photos alone, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tagseg.losses.dice import dice_loss
from tagseg.recipes.cam_baseline import Config
from tagseg.run.workspace import Workspace
from tagseg.segment.model_file import pack_segmenter, unpack_segmenter
from tagseg.segment.windowed import WindowedSegmenter
from tagseg.session.train import make_config
from tagseg.stages import pyramid_segmenter as module
from tagseg.stages.pyramid_segmenter import PyramidLoss, pyramid_segmenter
from tagseg.stages.refiners import refiner_from
from tagseg.stages.stage import Declared, label_maps

PYRAMID = {
    "segmenter": "pyramid",
    "photo_side": 64,
    "pyramid_iterations": 3,
    "pyramid_batch_size": 2,
    "pyramid_crop": 32,
    "pyramid_turns": "none",
    "crf_iterations": 2,
}


def config(**more):
    return make_config(Config, {**PYRAMID, **more})


@pytest.fixture
def targets(odd_run):
    """A square of the first tag in each photo."""

    def square(index):
        labels = np.zeros(odd_run.photos.image(index).shape[:2], np.uint8)
        tags = np.flatnonzero(odd_run.photos.tags[index])
        labels[8:20, 8:20] = tags[0] + 1 if len(tags) else 0
        return labels

    return label_maps(odd_run, Declared("squares"), square)


def test_loss_is_cross_entropy_and_dice():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 5, 7, generator=rng, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 5, 7), generator=rng).to(torch.uint8)
    labels[0, 0] = 255
    known = functional.cross_entropy(scores, labels.long(), ignore_index=255, label_smoothing=0.1)
    expected = known + 0.5 * dice_loss(scores, labels)
    torch.testing.assert_close(PyramidLoss(0.5, 0.1)(scores, labels), expected)


def test_held_out_photos():
    few = np.arange(100)
    assert len(module._held_out(few)) == 0  # 6 would say nothing
    assert module._held_out(np.arange(160) * 2).tolist() == [16 + 32 * i for i in range(10)]
    assert len(module._held_out(np.arange(5000))) == 40


def test_a_segmenter_in_a_file_answers_alike(odd_run, targets):
    segmenter = pyramid_segmenter(odd_run, config(pyramid_scales=(0.5, 1.0)), targets).model
    assert isinstance(segmenter, WindowedSegmenter)
    assert segmenter.refiner is None  # too few photos to hold any out
    tensors, metadata = pack_segmenter(segmenter)
    again = unpack_segmenter(
        tensors, metadata, execution=odd_run.setup.execution, refinement=refiner_from
    )
    image = odd_run.photos.image(0)[None]
    assert again.sight == segmenter.sight
    np.testing.assert_array_equal(again.forward(image), segmenter.forward(image))


def test_small_things_are_seen_enlarged(odd_run, targets, monkeypatch):
    said = []
    monkeypatch.setattr(odd_run.progress, "say", said.append)
    segmenter = pyramid_segmenter(odd_run, config(), targets).model
    assert segmenter.sight.zoom == 3
    assert f"at {segmenter.sight.zoom:g} times their size" in said[-1]


def test_a_zoom_that_is_given(odd_run, targets):
    assert pyramid_segmenter(odd_run, config(pyramid_zoom=1.5), targets).model.sight.zoom == 1.5


def test_sizes_change_the_key_and_ways_of_looking_do_not(odd_run, targets, tmp_path):
    keys = []
    for changed in ({}, {"pyramid_zoom": 1.0}, {"pyramid_dice": 0.0}, {"pyramid_flip": True}):
        folder = tmp_path / str(len(keys))
        with Workspace.open(folder, recipe="toy", settings={}) as work:
            run = replace(odd_run, workspace=work)
            keys.append(pyramid_segmenter(run, config(**changed), targets).stage.key)
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("helps", [True, False])
def test_a_refiner_is_used_where_held_out_labels_speak_for_it(odd_run, targets, monkeypatch, helps):
    """One that gives the labels, or none of them."""

    class Oracle:
        def refine(self, image, probs, known=None):
            index = next(
                i
                for i in range(len(odd_run.photos))
                if odd_run.photos.image(i).shape == image.shape
                and (odd_run.photos.image(i) == image).all()
            )
            labels = targets(index) if helps else np.full_like(targets(index), 1)
            return np.eye(len(probs), dtype=np.float32)[labels].transpose(2, 0, 1)

    monkeypatch.setattr(module, "_FEWEST_HELD_OUT", 1)
    monkeypatch.setattr(module, "_HELD_OUT", 3)
    monkeypatch.setattr(module, "refiner_from", lambda settings: Oracle())
    segmenter = pyramid_segmenter(odd_run, config(), targets).model
    assert (segmenter.refiner is not None) == helps
    assert (segmenter.refinement is not None) == helps


def test_without_weights_nothing_is_turned(odd_run):
    bare = replace(odd_run, setup=replace(odd_run.setup, weights=None))
    assert module._movements(bare, config(pyramid_turns="auto")) == (False, False)
    assert module._movements(bare, config(pyramid_turns="flip")) == (True, False)
    assert module._movements(bare, config(pyramid_turns="quarter")) == (True, True)


def test_photos_decide_on_turns(odd_run):
    """These are too few to say."""
    found = module._movements(odd_run, config(pyramid_turns="auto"))
    assert tuple(found.value) == (False, False)


def test_fields_of_the_published_segmenter_are_idle_and_those_of_the_backbone_are_not():
    idle = config().idle()
    assert idle["segmenter_crop"] == idle["segmenter_iterations"] == "segmenter=published"
    assert not idle.keys() & {"output_stride", "trained_blocks", "layer_decay", "schedule"}
    assert "pyramid_backbone_factor" in config(trained_blocks=0).idle()
