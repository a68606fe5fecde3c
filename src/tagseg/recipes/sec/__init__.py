"""SEC: Kolesnikov and Lampert, ECCV 2016."""

from tagseg.recipes.sec.config import Config
from tagseg.recipes.sec.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
