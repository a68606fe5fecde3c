"""The pyramid segmenter: what it decides by labels and photos alone, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
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


@pytest.mark.parametrize(
    ("agreed", "cycles", "best"),
    [
        ([0.5, 0.505, 0.9], 2, 1),  # a rise, but too small a one to go on
        ([0.5, 0.4, 0.9], 2, 0),
        ([0.5, 0.6, 0.7, 0.8], 4, 3),
        ([0.5, 0.6, 0.55], 3, 1),
    ],
)
def test_cycles_end_where_they_bring_little(odd_run, targets, monkeypatch, agreed, cycles, best):
    monkeypatch.setattr(module, "held_out_of", lambda known: known[:2])
    monkeypatch.setattr(module.HeldOut, "agreement", lambda self, result, number: agreed[number])
    found = pyramid_segmenter(odd_run, config(refiner="none"), targets)
    folders = sorted((odd_run.workspace.folder / "stages").glob("*-pyramid*"))
    assert len(folders) == cycles
    weights = [load_file(folder / "segmenter.safetensors") for folder in folders]
    state = found.model.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in weights[best].items())
    first, later = weights[0]["score.weight"], weights[1]["score.weight"]
    assert not torch.equal(first, later)


def test_one_cycle_without_photos_held_out(odd_run, targets):
    pyramid_segmenter(odd_run, config(), targets)  # under 128 photos
    assert len(list((odd_run.workspace.folder / "stages").glob("*-pyramid*"))) == 1


def test_later_cycles_draw_other_crops(odd_run, targets, monkeypatch):
    seeds = []
    monkeypatch.setattr(module, "held_out_of", lambda known: known[:2])
    monkeypatch.setattr(
        module, "train", lambda *args, loop, **others: seeds.append(loop.execution.seed)
    )
    monkeypatch.setattr(module.HeldOut, "agreement", lambda self, result, number: float(number))
    pyramid_segmenter(odd_run, config(pyramid_cycles=3, refiner="none"), targets)
    assert seeds == [odd_run.setup.execution.seed + number for number in range(3)]


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
