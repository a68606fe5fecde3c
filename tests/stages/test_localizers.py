"""Localizers by name: one class and one registration are all that a new one takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_runs import NEGATIVE, OPTIONS, QUICK, UNKNOWN, changed_stages, finished_stages
from tagseg.data.masks import decode_mask
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.errors import ConfigError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.cam import normalised_maps
from tagseg.localize.grad_cam import grad_cam
from tagseg.localize.layer_cam import layer_cam
from tagseg.nets.catalog import BACKBONES, build_backbone
from tagseg.nets.gap import GapClassifier
from tagseg.recipes.cam_baseline import Config
from tagseg.run.plan import Plan
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_config, train
from tagseg.stages import localizers
from tagseg.stages.classifier import LAYER_CAM, location_maps, tag_classifier
from tagseg.stages.localizers import localized, register_localizer
from tagseg.training import Execution

NO_ATTENTIONS = r"the backbone tiny has none; use a transformer, --backbone hf:FOLDER, or localizer"


class Channels:
    """Where a class is, its colour channel is high: no network, no training, a coarse grid."""

    key = "channels-1"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[int] = []

    def score_maps(self, images: Tensor, tags: Tensor) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        assert tags.dtype == torch.bool
        self.asked.append(len(images))
        small = torch.nn.functional.adaptive_avg_pool2d(images, (6, 8))
        return torch.stack([small[:, c % 3] + 0.01 * c for c in range(tags.shape[1])], 1)


@pytest.fixture
def made(monkeypatch) -> Iterator[list[Channels]]:
    """Registered as a module would, until the test ends; those that were made."""
    monkeypatch.setattr(localizers, "_LOCALIZERS", dict(localizers._LOCALIZERS))
    found: list[Channels] = []

    def make(run: Any) -> Channels:
        found.append(Channels(run.setup.execution.seed))
        return found[-1]

    register_localizer("channels", make)
    return found


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**QUICK, **changed})


def test_class_activation_maps_are_one_of_them(odd_run):
    found = localized(odd_run, config_of())
    assert (found.id, found.short, found.title) == ("cam", "CAM", "class activation maps")
    classifier = tag_classifier(odd_run, config_of())
    assert found.curves == (classifier.stage,)
    maps, expected = found.maps_of("train"), location_maps(odd_run, config_of(), classifier)
    assert maps.stage is expected.stage
    np.testing.assert_array_equal(maps(1), expected(1))
    assert found.tag_scores().shape == (len(odd_run.photos), len(odd_run.photos.classes))


@pytest.mark.parametrize("split", ["train", "val"])
def test_grad_cam_is_of_the_backbones_last_layer(odd_run, split):
    """Of the same classifier as CAM, averaged over views as configured, on the backbone's grid."""
    config = config_of(localizer="grad_cam", cam_flip=True)
    found = localized(odd_run, config)
    assert (found.id, found.short, found.title) == ("grad_cam", "Grad-CAM", "Grad-CAM")
    classifier = tag_classifier(odd_run, config_of())
    assert found.curves == (classifier.stage,)
    maps_of, photos = found.maps_of(split), odd_run.split(split).photos
    prefix = {"train": "", "val": "val-"}[split]
    assert maps_of.stage.name == f"{prefix}grad-cam-maps"
    for index in range(len(photos)):
        maps, tags = maps_of(index), photos.tags[index]
        image = photos.image(index)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        views = [grad_cam(classifier.model, v, layer="backbone.block5") for v in (x, x.flip(3))]
        one, other = (m / m.amax((2, 3), keepdim=True).clamp(min=1e-30) for m in views)
        raw = (one + other.flip(3))[0]
        expected = normalised_maps(raw, tags, image.shape[:2], stride=8)
        np.testing.assert_allclose(maps, expected, atol=2e-3)  # kept in half precision
    assert any(maps_of(index).any() for index in range(len(photos)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_layer_cam_is_of_the_block_under_the_last(odd_run, split):
    found = localized(odd_run, config_of(localizer="layer_cam"))
    assert (found.id, found.short, found.title) == ("layer_cam", "LayerCAM", "LayerCAM")
    classifier = tag_classifier(odd_run, config_of())
    maps_of, photos = found.maps_of(split), odd_run.split(split).photos
    for index in range(len(photos)):
        maps, tags = maps_of(index), photos.tags[index]
        image = photos.image(index)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        raw = layer_cam(classifier.model, x, layer="backbone.block4")[0]
        expected = normalised_maps(raw, tags, image.shape[:2], stride=8)
        np.testing.assert_allclose(maps, expected, atol=2e-3)  # kept in half precision
    assert any(maps_of(index).any() for index in range(len(photos)))


@pytest.mark.parametrize("name", [n for n in BACKBONES if n not in ("resnet101", "tiny")])
def test_layer_cam_on_every_backbone(name):
    """On the grid of an earlier block, for a photo of no round size."""
    torch.manual_seed(0)
    net = GapClassifier(build_backbone(name, output_stride=16), 8, hidden=8).eval()
    nn.init.normal_(net.scores.weight)
    tags = torch.ones(2, 8, dtype=torch.bool)
    tags[0, 1] = False
    maps = LAYER_CAM.of(net, tags).class_maps(torch.rand(2, 3, 40, 57))
    stride = LAYER_CAM.stride(net)
    assert stride in (8, 16)
    for positions, pixels in zip(maps.shape[2:], (40, 57), strict=True):
        assert pixels // stride <= positions <= -(-pixels // stride) + 1
    assert not maps[0, 1].any()
    assert maps.any()


@pytest.mark.parametrize("name", [n for n in BACKBONES if n not in ("resnet101", "tiny")])
def test_grad_cam_on_every_backbone(name):
    """On the grid of the backbone's last maps, for a photo of no round size."""
    torch.manual_seed(0)
    net = GapClassifier(build_backbone(name, output_stride=16), 8, hidden=8).eval()
    nn.init.normal_(net.scores.weight)
    tags = torch.ones(2, 8, dtype=torch.bool)
    tags[0, 1] = False
    maps = localizers._grad_cam(net, tags).class_maps(torch.rand(2, 3, 40, 57))
    assert maps.shape == (2, 8, 3, 4)
    assert not maps[0, 1].any()
    assert set(maps.amax((2, 3))[tags].tolist()) <= {0.0, 1.0}
    assert maps.any()


def test_views_of_the_maps_are_in_their_keys(odd_run):
    def key(config: Any) -> str:
        return localized(replace(odd_run, workspace=Plan()), config).maps_of("train").stage.key

    keys = {
        key(config_of(localizer=name, **views))
        for name in ("cam", "grad_cam", "layer_cam")
        for views in ({}, {"cam_flip": True}, {"cam_scales": (1.0, 0.5)})
    }
    assert len(keys) == 9


def test_rollout_needs_a_transformer(odd_run):
    with pytest.raises(ConfigError, match=NO_ATTENTIONS):
        localized(odd_run, config_of(localizer="rollout"))


def test_a_localizer_that_the_backbone_has_not_shows_before_anything_is_written(scenes, tmp_path):
    config = {**QUICK, "localizer": "rollout"}
    with pytest.raises(ConfigError, match=NO_ATTENTIONS):
        train(scenes[0], "cam_baseline", config, out=tmp_path / "run", options=OPTIONS)
    assert not (tmp_path / "run").exists()


def test_fields_of_the_classifier_act_where_there_is_one(made):
    for name in ("cam", "grad_cam", "layer_cam", "rollout"):
        assert not {"cam_flip", "classifier_epochs"} & config_of(localizer=name).idle().keys()
    idle = config_of(localizer="channels").idle()
    assert idle["cam_flip"] == "localizer=cam or grad_cam or layer_cam or rollout"


@pytest.mark.parametrize("split", ["train", "val"])
def test_maps_of_a_new_one(odd_run, made, split):
    """Of photos of all kinds and sizes: of the known tags, between 0 and 1, at working size."""
    found = localized(odd_run, config_of(localizer="channels"))
    assert (found.id, found.tag_scores, found.curves) == ("channels", None, ())
    maps_of, photos = found.maps_of(split), odd_run.split(split).photos
    (localizer,) = made
    assert sum(localizer.asked) == len(photos)
    assert maps_of.stage.name == {"train": "score-maps", "val": "val-score-maps"}[split]
    for index in range(len(photos)):
        maps, tags = maps_of(index), photos.tags[index]
        assert maps.shape == (len(photos.classes), *photos.image(index).shape[:2])
        assert maps.dtype == np.float32
        assert 0 <= maps.min() <= maps.max() <= 1
        assert not maps[~tags].any()
        assert maps[tags].any() == tags.any()
    assert not maps_of(NEGATIVE).any()
    assert not maps_of(UNKNOWN).any()


def test_its_maps_are_kept(odd_run, made):
    config = config_of(localizer="channels")
    first = localized(odd_run, config).maps_of("train")
    again = localized(odd_run, config).maps_of("train")
    assert again.stage is first.stage
    assert made[1].asked == []
    np.testing.assert_array_equal(again(1), first(1))


def test_its_key_and_the_precision_decide_on_its_maps(odd_run, made, monkeypatch):
    """It sees photos under autocast, as networks do."""
    planned = replace(odd_run, workspace=Plan())
    low = Execution(precision=torch.bfloat16)
    runs = [planned, replace(planned, setup=replace(odd_run.setup, execution=low))]

    def key(run: Any) -> str:
        maps = localized(replace(run, workspace=Plan()), config_of(localizer="channels"))
        return maps.maps_of("train").stage.key

    keys = [key(run) for run in runs]
    monkeypatch.setattr(Channels, "key", "channels-2")
    keys += [key(run) for run in runs]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cma", "there is no localizer 'cma'; did you mean cam?"),
        ("chanels", "there is no localizer 'chanels'; did you mean channels?"),
        ("", "there is no localizer ''; choose one of cam, grad_cam, layer_cam, rollout, channels"),
    ],
)
def test_a_name_that_there_is_not(odd_run, made, name, line):
    with pytest.raises(ConfigError) as caught:
        localized(odd_run, replace(config_of(), localizer=name))
    assert str(caught.value) == line


@pytest.fixture(scope="module")
def scenes() -> Any:
    return scene_dataset(SCENES, 10, height=48, width=64)


def test_a_wrong_name_shows_before_anything_is_written(scenes, made, tmp_path):
    """As a wrong name of a refiner or a backbone does."""
    config = {**QUICK, "localizer": "chanels"}
    with pytest.raises(ConfigError, match=r"there is no localizer 'chanels'; did you mean chann"):
        train(scenes[0], "cam_baseline", config, out=tmp_path / "run", options=OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_new_one(scenes, made, tmp_path):
    """Seeds of its maps, scored and shown; no classifier; and the run with CAM is another."""
    (dataset, labels), out = scenes, tmp_path / "run"
    named = {"val": dataset.names[:3], "ground_truth": GroundTruth(labels, dataset.classes)}
    config = {**QUICK, "localizer": "channels"}
    result = train(dataset, "cam_baseline", config, out=out, options=OPTIONS, **named)
    assert len(made) == 1, "made once a run"
    assert sum(made[0].asked) == len(dataset), "of training and of validation photos"
    assert result.seeds[0].method == "score maps of channels"
    assert result.seeds[0].mean_precision > 0
    assert "channels seeds" in {row.stage for row in result.scores}
    assert "score maps of channels" in result.report.read_text()
    stages = finished_stages(out)
    assert {"score-maps", "val-score-maps", "seeds", "segmenter", "masks"} < set(stages)
    assert not {"classifier", "location-maps"} & set(stages)
    work = Workspace.read(out)
    kept = work.finished("seeds").maps("labels")
    for index, name in enumerate(dataset.names[3:], 3):
        image = torch.from_numpy(dataset.image(index)).permute(2, 0, 1)[None].float() / 255
        tags = dataset.tags[index]
        scores = Channels(0).score_maps(image, torch.from_numpy(tags)[None])[0].numpy()
        large = np.stack([resized(one, (48, 64)) for one in scores]) * tags[:, None, None]
        peaks = large.max((1, 2), keepdims=True)
        maps = np.where(peaks > 0, large / np.maximum(peaks, 1e-12), 0).astype(np.float32)
        expected = cam_labels(maps, tags, threshold=0.2)
        assert (decode_mask(kept.get_bytes(name)) == expected).mean() > 0.9
    before = finished_stages(out)
    train(dataset, "cam_baseline", QUICK, out=out, options=OPTIONS, **named)
    assert {"classifier", "location-maps", "seeds", "segmenter"} < changed_stages(before, out)


def resized(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return cv2.resize(scores, shape[::-1], interpolation=cv2.INTER_LINEAR)


def test_another_key_is_another_result(scenes, made, tmp_path, monkeypatch):
    dataset, out = scenes[0], tmp_path / "run"
    config = {**QUICK, "localizer": "channels"}
    train(dataset, "cam_baseline", config, out=out, options=OPTIONS)
    before = finished_stages(out)
    train(dataset, "cam_baseline", config, out=out, options=OPTIONS)
    assert changed_stages(before, out) == set()
    monkeypatch.setattr(Channels, "key", "channels-2")
    train(dataset, "cam_baseline", config, out=out, options=OPTIONS)
    assert {"score-maps", "seeds", "segmenter", "masks"} < changed_stages(before, out)
