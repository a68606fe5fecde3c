"""The recipes by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

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
)
from tagseg.recipes.coarse_to_fine import foreground as coarse_to_fine_foreground

__all__ = ["RECIPES", "find_recipe"]

RECIPES: Mapping[str, ModuleType] = {
    "builtin_priors": builtin_priors,
    "cam_baseline": cam_baseline,
    "coarse_to_fine": coarse_to_fine,
    "coarse_to_fine_foreground": coarse_to_fine_foreground,
    "dcsm": dcsm,
    "full_supervision": full_supervision,
    "gradient_baseline": gradient_baseline,
    "guided": guided,
    "mcof": mcof,
    "sec": sec,
}


def find_recipe(name: str) -> ModuleType:
    """The module of recipe ``name``: its Config, run and PAPER.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in RECIPES:
        return RECIPES[name]
    raise ConfigError(f"there is no recipe {name!r}", do=choose_from(RECIPES, name))
