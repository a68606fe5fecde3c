"""Union: all evidence, weighed by tags alone."""

from tagseg.recipes.union.config import Config
from tagseg.recipes.union.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
