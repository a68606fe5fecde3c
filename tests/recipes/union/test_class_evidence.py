"""Kinds of class evidence: each as the house makes it, of the photo as the classifier sees it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from guided_runs import few_photos, open_run
from small_runs import UNKNOWN, finished_stages
from tagseg.data.transforms import factor_to, resized_shape
from tagseg.data.working import resized
from tagseg.localize.dcsm import DcsmSettings
from tagseg.localize.seeds import DistinctSeeder, GradientSeeder
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.class_evidence import class_evidence
from tagseg.recipes.union.classifier import MAPS
from tagseg.recipes.union.config import CLASS_EVIDENCE
from tagseg.stages.classifier import LAYER_CAM, location_maps
from tagseg.stages.context import Run
from tagseg.stages.stage import ScoreMaps, Trained
from union_runs import config_of, stage_of

SIDE = 48
STAGES = dict(
    zip(
        CLASS_EVIDENCE,
        ("evidence-of-tags", "layer-cam-maps", "gradient-evidence", "distinct-evidence"),
        strict=True,
    )
)


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
        yield run


@pytest.fixture
def classifier(run) -> Trained[TopPoolClassifier]:
    """Untrained: its maps are of any form, and not below 0 everywhere."""
    torch.manual_seed(0)
    net = TopPoolClassifier(run.setup.build_backbone(config_of()), len(run.photos.classes))
    torch.nn.init.normal_(net.scores.weight)
    torch.nn.init.zeros_(net.scores.bias)
    return Trained(net.eval(), stage_of(run, "classifier"))


def found(run: Run, classifier: Trained[TopPoolClassifier], kind: str) -> ScoreMaps:
    kinds = class_evidence(run, config_of(class_evidence=kind), classifier, SIDE)
    assert list(kinds) == [kind]
    return kinds[kind]


@pytest.mark.parametrize("kind", CLASS_EVIDENCE)
def test_maps_are_of_the_tags_of_each_photo(run, classifier, kind):
    maps = found(run, classifier, kind)
    for index in range(len(run.photos)):
        tags, shape = run.photos.tags[index], run.photos.image(index).shape[:2]
        scores = maps(index)
        assert scores.shape == (len(tags), *shape)
        assert scores.dtype == np.float32
        assert 0 <= scores.min() <= scores.max() <= 1
        assert not scores[~tags].any()
    assert any(maps(index).any() for index in range(len(run.photos)))
    unknown = next(i for i, n in enumerate(run.photos.names) if n == f"train_{UNKNOWN}")
    assert not maps(unknown).any(), "no tag is known"
    assert set(finished_stages(run.workspace.folder)) == {"classifier", STAGES[kind]}


@pytest.mark.parametrize(("kind", "maps"), [("cam", MAPS), ("layer_cam", LAYER_CAM)])
def test_kinds_of_the_grid(run, classifier, kind, maps):
    """The same stages as these kinds have elsewhere."""
    same = location_maps(run, config_of(), classifier, kind=maps, side=SIDE)
    assert found(run, classifier, kind).stage is same.stage


@pytest.mark.parametrize("kind", ["gradients", "dcsm"])
def test_gradients_are_of_the_photo_as_it_is_seen(run, classifier, kind):
    maps = found(run, classifier, kind)
    index = int(run.photos.tags.sum(1).argmax())
    image, tags = run.photos.image(index), run.photos.tags[index]
    height, width = resized_shape(image.shape[:2], factor_to(SIDE, image.shape[:2]))
    assert (height, width) != image.shape[:2]
    seen = resized(image, (width, height))
    if kind == "gradients":
        scores = GradientSeeder(classifier.model, sigma=10.0)(seen, tags)
    else:
        scores = DistinctSeeder(classifier.model, DcsmSettings(), side=SIDE)(seen, tags).score_map
    for tag in np.flatnonzero(tags):
        expected = cv2.resize(scores[tag], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(maps(index)[tag], expected, atol=2e-3)  # kept in half precision


def test_all_that_are_asked_for_in_order(run, classifier):
    kinds = class_evidence(run, config_of(class_evidence="dcsm+cam"), classifier, SIDE)
    assert list(kinds) == ["dcsm", "cam"]
    kinds = class_evidence(run, config_of(), classifier, SIDE)
    assert list(kinds) == ["cam", "layer_cam"]
    stages = set(finished_stages(run.workspace.folder))
    assert stages == {"classifier", "distinct-evidence", "evidence-of-tags", "layer-cam-maps"}
