"""The classifier of union: what it sees of photos, what it learns from, and where it sees tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from guided_runs import few_photos, open_run
from small_runs import OPTIONS, UNKNOWN, cut_short, finished_stages, same_weights
from tagseg import training
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.recipes.union import classifier as module
from tagseg.recipes.union.classifier import MAPS, hiding_classifier, seen_side
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.segment.crops import CropForm, random_crop
from tagseg.session.train import make_setup
from tagseg.stages.classifier import location_maps
from tagseg.stages.context import Run, Setup
from tagseg.training import Execution, Schedule
from union_runs import config_of


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    """The photo of which nothing is known is the first."""
    few = few_photos(photos)
    with open_run(
        few.select(few.names[::-1]), tmp_path / "run", val=photos.val[:2], recipe="union"
    ) as run:
        yield run


# The size that it sees


def run_of(backbone: str, *sides: tuple[int, int]) -> Run:
    photos = Dataset.from_arrays(
        [np.zeros((*side, 3), np.uint8) for side in sides], np.ones((len(sides), 1), bool), ["a"]
    )
    setup = Setup(backbone, None, Execution())
    return Run(WorkingPhotos(photos, 4000), "", None, "", setup, Plan(), Progress())


@pytest.mark.parametrize(
    ("backbone", "sides", "config", "seen"),
    [
        ("tiny", [(64, 48)], {}, 160),  # 20 positions of 8 pixels
        ("tiny", [(64, 48)], {"output_stride": 16}, 320),
        ("tiny", [(200, 100)], {}, 200),  # the photos' own
        ("tiny", [(100, 200)], {}, 200),
        ("tiny", [(90, 300), (500, 90), (90, 90)], {}, 300),  # the median of the longer sides
        ("tiny", [(100, 3000)], {}, 1024),
        ("tiny", [(64, 48)], {"classifier_side": 40}, 40),
        ("tiny", [(64, 48)], {"classifier_side": 2000}, 2000),
        ("resnet50", [(64, 48)], {}, 224),  # what it was trained on, or the positions
        ("mobilenet_v2", [(64, 48)], {}, 320),
        ("mobilenet_v2", [(64, 48)], {"output_stride": 8}, 224),
    ],
)
def test_the_side_at_which_it_sees_photos(backbone, sides, config, seen):
    config = config_of(**{"classifier_side": None, **config})
    assert seen_side(run_of(backbone, *sides), config) == seen


@pytest.mark.parametrize(
    ("sides", "config", "form"),
    [
        # Seen at 160 x 120 pixels: crops are not larger than photos then.
        ([(64, 48)], {"classifier_crop": 256}, ((160, 96), 2.5)),
        ([(48, 64)], {"classifier_crop": 256}, ((96, 160), 2.5)),
        ([(64, 48)], {"classifier_crop": 96}, ((96, 96), 2.5)),
        ([(400, 300)], {"classifier_crop": 96}, ((96, 96), 1.0)),
        ([(64, 48)], {"classifier_side": 32}, ((32, 32), 0.5)),
    ],
)
def test_crops_are_of_photos_as_they_are_seen(sides, config, form):
    settings = config_of(**{"classifier_side": None, **config})
    found = module._crops(run_of("tiny", *sides), settings)
    assert (found.size, found.zoom) == form
    assert (found.around, found.scale) == (0.0, settings.classifier_scale)


def test_how_long_it_learns():
    """By the square root of photos and classes, and 300 iterations at least."""
    settings = config_of(classifier_iterations=None)
    found = module._schedule(settings, (96, 96), 1000, 9)
    assert (found.iterations, found.batch_size, found.learning_rate) == (400, 4, 1e-3)
    assert module._schedule(settings, (96, 96), 10, 9).iterations == 300
    assert module._schedule(config_of(classifier_iterations=5), (96, 96), 1000, 9).iterations == 5
    assert found.multipliers == {"backbone": 0.2}


@pytest.mark.parametrize(
    ("crop", "batch"), [((64, 64), 8), ((192, 320), 8), ((320, 320), 5), ((384, 512), 4)]
)
def test_fewer_crops_at_once_where_they_are_large(crop, batch):
    settings = config_of(classifier_batch_size=None)
    assert module._schedule(settings, crop, 100, 4).batch_size == batch
    assert module._schedule(config_of(classifier_batch_size=9), crop, 100, 4).batch_size == 9


# What it learns from


def samples_of(run: Run, monkeypatch: pytest.MonkeyPatch, hidden: float) -> tuple[Any, ...]:
    """What a training is given: the net, how samples are drawn, how many there are, and when."""
    given: list[Any] = []
    monkeypatch.setattr(
        module, "train", lambda net, loss, sample, n, *a, **k: given.append((net, sample, n))
    )
    hiding_classifier(run, config_of(classifier_hidden=hidden))
    return given[0]


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.5, 0.35, 0.6), (1.0, 0.9, 1)])
def test_regions_are_hidden_at_the_rate(run, monkeypatch, rate, least, most):
    """Those of the crop that is drawn otherwise, in the colour that stands for nothing."""
    net, sample, count = samples_of(run, monkeypatch, rate)
    colour = np.array(net.backbone.preprocessing.mean_colour)
    form = module._crops(run, config_of())
    known = np.flatnonzero(run.photos.dataset.known)
    assert count == len(known)
    changed = []
    for i in range(200):
        rng, same = np.random.default_rng(i), np.random.default_rng(i)
        image = sample(i, rng)["image"].transpose(1, 2, 0)
        crop = random_crop(run.photos.image(int(known[i % len(known)])), form, same)
        differs = (image != crop).any(2)
        assert (image[differs] == colour).all()
        changed.append(differs.any())
    assert least <= np.mean(changed) <= most


def test_only_photos_of_known_tags_teach(run, monkeypatch):
    _, sample, count = samples_of(run, monkeypatch, 0.5)
    unknown = run.photos.names.index(f"train_{UNKNOWN}")
    known = [index for index in range(len(run.photos)) if index != unknown]
    assert count == len(known)
    shown: list[int] = []
    real = run.photos.image
    monkeypatch.setattr(run.photos, "image", lambda index: (shown.append(index), real(index))[1])
    for i in range(2 * count):
        found = sample(i, np.random.default_rng(0))
        np.testing.assert_array_equal(found["tags"], run.photos.tags[shown[-1]])
        assert found["image"].dtype == np.uint8
        assert found["image"].shape == (3, 32, 32)
    assert sorted(shown) == sorted(2 * known)


def trained_in(folder, photos, **changed: Any) -> dict[str, torch.Tensor]:
    with open_run(few_photos(photos), folder, recipe="union") as run:
        config = config_of(classifier_iterations=5, **changed)
        return hiding_classifier(run, config).model.state_dict()


def test_training_is_deterministic_and_goes_on_after_a_stop(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    whole = trained_in(tmp_path / "whole", photos)
    steps: list[int] = []
    real = training._update
    monkeypatch.setattr(training, "_update", lambda *a, **k: (steps.append(1), real(*a, **k))[1])
    folder = tmp_path / "cut"

    def go() -> Any:
        return trained_in(folder, photos)

    cut_short(go, folder, "hiding-classifier", "tagseg.training._update")
    assert finished_stages(folder) == {}
    steps.clear()
    assert same_weights(go(), whole)
    assert len(steps) == 4, "of five, as one was done"
    steps.clear()
    assert same_weights(go(), whole)
    assert not steps
    other = trained_in(tmp_path / "other", photos, classifier_hidden=0.0)
    assert not same_weights(other, whole)


def test_what_its_key_depends_on(photos, tmp_path):
    few, keys = few_photos(photos), []
    with open_run(few, tmp_path / "run", recipe="union") as run:
        planned = replace(run, setup=make_setup(OPTIONS))
        for changed in (
            {},
            {"classifier_hidden": 0.0},
            {"classifier_top": 0.2},
            {"classifier_side": 96},
            {"classifier_crop": 64, "classifier_side": 96},
            {"classifier_scale": (1.0, 1.0)},
            {"classifier_iterations": 4},
        ):
            config = config_of(**changed)
            keys.append(hiding_classifier(replace(planned, workspace=Plan()), config).stage.key)
        assert len(set(keys)) == len(keys)
        for changed in ({"cam_flip": True}, {"objects": "none"}, {"fusion_thresholds": (0.1,)}):
            config = config_of(**changed)
            run = replace(planned, workspace=Plan())
            assert hiding_classifier(run, config).stage.key == keys[0]


# Where it sees tags


def test_maps_are_of_the_tags_of_each_photo(run):
    config = config_of(cam_flip=True)
    classifier = hiding_classifier(run, config)
    assert not classifier.model.training
    for split, photos in (("train", run.photos), ("val", run.val)):
        maps = location_maps(run, config, classifier, kind=MAPS, split=split, side=64)
        for index in range(len(photos)):
            found = maps(index)
            assert found.shape == (len(photos.classes), *photos.image(index).shape[:2])
            assert found.min() >= 0
            assert found.max() <= 1
            assert not found[~photos.tags[index]].any()
    assert {"evidence-of-tags", "val-evidence-of-tags"} <= set(
        finished_stages(run.workspace.folder)
    )


def test_a_schedule_is_that_of_the_settings(run, monkeypatch):
    seen: list[Schedule] = []
    real = module.trained

    def spy(run: Any, declared: Any, net: Any, fit: Any, schedule: Schedule, **named: Any) -> Any:
        seen.append(schedule)
        assert isinstance(named["settings"][1], CropForm)
        return real(run, declared, net, fit, schedule, **named)

    monkeypatch.setattr(module, "trained", spy)
    hiding_classifier(run, config_of(classifier_iterations=2, classifier_batch_size=3))
    assert [(s.iterations, s.batch_size) for s in seen] == [(2, 3)]
