"""The stages behind score maps: the classifier's form and training, and the photos' squares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import DISTINCT, OPTIONS, UNKNOWN, Photos
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.recipes.dcsm import classifier as saliency_stages
from tagseg.recipes.dcsm.classifier import (
    fully_convolutional_classifier,
    seeder_settings,
    square_side,
    weights_of_layers,
)
from tagseg.recipes.dcsm.config import Config
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_config, make_setup
from tagseg.stages.context import Run, Setup, Split
from tagseg.stages.score_maps import LayerWeights, photo_score_maps
from tagseg.stages.stage import Declared, ScoreMaps
from tagseg.training import Execution

SIDE = 64
RunOf = Callable[..., Run]


@pytest.fixture
def run_of(photos: Photos, tmp_path: Path) -> Iterator[RunOf]:
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        few = WorkingPhotos(photos.dataset.subset(range(UNKNOWN + 1)), SIDE)
        yield lambda setup: Run(few, "photos", few, "val", setup, work, Progress())


def config_of(**changed: Any) -> Any:
    return make_config(Config, changed)


@pytest.mark.parametrize(
    ("backbone", "config", "stride"),
    [
        ("vgg16", {}, 32),
        ("vgg16", {"classifier_stride": 16}, 16),
        ("tiny", {}, 8),
        ("tiny", {"output_stride": 16}, 16),
        ("mobilenet_v2", {}, 16),
    ],
)
def test_strides(run_of, monkeypatch, backbone, config, stride):
    built: list[int] = []

    def build(name: str, weights: Any, *, output_stride: int, **more: Any) -> Any:
        assert name == backbone
        built.append(output_stride)
        return Tiny()

    monkeypatch.setattr("tagseg.stages.context.build_backbone", build)
    run = run_of(Setup(backbone, None, Execution()))
    saliency_stages._network(run, config_of(**config))
    assert built == [stride]
    assert Vgg16(32).output_stride == 32


def test_the_square_is_as_large_as_the_longest_photo(run_of, monkeypatch):
    run = run_of(Setup("tiny", None, Execution()))
    assert square_side(run, config_of()) == SIDE
    assert square_side(run, config_of(square=500)) == 500
    monkeypatch.setattr("tagseg.stages.shapes._SHAPES", 1)
    first = run.photos.dataset.subset([5])  # of 7 x 30 pixels
    small = Run(WorkingPhotos(first, SIDE), "", None, "", run.setup, run.workspace, Progress())
    assert square_side(small, config_of()) == 30


def test_settings_are_the_configs(run_of):
    run = run_of(Setup("tiny", None, Execution()))
    config = config_of(alpha=2.0, blocks=(2, 4), method="plain", square=96)
    settings = seeder_settings(run, config)
    assert settings.equations == config.equations()
    assert (settings.blocks, settings.method, settings.side) == ((2, 4), "plain", 96)


def test_what_the_classifier_is_trained_with(run_of, monkeypatch):
    """Shimoda & Yanai 3.2: a square of the mean colour, the size of each batch 0.7 to 1.4."""
    given: list[dict[str, Any]] = []

    def remember(net: Any, photos: Any, how: Any, schedule: Any, **named: Any) -> None:
        given.append({"how": how, "schedule": schedule, **named})

    monkeypatch.setattr(saliency_stages, "train_tag_classifier", remember)
    found = fully_convolutional_classifier(run_of(make_setup(OPTIONS)), config_of(**DISTINCT))
    net = found.model
    assert isinstance(net, FullyConvolutionalClassifier)
    assert found.stage.name == "classifier"
    assert not net.training
    assert [named["train_backbone"] for named in given] == [False, True]
    assert [named["schedule"].iterations for named in given] == [10, 30]
    for named in given:
        assert named["batch_scale"] == (0.7, 1.4)
        assert named["how"].size == (SIDE, SIDE)
        assert named["how"].letterbox == net.backbone.preprocessing.mean_colour
        assert named["loop"].frozen_batch_norm


@pytest.mark.parametrize(("flip", "jitter"), [(True, 0.1), (False, 0.0)])
def test_mirroring_and_colours_can_be_left_alone(run_of, monkeypatch, flip, jitter):
    """3.2 names a random size and nothing else."""
    given: list[Augmentation] = []
    monkeypatch.setattr(
        saliency_stages,
        "train_tag_classifier",
        lambda net, photos, how, *args, **named: given.append(how),
    )
    config = config_of(**DISTINCT, classifier_flip=flip, classifier_jitter=jitter)
    fully_convolutional_classifier(run_of(make_setup(OPTIONS)), config)
    assert {(how.flip, how.jitter) for how in given} == {(flip, jitter)}


def test_maps_depend_on_the_layers_of_blocks_where_these_differ():
    """4.4: blocks are averaged, then their mean; with as many layers in each that is Eq. 5."""
    blocks = {(3, 4, 5): None, (2, 3): (1 / 2,) * 2 + (1 / 3,) * 3}
    net = FullyConvolutionalClassifier(Vgg16(32), 2, hidden=4)
    for chosen, weights in blocks.items():
        found = weights_of_layers(net, config_of(blocks=chosen))
        assert found == ([] if weights is None else [LayerWeights(weights)])
    assert not weights_of_layers(net, config_of(blocks=(2, 3), variant="code"))
    assert not weights_of_layers(FullyConvolutionalClassifier(Tiny(), 2, hidden=4), config_of())


def test_score_maps_are_kept_and_read_as_they_were_made(run_of):
    run = run_of(Setup("tiny", None, Execution()))
    rng, asked = np.random.default_rng(0), []

    def seeder(image: Any, tags: Any) -> Any:
        asked.append(None if tags is None else tags.tolist())
        present = np.arange(len(run.photos.classes)) == 3 if tags is None else tags
        return present[:, None, None] * rng.random(image.shape[:2], np.float32)

    with run.stage("before", {}, []) as before:
        pass

    def maps_of(split: Split = "train") -> ScoreMaps:
        toys, numbers = Declared("toys"), config_of().equations()
        return photo_score_maps(run, toys, seeder, settings=[numbers], inputs=[before], split=split)

    first = maps_of()
    assert first.stage.name == "toys"
    expected = [row.tolist() for row in run.photos.tags]
    expected[UNKNOWN] = None
    assert asked == expected
    rng = np.random.default_rng(0)
    for index in range(len(run.photos)):
        maps = first(index)
        shape = run.photos.image(index).shape[:2]
        made = rng.random(shape, np.float32)
        present = maps.any((1, 2))
        assert maps.dtype == np.float32
        assert maps.shape == (len(run.photos.classes), *shape)
        assert present.tolist() == (expected[index] or [c == 3 for c in range(len(present))])
        for one in maps[present]:
            np.testing.assert_allclose(one, made, atol=5e-4)
    del asked[:]
    again = maps_of()
    assert again.stage is first.stage
    assert np.array_equal(again(0), first(0))
    assert asked == []
    assert maps_of("val").stage.name == "val-toys"
    assert len(asked) == len(run.photos)
