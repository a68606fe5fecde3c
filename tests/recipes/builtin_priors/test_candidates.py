"""Masks to pick from: each is the training mask with one thing changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from small_runs import N_TRAIN, OPTIONS, QUICK, finished_stages
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.priors.activations import foreground_probability
from tagseg.recipes.builtin_priors.candidates import candidate_masks, stronger
from tagseg.recipes.builtin_priors.config import Config
from tagseg.recipes.builtin_priors.masks import Evidence, training_masks
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_config, make_setup
from tagseg.stages.context import Run
from tagseg.stages.crf import Smoothing

ALL = ["alpha-0.25", "alpha-0.75", "block4", "block5", "background-0.75", "background-1.5", "crf-0"]


def config_of(**more: Any) -> Any:
    return make_config(Config, {**QUICK, "candidates": True, **more})


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("runs") / "run"
    few = WorkingPhotos(photos.dataset.subset(range(10)), 64)
    with Workspace.open(folder, recipe="builtin_priors", settings={}) as work:
        yield Run(few, "photos", None, "", make_setup(OPTIONS), work, Progress())


@pytest.fixture(scope="module")
def made(run) -> dict[str, Any]:
    config = config_of()
    evidence = Evidence(run, config)
    own, _ = training_masks(run, config, evidence)
    offered = candidate_masks(run, config, evidence)
    return {"training": own, **{p.id.removeprefix("candidate-"): p.labels for p in offered}}


def test_ids_and_titles(run):
    config = config_of()
    offered = candidate_masks(run, config, Evidence(run, config))
    assert [p.id for p in offered] == [f"candidate-{name}" for name in ALL]
    assert [p.title for p in offered][2] == "candidate: foreground of block4 alone"
    assert all(p.split == "train" and p.by_class for p in offered)
    assert len({p.stage for p in offered}) == 1


def other_run(run: Run, folder: Any, config: Any, **changed: Any) -> Any:
    """Training masks of a run with other fields."""
    with Workspace.open(folder, recipe="builtin_priors", settings={}) as work:
        other = replace(run, workspace=work, worked=[])
        config = replace(config, **changed)
        masks, _ = training_masks(other, config, Evidence(other, config))
        return [masks(i) for i in range(len(run.photos))]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("alpha-0.25", {"alpha": 0.25}),
        ("alpha-0.75", {"alpha": 0.75}),
        ("crf-0", {"mask_crf": False}),
    ],
)
def test_they_are_the_training_masks_of_other_fields(run, made, tmp_path, name, changed):
    expected = other_run(run, tmp_path / "other", config_of(), **changed)
    for index, mask in enumerate(expected):
        assert np.array_equal(made[name](index), mask), index
    assert any(not np.array_equal(made[name](i), made["training"](i)) for i in range(10))


def test_blocks_alone(run, made, monkeypatch):
    """By the prior of one block, in float64 and slowly; the other block counts for nothing."""
    store = run.open_workspace.finished("activation-prior").maps("channel-means")
    config = config_of(mask_crf=False)
    evidence = Evidence(run, config)
    assert evidence.foreground_of is not None
    for index in range(4):
        kept = store.get(run.photos.names[index])
        shape = run.photos.image(index).shape[:2]
        for block in ("block4", "block5"):
            other = "block5" if block == "block4" else "block4"
            maps = {block: kept[block].astype(np.float64), other: 0.0 * kept[other]}
            stride = run.setup.output_stride(config)
            expected = foreground_probability(
                maps["block4"], maps["block5"], shape, saturate=0.02, strides=(stride, stride)
            )
            from tagseg.stages.priors import activation_prior

            found = activation_prior(run, config, saturate=0.02, blocks=(block,))(index)
            np.testing.assert_allclose(found, expected, atol=1e-6)
            assert not np.allclose(found, evidence.foreground_of(index))


def test_background_makes_things_smaller_or_larger(made):
    def things(name: str) -> int:
        return sum(int((made[name](i) > 0).sum()) for i in range(10))

    assert things("background-1.5") < things("training") < things("background-0.75")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"masks": "localization"}, ALL[4:]),
        ({"masks": "foreground"}, ALL[2:]),
        ({"mask_crf": False}, ALL[:-1]),
        ({"candidate_blocks": "both", "candidate_alphas": (0.9,)}, ["alpha-0.9", *ALL[4:]]),
        ({"candidate_crfs": (0.0, 2.0)}, [*ALL, "crf-2"]),
    ],
)
def test_what_is_offered(photos, tmp_path, more, expected):
    few = WorkingPhotos(photos.dataset.subset(range(3)), 64)
    config = config_of(**more)
    with Workspace.open(tmp_path / "run", recipe="builtin_priors", settings={}) as work:
        run = Run(few, "photos", None, "", make_setup(OPTIONS), work, Progress())
        offered = candidate_masks(run, config, Evidence(run, config))
        assert [p.id for p in offered] == [f"candidate-{name}" for name in expected]
        assert {p.by_class for p in offered} == {more.get("masks") != "foreground"}
        if more.get("masks") == "foreground":
            assert max(int(p.labels(0).max()) for p in offered) == 1


def test_a_stronger_crf():
    smoothing = Smoothing.of(Config())
    twice = stronger(smoothing, 2.0)
    assert twice.parameters.bilateral == (20.0, 80.0, 13.0)
    assert twice.parameters.smoothness == (6.0, 3.0)
    assert twice.strengths.weight == 2 * smoothing.strengths.weight
    assert twice.strengths.area_weight == 2 * smoothing.strengths.area_weight
    assert stronger(smoothing, 1.0) == smoothing


def test_off_by_default_and_of_no_weight_for_the_rest(go, tmp_path):
    plain = go("builtin_priors", out=tmp_path / "run").folder
    assert "candidates" not in finished_stages(plain)
    before = finished_stages(plain)
    result = go("builtin_priors", {"candidates": True}, out=plain)
    after = finished_stages(plain)
    assert {name for name in after if after[name] != before.get(name)} == {"candidates", "findings"}
    shown = [score for score in result.scores if score.id.startswith("candidate-")]
    assert [score.id for score in shown] == [f"candidate-{name}" for name in ALL]
    assert {score.photos for score in shown} == {N_TRAIN}


def test_candidates_need_masks():
    with pytest.raises(ConfigError, match="candidates=true needs masks to make them from"):
        config_of(masks="none")
