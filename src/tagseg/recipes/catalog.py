"""The recipes by name."""

from __future__ import annotations

from collections.abc import Mapping

from tagseg.errors import ConfigError, choose_from
from tagseg.recipes import (
    builtin_priors,
    cam_baseline,
    coarse_to_fine,
    dcsm,
    full_supervision,
    gradient_baseline,
    guided,
    mcof,
    sec,
    union,
)
from tagseg.recipes.coarse_to_fine import foreground
from tagseg.stages.recipe import Recipe

__all__ = ["RECIPES", "find_recipe"]

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        builtin_priors.RECIPE,
        cam_baseline.RECIPE,
        coarse_to_fine.RECIPE,
        foreground.RECIPE,
        dcsm.RECIPE,
        full_supervision.RECIPE,
        gradient_baseline.RECIPE,
        guided.RECIPE,
        mcof.RECIPE,
        sec.RECIPE,
        union.RECIPE,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in RECIPES:
        return RECIPES[name]
    raise ConfigError(f"there is no recipe {name!r}", do=choose_from(RECIPES, name))
