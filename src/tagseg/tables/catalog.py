"""The papers whose tables can be made, by name: that of the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from tagseg.errors import ConfigError, choose_from
from tagseg.tables import (
    builtin_priors,
    coarse_to_fine,
    coarse_to_fine_foreground,
    dcsm,
    guided,
    mcof,
    sec,
    union,
)

__all__ = ["PAPERS", "find_paper"]

PAPERS: Mapping[str, ModuleType] = {
    "builtin_priors": builtin_priors,
    "coarse_to_fine": coarse_to_fine,
    "coarse_to_fine_foreground": coarse_to_fine_foreground,
    "dcsm": dcsm,
    "guided": guided,
    "mcof": mcof,
    "sec": sec,
    "union": union,
}


def find_paper(name: str) -> ModuleType:
    """The module of paper ``name``: its TABLES.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in PAPERS:
        return PAPERS[name]
    raise ConfigError(f"there are no tables of {name!r}", do=choose_from(PAPERS, name))
