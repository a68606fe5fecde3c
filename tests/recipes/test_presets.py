"""What holds for every paper's preset (``--preset paper``)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tagseg.errors import ConfigError
from tagseg.nets.catalog import BACKBONES
from tagseg.recipes.catalog import RECIPES
from tagseg.session.settings import check_settings, find_preset, preset_line
from tagseg.session.train import make_config
from tagseg.stages.preset import beside_the_paper
from tagseg.stages.recipe import Recipe

FILES = {"guided": {"boxes": "boxes.csv"}}  # without which the paper's values say what is missing
WITH_PRESET = [recipe for recipe in RECIPES.values() if recipe.paper_preset is not None]


def complete(recipe: Recipe) -> dict[str, Any]:
    """The paper's values, and the files that they need."""
    return find_preset(recipe, "paper").values | FILES.get(recipe.name, {})


@pytest.fixture(params=WITH_PRESET, ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


def test_every_field_is_stated_or_open_or_beside_the_paper(recipe):
    preset = find_preset(recipe, "paper")
    own = [*preset.stated, *preset.open, *preset.beside]
    assert len(own) == len(set(own)), "a field in two states"
    named = {item.name for item in fields(recipe.config)}
    assert set(own) <= named
    assert named - set(own) <= beside_the_paper().keys()
    for name in named:
        assert preset.says(name).where, name


def test_the_values_of_the_paper_fit_and_act(recipe):
    preset = find_preset(recipe, "paper")
    assert check_settings(recipe.config, preset.values) == preset.values, "of the fields' types"
    config = make_config(recipe.config, complete(recipe))
    assert not config.idle().keys() & preset.stated.keys()
    if preset.backbone is not None:
        assert preset.backbone.value in BACKBONES


def test_a_recipe_with_a_preset_has_no_fast_form(recipe):
    """What both would lay is decided nowhere."""
    assert not recipe.fast


def test_fields_beside_the_paper_are_left_as_they_are(recipe):
    """What a paper does not have does nothing with its values."""
    config = make_config(recipe.config, complete(recipe))
    pyramid = {name for name in beside_the_paper() if name.startswith("pyramid_")}
    assert pyramid & {item.name for item in fields(config)} <= config.idle().keys()


def test_the_sources_of_fields_are_the_papers_own(recipe):
    """No other paper's section stands where the recipe's own states the value."""
    preset = find_preset(recipe, "paper")
    for config in (recipe.config, make_config(recipe.config, complete(recipe))):
        for name, value, where, _ in recipe.sources(config):
            if name in preset.stated and value == preset.stated[name].value:
                assert where == preset.stated[name].section


def test_what_a_schedule_fills_in_is_the_papers_and_no_other_default():
    sources = {name: where for name, _, where, _ in RECIPES["builtin_priors"].sources()}
    assert sources["segmenter_iterations"] == "4.2.1"
    assert sources["classifier_stride"] == "assumed", "by default it is dilated"


def test_numbers_that_are_taken_from_others_are_not_the_papers(recipe):
    """Sources of the defaults say whose they are."""
    preset = find_preset(recipe, "paper")
    found = {name: where for name, _, where, _ in recipe.sources()}
    assert preset.taken.items() <= found.items()


def test_the_line_counts_fields_and_names_those_set_otherwise(recipe):
    preset = find_preset(recipe, "paper")
    counts = f"{len(preset.stated)} fields from the paper, {len(preset.open)} open"
    assert preset_line(recipe, "paper", {}) == f"preset paper of {recipe.name}: {counts}"
    stated, opened = next(iter(preset.stated)), next(iter(preset.open))
    given = {stated: "another value", opened: "a value"}
    assert preset_line(recipe, "paper", given).endswith(f"{counts}; set otherwise: {stated}")


def test_a_value_gives_way_to_files_that_say_otherwise():
    preset = find_preset(RECIPES["guided"], "paper")
    assert preset.beside_given({"boxes": "b"})["saliency"] == "boxes"
    assert "saliency" not in preset.beside_given({"saliency_maps": "maps"})
    assert preset.beside_given({"saliency_maps": "maps"})["guide"] == "g2"
    with pytest.raises(ConfigError, match="saliency=boxes has nothing to read; give --boxes FILE"):
        make_config(RECIPES["guided"].config, preset.values)
