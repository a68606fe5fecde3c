"""SEC: its cues, its objective, and what depends on what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guided_runs import FEW, few_photos, open_run
from small_runs import OPTIONS, finished_stages
from tagseg.data.masks import decode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.fuse.localization_cues import localization_cues
from tagseg.localize.background_cues import background_cues
from tagseg.localize.cam import normalised_maps
from tagseg.losses.seed_expand_constrain import expand_loss, sec_probabilities, seed_loss
from tagseg.maps import IGNORE, labels_of_tags
from tagseg.recipes.sec import recipe as module
from tagseg.recipes.sec.background_maps import sure_pixels
from tagseg.recipes.sec.config import Config
from tagseg.recipes.sec.recipe import SeedExpandConstrain
from tagseg.run.plan import Plan
from tagseg.run.workspace import Workspace
from tagseg.segment.fit import GridBatch
from tagseg.session.train import make_config, train
from tagseg.stages import crf_loss, large_fov
from tagseg.stages.crf_loss import constrain_to_boundaries, grid_crf

SIDE = 64
NEGATIVE_AT, UNKNOWN_AT = 6, 7


@pytest.fixture(scope="module")
def few(photos) -> Any:
    dataset = few_photos(photos)

    def run(config: dict[str, Any], out: Path | None = None, **changed: Any) -> Any:
        usual = {"val": photos.val[:2], "ground_truth": photos.truth(), "options": OPTIONS}
        return train(dataset, "sec", {**FEW, **config}, out=out, **{**usual, **changed})

    return run


@pytest.fixture(scope="module")
def result(few, tmp_path_factory) -> Any:
    return few({}, tmp_path_factory.mktemp("runs") / "run")


def test_the_papers_numbers():
    config = Config()
    assert (config.foreground_threshold, config.background_fraction) == (0.2, 0.1)
    assert (config.foreground_decay, config.background_decay) == (0.996, 0.999)
    assert config.background_window == 3
    assert (config.crf_bilateral, config.crf_smoothness) == ((10.0, 80.0, 13.0), (3.0, 3.0))
    assert (config.crf_iterations, config.segmenter_unary) == (10, "log")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"foreground_threshold": 1.0}, "foreground_threshold is 1.0; use 0 to below 1"),
        ({"foreground_threshold": -0.1}, "foreground_threshold is -0.1; use 0 to below 1"),
        ({"background_fraction": 1.1}, "background_fraction is 1.1; use 0 to 1"),
        ({"background_window": 2}, "background_window is 2; use an odd number"),
        ({"background_window": -1}, "background_window is -1; use an odd number"),
        ({"foreground_decay": 0.0}, "foreground_decay is 0.0; use over 0, up to 1"),
        ({"background_decay": 1.1}, "background_decay is 1.1; use over 0, up to 1"),
        ({"foreground_decay": float("nan")}, "foreground_decay is "),
        ({"seeder_side": 0}, "seeder_side is 0; use 16 or more"),
        ({"crf_bilateral": (10.0, 0.0, 13.0)}, "crf_bilateral is 10,0,13; use values over 0"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    with pytest.raises(ConfigError) as caught:
        make_config(Config, values)
    assert str(caught.value).startswith(line)


# The objective


def objective_of(config: Config) -> SeedExpandConstrain:
    return SeedExpandConstrain(config.foreground_decay, config.background_decay, grid_crf(config))


def batch(height: int, width: int) -> tuple[torch.Tensor, GridBatch]:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(3 * rng.normal(size=(2, 4, height, width))).float()
    labels = rng.integers(0, 4, (2, height, width)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.7] = IGNORE
    tags = np.array([[True, False, True], [False, False, False]])
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    inside = np.ones(labels.shape, bool)
    inside[1, -3:] = False
    labels[~inside] = IGNORE
    return scores, GridBatch(*map(torch.from_numpy, (tags, labels, images, inside)))


def slow_expand(probs: Any, tags: Any, inside: Any, decays: tuple[float, float]) -> float:
    """Eq. 3 and 4 with weights decay ** rank, photo by photo and class by class."""
    total = 0.0
    for p, present, valid in zip(probs, tags, inside, strict=True):

        def pooled(label: int, decay: float, p: Any = p, valid: Any = valid) -> float:
            ranked = sorted(p[label][valid].tolist(), reverse=True)
            weights = [decay**j for j in range(len(ranked))]
            return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)

        here, absent = np.flatnonzero(present) + 1, np.flatnonzero(~present) + 1
        if len(here):
            total -= np.mean([np.log(pooled(label, decays[0])) for label in here])
        if len(absent):
            total -= np.mean([np.log(1 - p[label][valid].max()) for label in absent])
        total -= np.log(pooled(0, decays[1]))
    return total / len(probs)


def slow_seed(probs: Any, labels: Any) -> float:
    total = 0.0
    for p, cues in zip(probs, labels, strict=True):
        terms = [np.log(p[cues[y, x], y, x]) for y, x in zip(*np.nonzero(cues != 255), strict=True)]
        total -= np.mean(terms) if terms else 0.0
    return total / len(probs)


@pytest.mark.parametrize("grid", [(6, 8), (12, 9)])
def test_the_objective_is_the_sum_of_three_losses(grid):
    """Decays weigh the same share of the grid's positions as 0.996 and 0.999 of 41 x 41."""
    config = make_config(Config, {"crf_iterations": 3})
    scores, on_grid = batch(*grid)
    objective = objective_of(config)
    exact = np.exp(scores.double().numpy())
    probs = exact / exact.sum(1, keepdims=True) + 1e-4
    probs /= probs.sum(1, keepdims=True)
    positions = grid[0] * grid[1]
    decays = tuple(decay ** (41 * 41 / positions) for decay in (0.996, 0.999))
    labels, tags, inside = (part.numpy() for part in (on_grid.labels, on_grid.tags, on_grid.inside))
    expected = slow_seed(probs, labels) + slow_expand(probs, tags, inside, decays)
    expected += float(
        constrain_to_boundaries(scores, torch.from_numpy(probs).float(), on_grid, grid_crf(config))
    )
    assert objective(scores, on_grid).item() == pytest.approx(expected, rel=1e-4)


def test_decays_of_the_papers_grid_are_the_papers(monkeypatch):
    """Each part is given what it should be, at 41 x 41."""
    told: dict[str, Any] = {}

    def expand(probs: Any, tags: Any, **given: Any) -> Any:
        told.update(given)
        return expand_loss(probs, tags, **given)

    monkeypatch.setattr(module, "expand_loss", expand)
    monkeypatch.setattr(
        crf_loss, "dense_crf_batch", lambda images, unary, crf: torch.softmax(-unary, 1)
    )
    scores, on_grid = batch(41, 41)
    objective = objective_of(Config())
    loss = objective(scores, on_grid).item()
    assert told["foreground_decay"] == pytest.approx(0.996)
    assert told["background_decay"] == pytest.approx(0.999)
    assert told["valid"] is on_grid.inside
    probs = sec_probabilities(scores)
    assert loss > float(seed_loss(probs, on_grid.labels))


def test_each_loss_moves_the_scores():
    scores, on_grid = batch(6, 8)
    objective = objective_of(make_config(Config, {"crf_iterations": 2}))
    values = scores.clone().requires_grad_()
    for _ in range(30):
        loss = objective(values, on_grid)
        (gradient,) = torch.autograd.grad(loss, values)
        assert torch.isfinite(gradient).all()
        values = (values - 20 * gradient).detach().requires_grad_()
    after = objective(values, on_grid).item()
    assert after < 0.5 * objective(scores, on_grid).item()


def test_keys_tell_the_numbers_apart(photos, tmp_path):
    """All numbers of the objective decide on the segmenter, and on no stage before."""
    changes: list[dict[str, Any]] = [
        {},
        {"foreground_decay": 0.99},
        {"background_decay": 0.99},
        {"crf_bilateral": (10.0, 80.0, 5.0)},
        {"crf_iterations": 5},
    ]
    plans = []
    with open_run(few_photos(photos), tmp_path / "run", recipe="sec") as run:
        for change in changes:
            plans.append(Plan())
            module.run(replace(run, workspace=plans[-1]), make_config(Config, {**FEW, **change}))
    keys = [{name: record["key"] for name, record in plan.records.items()} for plan in plans]
    assert len({of["segmenter"] for of in keys}) == 5
    for name in ("seeder", "location-maps", "background-maps", "cues"):
        assert len({of[name] for of in keys}) == 1


# The run


def test_stages_predictions_and_seeds(result):
    made = {"seeder", "location-maps", "background-maps", "cues", "segmenter", "masks"}
    assert set(finished_stages(result.folder)) == made | {
        *("predictions", "val-location-maps", "findings", "export")
    }
    assert [(score.stage, score.split) for score in result.scores] == [
        ("localization cues", "train"),
        ("masks of the photos (known tags)", "train"),
        ("segmenter", "val"),
        ("segmenter + CRF", "val"),
    ]
    about = json.loads((result.folder / "run.json").read_text())
    assert about["curves"] == ["seeder", "segmenter"]
    rows = Workspace.read(result.folder).finished("findings").load_json("seeds")
    assert [row["method"] for row in rows] == ["seeder (highres)", "centre mean shape"]


def test_cues_are_of_the_tags_and_of_what_moves_no_class(result, photos):
    """Slow: maps and gradients as stored; overlaps go to the smaller area."""
    part = WorkingPhotos(few_photos(photos).without(photos.val[:2]), SIDE)
    work = Workspace.read(result.folder)
    maps = work.finished("location-maps").maps("class-maps")
    gradients = work.finished("background-maps").maps("saliency")
    cues, seen = work.finished("cues").maps("labels"), set()
    for index, name in enumerate(part.names):
        tags, shape = part.tags[index], part.image(index).shape[:2]
        grid = maps.get(name)["present"].astype(np.float32)
        every = np.zeros((len(tags), *grid.shape[1:]), np.float32)
        every[tags] = grid
        seen_at = tuple(max(1, round(side * SIDE / max(shape))) for side in shape)
        scores = normalised_maps(every, tags, shape, stride=8, seen=seen_at)
        sure = background_cues(gradients.get(name)["saliency"])
        background = sure_pixels(sure, shape, 8, side=SIDE)
        found = decode_mask(cues.get_bytes(name))
        np.testing.assert_array_equal(
            found, localization_cues(scores, background, tags, threshold=0.2)
        )
        assert set(np.unique(found)) <= {*labels_of_tags(tags).tolist(), IGNORE}
        seen |= set(np.unique(found))
    assert {0, IGNORE} < seen
    for index in (NEGATIVE_AT, UNKNOWN_AT):
        found = decode_mask(cues.get_bytes(part.names[index]))
        assert set(np.unique(found)) <= {0, IGNORE}
    work.close()


def test_whole_photos_are_learned_from(few, monkeypatch):
    """The tags must hold for every sample: nothing is cropped."""
    given: list[Any] = []

    def fit(net: Any, photos: Any, targets: Any, objective: Any, how: Any, *rest: Any, **more: Any):
        given.append(how)
        raise KeyboardInterrupt

    monkeypatch.setattr(large_fov, "fit_on_grid", fit)
    with pytest.raises(KeyboardInterrupt):
        few({}, val=(), ground_truth=None)
    assert [(how.stretch, how.scale, how.edges) for how in given] == [(True, (1.0, 1.0), 0.0)]


@pytest.mark.parametrize("field", ["classifier_size", "classifier_hidden_layers", "localizer"])
def test_fields_that_could_not_act_do_not_exist(field):
    """Of the classifier of other recipes, whose place the seeder takes."""
    with pytest.raises(ConfigError, match=f"the recipe has no field '{field}'"):
        make_config(Config, {field: 48})
