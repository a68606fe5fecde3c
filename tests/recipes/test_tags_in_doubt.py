"""Every recipe that learns from tags, with tags that may be missing or wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guided_runs import MINING, RECURSION
from small_runs import DISTINCT, OPTIONS, WEIGHED, Photos, finished_stages, quick
from tagseg.recipes.catalog import RECIPES
from tagseg.session.train import Result, train

SMALL = {"seeder_side": 64}
OWN: dict[str, dict[str, Any]] = {
    "coarse_to_fine": RECURSION,
    "dcsm": {**DISTINCT, "segmenter": "trained"},
    "guided": SMALL,
    "mcof": {**SMALL, **MINING},
    "sec": SMALL,
    "union": {**WEIGHED, "rounds": 2},
}
NAMES = [name for name, recipe in RECIPES.items() if recipe.config.named("tags_are")]


def run(photos: Photos, recipe: str, out: Any, **values: Any) -> Result:
    """A run on photos of which one class of one photo is marked as not known."""
    dataset = photos.dataset
    unsure = np.zeros_like(dataset.tags)
    unsure[0, np.flatnonzero(~dataset.tags[0])[0]] = True
    config = {**quick(recipe), **OWN.get(recipe, {}), **values}
    data = replace(dataset, unsure=unsure)
    return train(data, recipe, config, val=photos.val, out=out, options=OPTIONS)


@pytest.mark.parametrize("recipe", NAMES)
def test_a_run_ends_with_what_is_sure(photos: Photos, recipe: str, tmp_path) -> None:
    result = run(photos, recipe, tmp_path / "run", tags_are="noisy")
    stages = finished_stages(result.folder)
    assert {"tag-features", "tag-doubts", "likely-missing"} <= stages.keys()
    assert any(name.startswith("sure-") for name in stages)
    assert (result.folder / "wrong_tags.csv").is_file()
    assert len(list(result.masks.rglob("*.png"))) == len(photos.train)


@pytest.mark.parametrize(("recipe", "loss"), [("cam_baseline", "rejection"), ("union", "hill")])
def test_losses_teach_in_a_run(photos: Photos, recipe: str, loss: str, tmp_path) -> None:
    result = run(photos, recipe, tmp_path / "run", tags_are="incomplete", tag_loss=loss)
    assert (result.folder / "wrong_tags.csv").is_file()
