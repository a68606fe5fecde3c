"""The papers whose tables can be made, by name: that of the recipe."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import ModuleType

from tagseg.errors import ConfigError
from tagseg.recipes.tables import builtin_priors, dcsm

__all__ = ["PAPERS", "find_paper"]

PAPERS: Mapping[str, ModuleType] = {
    "builtin_priors": builtin_priors,
    "dcsm": dcsm,
}


def find_paper(name: str) -> ModuleType:
    """The module of paper ``name``: its PAPER and TABLES.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in PAPERS:
        return PAPERS[name]
    near = difflib.get_close_matches(name, PAPERS, 1)
    advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(PAPERS)}"
    raise ConfigError(f"there are no tables of {name!r}", do=advice)
