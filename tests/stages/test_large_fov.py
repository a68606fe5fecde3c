"""DeepLab-LargeFOV as guided segmentation and SEC train it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from guided_runs import FEW, few_photos, open_run
from small_runs import options
from tagseg.data.transforms import Augmentation, crop_size
from tagseg.maps import IGNORE
from tagseg.recipes.guided.config import Config
from tagseg.recipes.sec.config import Config as SecConfig
from tagseg.segment.fit import GridBatch
from tagseg.session.train import make_config
from tagseg.stages import large_fov as module
from tagseg.stages.context import Run, Setup
from tagseg.stages.large_fov import grid_crop, grid_cross_entropy, large_fov_segmenter, loss_stride
from tagseg.stages.schedules import large_fov_schedule
from tagseg.stages.settings import DeepLabSettings
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.stage import Declared, LabelMaps, label_maps
from tagseg.training import Execution


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, **changed})


@pytest.fixture
def run(photos, tmp_path):
    with open_run(few_photos(photos), tmp_path / "run") as run:
        yield run


def test_the_papers_numbers():
    config = DeepLabSettings()
    assert (config.crf_bilateral, config.crf_smoothness) == ((4.0, 121.0, 5.0), (3.0, 3.0))
    assert (config.crf_iterations, config.crf_filter) == (10, "lattice")
    assert (config.segmenter_unary, config.segmenter_crop) == ("log", 321)
    assert SecConfig().crf_bilateral == (10.0, 80.0, 13.0)


def test_cross_entropy_on_the_grid_equals_the_loop():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 5, 6)) * 3
    labels = rng.integers(0, 4, (2, 5, 6)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = IGNORE
    terms = []
    for b, y, x in zip(*np.nonzero(labels != IGNORE), strict=True):
        column = scores[b, :, y, x]
        terms.append(math.log(np.exp(column).sum()) - column[labels[b, y, x]])
    nothing = torch.empty(0)
    on_grid = GridBatch(nothing, torch.from_numpy(labels), nothing, nothing)
    found = grid_cross_entropy(torch.from_numpy(scores), on_grid).item()
    assert found == pytest.approx(np.mean(terms))


@pytest.mark.parametrize(
    ("longer", "stride"), [(500, 8), (321, 8), (320, 8), (160, 4), (128, 4), (64, 2), (24, 1)]
)
def test_the_losss_grid_is_as_near_to_41_positions_as_can_be(longer, stride):
    found = min(loss_stride((longer, longer // 2)), 8)
    assert found == stride
    assert loss_stride((longer // 2, longer)) == loss_stride((longer, longer // 2))
    best = min((1, 2, 4, 8), key=lambda s: abs(math.log(longer / s / 41)))
    assert found == best


@pytest.mark.parametrize(
    ("stride", "scale", "margin"), [(8, 1.0, 16), (16, 1.0, 16), (8, 0.256, 8), (16, 0.128, 16)]
)
def test_the_margin_brings_500_pixels_to_531_as_near_as_the_stride_allows(
    run, stride, scale, margin
):
    net = module._network(run, config_of(output_stride=stride), scale)
    assert (net.margin, net.view_scale, net.backbone.output_stride) == (margin, scale, stride)
    assert abs(margin - 15.5 * scale) <= max(stride / 2, stride - 15.5 * scale)


def test_the_network_is_deeplabs(run):
    """fc6 3x3 with dilation 12, upsampling that does not learn, fc8 at N(0, 0.01) and bias 0."""
    net = module._network(run, config_of(segmenter_width=512), 1.0)
    assert (net.fc6.kernel_size, net.fc6.dilation) == ((3, 3), (12, 12))
    assert not net.upsample.weight.requires_grad
    assert float(net.score.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not net.score.bias.any()
    again = module._network(run, config_of(segmenter_width=512), 1.0)
    assert torch.equal(net.fc6.weight, again.fc6.weight)


def test_vggs_classifier_starts_fc6_and_fc7_but_no_class(run, monkeypatch):
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        module, "initialise_from_classifier", lambda *args, **kwargs: told.update(kwargs)
    )
    module._network(run, config_of(), 1.0)
    assert told == {"shared_rows": False}
    told.clear()
    bare = replace(run, setup=Setup("tiny", None, Execution()))
    module._network(bare, config_of(), 1.0)
    assert told == {}


@pytest.mark.parametrize("whole", [False, True])
def test_samples_are_crops_or_whole_photos_and_flips_alone(run, monkeypatch, whole):
    """F: crops that are not resized. Whole photos where the tags must hold for the sample."""
    given: dict[str, Any] = {}

    def fit(net: Any, photos: Any, targets: Any, objective: Any, how: Any, schedule: Any, **more):
        given.update(how=how, schedule=schedule, objective=objective, net=net, **more)

    monkeypatch.setattr(module, "fit_on_grid", fit)
    config = config_of()
    segmenter = large_fov_segmenter(run, config, targets_of(run), whole=whole)
    shapes = some_shapes(run.photos)
    size = crop_size(shapes, 321)
    assert given["how"] == Augmentation(size, stretch=whole)
    assert given["schedule"] == large_fov_schedule(config, run.setup, len(run.photos))
    assert given["objective"] is grid_cross_entropy
    assert given["loss_stride"] == min(loss_stride(size), 8)
    assert given["loop"].frozen_batch_norm
    assert given["net"].view_scale == view_scale(config, shapes)
    assert segmenter.model.net is given["net"]
    assert segmenter.stage.name == "segmenter"


def targets_of(run: Run) -> LabelMaps:
    """Diagonal stripes of three labels."""

    def stripes(index: int) -> Any:
        height, width = run.photos.image(index).shape[:2]
        return (np.indices((height, width)).sum(0) // 16 % 3).astype(np.uint8)

    return label_maps(run, Declared("targets"), stripes)


def test_it_trains_on_photos_of_all_sizes_and_is_kept(run, monkeypatch):
    before = module._network(run, config_of(), 1.0)
    segmenter = large_fov_segmenter(run, config_of(), targets_of(run))
    trained = segmenter.model.net.state_dict()
    assert not torch.equal(trained["score.weight"], before.score.weight)
    assert torch.equal(trained["upsample.weight"], before.upsample.weight)
    assert [line["iteration"] for line in segmenter.stage.read_log()] == [2]
    monkeypatch.setattr(module, "fit_on_grid", must_not)
    again = large_fov_segmenter(run, config_of(), targets_of(run))
    assert again.stage is segmenter.stage
    assert all(torch.equal(again.model.net.state_dict()[name], t) for name, t in trained.items())
    for shape in ((1, 1), (1, 40), (90, 7)):
        assert again.model.predict(np.full((*shape, 3), 77, np.uint8)).shape == shape


def must_not(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("trained again")


def test_random_weights(photos, tmp_path):
    """Without weights batch norm learns, too."""
    with open_run(few_photos(photos), tmp_path / "r", options=options(weights="none")) as run:
        segmenter = large_fov_segmenter(run, config_of(), targets_of(run)).model
        assert np.isfinite(segmenter.forward(run.photos.image(1)[None])).all()


@pytest.mark.parametrize(
    ("shape", "crop"),
    [
        ((375, 500), (321, 321)),
        ((321, 321), (321, 321)),
        ((213, 320), (208, 320)),
        ((7, 9), (8, 8)),
    ],
)
def test_crops_are_the_papers_where_photos_have_room(
    shape: tuple[int, int], crop: tuple[int, int]
) -> None:
    assert grid_crop([shape] * 3, 321) == crop
