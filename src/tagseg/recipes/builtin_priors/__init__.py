"""Built-in priors: Saleh et al., TPAMI 2017."""

from tagseg.recipes.builtin_priors.config import Config
from tagseg.recipes.builtin_priors.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
