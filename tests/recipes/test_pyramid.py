"""``segmenter=pyramid`` in every recipe that has it, from photos to masks of new photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_runs import (
    DISTINCT,
    WEIGHED,
    contents,
    cut_short,
    finished_stages,
    same_weights,
    weights_of,
)
from tagseg import training
from tagseg.recipes.catalog import RECIPES
from tagseg.run.workspace import Workspace
from tagseg.segment.windowed import WindowedSegmenter
from tagseg.session.export import load_segmenter
from tagseg.stages import pyramid_segmenter as module

WITH = sorted(name for name, recipe in RECIPES.items() if recipe.config.named("pyramid_zoom"))
PYRAMID: dict[str, Any] = {
    "segmenter": "pyramid",
    "pyramid_iterations": 2,
    "pyramid_batch_size": 2,
    "pyramid_crop": 32,
    "pyramid_cycles": 2,
}
QUICKER: dict[str, dict[str, Any]] = {
    "coarse_to_fine": {"saliency": "barrier", "rounds": 1},
    "dcsm": {**DISTINCT, "classifier_iterations": 6, "upper_iterations": 5},
    "guided": {"saliency": "barrier"},
    "mcof": {"saliency": "barrier", "rounds": 1, "regionnet_iterations": 2},
    "union": {name: value for name, value in WEIGHED.items() if not name.startswith("pyramid")},
}


def test_recipes_that_have_it():
    assert set(WITH) == set(RECIPES) - {"sec", "coarse_to_fine_foreground"}


@pytest.mark.parametrize("recipe", WITH)
def test_every_recipe_ends_in_it(recipe, go, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "held_out_of", lambda known: known[:2])
    result = go(recipe, {**PYRAMID, **QUICKER.get(recipe, {})}, out=tmp_path / "run")
    assert isinstance(result.segmenter, WindowedSegmenter)
    assert {"pyramid", "pyramid-1", "held-out-agreement-0"} <= set(
        finished_stages(tmp_path / "run")
    )
    assert [score.split for score in result.scores][-1] == "val"
    again = load_segmenter(tmp_path / "run", device="cpu", precision="fp32")
    image = photos.dataset.image(len(photos.train))
    np.testing.assert_array_equal(again.predict(image), result.segmenter.predict(image))


def test_interrupted_in_each_stage(go, tmp_path, monkeypatch):
    """One run that is cut short again and again, later each time, ends as the undisturbed one."""
    monkeypatch.setattr(module, "held_out_of", lambda known: known[:2])
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    config = {**PYRAMID, "pyramid_iterations": 4, "pyramid_gain": 0.0}

    def run(out: Path) -> Any:
        return go("full_supervision", config, out=out)

    whole = run(tmp_path / "whole")
    folder = tmp_path / "cut"
    for stage, function in {
        "pyramid": "tagseg.training._update",
        "held-out-agreement-0": "tagseg.segment.windowed.in_windows",
        "pyramid-1": "tagseg.training._update",
        "held-out-agreement-1": "tagseg.segment.windowed.in_windows",
        "held-out-refinement": "tagseg.segment.windowed.in_windows",
    }.items():
        done = finished_stages(folder)
        cut_short(lambda: run(folder), folder, stage, function)
        assert all(finished_stages(folder)[name] == at for name, at in done.items())
    assert same_weights(weights_of(run(folder)), weights_of(whole))
    masks = [Workspace.read(f).finished("masks").folder / "masks" for f in (folder, whole.folder)]
    assert contents(masks[0]) == contents(masks[1])
