"""MCOF: Wang et al., CVPR 2018."""

from tagseg.recipes.mcof.config import Config
from tagseg.recipes.mcof.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
